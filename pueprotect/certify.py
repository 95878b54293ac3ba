"""Certified (q, eta)-Learnability by quantile parametric smoothing.

Source: "Provably Unlearnable (Data) Examples", Wang et al., NDSS 2025. The mathematics is in `bounds`, the draws in
`weights`.

The guarantee: with confidence 1 - alpha, for any weights within L2 distance eta of the surrogate's, at least a
share q of the classifiers drawn around them (Gaussian, sigma) have at most the certified accuracy on the given
clean images. It is a quantile over random draws, not a maximum over attackers; it speaks of weights near the
surrogate and of these clean images. BatchNorm's running statistics are not weights: they are re-estimated for every
draw from one fixed batch of protected training images, and lie neither in the noise nor in the ball.

A bound is only as honest as its surrogate. Several recipes for training it stand ready, and the largest bound counts.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch

from pueprotect import bounds
from pueprotect.errors import InputError
from pueprotect.evidence import Evidence
from pueprotect.models import Classifier, build
from pueprotect.runtime import SILENT, Progress, child_seed
from pueprotect.training import ImageSet, Recipe, accuracy, train
from pueprotect.vault import SCHEMA_VERSION
from pueprotect.weights import DrawEngine

CALIBRATION_IMAGES = 128
CHUNK = 25

RECIPES = {
    "online": "the network left by the optimisation of the noise (the paper's)",
    "plain": "trained from scratch on the released files",
    "weight-noise": "trained from scratch on the released files under the certificate's weight noise",
    "pst": "trained on the released files by progressive staged training",
}
WORST = ("online", "plain", "weight-noise")

FLAGS = {
    "informative-baseline-missing": "A small bound may only mean that sigma destroys any network; add --baseline.",
    "weak-baseline": "The clean baseline itself is near chance, so the bound proves little; lower --sigma.",
    "small-holdout": "Fewer than 500 clean images or 20 per class: the bound is coarse; give more with --test.",
    "online-unknown": "pueprotect did not make this release, so the surrogate of its optimisation is unknown.",
}

Trainer = Callable[[str, str, ImageSet, Progress], Classifier]


@dataclass(frozen=True, kw_only=True)
class Settings:
    """What is certified.

    Attributes:
        q: share of classifiers that the bound covers, in (0, 1).
        sigma: standard deviation of the weight noise.
        etas: radii, ascending.
        draws: classifiers drawn around each surrogate.
        alpha: failure probability in (0, 0.5).
        joint: all radii hold together at alpha (alpha is divided by their number), instead of each alone.
        seed: draws are functions of (seed, index).
    """

    q: float = 0.9
    sigma: float = 0.05
    etas: tuple[float, ...] = (0.0, 0.01, 0.02, 0.03, 0.04, 0.05, 0.06)
    draws: int = 1000
    alpha: float = 0.01
    joint: bool = False
    seed: int = 0

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
    """The bound at one radius; `certified_learnability` is None where it abstains."""

    eta: float
    q_shifted: float
    rank: int | None
    certified_learnability: float | None
    draws_needed: int | None


@dataclass(frozen=True)
class Certificate:
    """The bounds of one surrogate.

    Attributes:
        recipe: how the surrogate was trained.
        surrogate_clean_accuracy: its own accuracy on the clean images, in [0, 1], without weight noise.
        noisy_mean, noisy_median, noisy_max: over the draws, in [0, 1].
        curve: one point for each radius.
        counts: (draws,) right answers of each draw.
        seconds: wall time of the draws.
    """

    recipe: str
    surrogate_clean_accuracy: float
    noisy_mean: float
    noisy_median: float
    noisy_max: float
    curve: tuple[Point, ...]
    counts: tuple[int, ...]
    seconds: float

    def size(self) -> tuple[float, ...]:
        """An order among certificates: the bounds from the smallest radius on, then the median; larger is worse."""
        bound = tuple(1.0 if p.certified_learnability is None else p.certified_learnability for p in self.curve)
        return (*bound, self.noisy_median)


def plan(settings: Settings) -> tuple[Point, ...]:
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


def curve(counts: np.ndarray, images: int, settings: Settings) -> tuple[Point, ...]:
    """Bounds from sampled accuracies.

    Args:
        counts: (draws,) right answers of each draw, in any order.
        images: number of clean images behind each count.
        settings: `draws` must equal the number of counts.
    """
    ordered = np.sort(counts)
    return tuple(
        point
        if point.rank is None
        else Point(point.eta, point.q_shifted, point.rank, int(ordered[point.rank - 1]) / images, point.draws_needed)
        for point in plan(settings)
    )


def sample_counts(engine: DrawEngine, first: int, last: int, progress: Progress = SILENT) -> list[int]:
    """Right answers of draws first .. last - 1; synchronises with the device once for each chunk."""
    counts: list[int] = []
    for start in range(first, last, CHUNK):
        chunk = [engine.correct(index) for index in range(start, min(last, start + CHUNK))]
        counts += torch.stack(chunk).tolist()
        progress.advance(len(chunk))
    return counts


def calibration_images(data: ImageSet, seed: int) -> torch.Tensor:
    """The fixed batch from which BatchNorm statistics are re-estimated: (M, 3, H, W) uint8."""
    order = torch.randperm(len(data), generator=torch.Generator().manual_seed(child_seed(seed, "calibration")))
    return data.images[order[:CALIBRATION_IMAGES].to(data.images.device)]


def certify(
    model: Classifier,
    recipe: str,
    test: ImageSet,
    calibration: torch.Tensor,
    settings: Settings,
    *,
    progress: Progress = SILENT,
) -> Certificate:
    """Certify one surrogate on clean images; the model is not changed.

    Args:
        model: the surrogate.
        recipe: its name in the result.
        test: clean labelled images that no training saw.
        calibration: (M, 3, H, W) uint8 protected training images.
        settings: see `Settings`.
        progress: one part for each draw.
    """
    began = time.perf_counter()
    engine = DrawEngine(
        model, test.images, test.labels, calibration, sigma=settings.sigma, seed=child_seed(settings.seed, "certify")
    )
    counts = np.array(sample_counts(engine, 0, settings.draws, progress))
    return Certificate(
        recipe=recipe,
        surrogate_clean_accuracy=accuracy(model, test),
        noisy_mean=float(counts.mean()) / len(test),
        noisy_median=float(np.median(counts)) / len(test),
        noisy_max=int(counts.max()) / len(test),
        curve=curve(counts, len(test), settings),
        counts=tuple(int(count) for count in counts),
        seconds=time.perf_counter() - began,
    )


def train_surrogate(
    recipe: str, arch: str, data: ImageSet, sigma: float, training: Recipe, *, seed: int, progress: Progress = SILENT
) -> Classifier:
    """Train a surrogate from scratch by a recipe of `RECIPES`.

    `online` cannot be repeated without the optimisation; asked for it, as a baseline on clean images is, this
    trains as the optimisation does: plainly first, then under the weight noise.

    Args:
        recipe: a key of `RECIPES`.
        arch: the surrogate's architecture.
        data: released or clean training images.
        sigma: the certificate's weight noise.
        training: schedule.
        seed: everything random is a function of it.
        progress: one part for each step.
    """
    model = build(arch, data.classes, data.size, seed=seed, purpose=f"surrogate-{recipe}", device=data.device)
    noise = {
        "plain": None,
        "online": lambda done: sigma if done > 0.3 else 0.0,
        "weight-noise": lambda _: sigma,
    }[recipe]
    return train(model, data, training, seed=child_seed(seed, recipe), deviations=noise, progress=progress)


@dataclass(frozen=True)
class CertificateReport:
    """Certificates of all recipes; `worst` has the largest bound."""

    settings: Settings
    holdout_images: int
    classes: int
    chance: float
    certificates: tuple[Certificate, ...]
    baseline: Certificate | None
    flags: tuple[str, ...]
    seconds: float
    data_digest: str

    @property
    def worst(self) -> Certificate:
        """The certificate whose bound is the result."""
        return max(self.certificates, key=Certificate.size)

    def as_json(self) -> dict[str, Any]:
        """The object of the contract."""
        settings = self.settings
        return {
            "schema_version": SCHEMA_VERSION,
            "q": settings.q,
            "sigma": settings.sigma,
            "draws": settings.draws,
            "alpha": settings.alpha,
            "joint": settings.joint,
            "seed": settings.seed,
            "holdout_images": self.holdout_images,
            "classes": self.classes,
            "chance": self.chance,
            **certificate_json(self.worst),
            "max_eta": settings.max_eta,
            "recipes": {found.recipe: certificate_json(found) for found in self.certificates},
            "baseline": certificate_json(self.baseline) if self.baseline else None,
            "batch_norm": f"re-estimated for every draw from {CALIBRATION_IMAGES} protected training images",
            "flags": list(self.flags),
            "seconds": round(self.seconds, 2),
            "data_digest": self.data_digest,
        }


def certificate_json(found: Certificate) -> dict[str, Any]:
    """One recipe's figures as in the contract."""
    return {
        "recipe": found.recipe,
        "surrogate_clean_accuracy": found.surrogate_clean_accuracy,
        "noisy_accuracy": {"mean": found.noisy_mean, "median": found.noisy_median, "max": found.noisy_max},
        "curve": [asdict(point) for point in found.curve],
    }


def choose_recipes(wanted: str, own: bool) -> tuple[str, ...]:
    """The recipes behind a value of --surrogate-recipe.

    Raises:
        InputError: unknown, or `online` for a folder that pueprotect did not make.
    """
    if wanted == "worst":
        return WORST if own else tuple(name for name in WORST if name != "online")
    if wanted not in RECIPES:
        raise InputError(f"--surrogate-recipe {wanted!r} is not one of worst, {', '.join(RECIPES)}.")
    if wanted == "online" and not own:
        raise InputError("--surrogate-recipe online needs pueprotect's own release; use worst, plain or weight-noise.")
    return (wanted,)


def certify_release(
    evidence: Evidence,
    settings: Settings,
    recipes: tuple[str, ...],
    train_from_scratch: Trainer,
    *,
    training: dict[str, Any],
    baseline: bool = False,
    resume: bool = False,
    progress: Progress = SILENT,
) -> CertificateReport:
    """Train a surrogate by each recipe on the released bytes, certify each, and report the largest bound.

    Args:
        evidence: an opened release.
        settings: see `Settings`.
        recipes: from `choose_recipes`.
        train_from_scratch: (recipe, arch, data, progress) -> surrogate.
        training: what `train_from_scratch` depends on, so that `resume` takes nothing trained otherwise.
        baseline: certify the same recipe on the clean originals too.
        resume: take finished recipes from the vault.
        progress: told of each training and of the draws.

    Raises:
        InputError: a baseline is asked for and the originals are unknown.
    """
    if baseline and not evidence.own:
        raise InputError("--baseline needs the originals, known only for pueprotect's own releases; leave it out.")
    began = time.perf_counter()
    calibration = calibration_images(evidence.released, settings.seed)

    def certificate(recipe: str, clean: bool) -> Certificate:
        name = f"certify/{recipe}{'-baseline' if clean else ''}.json"
        key = asdict(settings) | training | {
            "etas": list(settings.etas), "device": evidence.device, "arch": evidence.default_arch
        }  # fmt: skip
        found = evidence.remembered(name, key) if resume else None
        if found is not None:
            points = tuple(Point(**point) for point in found["curve"])
            return Certificate(**(found | {"curve": points, "counts": tuple(found["counts"])}))
        data = evidence.originals if clean else evidence.released
        assert data is not None
        online = evidence.online_surrogate() if recipe == "online" and not clean else None
        model = online or train_from_scratch(recipe, evidence.default_arch, data, progress)
        progress.start(f"draw around the {'clean baseline' if clean else recipe + ' surrogate'}", settings.draws)
        images = calibration_images(data, settings.seed) if clean else calibration
        result = certify(model, recipe, evidence.test, images, settings, progress=progress)
        progress.finish(f"median {result.noisy_median:.1%}")
        evidence.remember(name, key, asdict(result))
        return result

    certificates = tuple(certificate(recipe, clean=False) for recipe in recipes)
    worst = max(certificates, key=Certificate.size)
    beside = certificate(worst.recipe, clean=True) if baseline else None
    return CertificateReport(
        settings=settings,
        holdout_images=evidence.holdout_images,
        classes=len(evidence.classes),
        chance=evidence.chance,
        certificates=certificates,
        baseline=beside,
        flags=_flags(evidence, beside),
        seconds=time.perf_counter() - began,
        data_digest=evidence.digest,
    )


def _flags(evidence: Evidence, baseline: Certificate | None) -> tuple[str, ...]:
    flags = []
    if baseline is None:
        flags.append("informative-baseline-missing")
    elif baseline.noisy_median < evidence.chance + 0.2 * (1 - evidence.chance):
        flags.append("weak-baseline")
    if evidence.few_test_images:
        flags.append("small-holdout")
    if not evidence.own:
        flags.append("online-unknown")
    return tuple(flags)
