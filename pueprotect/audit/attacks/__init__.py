"""Imports every attack, one idea a file, which fills the registry, and registers those of plug-ins."""

from pueprotect.audit.attacks import (
    adversarial,
    augmented,
    denoise,
    early_stopping,
    filtered,
    known,
    known_seed,
    linear,
    notch,
    pst,
    recovery,
    standard,
    weight_noise,
)
from pueprotect.audit.attacks.base import REGISTRY, Attack, Target, find, register_plugins

__all__ = [
    "REGISTRY", "Attack", "Target", "adversarial", "augmented", "denoise", "early_stopping",
    "filtered", "find", "known", "known_seed", "linear", "notch", "pst", "recovery", "standard", "weight_noise",
]  # fmt: skip

register_plugins()
