"""Training under Gaussian weight noise: slower to lock on to brittle shortcuts.

On error-minimising noise it learns image features for some epochs and collapses later, so read the best epoch
beside the end.
"""

from __future__ import annotations

from pueprotect.attacks.base import Attack, Run, register
from pueprotect.models import Classifier
from pueprotect.training import train

SIGMA = 0.05


@register
class WeightNoise(Attack):
    """SGD with one fresh draw of N(0, 0.05^2) on all weights in each step."""

    name = "weight-noise"
    about = f"trains under Gaussian noise of {SIGMA} on all weights"
    source = "the training half of PUE (Wang et al., NDSS 2025), turned into an attack by this project"
    cost = 1.1

    def train(self, run: Run) -> Classifier:
        """Plain training with noised forward passes."""
        target = run.target
        return train(
            target.fresh(), target.released, target.recipe, seed=target.seed, deviations=lambda _: SIGMA,
            on_epoch=run.epoch, progress=run.progress,
        )  # fmt: skip
