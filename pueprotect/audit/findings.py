"""Figures of each attack over its seeds, next to the clean line, and the reasons to doubt them. No torch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from pueprotect.audit import flags as doubts
from pueprotect.release.records import AttackResult, AuditRow, AuditWorst


@dataclass(frozen=True, kw_only=True)
class Gates:
    """Largest accuracy and recovered share that the owner accepts, in [0, 1]; None for no gate."""

    accuracy: float | None = None
    recovered: float | None = None


NO_GATES = Gates()


def recovered_share(accuracy: float | None, chance: float | None, clean: float | None) -> float | None:
    """(accuracy - chance) / (clean accuracy - chance) within [0, 1]; None where one of them is unknown."""
    if accuracy is None or chance is None or clean is None or clean <= chance:
        return None
    return min(1.0, max(0.0, (accuracy - chance) / (clean - chance)))


def clean_row(results: Sequence[AttackResult], chance: float) -> AuditRow:
    """The clean line of one architecture with the flags that concern it."""
    row, flags = AuditRow.over(results), []
    if row.accuracy is None:
        return row
    if doubts.weak_clean_line(row.accuracy, chance):
        flags.append("weak-clean-line")
    if doubts.not_converged(row.details.get("epoch_accuracy", ()), row.details.get("train_accuracy"), chance):
        flags.append("clean-line-not-converged")
    return AuditRow.over(results, recovered_share(row.accuracy, chance, row.accuracy), flags)


def judge(results: Sequence[AttackResult], clean: AuditRow | None, chance: float, gates: Gates = NO_GATES) -> AuditRow:
    """The recovered share of an attack, and the reasons to doubt its figure.

    Args:
        results: one run for each seed, at least one.
        clean: the clean line of the same architecture.
        chance: accuracy of the constant answer.
        gates: limits that the spread over seeds is held against.
    """
    row, flags = AuditRow.over(results), []
    if row.accuracy is None:
        return row
    if row.accuracy < chance - 0.02:
        flags.append("below-chance")
    top = clean.accuracy if clean else None
    fitted = clean.details.get("train_accuracy") if clean else None
    if doubts.under_trained(row.details.get("train_accuracy"), fitted, chance):
        flags.append("under-trained")
    accuracies = [result.accuracy for result in results if result.accuracy is not None]
    shares = [share for found in accuracies if (share := recovered_share(found, chance, top)) is not None]
    if doubts.spread_exceeds_margin(accuracies, gates.accuracy) or doubts.spread_exceeds_margin(
        shares, gates.recovered
    ):
        flags.append("seed-spread")
    return AuditRow.over(results, recovered_share(row.accuracy, chance, top), flags)


def in_order(rows: Sequence[AuditRow]) -> list[AuditRow]:
    """The most damaging first, by recovered share or, where that is unknown, by accuracy; failed attacks last."""

    def damage(row: AuditRow) -> float:
        return row.recovered if row.recovered is not None else row.accuracy or 0.0

    return sorted(rows, key=lambda row: (row.failed, -damage(row)))


def worst_of(rows: Sequence[AuditRow]) -> AuditWorst:
    """The attack that reached the highest accuracy at the end of its training."""
    sound = [row for row in rows if not row.failed]
    if not sound:
        return AuditWorst()
    top = max(sound, key=lambda row: row.accuracy or 0.0)
    return AuditWorst(attack=top.attack, arch=top.arch, accuracy=top.accuracy, recovered=top.recovered)


def verdict(worst: AuditRow | None, clean: float | None, chance: float, about: str) -> str:
    """What the worst case says, and what it does not, in two lines of a terminal.

    Args:
        worst: the worst attack; None when all failed.
        clean: accuracy of the clean line of its network, if known.
        chance: accuracy of the constant answer.
        about: what the attack does, see `Attack.about`.
    """
    if worst is None or worst.accuracy is None:
        return "Every attack of this audit failed, so it shows nothing about these images."
    known = f", clean originals {clean:.1%}" if clean is not None else ""
    share = f", so {worst.recovered:.0%} is recovered" if worst.recovered is not None else ""
    seeds = f", mean of {len(worst.seeds.accuracies)} seeds" if worst.seeds else ""
    return (
        f"Worst case: {worst.attack} with {worst.arch} reaches {worst.accuracy:.1%}{seeds} "
        f"(chance {chance:.1%}{known}){share}. It {about}. Other attackers may do better."
    )
