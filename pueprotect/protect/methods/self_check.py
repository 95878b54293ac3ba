"""Trains a fresh network on the protected pixels to check that it learns nothing from them.

Noise that fails can still meet the published stopping rule, a small training error of the surrogate.
"""

from __future__ import annotations

import torch
from torch import Tensor

from pueprotect.learning.data import ImageSet, Labelled, Protected, split
from pueprotect.learning.device import HERE, Machine
from pueprotect.learning.models import Classifier, build, parameter_count
from pueprotect.learning.training import Schedule, accuracy, count_correct, train
from pueprotect.protect.methods.base import Made, Noise, NoiseSettings
from pueprotect.release.records import NoiseFacts, SelfCheck, Surrogate
from pueprotect.runtime import child_seed

SELF_CHECK_MARGIN = 0.12  # accuracy that passes, as a share of the way from chance to 1


def self_check(
    protected: Labelled, holdout: Labelled | None, arch: str, *, epochs: float, seed: int, machine: Machine = HERE
) -> tuple[SelfCheck, Classifier]:
    """Train a fresh network with the standard recipe on the protected pixels and measure it on clean images.

    The check passes when accuracy is within `SELF_CHECK_MARGIN` of the way from chance to 1. `protected` holds the
    training images of this rank; the ranks of `machine` train together. Only rank 0 needs `holdout`, clean images that
    no training saw.

    Returns:
        The result, and the network: the teacher of further rounds when it learnt too much.
    """
    group, progress, schedule = machine.group, machine.progress, Schedule(epochs=epochs)
    progress.start("self-check", schedule.steps(sum(group.gather(len(protected)))))
    model = build(arch, protected.classes, protected.size, seed=seed, purpose="self-check", device=protected.device)
    own = child_seed(seed, "self-check")
    train(model, protected, schedule, seed=own, group=group, progress=progress)
    chance, reached = 0.0, 0.0
    if holdout is not None:
        chance = int(torch.bincount(holdout.labels, minlength=holdout.classes).max()) / len(holdout)
        reached = accuracy(model, holdout)
    chance, reached = group.from_leader((chance, reached))
    limit = chance + SELF_CHECK_MARGIN * (1 - chance)
    progress.finish(f"{reached:.1%} on the clean holdout, limit {limit:.1%}")
    check = SelfCheck(
        arch=arch, epochs=epochs, accuracy=reached, chance=chance, limit=limit, passed=reached <= limit,
        attempts=[reached],
    )  # fmt: skip
    return check, model


def facts(
    settings: NoiseSettings, protected: Labelled, surrogate: Classifier, rounds: int, checks: list[SelfCheck],
    machine: Machine,
) -> NoiseFacts:  # fmt: skip
    """The facts about finished noise; the last check counts."""
    counts = machine.group.gather((int(count_correct(surrogate, protected)), len(protected)))
    return NoiseFacts(
        rounds=rounds,
        surrogate=Surrogate(
            name=settings.surrogate,
            size=protected.size,
            parameters=parameter_count(surrogate),
            train_accuracy_protected=sum(right for right, _ in counts) / sum(images for _, images in counts),
        ),
        self_check=checks[-1].model_copy(update={"attempts": [check.accuracy for check in checks]}),
    )


def checked(
    noise: Noise, images: ImageSet, held: Tensor, settings: NoiseSettings, epochs: float, machine: Machine
) -> Made:
    """Check sample-wise noise by training on the images that are not held out."""
    holdout, shown = split(images, held)
    protected = Protected(shown, torch.from_numpy(noise).to(images.images.device), shown.members)
    alone, arch = Machine(machine.device, progress=machine.progress), settings.surrogate
    check, network = self_check(protected, holdout, arch, epochs=epochs, seed=settings.seed, machine=alone)
    return Made(noise, network, facts(settings, protected, network, 0, [check], alone))
