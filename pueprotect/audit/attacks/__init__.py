"""Attacks on protected data, one idea for each file; importing this package fills the registry."""

from pueprotect.audit.attacks import (
    adversarial,
    augmented,
    denoise,
    early_stopping,
    filtered,
    known,
    linear,
    notch,
    pst,
    recovery,
    squeeze,
    standard,
    weight_noise,
)
from pueprotect.audit.attacks.base import REGISTRY, Attack, AttackResult, Target, find

__all__ = [
    "REGISTRY", "Attack", "AttackResult", "Target", "adversarial", "augmented", "denoise", "early_stopping",
    "filtered", "find", "known", "linear", "notch", "pst", "recovery", "squeeze", "standard", "weight_noise",
]  # fmt: skip
