"""What an audit found: figures of each attack over its seeds, beside the clean line, and reasons to doubt them."""

from __future__ import annotations

import statistics
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import Any

from pueprotect.audit import flags as validity
from pueprotect.audit.attacks import AttackResult
from pueprotect.audit.attacks.base import CLEAN_BEHIND_IT
from pueprotect.release.vault import SCHEMA_VERSION


@dataclass(frozen=True, kw_only=True)
class Gates:
    """Largest accuracy and recovered share that the owner accepts, in [0, 1]; None for no gate."""

    accuracy: float | None = None
    recovered: float | None = None


NO_GATES = Gates()


@dataclass(frozen=True)
class Row:
    """One attack with one architecture over all seeds, beside the clean line of the architecture."""

    results: tuple[AttackResult, ...]
    recovered: float | None
    flags: tuple[str, ...]

    @property
    def result(self) -> AttackResult:
        """The run of the first seed."""
        return self.results[0]

    @property
    def failed(self) -> bool:
        """Whether a run ended without a figure."""
        return bool(validity.FAILED & set(self.flags))

    @property
    def accuracies(self) -> list[float]:
        """At the end of training, for each seed."""
        return [result.accuracy for result in self.results]

    @property
    def accuracy(self) -> float | None:
        """Mean over the seeds; None when the attack failed."""
        return None if self.failed else statistics.mean(self.accuracies)

    @property
    def best_accuracy(self) -> float | None:
        """Mean over the seeds of the best pass; None when the attack failed."""
        return None if self.failed else statistics.mean(result.best_accuracy for result in self.results)

    @property
    def clean_accuracy_same_filter(self) -> float | None:
        """Mean over the seeds of what clean images give behind the attack's filter, where that was measured."""
        found = [result.details.get("points", {}).get(CLEAN_BEHIND_IT) for result in self.results]
        return None if self.failed or None in found else statistics.mean(found)

    @property
    def seconds(self) -> float:
        """Wall time of all seeds."""
        return sum(result.seconds for result in self.results)

    def as_json(self) -> dict[str, Any]:
        """One entry of `results`; details are the first seed's."""
        data = asdict(self.result) | {
            "accuracy": self.accuracy, "best_accuracy": self.best_accuracy, "recovered": self.recovered,
            "clean_accuracy_same_filter": self.clean_accuracy_same_filter,
            "seconds": self.seconds, "flags": list(self.flags),
        }  # fmt: skip
        if len(self.results) > 1 and not self.failed:
            data["seeds"] = {
                "accuracies": self.accuracies, "sd": statistics.stdev(self.accuracies),
                "lowest": min(self.accuracies), "highest": max(self.accuracies),
            }  # fmt: skip
        return data


@dataclass(frozen=True)
class AuditReport:
    """All rows, the clean lines by architecture and the worst case.

    Attributes:
        suite: name of the suite, or None.
        chance: accuracy of the constant answer.
        clean: clean lines.
        rows: sorted by recovered share, or by accuracy where that is unknown; failed attacks last.
        skipped: attacks of the suite that need what is not at hand.
        flags: reasons to doubt the whole.
        data_digest: of the released files.
    """

    suite: str | None
    chance: float
    clean: dict[str, Row]
    rows: tuple[Row, ...]
    skipped: tuple[str, ...]
    flags: tuple[str, ...]
    data_digest: str

    @cached_property
    def worst(self) -> Row | None:
        """The attack that reached the highest accuracy at the end of its training; None when all failed."""
        sound = [row for row in self.rows if row.accuracy is not None]
        return max(sound, key=lambda row: row.accuracy or 0.0, default=None)

    @property
    def complete(self) -> bool:
        """Whether every attack has a figure; otherwise the audit is inconclusive."""
        return not self.skipped and not any(row.failed for row in (*self.rows, *self.clean.values()))

    def as_json(self) -> dict[str, Any]:
        """The object of the contract."""
        first = next(iter(self.clean.values()), None)
        worst = self.worst
        return {
            "schema_version": SCHEMA_VERSION,
            "suite": self.suite,
            "chance": self.chance,
            "clean_accuracy": first.accuracy if first else None,
            "clean_lines": {
                arch: {"accuracy": line.accuracy, "best_accuracy": line.best_accuracy, "flags": list(line.flags)}
                for arch, line in self.clean.items()
            },
            "results": [row.as_json() for row in self.rows],
            "worst": {
                "attack": worst.result.attack if worst else None,
                "arch": worst.result.arch if worst else None,
                "accuracy": worst.accuracy if worst else None,
                "recovered": worst.recovered if worst else None,
            },
            "complete": self.complete,
            "skipped": list(self.skipped),
            "flags": list(self.flags),
            "data_digest": self.data_digest,
        }


def clean_row(results: tuple[AttackResult, ...], chance: float) -> Row:
    """The clean line of one architecture with the flags that concern it."""
    flags = [flag for result in results for flag in result.flags]
    row = Row(results, None, tuple(flags))
    if row.accuracy is not None:
        if validity.weak_clean_line(row.accuracy, chance):
            flags.append("weak-clean-line")
        details = row.result.details
        if validity.not_converged(details.get("epoch_accuracy", ()), details.get("train_accuracy"), chance):
            flags.append("clean-line-not-converged")
    known = row.accuracy is not None and row.accuracy > chance
    return Row(results, 1.0 if known else None, tuple(dict.fromkeys(flags)))


def judge(results: tuple[AttackResult, ...], clean: Row | None, chance: float, gates: Gates = NO_GATES) -> Row:
    """The recovered share of an attack, and the reasons to doubt its figure.

    Args:
        results: one run for each seed, at least one.
        clean: the clean line of the same architecture.
        chance: accuracy of the constant answer.
        gates: limits that the spread over seeds is held against.
    """
    flags = [flag for result in results for flag in result.flags]
    row = Row(results, None, tuple(dict.fromkeys(flags)))
    if row.accuracy is None:
        return row
    if row.accuracy < chance - 0.02:
        flags.append("below-chance")
    top = clean.accuracy if clean is not None else None
    fitted = clean.result.details.get("train_accuracy") if clean is not None else None
    if validity.under_trained(row.result.details.get("train_accuracy"), fitted, chance):
        flags.append("under-trained")

    def share(accuracy: float) -> float | None:
        return min(1.0, max(0.0, (accuracy - chance) / (top - chance))) if top is not None and top > chance else None

    shares = [found for accuracy in row.accuracies if (found := share(accuracy)) is not None]
    if validity.spread_exceeds_margin(row.accuracies, gates.accuracy) or validity.spread_exceeds_margin(
        shares, gates.recovered
    ):
        flags.append("seed-spread")
    return Row(results, share(row.accuracy), tuple(dict.fromkeys(flags)))
