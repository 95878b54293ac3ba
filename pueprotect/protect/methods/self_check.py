"""Does a fresh network learn from the protected pixels?"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch

from pueprotect.learning.data import Labelled
from pueprotect.learning.distributed import ALONE, Group
from pueprotect.learning.models import Classifier, build, parameter_count
from pueprotect.learning.training import (
    Schedule,
    accuracy,
    count_correct,
    train,
)
from pueprotect.protect.methods.base import NoiseSettings
from pueprotect.protect.presets import Preset
from pueprotect.runtime import SILENT, Progress, child_seed

SELF_CHECK_MARGIN = 0.12


@dataclass(frozen=True)
class SelfCheck:
    """What a fresh network learns from the protected pixels by brief, plain training.

    Attributes:
        arch: its architecture.
        epochs: passes over the protected training images.
        accuracy: on the clean holdout at the end, in [0, 1].
        chance: the share of the largest class in the holdout.
        limit: the largest accuracy that passes.
        model: the network, the teacher of further rounds when it learnt too much.
    """

    arch: str
    epochs: float
    accuracy: float
    chance: float
    limit: float
    model: Classifier

    @property
    def passed(self) -> bool:
        """Whether the noise kept the network from learning."""
        return self.accuracy <= self.limit


def self_check(
    protected: Labelled,
    holdout: Labelled | None,
    arch: str,
    *,
    epochs: float,
    seed: int,
    group: Group = ALONE,
    progress: Progress = SILENT,
) -> SelfCheck:
    """Look at the noise with an attacker's eyes: train a fresh network plainly on the protected pixels.

    The published stopping rule (a small training error of the surrogate) can be met by noise that fails; this
    asks the question itself. It passes when accuracy stays within `SELF_CHECK_MARGIN` of the way from chance to 1.

    Args:
        protected: protected training images, of this rank.
        holdout: clean images that no training saw; only rank 0 needs them.
        arch: architecture of the fresh network.
        epochs: passes.
        seed: everything random is a function of it.
        group: ranks that train together.
        progress: one part for each step.
    """
    model = build(arch, protected.classes, protected.size, seed=seed, purpose="self-check", device=protected.device)
    train(
        model, protected, Schedule(epochs=epochs), seed=child_seed(seed, "self-check"), group=group, progress=progress
    )
    chance, reached = 0.0, 0.0
    if holdout is not None:
        chance = int(torch.bincount(holdout.labels, minlength=holdout.classes).max()) / len(holdout)
        reached = accuracy(model, holdout)
    chance, reached = group.from_leader((chance, reached))
    return SelfCheck(
        arch=arch,
        epochs=epochs,
        accuracy=reached,
        chance=chance,
        limit=chance + SELF_CHECK_MARGIN * (1 - chance),
        model=model,
    )


def _check(
    protected: Labelled,
    holdout: Labelled | None,
    settings: NoiseSettings,
    seed: int,
    preset: Preset,
    progress: Progress,
    group: Group = ALONE,
) -> SelfCheck:
    progress.start("self-check", Schedule(epochs=preset.check_epochs).steps(sum(group.gather(len(protected)))))
    check = self_check(
        protected, holdout, settings.surrogate, epochs=preset.check_epochs, seed=seed, group=group, progress=progress
    )
    progress.finish(f"{check.accuracy:.1%} on the clean holdout, limit {check.limit:.1%}")
    return check


def _facts(
    settings: NoiseSettings,
    protected: Labelled,
    surrogate: Classifier,
    rounds: int,
    checks: list[SelfCheck],
    group: Group = ALONE,
) -> dict[str, Any]:
    last = checks[-1]
    counts = group.gather((int(count_correct(surrogate, protected)), len(protected)))
    return {
        "rounds": rounds,
        "surrogate": {
            "name": settings.surrogate,
            "size": protected.size,
            "parameters": parameter_count(surrogate),
            "train_accuracy_protected": sum(right for right, _ in counts) / sum(images for _, images in counts),
        },
        "self_check": {
            "arch": last.arch,
            "epochs": last.epochs,
            "accuracy": last.accuracy,
            "chance": last.chance,
            "limit": last.limit,
            "passed": last.passed,
            "attempts": [check.accuracy for check in checks],
        },
    }
