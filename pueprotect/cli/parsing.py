"""Parses values of options: fractions, lists of numbers, gates."""

from __future__ import annotations

from pueprotect.errors import InputError


def fraction(text: str, option: str) -> float:
    """Read a fraction (`8/255`) or a decimal; anything else is an InputError that names the option."""
    try:
        top, slash, bottom = text.partition("/")
        return float(top) / float(bottom) if slash else float(top)
    except (ValueError, ZeroDivisionError) as error:
        raise InputError(f"{option} {text!r} is no number; give one such as 8/255 or 0.03.") from error


def numbers(text: str, option: str) -> tuple[float, ...]:
    """Read a comma-separated list of numbers, sorted and without repeats; an empty one is an InputError too."""
    try:
        found = tuple(sorted({float(part) for part in text.split(",") if part.strip()}))
    except ValueError as error:
        raise InputError(f"{option} {text!r} is not a list of numbers; give one such as 0.05,0.1.") from error
    if not found:
        raise InputError(f"{option} is empty; give a list of numbers such as 0.05,0.1.")
    return found


def gate(value: float | None, option: str) -> None:
    """Raise an InputError for a gate outside [0, 1]."""
    if value is not None and not 0 <= value <= 1:
        raise InputError(f"{option} {value:g} is outside [0, 1]; give a share such as 0.4.")
