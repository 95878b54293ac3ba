"""Training under Gaussian weight noise: slower to lock on to brittle shortcuts.

On error-minimising noise it learns image features for some epochs and collapses later, so read the best epoch
beside the end, and the short schedule beside the long one. In the long one the noise falls to nothing, for under
constant noise clean images do not finish either (clean CIFAR-10, one seed: 44 % instead of 37 %). BatchNorm statistics
gathered under the noise do not fit the weights without it: they are re-estimated on released images before the network
is looked at (class-wise EMN, sigma 0.08, 6 epochs, one seed: 34 % instead of 29 %). `shallow-noise` disturbs the stages
unequally, the stem most.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import replace

from torch import nn

from pueprotect.attacks.base import Attack, Run, Target, register
from pueprotect.attacks.shallow import noise_shares, relative_deviations
from pueprotect.attacks.standard import Plain
from pueprotect.models import Classifier
from pueprotect.training import ImageSet, Recipe, train
from pueprotect.weights import reestimate_batch_norm, trainable

SIGMA = 0.08
SHORT = 0.4
CALIBRATION = 512
SHALLOW_LEVEL = 1.2
SOURCE = "the training half of PUE (Wang et al., NDSS 2025), turned into an attack by this project"


@register
class WeightNoise(Plain):
    """SGD with one fresh draw of Gaussian noise on all weights in each step, its deviation falling from 0.08 to 0."""

    name = "weight-noise"
    about = f"trains under Gaussian noise on all weights that falls from {SIGMA} to nothing"
    source = SOURCE
    cost = 1.1

    def deviations(self) -> Callable[[float], float]:
        """Falls in a straight line."""
        return lambda done: SIGMA * (1 - done)

    def train(self, run: Run) -> Classifier:
        """Plain training under the noise, looked at without it."""
        released = run.target.released
        run.trained_on = released
        return settled(self.learn(run, released, on_epoch=lambda model: run.epoch(settled(model, released))), released)


@register
class WeightNoiseShort(WeightNoise):
    """Constant noise, and a schedule that ends before the trap closes."""

    name = "weight-noise-short"
    about = f"trains under Gaussian noise of {SIGMA} on all weights for {SHORT:.0%} of the passes"
    cost = 0.45

    def deviations(self) -> Callable[[float], float]:
        """The same noise in every step."""
        return lambda _: SIGMA

    def recipe(self, target: Target) -> Recipe:
        """Two fifths of the passes."""
        return replace(target.recipe, epochs=SHORT * target.recipe.epochs)


@register
class ShallowNoise(Attack):
    """Noise relative to each filter's norm, 0.5, 0.4, 0.2, 0 times the level from the stem to the last stage."""

    name = "shallow-noise"
    about = f"trains under Gaussian weight noise on the shallow stages, level {SHALLOW_LEVEL:g} of each filter's norm"
    source = "the response of this project's PST, held constant"
    cost = 1.1

    def train(self, run: Run) -> Classifier:
        """Plain training with noised forward passes; BatchNorm is re-estimated without the noise at the end."""
        target = run.target
        model = target.fresh()
        parameters, shares = trainable(model), noise_shares(model)
        train(
            model, target.released, target.recipe, seed=target.seed, progress=run.progress,
            on_epoch=lambda trained: run.epoch(settled(trained, target.released)),
            deviations=lambda _: relative_deviations(parameters, shares, SHALLOW_LEVEL),
        )  # fmt: skip
        return settled(model, target.released)


def settled(model: nn.Module, data: ImageSet) -> Classifier:
    """A copy whose BatchNorm statistics are those of `data` under the weights as they are."""
    quiet = copy.deepcopy(model)
    reestimate_batch_norm(quiet, data.images[:: max(1, len(data) // CALIBRATION)])
    assert isinstance(quiet, Classifier)
    return quiet
