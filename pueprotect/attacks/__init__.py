"""Attacks on protected data, one idea for each file; importing this package fills the registry."""

from pueprotect.attacks import pst, recovery, standard, weight_noise
from pueprotect.attacks.base import REGISTRY, Attack, AttackResult, Target, find

__all__ = ["REGISTRY", "Attack", "AttackResult", "Target", "find", "pst", "recovery", "standard", "weight_noise"]
