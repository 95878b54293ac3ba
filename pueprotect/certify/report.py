"""The certificate of a release, with what was screened and checked."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from pueprotect.certify import bounds
from pueprotect.certify.certificate import Certificate, CertificateSettings
from pueprotect.certify.draws import CALIBRATION_IMAGES
from pueprotect.certify.stress import Stress
from pueprotect.certify.surrogates import UNFITTED
from pueprotect.release.opened import OpenedRelease
from pueprotect.release.vault import SCHEMA_VERSION

HISTOGRAM_BINS = 25


@dataclass(frozen=True)
class CertificateReport:
    """The certificate of a release.

    Attributes:
        settings: see `CertificateSettings`.
        certificate: of the most learnable surrogate.
        baseline: the same recipe on the clean originals, if asked for.
        screenings: of all recipes, when there were several: a few draws of their own, apart from those that certify.
        stress: the empirical cross-check, if asked for.
    """

    settings: CertificateSettings
    holdout_images: int
    classes: int
    chance: float
    certificate: Certificate
    baseline: Certificate | None
    screenings: tuple[Certificate, ...]
    stress: Stress | None
    flags: tuple[str, ...]
    seconds: float
    data_digest: str

    def as_json(self) -> dict[str, Any]:
        """The object of the contract."""
        settings = self.settings
        found = certificate_json(self.certificate)
        recipes = {one.recipe: certificate_json(one) | {"screened": True} for one in self.screenings}
        return {
            "schema_version": SCHEMA_VERSION,
            "q": settings.q,
            "sigma": settings.sigma,
            "alpha": settings.alpha,
            "alpha_each": settings.alpha_each,
            "joint": settings.joint,
            "seed": settings.seed,
            "precision": settings.precision,
            "holdout_images": self.holdout_images,
            "classes": self.classes,
            "chance": self.chance,
            **found,
            "max_eta": settings.max_eta,
            "recipes": recipes | {found["recipe"]: found | {"screened": False}},
            "baseline": certificate_json(self.baseline) if self.baseline else None,
            "stress": asdict(self.stress) if self.stress else None,
            "batch_norm": f"re-estimated for every draw from {CALIBRATION_IMAGES} protected training images",
            "flags": list(self.flags),
            "seconds": round(self.seconds, 2),
            "data_digest": self.data_digest,
        }


def certificate_json(found: Certificate) -> dict[str, Any]:
    """One surrogate's figures as in the contract."""
    shares, edges = np.histogram(np.array(found.counts) / found.images, bins=HISTOGRAM_BINS, range=(0, 1))
    return {
        "recipe": found.recipe,
        "draws": found.draws,
        "surrogate_clean_accuracy": found.surrogate_clean_accuracy,
        "surrogate_fit": found.surrogate_fit,
        "noisy_accuracy": {
            "mean": found.noisy_mean,
            "median": found.noisy_median,
            "max": found.noisy_max,
            "histogram": {"edges": [round(float(edge), 6) for edge in edges], "draws": shares.tolist()},
        },
        "unanswered": found.unanswered,
        "curve": [asdict(point) for point in found.curve],
    }


def _flags(release: OpenedRelease, found: Certificate, baseline: Certificate | None) -> tuple[str, ...]:
    chance = release.chance
    flags = []
    if baseline is None:
        flags.append("informative-baseline-missing")
    elif baseline.noisy_median < chance + 0.2 * (1 - chance):
        flags.append("weak-baseline")
    if release.few_test_images:
        flags.append("small-holdout")
    if not release.own:
        flags.append("online-unknown")
    if found.recipe not in UNFITTED and found.surrogate_fit < chance + 0.5 * (1 - chance):
        flags.append("surrogate-unfitted")
    smallest = min((p.certified_learnability for p in found.curve if p.certified_learnability is not None), default=1.0)
    if smallest <= bounds.upper_limit(round(chance * found.images), found.images, 0.05):
        flags.append("bound-at-chance")
    if found.unanswered:
        flags.append("unanswered-draws")
    return tuple(flags)
