"""Trains under Gaussian weight noise, which slows the learning of brittle shortcuts.

The noise of each weight is relative to its filter, so that a setting means the same for every architecture and layers
cannot outgrow it. A network may learn images early and lose them once the weight noise has fallen, so the best epoch
matters as well as the last, and the short schedule as well as the long one. In the long one the noise falls to zero,
because under constant noise training on clean images does not converge. BatchNorm statistics from noised passes do not
fit the noiseless weights, so they are re-estimated on released images before a network is measured.
"""

from __future__ import annotations

import copy
from dataclasses import replace

import torch
from torch import Tensor, nn

from pueprotect.audit.attacks.base import Attack, Run, Target, register
from pueprotect.learning.data import ImageSet
from pueprotect.learning.models import Classifier
from pueprotect.learning.training import Schedule, train
from pueprotect.learning.weights import reestimate_batch_norm, trainable

LEVEL = 1.0
SHORT = 0.4
CALIBRATION = 512
SHALLOW_LEVEL = 1.2
SHALLOW_TO_DEEP = (0.5, 0.4, 0.2, 0.0)


@register
class WeightNoise(Attack):
    """SGD with a new draw of noise on all filters in each step, from their root mean square down to zero."""

    name = "weight-noise"
    about = "trains under Gaussian weight noise that falls from the size of each filter to zero"
    source = "the training half of PUE (Wang et al., NDSS 2025), turned into an attack by this project"
    cost = 1.1
    levels = (LEVEL, 0.0)  # at the start and at the end of training, in root mean squares of a filter

    def level(self, done: float) -> float:
        """The level after this share of training; it changes linearly."""
        start, end = self.levels
        return start + (end - start) * done

    def shares(self, model: Classifier) -> list[float]:
        """The share of the level that each trainable parameter gets: 1 for filters, 0 for biases and BatchNorm."""
        return [float(parameter.dim() > 1) for parameter in trainable(model)]

    def train(self, run: Run) -> Classifier:
        """Plain training with noised forward passes; BatchNorm is re-estimated without the noise at the end."""
        target = run.target
        model, released = target.fresh(), target.released
        parameters, shares = trainable(model), self.shares(model)
        train(
            model, released, self.schedule(target), seed=target.seed, progress=run.progress,
            on_epoch=lambda trained: run.epoch(settled(trained, released, target.seed)),
            deviations=lambda done: relative_deviations(parameters, shares, self.level(done)),
        )  # fmt: skip
        return settled(model, released, target.seed)


@register
class WeightNoiseShort(WeightNoise):
    """Constant noise, and a schedule that ends before the network locks on to the noise in the images."""

    name = "weight-noise-short"
    about = f"trains under constant Gaussian noise on all filters for {SHORT:.0%} of the passes"
    cost = 0.45
    levels = (LEVEL, LEVEL)

    def schedule(self, target: Target) -> Schedule:
        """Two fifths of the passes."""
        return replace(target.schedule, epochs=SHORT * target.schedule.epochs)


@register
class ShallowNoise(WeightNoise):
    """Constant noise of 0.5, 0.4, 0.2 and 0 times the level from the stem to the last stage."""

    name = "shallow-noise"
    about = f"trains under Gaussian weight noise on the shallow stages, level {SHALLOW_LEVEL:g} of each filter's norm"
    source = "the response of this project's PST, held constant"
    levels = (SHALLOW_LEVEL, SHALLOW_LEVEL)

    def shares(self, model: Classifier) -> list[float]:
        """Shares that fall from the stem to the last stage."""
        return noise_shares(model)


def settled(model: nn.Module, data: ImageSet, seed: int) -> Classifier:
    """A copy with the BatchNorm statistics that images drawn from `data` give under the present weights."""
    quiet = copy.deepcopy(model)
    reestimate_batch_norm(quiet, data.drawn(CALIBRATION, seed, "calibration").images)
    assert isinstance(quiet, Classifier)
    return quiet


def noise_shares(model: Classifier) -> list[float]:
    """The share of the level that each trainable parameter gets: 0.5 at the stem, 0 in the last stage."""
    last, stage = len(model.stages) - 1, 0
    shares = []
    for name, parameter in model.body.named_parameters():
        inside = [number for number, prefix in enumerate(model.stages) if name.startswith(prefix + ".")]
        stage = inside[0] if inside else stage
        past = not inside and name.split(".")[0] in ("head", "fc", "classifier", "heads")
        position = (1.0 if past else stage / last) * (len(SHALLOW_TO_DEEP) - 1)
        low = min(int(position), len(SHALLOW_TO_DEEP) - 2)
        share = SHALLOW_TO_DEEP[low] + (position - low) * (SHALLOW_TO_DEEP[low + 1] - SHALLOW_TO_DEEP[low])
        shares.append(share if parameter.dim() > 1 else 0.0)
    return shares


@torch.no_grad()
def relative_deviations(parameters: list[Tensor], shares: list[float], level: float) -> list[Tensor]:
    """Standard deviation of each weight: share x level x root mean square of its filter."""
    return [
        level * share * parameter.flatten(1).pow(2).mean(1).sqrt().view(-1, *[1] * (parameter.dim() - 1))
        if share
        else parameter.new_zeros(())
        for parameter, share in zip(parameters, shares, strict=True)
    ]
