"""Judges each attack over its seeds, next to the clean line, and names the reasons to doubt its figures. No torch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from pueprotect.audit import flags
from pueprotect.release.audits import AttackResult, AuditRow, AuditWorst


@dataclass(frozen=True, kw_only=True)
class Gates:
    """Largest accuracy and recovered share that the owner accepts, in [0, 1]; None for no gate."""

    accuracy: float | None = None
    recovered: float | None = None


def recovered_share(accuracy: float | None, chance: float | None, clean: float | None) -> float | None:
    """(accuracy - chance) / (clean accuracy - chance) within [0, 1]; None where one of them is unknown."""
    if accuracy is None or chance is None or clean is None or clean <= chance:
        return None
    return min(1.0, max(0.0, (accuracy - chance) / (clean - chance)))


def clean_row(results: Sequence[AttackResult], chance: float) -> AuditRow:
    """The clean line of one architecture with its flags; one run for each seed."""
    row = AuditRow.over(results)
    if row.accuracy is None:
        return row
    found = flags.names_of({
        "weak-clean-line": flags.weak_clean_line(row.accuracy, chance),
        "clean-line-not-converged": any(
            flags.not_converged(details.get("epoch_accuracy", ()), details.get("train_accuracy"), chance)
            for details in (result.details for result in results)
        ),
    })  # fmt: skip
    return AuditRow.over(results, recovered_share(row.accuracy, chance, row.accuracy), found)


def judge(results: Sequence[AttackResult], clean: AuditRow | None, chance: float, gates: Gates = Gates()) -> AuditRow:
    """The recovered share of an attack, and its flags, from one run for each seed.

    `clean` is the clean line of the same architecture, `chance` the accuracy of the constant answer. `gates` are
    compared with the spread over seeds.
    """
    row = AuditRow.over(results)
    if row.accuracy is None:
        return row
    top, fitted = (clean.accuracy, clean.details.get("train_accuracy")) if clean else (None, None)
    accuracies = [result.accuracy for result in results if result.accuracy is not None]
    shares = [share for found in accuracies if (share := recovered_share(found, chance, top)) is not None]
    found = flags.names_of({
        "below-chance": row.accuracy < chance - 0.02,
        "under-trained": any(
            flags.under_trained(result.details.get("train_accuracy"), fitted, chance) for result in results
        ),
        "seed-spread": flags.spread_exceeds_margin(accuracies, gates.accuracy)
        or flags.spread_exceeds_margin(shares, gates.recovered),
    })  # fmt: skip
    return AuditRow.over(results, recovered_share(row.accuracy, chance, top), found)


def by_seed(row: AuditRow, clean: AuditRow | None, chance: float) -> list[AuditRow]:
    """A row of several seeds as one row for each; `clean` is the clean line it is compared with."""
    if row.seeds is None:
        return [row]
    top = clean.accuracy if clean else None
    return [
        row.model_copy(update={"accuracy": found, "recovered": recovered_share(found, chance, top), "seeds": None})
        for found in row.seeds.accuracies
    ]


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
    """The worst case in two lines of a terminal, and what it does not show.

    `worst` is None when all attacks failed, `clean` the accuracy of the clean line of its network, `chance` that of the
    constant answer, and `about` its `Attack.about`.
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
