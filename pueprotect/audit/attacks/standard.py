"""Trains plainly, as an ordinary user of the images would, with random crop and flip; other attacks vary this."""

from __future__ import annotations

from collections.abc import Callable

from torch import nn

from pueprotect.audit.attacks.base import HELD_OUT, NOTHING, Attack, Filter, Run, Target, register
from pueprotect.learning.data import ImageSet
from pueprotect.learning.models import Classifier
from pueprotect.learning.training import Prepare, Transform, train
from pueprotect.release.audits import CLEAN_BEHIND_IT


class Plain(Attack):
    """Plain training from scratch; a subclass gives its name and overrides what differs.

    With `clean_line` it also trains on clean images behind the same filter. A strong enough filter destroys any noise
    and the picture with it, so its figure means little without that comparison.
    """

    clean_line: bool = False

    def images(self, target: Target) -> ImageSet:
        """The training images, before the filter."""
        return target.released

    def transform(self, target: Target) -> Transform | None:
        """Applied to each batch after crop and flip."""
        return None

    def prepare(self, target: Target) -> Prepare | None:
        """Applied to each batch and its labels."""
        return None

    def steps(self, target: Target) -> int:
        """Steps of two trainings with a clean line, else of one."""
        return super().steps(target) * (2 if self.clean_line and target.originals is not None else 1)

    def train(self, run: Run) -> Classifier:
        """Train on the released images, and with `clean_line` also on the clean ones."""
        originals = run.target.originals
        run.trained_on = run.filtered(self.images(run.target))
        model = self.learn(run, run.trained_on, on_epoch=run.epoch)
        if self.clean_line and originals is not None:
            run.observe(CLEAN_BEHIND_IT, self.learn(run, run.filtered(originals)), candidate=False)
        return model

    def learn(self, run: Run, data: ImageSet, on_epoch: Callable[[nn.Module], None] | None = None) -> Classifier:
        """Train a fresh network on these images."""
        target = run.target
        return train(
            target.fresh(), data, self.schedule(target), seed=target.seed, transform=self.transform(target),
            prepare=self.prepare(target), on_epoch=on_epoch, progress=run.progress,
        )  # fmt: skip


class Variation(Plain):
    """A small attack as a row of a table: plain training behind a fixed filter, or with another augmentation.

    All images go through the filter `look`. `transform` makes the transform of each batch, and `prepare` what is
    applied to each batch and its labels. For the other parameters see `Attack` and `Plain`.
    """

    def __init__(
        self,
        name: str,
        about: str,
        source: str,
        *,
        needs: str = NOTHING,
        cost: float = 1.0,
        clean_line: bool = False,
        look: Filter | None = None,
        transform: Callable[[Target], Transform] | None = None,
        prepare: Callable[[Target], Prepare] | None = None,
    ) -> None:
        self.name, self.about, self.source = name, about, source
        self.needs, self.cost, self.clean_line = needs, cost, clean_line
        self._look, self._transform, self._prepare = look, transform, prepare

    def filter(self, target: Target) -> Filter | None:
        """The filter of this row."""
        return self._look

    def transform(self, target: Target) -> Transform | None:
        """The transform of this row."""
        return self._transform(target) if self._transform else None

    def prepare(self, target: Target) -> Prepare | None:
        """The mixture of this row."""
        return self._prepare(target) if self._prepare else None


register(Variation(
    "standard", "trains plainly on the released files with random crop and flip",
    "the baseline of every paper in the field",
))  # fmt: skip

# Noise of the held-out files is often made in another way, and no other attack trains on them.
register(Variation(
    "holdout-files", "trains plainly on the released held-out files and is measured on the training originals",
    "this project: all released files are published, so each of them must be protected", needs=HELD_OUT,
))  # fmt: skip
