"""What an ordinary user of the images does: plain training with random crop and flip."""

from __future__ import annotations

from pueprotect.attacks.base import Attack, Run, register
from pueprotect.models import Classifier
from pueprotect.training import train


@register
class Standard(Attack):
    """SGD on the released files, as if they were clean."""

    name = "standard"
    about = "trains plainly on the released files with random crop and flip"
    source = "the baseline of every paper in the field"

    def train(self, run: Run) -> Classifier:
        """Plain training."""
        target = run.target
        return train(
            target.fresh(), target.released, target.recipe, seed=target.seed, on_epoch=run.epoch, progress=run.progress
        )
