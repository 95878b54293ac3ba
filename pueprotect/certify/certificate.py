"""Certified (q, eta)-Learnability by quantile parametric smoothing.

Source: "Provably Unlearnable (Data) Examples", Wang et al., NDSS 2025. The mathematics is in `bounds`, the draws in
`weights`.

The guarantee: with confidence 1 - alpha, for any weights within L2 distance eta of the surrogate's, at least a
share q of the classifiers drawn around them (Gaussian, sigma) have at most the certified accuracy on the given
clean images (`Point.population`: on the distribution behind them). It is a quantile over random draws, not a
maximum over attackers, and speaks of weights near the surrogate. BatchNorm's running statistics are not weights:
they are re-estimated for every draw from one fixed batch of protected training images, and lie neither in the noise
nor in the ball.

Whose weights are certified is decided in `surrogates` and `certification`.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
import torch

from pueprotect.certify import bounds
from pueprotect.certify.draws import DrawLog, calibration_images, draw
from pueprotect.learning.data import ImageSet
from pueprotect.learning.distributed import ALONE, Group
from pueprotect.learning.draw_engine import DrawEngine
from pueprotect.learning.models import Classifier
from pueprotect.learning.training import accuracy
from pueprotect.runtime import SILENT, Progress, child_seed

FIT_IMAGES = 2000

Precision = Literal["fp32", "bf16"]


@dataclass(frozen=True, kw_only=True)
class CertificateSettings:
    """What is certified.

    Attributes:
        q: share of classifiers that the bound covers, in (0, 1).
        sigma: standard deviation of the weight noise.
        etas: radii, ascending.
        draws: classifiers drawn around each surrogate.
        alpha: failure probability in (0, 0.5).
        joint: all radii hold together at alpha (alpha is divided by their number), instead of each alone.
        seed: draws are functions of (seed, index).
        precision: of the forward passes; with bf16 the certified classifier is the one rounded to bfloat16.
    """

    q: float = 0.9
    sigma: float = 0.05
    etas: tuple[float, ...] = (0.0, 0.01, 0.02, 0.03, 0.04, 0.05, 0.06)
    draws: int = 1000
    alpha: float = 0.01
    joint: bool = False
    seed: int = 0
    precision: Precision = "fp32"

    def __post_init__(self) -> None:
        for eta in self.etas or (0.0,):
            bounds.check(q=self.q, sigma=self.sigma, alpha=self.alpha, draws=self.draws, eta=eta)

    @property
    def alpha_each(self) -> float:
        """Failure probability of each radius alone."""
        return self.alpha / max(1, len(self.etas)) if self.joint else self.alpha

    @property
    def max_eta(self) -> float | None:
        """The largest radius that these draws can certify; None when there is none."""
        return bounds.largest_eta(self.q, self.sigma, self.draws, self.alpha_each)


@dataclass(frozen=True)
class Point:
    """The bound at one radius.

    Attributes:
        eta: L2 radius of the weight ball.
        q_shifted: the quantile that the draws must bound, in (0, 1].
        rank: of the order statistic, 1-based; None abstains.
        certified_learnability: accuracy on the given test images, in [0, 1]; None where it abstains.
        draws_needed: the smallest number of draws that does not abstain.
        population: the same for the distribution of the test images (`bounds.population_plan`); None where it abstains.
    """

    eta: float
    q_shifted: float
    rank: int | None
    certified_learnability: float | None
    draws_needed: int | None
    population: float | None = None


@dataclass(frozen=True)
class Certificate:
    """The bounds of one surrogate.

    Attributes:
        recipe: how the surrogate was trained.
        surrogate_clean_accuracy: its own accuracy on the clean images, in [0, 1], without weight noise.
        surrogate_fit: its accuracy on (a sample of) what it was trained on.
        draws: how many classifiers were drawn.
        images: clean images that each was counted on.
        noisy_mean, noisy_median, noisy_max: over the draws, in [0, 1].
        unanswered: answers lost to logits that were not finite, over all draws.
        curve: one point for each radius.
        counts: (draws,) right answers of each draw.
        seconds: wall time of the draws.
    """

    recipe: str
    surrogate_clean_accuracy: float
    surrogate_fit: float
    draws: int
    images: int
    noisy_mean: float
    noisy_median: float
    noisy_max: float
    unanswered: int
    curve: tuple[Point, ...]
    counts: tuple[int, ...]
    seconds: float


def plan(settings: CertificateSettings) -> tuple[Point, ...]:
    """The curve without its figures: ranks and needed draws, known before any work."""
    points = []
    for eta in settings.etas:
        tail = bounds.shifted_tail(settings.q, eta, settings.sigma)
        points.append(
            Point(
                eta=eta,
                q_shifted=bounds.shifted_quantile(settings.q, eta, settings.sigma),
                rank=bounds.order_statistic_rank(settings.draws, tail, settings.alpha_each),
                certified_learnability=None,
                draws_needed=bounds.draws_needed(tail, settings.alpha_each),
            )
        )
    return tuple(points)


def curve(counts: Sequence[int], images: int, settings: CertificateSettings, candidates: int = 1) -> tuple[Point, ...]:
    """Bounds from sampled accuracies.

    Args:
        counts: (draws,) right answers of each draw, in any order.
        images: number of clean images behind each count.
        settings: `draws` must equal the number of counts.
        candidates: surrogates among which this one was chosen by looking at the same images.
    """
    ordered = sorted(counts)
    points = []
    for point in plan(settings):
        tail = bounds.shifted_tail(settings.q, point.eta, settings.sigma)
        wider_tail, level, limit = bounds.population_plan(tail, settings.alpha_each, candidates)
        rank = bounds.order_statistic_rank(settings.draws, wider_tail, level)
        points.append(
            replace(
                point,
                certified_learnability=ordered[point.rank - 1] / images if point.rank else None,
                population=bounds.upper_limit(ordered[rank - 1], images, limit) if rank else None,
            )
        )
    return tuple(points)


def draw_engine(
    model: Classifier, data: ImageSet, test: ImageSet, settings: CertificateSettings, purpose: str = "certify"
) -> DrawEngine:
    """Draws around a surrogate that was trained on `data`, evaluated on clean `test` images.

    Draws of different purposes are independent of each other.
    """
    return DrawEngine(
        model, test.images, test.labels, calibration_images(data, settings.seed), sigma=settings.sigma,
        seed=child_seed(settings.seed, purpose), bf16=settings.precision == "bf16",
    )  # fmt: skip


def certify(
    model: Classifier,
    recipe: str,
    data: ImageSet,
    test: ImageSet,
    settings: CertificateSettings,
    *,
    candidates: int = 1,
    purpose: str = "certify",
    log: DrawLog | None = None,
    group: Group = ALONE,
    progress: Progress = SILENT,
) -> Certificate:
    """Certify one surrogate on clean images; the model is not changed.

    Args:
        model: the surrogate.
        recipe: its name in the result.
        data: what it was trained on; BatchNorm statistics are re-estimated on some of it.
        test: clean labelled images that no training saw.
        settings: see `CertificateSettings`.
        candidates: surrogates among which this one was chosen by looking at `test`.
        purpose: draws of different purposes are independent of each other.
        log: finished draws, and where new ones go; None starts from nothing.
        group: processes that share the draws.
        progress: one part for each draw.
    """
    began = time.perf_counter()
    log = log or DrawLog(None, {})
    draw(draw_engine(model, data, test, settings, purpose), log, settings.draws, group=group, progress=progress)
    answers = log.first(settings.draws)
    counts = tuple(correct for correct, _ in answers)
    return Certificate(
        recipe=recipe,
        surrogate_clean_accuracy=accuracy(model, test),
        surrogate_fit=accuracy(model, data.subset(torch.arange(min(FIT_IMAGES, len(data)), device=data.device))),
        draws=settings.draws,
        images=len(test),
        noisy_mean=float(np.mean(counts)) / len(test),
        noisy_median=float(np.median(counts)) / len(test),
        noisy_max=max(counts) / len(test),
        unanswered=sum(lost for _, lost in answers),
        curve=curve(counts, len(test), settings, candidates),
        counts=counts,
        seconds=time.perf_counter() - began,
    )
