"""Activation cluster measurement (ACM), and the alarm that rises while a network locks on to noise.

*ACM* of a stage: trace of the between-class over the within-class scatter of its globally pooled activations (tokens
of a transformer are averaged) on up to 50 training images of each class, the bias of the class means removed.

Two views of the same images tell noise from pictures; each gives one quotient of ACMs, the largest over the stages
after the stem, 0.1 added to both:

- *fine*: raw images over 3x3-blurred ones. On clean data the blur changes little; noise finer than the blur lifts the
  quotient before raw ACM itself looks unusual. Smooth noise evades it.
- *pattern*: the fine part of each class's mean image, which holds class-wise noise of any shape down to blocks
  with edges, is exchanged between classes. Activations are then clustered by where the pattern came from, over by what
  the picture shows. Below 1 the picture counts for more. Noise that differs from image to image evades it,
  and so does noise as smooth as natural class means.

Neither needs a threshold for each data set. The pattern quotient of resnet8 while it trained plainly, one seed each,
from a trial script (5,000 CIFAR-10 images unless said): clean 0.26-0.33 over 320 steps, clean 1,000 images 0.20-0.25
over 320 steps, class-wise EMN 0.29-0.36 up to step 60, then 1.7 at step 80 and 77 at step 120. Blocks of 8 pixels and
6 levels (LSP) left it at 0.25-0.31 for 180 steps, in which plain training had not fallen for them either.
"""

from __future__ import annotations

import statistics
from collections import deque
from dataclasses import dataclass, field

import torch
from torch import Tensor
from torch.nn import functional

from pueprotect.audit.attacks.linear import fine_patterns
from pueprotect.learning.augment import blur3
from pueprotect.learning.data import ImageSet, to_float
from pueprotect.learning.models import Classifier
from pueprotect.learning.weights import batch_statistics
from pueprotect.runtime import generator

CEILING = 1.5
RISE = 1.25
HISTORY = 20
PROBES_PER_CLASS, PROBES = 50, 1000
PATTERN_PROBES = 25
PATTERN_IMAGES = 50  # of each class; the mean of fewer shows those images


def acm(features: Tensor, labels: Tensor, classes: int) -> Tensor:
    """Activation cluster measurement: between-class over within-class scatter, as a scalar tensor >= 0.

    Args:
        features: (N, D) float pooled activations.
        labels: (N,) int64.
        classes: number of classes; each must have at least two images.
    """
    features = features.double()
    members = functional.one_hot(labels, classes).double()
    counts = members.sum(0).clamp_min(1)
    means = (members.T @ features) / counts[:, None]
    within = ((features - means[labels]) ** 2).sum() / (counts - 1).sum()
    between = ((means - means.mean(0)) ** 2).sum() / (classes - 1)
    # Class means of n images scatter by within / n even where the classes are equal.
    return ((between - within * (1 / counts).mean()) / within.clamp_min(1e-12)).clamp_min(0)


def fine_class_patterns(data: ImageSet) -> Tensor:
    """What each class's mean image has beyond the common mean and beyond a mean of half the side around each pixel.

    Natural class means are smooth, so little is left of them; class-wise noise stays nearly whole.

    Returns:
        (classes, 3, H, W) float, in levels of 0..255.
    """
    return fine_patterns(data, 2 * max(1, data.size // 4 - 1) + 1)


def enough_for_patterns(data: ImageSet) -> bool:
    """Whether every class has so many images that their mean shows what they share."""
    return int(torch.bincount(data.labels, minlength=data.classes).min()) >= PATTERN_IMAGES


def trap_quotient(above: list[float], below: list[float]) -> float:
    """The largest ratio of two ACMs over the stages after the stem."""
    return max((a + 0.1) / (b + 0.1) for a, b in zip(above[1:], below[1:], strict=True))


@dataclass(frozen=True)
class Reading:
    """ACM of every stage, shallow to deep, in all views.

    Attributes:
        raw: training images as they are.
        blurred: the same behind a 3x3 mean.
        donor: images with exchanged class patterns, grouped by the class that the pattern came from; empty when the
            pattern view was not asked for or the classes are too small for it.
        picture: the same activations, grouped by the class of the picture.
    """

    raw: list[float]
    blurred: list[float]
    donor: list[float]
    picture: list[float]

    @property
    def fine(self) -> float:
        """How much more the classes cluster with what a blur takes away."""
        return trap_quotient(self.raw, self.blurred)

    @property
    def pattern(self) -> float | None:
        """How much more the donors cluster than the pictures; None where not measured."""
        return trap_quotient(self.donor, self.picture) if self.donor else None


class Probe:
    """Measures ACM of every stage in all views.

    Args:
        model: the network in training; measuring leaves it as it is.
        data: what it is trained on.
        seed: chooses the probe images.
    """

    def __init__(self, model: Classifier, data: ImageSet, seed: int) -> None:
        order = torch.randperm(len(data), generator=generator(seed, "pst-probe")).to(data.images.device)
        each = max(2, min(PROBES_PER_CLASS, PROBES // data.classes))
        members = [order[data.labels[order] == label] for label in range(data.classes)]
        chosen = torch.cat([found[:each] for found in members])
        self.model, self.labels, self.classes = model, data.labels[chosen], data.classes
        raw = to_float(data.images[chosen])
        self.views = (raw, blur3(raw))
        self.exchanged: Tensor | None = None
        if enough_for_patterns(data):
            few = torch.cat([found[: max(2, min(PATTERN_PROBES, each))] for found in members])
            self.exchange(data.subset(few), fine_class_patterns(data))
        self.features: list[Tensor] = []

    def exchange(self, data: ImageSet, patterns: Tensor) -> None:
        """Give each picture a class's pattern, whatever it shows: every class equally often, its own too."""
        rank = torch.cat([torch.arange(int(count)) for count in torch.bincount(data.labels)]).to(data.labels.device)
        self.pictures = data.labels
        self.donors = (data.labels + rank) % data.classes
        swapped = data.images.float() - patterns[self.pictures] + patterns[self.donors]
        self.exchanged = swapped.clamp_(0, 255).div_(255).contiguous(memory_format=torch.channels_last)

    def _record(self, _module: object, _inputs: object, output: Tensor) -> None:
        pooled = output.mean((2, 3)) if output.dim() == 4 else output.mean(1)
        self.features.append(pooled.detach())

    @torch.no_grad()
    def measure(self, *, pattern: bool = True) -> Reading:
        """One reading; without `pattern` that view is left out."""
        handles = [stage.register_forward_hook(self._record) for stage in self.model.stage_modules()]
        readings = []
        with batch_statistics(self.model):
            for view in self.views:
                readings.append(self._grouped(view, self.labels)[0])
            if pattern and self.exchanged is not None:
                readings += self._grouped(self.exchanged, self.donors, self.pictures)
        for handle in handles:
            handle.remove()
        measured: list[list[float]] = torch.stack(readings).tolist()
        return Reading(*measured, *[[]] * (4 - len(measured)))

    def _grouped(self, view: Tensor, *groupings: Tensor) -> list[Tensor]:
        """ACM of every stage for each way to group the images of a view."""
        self.features.clear()
        self.model(view)
        return [torch.stack([acm(pooled, labels, self.classes) for pooled in self.features]) for labels in groupings]


@dataclass
class Alarm:
    """Decides from the history of q whether the trap is closing; needs no threshold for each data set."""

    healthy: deque[float] = field(default_factory=lambda: deque(maxlen=HISTORY))
    warned: bool = False

    def update(self, q: float) -> bool:
        """Take one reading; true when training should step in."""
        limit = min(CEILING, RISE * statistics.median(self.healthy)) if len(self.healthy) >= 3 else CEILING
        suspicious = q > limit
        alarm = q > CEILING or (suspicious and self.warned)
        if not suspicious:
            self.healthy.append(q)
        self.warned = suspicious and not alarm
        return alarm

    @property
    def calm(self) -> bool:
        """Whether the last reading was healthy."""
        return not self.warned
