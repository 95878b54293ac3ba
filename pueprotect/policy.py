"""Gates: a figure, a limit, a verdict. Pure; the command line turns verdicts into exit codes."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

PASS, FAIL, INCONCLUSIVE = 0, 1, 3


@dataclass(frozen=True)
class Verdict:
    """One rule applied to one figure; `passed` is None where the figure is missing."""

    rule: str
    passed: bool | None
    observed: float | None
    limit: float
    reason: str


def at_most(rule: str, observed: float | None, limit: float, what: str) -> Verdict:
    """The verdict on a figure that must not exceed its limit; a missing figure is inconclusive."""
    if observed is None:
        return Verdict(rule, None, None, limit, f"{what} is not known")
    passed = observed <= limit
    return Verdict(rule, passed, observed, limit, f"{what} is {observed:.1%}, the limit {limit:.1%}")


def exit_code(verdicts: Iterable[Verdict]) -> int:
    """1 when a rule failed, else 3 when one is inconclusive, else 0."""
    outcomes = [verdict.passed for verdict in verdicts]
    if False in outcomes:
        return FAIL
    return INCONCLUSIVE if None in outcomes else PASS
