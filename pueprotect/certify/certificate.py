"""Certifies the (q, eta)-Learnability of one surrogate by quantile parametric smoothing.

Source: "Provably Unlearnable Data Examples", Wang et al., NDSS 2025. The mathematics is in `bounds`, the draws are in
`draws`; `surrogates` and `pipeline` decide whose weights are certified.

The guarantee: with confidence 1 - alpha, for any weights within L2 distance eta of the surrogate's, at least a share q
of the classifiers drawn around them (Gaussian, sigma) have at most the certified accuracy on the given clean images
(`population`: on their distribution). It is a quantile over random draws, not a maximum over attackers, and holds only
for weights near the surrogate. BatchNorm's running statistics are not weights: they are re-estimated for every draw
from one fixed batch of protected training images, and are part of neither the noise nor the ball.

A relative sigma gives every weight tensor noise in proportion to its size: sigma times the root mean square of its
weights in the surrogate. The ball is then the set of weights whose L2 distance from the surrogate, with every weight
divided by that root mean square, is at most eta. Certificates say which of the two they are (`relative`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from pueprotect.certify import bounds
from pueprotect.certify.draws import DrawLog, calibration_images, draw
from pueprotect.certify.reach import lengths
from pueprotect.learning.data import ImageSet
from pueprotect.learning.device import HERE, Machine, native_bf16
from pueprotect.learning.draw_engine import DrawEngine, deviations
from pueprotect.learning.models import Classifier
from pueprotect.learning.training import accuracy
from pueprotect.learning.weights import trainable
from pueprotect.release.certificates import Histogram, NoisyAccuracy, Point, RecipeFigures
from pueprotect.runtime import child_seed

FIT_IMAGES = 2000
HISTOGRAM_BINS = 25

Precision = Literal["fp32", "bf16"]
USUAL_RADII = (0.2, 0.4, 0.6, 0.8, 1.0, 1.2)  # in units of sigma


def usual_radii(sigma: float) -> tuple[float, ...]:
    """The radii that are certified by default."""
    return tuple(round(sigma * ratio, 12) for ratio in USUAL_RADII)


def precision_on(device: str) -> Precision:
    """The precision of `auto`: bfloat16 where the hardware multiplies it."""
    return "bf16" if native_bf16(device) else "fp32"


@dataclass(frozen=True, kw_only=True)
class CertificateSettings:
    """What is certified; values out of range raise InputError.

    Attributes:
        q: share of classifiers that the bound covers, in (0, 1).
        sigma: standard deviation of the weight noise.
        relative: whether sigma and the radii are in root mean squares of each weight tensor, or absolute.
        etas: radii, ascending.
        draws: classifiers drawn around each surrogate.
        alpha: failure probability in (0, 0.5), of all certifications of one release together.
        look: the number of this certification of the release, from 1 (`looks`); 0 for one that stands alone.
        joint: all radii hold together at alpha (each gets alpha divided by their number), instead of each alone.
        seed: draws are functions of (seed, index).
        precision: of the forward passes; with bf16 the certified classifier is the one rounded to bfloat16.
    """

    q: float = 0.9
    sigma: float = 0.05
    relative: bool = False
    etas: tuple[float, ...] = (0.0, 0.01, 0.02, 0.03, 0.04, 0.05, 0.06)
    draws: int = 1000
    alpha: float = 0.01
    look: int = 0
    joint: bool = False
    seed: int = 0
    precision: Precision = "fp32"

    def __post_init__(self) -> None:
        for eta in self.etas or (0.0,):
            bounds.check(q=self.q, sigma=self.sigma, alpha=self.alpha, draws=self.draws, eta=eta)

    @property
    def alpha_each(self) -> float:
        """Failure probability of each radius alone, in this look."""
        alpha = bounds.spent(self.alpha, self.look)
        return alpha / max(1, len(self.etas)) if self.joint else alpha

    @property
    def next_look(self) -> CertificateSettings:
        """The same settings for the look after this one."""
        return replace(self, look=self.look + 1) if self.look else self

    @property
    def max_eta(self) -> float | None:
        """The largest radius that these draws can certify; None when there is none."""
        return bounds.largest_eta(self.q, self.sigma, self.draws, self.alpha_each)


def plan(settings: CertificateSettings) -> list[Point]:
    """The curve before any draw: the rank and the needed draws of each radius."""
    q, sigma, alpha = settings.q, settings.sigma, settings.alpha_each
    tails = [(eta, bounds.shifted_tail(q, eta, sigma)) for eta in settings.etas]
    return [
        Point(
            eta=eta, q_shifted=bounds.shifted_quantile(q, eta, sigma),
            rank=bounds.order_statistic_rank(settings.draws, tail, alpha), certified_learnability=None,
            draws_needed=bounds.draws_needed(tail, alpha),
        )
        for eta, tail in tails
    ]  # fmt: skip


def curve(counts: Sequence[int], images: int, settings: CertificateSettings, candidates: int = 1) -> list[Point]:
    """Bounds from `counts`, the right answers of each of `settings.draws` draws on so many images, in any order.

    `candidates` is the number of surrogates among which this one was chosen on the same images.
    """
    ordered = sorted(counts)
    points = []
    for point in plan(settings):
        tail = bounds.shifted_tail(settings.q, point.eta, settings.sigma)
        wider_tail, level, limit = bounds.population_plan(tail, settings.alpha_each, candidates)
        rank = bounds.order_statistic_rank(settings.draws, wider_tail, level)
        learnability = ordered[point.rank - 1] / images if point.rank else None
        population = bounds.upper_limit(ordered[rank - 1], images, limit) if rank else None
        found = {"certified_learnability": learnability, "population": population}
        if learnability is None:  # more draws will be another look
            found["draws_needed"] = bounds.draws_needed(tail, settings.next_look.alpha_each)
        points.append(point.model_copy(update=found))
    return points


def draw_engine(
    model: Classifier,
    data: ImageSet,
    test: ImageSet,
    settings: CertificateSettings,
    purpose: str = "certify",
    surrogate: Classifier | None = None,
) -> DrawEngine:
    """Draws around a surrogate trained on `data`, on clean `test` images; those of other purposes are independent.

    Where `model` is another centre in the ball, `surrogate` is the centre of the ball, which decides a relative sigma.
    """
    sigma = deviations(trainable(surrogate or model), settings.sigma, settings.relative)
    return DrawEngine(
        model, test.images, test.labels, calibration_images(data, settings.seed), sigma=sigma,
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
    machine: Machine = HERE,
) -> RecipeFigures:
    """Certify one surrogate on clean images; the model is not changed.

    `recipe` is its name in the result, `data` its training images, on some of which BatchNorm statistics are
    re-estimated, and `test` are clean labelled images that no training used. `candidates` is the number of surrogates
    among which this one was chosen on `test`. Draws for different purposes are independent of each other. `log` has the
    finished draws and gets the new ones; None starts from nothing. The processes of `machine` share the draws, and its
    progress gets one part for each.
    """
    log = log or DrawLog(None, {})
    draw(draw_engine(model, data, test, settings, purpose), log, settings.draws, machine)
    answers = log.first(settings.draws)
    counts, images = [correct for correct, _ in answers], len(test)
    shares, edges = np.histogram(np.array(counts) / images, bins=HISTOGRAM_BINS, range=(0, 1))
    return RecipeFigures(
        recipe=recipe, draws=settings.draws, surrogate_clean_accuracy=accuracy(model, test),
        surrogate_fit=accuracy(model, data.drawn(FIT_IMAGES, settings.seed, "fit")),
        noisy_accuracy=NoisyAccuracy(
            mean=float(np.mean(counts)) / images, median=float(np.median(counts)) / images, max=max(counts) / images,
            quantile=float(np.quantile(counts, settings.q)) / images,
            histogram=Histogram(edges=[round(float(edge), 6) for edge in edges], draws=shares.tolist()),
        ),
        unanswered=sum(lost for _, lost in answers), curve=curve(counts, images, settings, candidates),
        **lengths(model, settings.sigma, settings.relative),
    )  # fmt: skip
