"""Draws and reads the secret key of a release: 128 random bits that decide everything random in the noise.

Whoever has the key and the tool can compute the noise, so the key is kept in the vault alone.
"""

from __future__ import annotations

import secrets
import string
from pathlib import Path

from pueprotect.errors import InputError

DIGITS = 32
OLD_SEEDS = range(100)  # the seed was the key before there were keys


def new_key() -> str:
    """128 bits from the system's source of random numbers, as 32 hexadecimal digits."""
    return secrets.token_hex(DIGITS // 2)


def check_key(key: str) -> None:
    """Refuse what is not a key.

    Raises:
        InputError: not 32 lower-case hexadecimal digits; the message does not repeat it.
    """
    if not is_key(key):
        raise InputError("--key is not 32 hexadecimal digits; make one with `openssl rand -hex 16`, or leave it out.")


def is_key(key: object) -> bool:
    """Whether this is 32 lower-case hexadecimal digits."""
    return isinstance(key, str) and len(key) == DIGITS and set(key) <= set(string.hexdigits.lower())


def read_key(text: str) -> str:
    """The key in an option: 32 hexadecimal digits, or `@FILE` for a file that holds them.

    Raises:
        InputError: no key, or the file cannot be read; the message names the file.
    """
    if not text.startswith("@"):
        key = text.strip().lower()
        check_key(key)
        return key
    path = Path(text[1:])
    try:
        key = path.read_text(encoding="utf-8").strip().lower()
    except (OSError, ValueError) as error:
        why = error.strerror if isinstance(error, OSError) else "it is not text"
        raise InputError(f"--key {text}: {path} cannot be read ({why}); name a file with 32 hex digits.") from error
    if not is_key(key):
        raise InputError(f"--key {text}: {path} does not hold 32 hexadecimal digits and nothing else; write it anew.")
    return key


def guessable_keys() -> tuple[int | str, ...]:
    """The keys that the attack `known-seed` tries: old seeds, small numbers and simple patterns, without repeats."""
    counts = [f"{number:0{DIGITS}{base}}" for base in "xd" for number in range(100)]
    repeated = [digit * DIGITS for digit in "0123456789abcdef"]
    runs = ["0123456789abcdef", "fedcba9876543210", "1234567890abcdef", "0011223344556677", "deadbeef", "cafebabe"]
    patterns = [(run * DIGITS)[:DIGITS] for run in [*runs, "01", "10", "0f", "f0", "00112233445566778899aabbccddeeff"]]
    return tuple(dict.fromkeys([*OLD_SEEDS, *counts, *repeated, *patterns]))
