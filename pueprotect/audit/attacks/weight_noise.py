"""Training under Gaussian weight noise: slower to lock on to brittle shortcuts.

The noise of each weight is relative to its filter, so that a setting means the same to every architecture and layers
cannot outgrow it. On error-minimising noise the network learns image features for some epochs and collapses once the
noise has fallen, so read the best epoch beside the end, and the short schedule beside the long one. In the long one the
noise falls to nothing, for under constant noise clean images do not finish either. BatchNorm statistics gathered under
the noise do not fit the weights without it: they are re-estimated on released images before the network is looked at.
`shallow-noise` disturbs the stages unequally, the stem most.
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
    """SGD with one fresh draw of noise on all filters in each step, falling from their root mean square to nothing."""

    name = "weight-noise"
    about = "trains under Gaussian noise on all filters that falls from their size to nothing"
    source = "the training half of PUE (Wang et al., NDSS 2025), turned into an attack by this project"
    cost = 1.1

    def level(self, done: float) -> float:
        """Standard deviation in root mean squares of a filter after this share of training: a straight fall."""
        return LEVEL * (1 - done)

    def shares(self, model: Classifier) -> list[float]:
        """How much of the level each trainable parameter gets: all of it, biases and BatchNorm nothing."""
        return [float(parameter.dim() > 1) for parameter in trainable(model)]

    def train(self, run: Run) -> Classifier:
        """Plain training with noised forward passes; BatchNorm is re-estimated without the noise at the end."""
        target = run.target
        model, released = target.fresh(), target.released
        parameters, shares = trainable(model), self.shares(model)
        train(
            model, released, self.schedule(target), seed=target.seed, progress=run.progress,
            on_epoch=lambda trained: run.epoch(settled(trained, released)),
            deviations=lambda done: relative_deviations(parameters, shares, self.level(done)),
        )  # fmt: skip
        return settled(model, released)


@register
class WeightNoiseShort(WeightNoise):
    """Constant noise, and a schedule that ends before the trap closes."""

    name = "weight-noise-short"
    about = f"trains under constant Gaussian noise on all filters for {SHORT:.0%} of the passes"
    cost = 0.45

    def level(self, done: float) -> float:
        """The same in every step."""
        return LEVEL

    def schedule(self, target: Target) -> Schedule:
        """Two fifths of the passes."""
        return replace(target.schedule, epochs=SHORT * target.schedule.epochs)


@register
class ShallowNoise(WeightNoise):
    """Noise relative to each filter's norm, 0.5, 0.4, 0.2, 0 times the level from the stem to the last stage."""

    name = "shallow-noise"
    about = f"trains under Gaussian weight noise on the shallow stages, level {SHALLOW_LEVEL:g} of each filter's norm"
    source = "the response of this project's PST, held constant"

    def level(self, done: float) -> float:
        """The same in every step."""
        return SHALLOW_LEVEL

    def shares(self, model: Classifier) -> list[float]:
        """Falls from the stem to the last stage."""
        return noise_shares(model)


def settled(model: nn.Module, data: ImageSet) -> Classifier:
    """A copy whose BatchNorm statistics are those of `data` under the weights as they are."""
    quiet = copy.deepcopy(model)
    reestimate_batch_norm(quiet, data.images[:: max(1, len(data) // CALIBRATION)])
    assert isinstance(quiet, Classifier)
    return quiet


def noise_shares(model: Classifier) -> list[float]:
    """For each trainable parameter, how much of the level its stage gets: 0.5 at the stem, 0 in the last stage."""
    last = len(model.stages) - 1
    shares = []
    stage = 0
    for name, parameter in model.body.named_parameters():
        inside = [number for number, prefix in enumerate(model.stages) if name.startswith(prefix + ".")]
        stage = inside[0] if inside else stage
        past = not inside and name.split(".")[0] in ("head", "fc", "classifier", "heads")
        depth = 1.0 if past else stage / last
        position = depth * (len(SHALLOW_TO_DEEP) - 1)
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
