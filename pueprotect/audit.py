"""Runs attacks on the bytes on disk of a released folder and says what an attacker gets.

Every figure is clean test accuracy. `recovered` puts it between chance (0) and the clean upper line (1), the
accuracy of the same network trained in the same way on the clean originals.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import torch

from pueprotect.attacks import Attack, AttackResult, Target, find
from pueprotect.errors import InputError, StaleDataError
from pueprotect.evidence import Evidence
from pueprotect.models import architecture
from pueprotect.runtime import SILENT, Progress, generator
from pueprotect.suites import SUITES as SUITES
from pueprotect.training import ImageSet, Recipe
from pueprotect.vault import SCHEMA_VERSION

FLAGS = {
    "no-clean-line": "The originals are not at hand, so recovered is unknown; audit pueprotect's own release.",
    "weak-clean-line": "Even the clean originals teach little, so a low figure proves little; use more epochs.",
    "small-test": "Fewer than 500 test images or 20 per class: figures are coarse; give more with --test.",
    "below-chance": "The network does worse than always answering the largest class: it predicts constantly.",
    "diverged": "Training ended in non-finite weights; the figure says nothing.",
}


@dataclass(frozen=True, kw_only=True)
class Settings:
    """What is attacked, and how.

    Attributes:
        attacks: registered names, in the order of running.
        suite: name of the suite that they came from, or None.
        archs: the attackers' architectures.
        epochs: passes of each training; None chooses by the number of images.
        clean_fraction: share of the clean training images that the recovery attack gets, in (0, 1).
        etas: radii of the recovery attack, ascending.
        seed: everything random is a function of it.
    """

    attacks: tuple[str, ...]
    suite: str | None
    archs: tuple[str, ...]
    epochs: float | None = None
    clean_fraction: float = 0.2
    etas: tuple[float, ...] = (0.5, 1.0, 2.0)
    seed: int = 0

    def __post_init__(self) -> None:
        for name in self.attacks:
            find(name)
        if self.epochs is not None and not 0 < self.epochs <= 10_000:
            raise InputError(f"--epochs {self.epochs:g} is outside (0, 10000].")
        if not 0 < self.clean_fraction < 1:
            raise InputError(f"--clean-fraction {self.clean_fraction:g} is not inside (0, 1).")
        if any(not 0 < eta < float("inf") for eta in self.etas):
            raise InputError("--eta for the recovery attack must be positive radii, such as 0.5,1,2.")


@dataclass(frozen=True)
class Row:
    """One attack's figures beside the clean line of its architecture."""

    result: AttackResult
    recovered: float | None
    flags: tuple[str, ...]


@dataclass(frozen=True)
class AuditReport:
    """All rows, the clean line of the first architecture and the worst case."""

    suite: str | None
    chance: float
    clean: dict[str, AttackResult]
    rows: tuple[Row, ...]
    flags: tuple[str, ...]
    data_digest: str

    @property
    def worst(self) -> Row:
        """The attack that reached the highest accuracy at the end of its training."""
        return max(self.rows, key=lambda row: row.result.accuracy)

    def as_json(self) -> dict[str, Any]:
        """The object of the contract."""
        clean = next(iter(self.clean.values()), None)
        return {
            "schema_version": SCHEMA_VERSION,
            "suite": self.suite,
            "chance": self.chance,
            "clean_accuracy": clean.accuracy if clean else None,
            "clean_lines": {
                arch: {"accuracy": line.accuracy, "best_accuracy": line.best_accuracy}
                for arch, line in self.clean.items()
            },
            "results": [row_json(row) for row in self.rows],
            "worst": {
                "attack": self.worst.result.attack,
                "arch": self.worst.result.arch,
                "accuracy": self.worst.result.accuracy,
                "recovered": self.worst.recovered,
            },
            "flags": list(self.flags),
            "data_digest": self.data_digest,
        }


def row_json(row: Row) -> dict[str, Any]:
    """One entry of `results`."""
    return asdict(row.result) | {"recovered": row.recovered, "flags": list(row.flags)}


def default_epochs(images: int) -> float:
    """15 passes from 5,000 images on; small sets get more, up to 60, for about the same number of steps."""
    return float(min(60, max(15, round(75_000 / images))))


def clean_share(originals: ImageSet | None, fraction: float, seed: int) -> ImageSet | None:
    """A stratified share of the clean training images, at least one for each class."""
    if originals is None:
        return None
    order = torch.randperm(len(originals), generator=generator(seed, "clean-share")).to(originals.images.device)
    ordered = originals.labels[order]
    picked = [
        members[: max(1, round(fraction * len(members)))]
        for members in (order[ordered == label] for label in range(originals.classes))
    ]
    return originals.subset(torch.cat(picked))


def audit(evidence: Evidence, settings: Settings, *, resume: bool = False, progress: Progress = SILENT) -> AuditReport:
    """Run every attack with every architecture; each result is stored in the vault as it ends.

    Args:
        evidence: an opened release.
        settings: see `Settings`.
        resume: take results that the vault holds for the same settings and the same bytes.
        progress: told of each training.

    Raises:
        InputError: an architecture does not fit, or an attack needs clean images that are not there.
    """
    for arch in settings.archs:
        architecture(arch, evidence.size)
    recipe = Recipe(epochs=settings.epochs or default_epochs(len(evidence.released)))
    attacks = [find(name) for name in settings.attacks]
    originals = _originals(evidence)
    needy = [attack.name for attack in attacks if attack.needs == "a clean share"]
    if needy and originals is None:
        raise InputError(
            f"The attack {needy[0]} needs clean training images: audit a release made by pueprotect whose originals "
            "are still in place, or leave it out."
        )
    share = clean_share(originals, settings.clean_fraction, settings.seed) if needy else None
    clean: dict[str, AttackResult] = {}
    rows = []
    for arch in settings.archs:
        target = Target(evidence.released, arch, recipe, settings.seed, share, settings.etas)
        runner = _Runner(evidence, settings, resume, progress)
        if originals is not None:
            line = Target(originals, arch, recipe, settings.seed)
            clean[arch] = runner.run(find("standard"), line, "clean-line", f"train on the clean originals ({arch})")
        for attack in attacks:
            result = runner.run(attack, target, attack.name)
            rows.append(_judge(result, clean.get(arch), evidence.chance))
    rows.sort(key=lambda row: -row.result.accuracy)
    return AuditReport(settings.suite, evidence.chance, clean, tuple(rows), _flags(evidence, clean), evidence.digest)


def _originals(evidence: Evidence) -> ImageSet | None:
    try:
        return evidence.originals
    except StaleDataError:  # the audit goes on without a clean line, and says so by a flag
        return None


@dataclass(frozen=True)
class _Runner:
    evidence: Evidence
    settings: Settings
    resume: bool
    progress: Progress

    def run(self, attack: Attack, target: Target, name: str, label: str = "") -> AttackResult:
        """The attack's result, from the vault when `resume` finds it there; stored as soon as it is known."""
        key = {
            "attack": name,
            "arch": target.arch,
            "epochs": target.recipe.epochs,
            "seed": target.seed,
            "train": len(target.released),
            "device": self.evidence.device,
            "clean_fraction": self.settings.clean_fraction,
            "etas": list(self.settings.etas),
        }
        place = f"audit/{name}-{target.arch}.json"
        found = self.evidence.remembered(place, key) if self.resume else None
        if found is not None:
            return AttackResult(**(found | {"flags": tuple(found["flags"])}))
        result = attack.run(target, self.evidence.test, self.progress, label)
        self.evidence.remember(place, key, asdict(result))
        return result


def _judge(result: AttackResult, clean: AttackResult | None, chance: float) -> Row:
    flags = list(result.flags)
    if result.accuracy < chance - 0.02:
        flags.append("below-chance")
    recovered = None
    if clean is not None and clean.accuracy > chance:
        recovered = min(1.0, max(0.0, (result.accuracy - chance) / (clean.accuracy - chance)))
    return Row(result, recovered, tuple(flags))


def _flags(evidence: Evidence, clean: dict[str, AttackResult]) -> tuple[str, ...]:
    flags = []
    if not clean:
        flags.append("no-clean-line")
    if any(line.accuracy < evidence.chance + 0.2 * (1 - evidence.chance) for line in clean.values()):
        flags.append("weak-clean-line")
    if evidence.few_test_images:
        flags.append("small-test")
    return tuple(flags)
