"""Defines what `audit` records: the result of each attack, and the table over all of them. No torch."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from typing import Any, Literal, Self

from pydantic import Field

from pueprotect.release.records import Digest, Record, Share, TestOverlap

# Names of points in `details` that other modules look up.
CLEAN_BEHIND_IT = "clean images behind the same filter"
AS_THEY_ARE = "test images as they are"
CLEAN_SHARE_ALONE = "clean share alone"
PST_ALARM = 1.5  # the quotient above which PST raises its alarm
CLEAN_LINE = "clean-line"  # the attack name under which plain training on the originals is recorded


class EvidenceKey(Record):
    """The files and test images that a piece of evidence is for."""

    data_digest: Digest
    test_digest: Digest


class AttackKey(EvidenceKey):
    """An attack and all that its result depends on; `clean-line` is plain training on the clean originals."""

    attack: str
    arch: str
    epochs: float
    seed: int


class AttackResult(Record):
    """Clean test accuracies of one run of one attack.

    Attributes:
        attack: registered name; `arch` is the attacker's architecture.
        accuracy: at the end of training; null where training failed.
        best_accuracy: the best over epochs and candidates, which an attacker with clean validation images would pick.
        epochs: requested passes over the data; `seconds` is the wall time.
        flags: reasons to doubt the figure.
        details: further findings: `train_accuracy` on its own training images without augmentation; `epoch_accuracy`;
            `points`: name -> accuracy of observed networks.
    """

    attack: str
    arch: str
    accuracy: Share | None
    best_accuracy: Share | None
    epochs: float
    seconds: float
    flags: tuple[str, ...] = ()
    details: dict[str, Any]

    @property
    def failed(self) -> bool:
        """Whether training ended without a figure."""
        return self.accuracy is None


class AuditRecord(Record):
    """`audit/<attack>-<arch>.json` of a vault."""

    key: AttackKey
    result: AttackResult
    chance: Share | None = None
    test_images: int | None = None


class Spread(Record):
    """Accuracies over several seeds: all of them, standard deviation, lowest and highest."""

    accuracies: list[Share]
    sd: float
    lowest: Share
    highest: Share


class AuditRow(AttackResult):
    """One attack with one network over all seeds, next to the clean line of the network.

    Accuracies are means over the seeds and `seconds` their sum; `details` are the first seed's, but for the mean
    `train_accuracy`.

    Attributes:
        recovered: (accuracy - chance) / (clean accuracy - chance) within [0, 1]; null where unknown.
        clean_accuracy_same_filter: accuracy of training on clean images behind the attack's filter, where measured.
        held_out: whether the attacker trained on the held-out files and was measured on the originals of the others.
        chance: the accuracy of the constant answer on those originals; None for the audit's.
    """

    recovered: Share | None = None
    clean_accuracy_same_filter: Share | None = None
    seeds: Spread | None = None
    held_out: bool = False
    chance: Share | None = None

    @classmethod
    def over(cls, results: Sequence[AttackResult], recovered: float | None = None, flags: Sequence[str] = ()) -> Self:
        """The row of one run for each seed, at least one; `flags` are added to those of the runs."""
        first, complete = results[0], not any(result.failed for result in results)
        found = [result.accuracy or 0.0 for result in results]
        best = [result.best_accuracy or 0.0 for result in results]
        filtered = [result.details.get("points", {}).get(CLEAN_BEHIND_IT) for result in results]
        spread = None
        if complete and len(found) > 1:
            spread = Spread(accuracies=found, sd=statistics.stdev(found), lowest=min(found), highest=max(found))
        own = [flag for result in results for flag in result.flags]
        fits = [fit for result in results if (fit := result.details.get("train_accuracy")) is not None]
        fitted = {"train_accuracy": statistics.mean(fits)} if fits else {}
        return cls(
            attack=first.attack, arch=first.arch, epochs=first.epochs, details=first.details | fitted,
            recovered=recovered,
            accuracy=statistics.mean(found) if complete else None,
            best_accuracy=statistics.mean(best) if complete else None,
            seconds=sum(result.seconds for result in results), flags=tuple(dict.fromkeys((*own, *flags))),
            clean_accuracy_same_filter=statistics.mean(filtered) if complete and None not in filtered else None,
            seeds=spread,
        )  # fmt: skip


class AuditWorst(Record):
    """The attack with the highest accuracy at the end of its training; null when all failed."""

    attack: str | None = None
    arch: str | None = None
    accuracy: Share | None = None
    recovered: Share | None = None


class Audit(Record):
    """Output of `pueprotect audit --json`.

    Attributes:
        chance: accuracy of always answering the most frequent class.
        clean_accuracy: of the first network's clean line.
        clean_lines: plain training on the clean originals, by network.
        held_out_lines: the same for attacks with `held_out`: trained on the originals of the held-out files.
        attacked_images: released files that the attackers train on, but for `held_out`; `attacked_share` is their
            share of all released files.
        results: sorted by recovered share, or by accuracy where that is unknown; failed attacks last.
        complete: whether every attack has a figure; otherwise the audit is inconclusive.
        skipped: attacks of the suite whose requirements are not met here.
        flags: reasons to doubt the whole audit.
        test_overlap: test images that nearly equal training images, if there are any.
    """

    schema_version: Literal[1] = 1
    suite: str | None
    chance: Share
    clean_accuracy: Share | None
    clean_lines: dict[str, AuditRow] = Field(default_factory=dict)
    held_out_lines: dict[str, AuditRow] = Field(default_factory=dict)
    attacked_images: int | None = None
    attacked_share: Share | None = None
    results: list[AuditRow]
    worst: AuditWorst
    complete: bool = True
    skipped: list[str] = Field(default_factory=list)
    flags: list[str]
    data_digest: Digest
    test_overlap: TestOverlap | None = None

    @property
    def worst_row(self) -> AuditRow | None:
        """The row that `worst` names."""
        wanted = self.worst.attack, self.worst.arch
        return next((row for row in self.results if (row.attack, row.arch) == wanted), None)

    def clean_line(self, row: AuditRow) -> AuditRow | None:
        """The clean line that a row is compared with."""
        return (self.held_out_lines if row.held_out else self.clean_lines).get(row.arch)

    def chance_of(self, row: AuditRow) -> float:
        """Accuracy of the constant answer on the images that a row was measured on."""
        return self.chance if row.chance is None else row.chance
