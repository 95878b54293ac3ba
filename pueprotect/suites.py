"""Fixed sets of attacks, apart from the attacks themselves so that a policy can name them without torch."""

from __future__ import annotations

import difflib

from pueprotect.errors import InputError

SUITES: dict[str, tuple[str, ...]] = {"quick": ("standard", "weight-noise", "pst")}


def suite(name: str) -> tuple[str, ...]:
    """The attacks of a suite.

    Raises:
        InputError: unknown name; the nearest ones are offered.
    """
    if name not in SUITES:
        near = difflib.get_close_matches(name, SUITES, n=3, cutoff=0.4) or list(SUITES)
        raise InputError(f"Unknown suite {name!r}; did you mean {' or '.join(near)}? All: {', '.join(SUITES)}.")
    return SUITES[name]
