"""Measures how strongly a network's activations cluster by class, and raises an alarm when noise is the cause.

The *activation cluster measurement* (ACM) of a stage is the trace of the between-class scatter over that of the
within-class scatter. It is taken of globally pooled activations (for a transformer, of the average token) on up to 50
training images of each class, without the bias that the class means have from so few images.

Two views of the same images tell noise from pictures. Each gives the largest ratio of two ACMs over the stages after
the stem, with 0.1 added to both:

- *fine*: raw images over images behind a 3x3 mean. The mean hardly changes clean images, and removes fine noise.
  With fine noise the ratio rises before raw ACM itself looks unusual; smooth noise escapes this view.
- *pattern*: the fine part of each class's average image is exchanged between classes. The ratio is how activations
  cluster by where that part came from, over how they cluster by what the picture shows. Below 1 the picture counts
  for more. Noise that differs between images, or is as smooth as natural averages, escapes this view.

Neither view needs a threshold for each data set. examples/results/trials.md has measured ratios.
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
from pueprotect.learning.device import at_once
from pueprotect.learning.models import Classifier
from pueprotect.learning.training import autocast
from pueprotect.learning.weights import batch_statistics
from pueprotect.release.audits import PST_ALARM
from pueprotect.runtime import generator

RISE = 1.25
HISTORY = 20
PROBES_PER_CLASS, PROBES = 50, 1000  # above 64 x 64 pixels fewer, as they pass at once
PATTERN_PROBES = 25
PATTERN_IMAGES = 50  # of each class; the average of fewer images shows the images themselves


def acm(features: Tensor, labels: Tensor, classes: int) -> Tensor:
    """The activation cluster measurement, a scalar float64 tensor >= 0.

    `features` are (N, D) float pooled activations, `labels` (N,) int64; each class must have at least two images.
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
    """The part of each class's average image that is finer than half the picture: (classes, 3, H, W) float levels."""
    return fine_patterns(data, 2 * max(1, data.size // 4 - 1) + 1)


def enough_for_patterns(data: ImageSet) -> bool:
    """Whether every class has enough images for an average that shows only what they share."""
    return int(torch.bincount(data.labels, minlength=data.classes).min()) >= PATTERN_IMAGES


def trap_quotient(above: list[float], below: list[float]) -> float:
    """The largest ratio of two ACMs over the stages after the stem."""
    return max((a + 0.1) / (b + 0.1) for a, b in zip(above[1:], below[1:], strict=True))


@dataclass(frozen=True)
class Reading:
    """ACM of every stage in all views, from shallow to deep.

    Attributes:
        raw: of training images as they are.
        blurred: of the same images behind a 3x3 mean.
        donor: of images with exchanged class patterns, grouped by the class that the pattern came from; empty where
            the pattern view was not measured.
        picture: of the same images, grouped by the class of the picture.
    """

    raw: list[float]
    blurred: list[float]
    donor: list[float]
    picture: list[float]

    @property
    def fine(self) -> float:
        """How much more the classes cluster with the detail that a blur removes."""
        return trap_quotient(self.raw, self.blurred)

    @property
    def pattern(self) -> float | None:
        """How much more activations cluster by pattern than by picture; None where not measured."""
        return trap_quotient(self.donor, self.picture) if self.donor else None


class Probe:
    """Measures the ACM of every stage in all views on images of `data` chosen by `seed`; the model is not changed."""

    def __init__(self, model: Classifier, data: ImageSet, seed: int) -> None:
        order = torch.randperm(len(data), generator=generator(seed, "pst-probe")).to(data.images.device)
        each = max(2, min(PROBES_PER_CLASS, min(PROBES, at_once(4 * PROBES, data.size)) // data.classes))
        members = [order[data.labels[order] == label] for label in range(data.classes)]
        chosen = torch.cat([found[:each] for found in members])
        self.model, self.labels, self.classes = model, data.labels[chosen], data.classes
        raw = to_float(data.images[chosen])
        self.views = (raw, blur3(raw))
        self.exchanged: Tensor | None = None
        if enough_for_patterns(data):
            few = data.subset(torch.cat([found[: max(2, min(PATTERN_PROBES, each))] for found in members]))
            patterns = fine_class_patterns(data)
            # Each picture gets the pattern of one class in turn, its own included, so every class is equally frequent.
            rank = torch.cat([torch.arange(int(count)) for count in torch.bincount(few.labels)]).to(few.labels.device)
            self.pictures, self.donors = few.labels, (few.labels + rank) % few.classes
            swapped = few.images.float() - patterns[self.pictures] + patterns[self.donors]
            self.exchanged = swapped.clamp_(0, 255).div_(255).contiguous(memory_format=torch.channels_last)

    @torch.no_grad()
    def measure(self, *, pattern: bool = True) -> Reading:
        """Take one reading; `pattern=False` leaves the pattern view out."""
        features: list[Tensor] = []

        def record(_module: object, _inputs: object, output: Tensor) -> None:
            features.append(output.float().mean((2, 3) if output.dim() == 4 else 1))

        shown: list[tuple[Tensor, list[Tensor]]] = [(view, [self.labels]) for view in self.views]
        if pattern and self.exchanged is not None:
            shown.append((self.exchanged, [self.donors, self.pictures]))
        handles = [stage.register_forward_hook(record) for stage in self.model.stage_modules()]
        readings = []
        with autocast(self.labels.device), batch_statistics(self.model):
            for view, groupings in shown:
                features.clear()
                self.model(view)
                for labels in groupings:
                    readings.append(torch.stack([acm(pooled, labels, self.classes) for pooled in features]))
        for handle in handles:
            handle.remove()
        measured: list[list[float]] = torch.stack(readings).tolist()
        return Reading(*measured, *[[]] * (4 - len(measured)))


@dataclass
class Alarm:
    """Decides from the history of the ratio q whether training locks on to noise."""

    healthy: deque[float] = field(default_factory=lambda: deque(maxlen=HISTORY))
    warned: bool = False

    def update(self, q: float) -> bool:
        """Add one reading; true when training should react."""
        limit = min(PST_ALARM, RISE * statistics.median(self.healthy)) if len(self.healthy) >= 3 else PST_ALARM
        suspicious = q > limit
        alarm = q > PST_ALARM or (suspicious and self.warned)
        if not suspicious:
            self.healthy.append(q)
        self.warned = suspicious and not alarm
        return alarm

    @property
    def calm(self) -> bool:
        """Whether the last reading was healthy."""
        return not self.warned
