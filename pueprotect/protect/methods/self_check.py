"""Trains a fresh network with the standard recipe, to see what it learns of the clean held-out images.

On a release it must learn nearly nothing. Noise that fails can still meet the published stopping rule, a small training
error of the surrogate. On the originals the same network must learn something: otherwise the check would pass for any
noise.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from scipy.stats import binom

from pueprotect.learning.data import Labelled
from pueprotect.learning.device import HERE, Machine
from pueprotect.learning.models import Classifier, build
from pueprotect.learning.training import Schedule, accuracy, train
from pueprotect.release.records import SelfCheck
from pueprotect.runtime import child_seed

SELF_CHECK_MARGIN = 0.12  # accuracy that passes, as a share of the way from chance to 1
LEAST_SIGNAL = 0.05  # accuracy that the originals must give, as a share of that way
LUCK = 0.01  # and how rarely guessing may reach it


class Learnt(NamedTuple):
    """What a fresh network learnt.

    Attributes:
        accuracy: on the clean held-out images.
        chance: share of the most frequent class among them.
        network: the network.
    """

    accuracy: float
    chance: float
    network: Classifier


def learnt(
    shown: Labelled, holdout: Labelled | None, arch: str, *, epochs: float, seed: int, label: str = "self-check",
    machine: Machine = HERE,
) -> Learnt:  # fmt: skip
    """Train a fresh network with the standard recipe and measure it on clean images.

    `shown` holds the training images of this rank; the ranks of `machine` train together. Only rank 0 needs `holdout`,
    clean images that no training saw.
    """
    group, progress, schedule = machine.group, machine.progress, Schedule(epochs=epochs)
    progress.start(label, schedule.steps(sum(group.gather(len(shown)))))
    model = build(arch, shown.classes, shown.size, seed=seed, purpose="self-check", device=shown.device)
    train(model, shown, schedule, seed=child_seed(seed, "self-check"), group=group, progress=progress)
    chance, reached = 0.0, 0.0
    if holdout is not None:
        chance = int(torch.bincount(holdout.labels, minlength=holdout.classes).max()) / len(holdout)
        reached = accuracy(model, holdout)
    chance, reached = group.from_leader((chance, reached))
    progress.finish(f"{reached:.1%} on the clean holdout, chance {chance:.1%}")
    return Learnt(reached, chance, model)


def limit_of(chance: float, clean_accuracy: float) -> float:
    """The accuracy that a release may give: near chance, and at most half of what the originals give above it."""
    return chance + min(SELF_CHECK_MARGIN * (1 - chance), max(0.0, clean_accuracy - chance) / 2)


def judged(
    networks: Sequence[Learnt], clean_accuracy: float, arch: str, epochs: float, before: list[float]
) -> SelfCheck:
    """The verdict on what networks learnt from a release; the best one counts.

    `before` holds the accuracies of earlier attempts.
    """
    accuracies, chance = [found.accuracy for found in networks], networks[0].chance
    limit, reached = limit_of(chance, clean_accuracy), max(accuracies)
    return SelfCheck(
        arch=arch, epochs=epochs, accuracy=reached, chance=chance, limit=limit, passed=reached <= limit,
        attempts=[*before, reached], clean_accuracy=clean_accuracy, networks=accuracies,
    )  # fmt: skip


def learnable(found: Learnt, images: int) -> bool:
    """Whether the originals give accuracy well above chance, on so many held-out images."""
    lift = (found.accuracy - found.chance) / max(1 - found.chance, 1e-9)
    by_luck = float(binom.sf(round(found.accuracy * images) - 1, images, found.chance))
    return lift >= LEAST_SIGNAL and by_luck <= LUCK
