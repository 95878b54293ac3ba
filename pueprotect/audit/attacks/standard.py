"""What an ordinary user of the images does: plain training with random crop and flip; and its variations."""

from __future__ import annotations

from collections.abc import Callable

from torch import nn

from pueprotect.audit.attacks.base import Attack, Run, Target, register
from pueprotect.learning.data import ImageSet
from pueprotect.learning.models import Classifier
from pueprotect.learning.training import Prepare, Transform, train


class Plain(Attack):
    """Plain training from scratch, once; a subclass changes what it needs to and names itself."""

    def images(self, target: Target) -> ImageSet:
        """What is trained on."""
        return target.released

    def transform(self, target: Target) -> Transform | None:
        """Applied to each batch after crop and flip."""
        return None

    def prepare(self, target: Target) -> Prepare | None:
        """Applied to each batch and its labels."""
        return None

    def train(self, run: Run) -> Classifier:
        """Plain training with these changes."""
        run.trained_on = self.images(run.target)
        return self.learn(run, run.trained_on, on_epoch=run.epoch)

    def learn(self, run: Run, data: ImageSet, on_epoch: Callable[[nn.Module], None] | None = None) -> Classifier:
        """Train a fresh network on these images."""
        target = run.target
        return train(
            target.fresh(), data, self.schedule(target), seed=target.seed, transform=self.transform(target),
            prepare=self.prepare(target), on_epoch=on_epoch, progress=run.progress,
        )  # fmt: skip


@register
class Standard(Plain):
    """SGD on the released files, as if they were clean."""

    name = "standard"
    about = "trains plainly on the released files with random crop and flip"
    source = "the baseline of every paper in the field"
