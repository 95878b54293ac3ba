"""Finds figures that no run of `certify` or `audit` can have written. No torch.

These checks find damage, and careless edits by hand. Whoever can write to the vault can still invent figures that fit
together: signed statements are the protection against that.
"""

from __future__ import annotations

from itertools import pairwise
from statistics import NormalDist

from pueprotect.release.audits import CLEAN_LINE, AuditRecord
from pueprotect.release.certificates import Certificate, RecipeFigures

NORMAL = NormalDist()
ROUNDING = 1e-6


def certificate_fault(found: Certificate) -> str | None:
    """What in a certificate is impossible, in a few words; None where nothing is."""
    if not (0 < found.q < 1 and 0 < found.alpha < 0.5 and found.sigma > 0):
        return f"q {found.q:g}, alpha {found.alpha:g} or sigma {found.sigma:g} is out of range"
    if found.recipe not in found.recipes:
        return f"recipes lacks {found.recipe}, which is the certified one"
    if found.baseline is not None and found.baseline.recipe != found.recipe:
        return f"the baseline is of recipe {found.baseline.recipe}, the bound of {found.recipe}"
    parts = {"": found, **({"baseline: ": found.baseline} if found.baseline else {})}
    parts |= {f"recipes.{name}: ": figures for name, figures in found.recipes.items()}
    faults = ((where, _curve_fault(figures, found.q, found.sigma)) for where, figures in parts.items())
    return next((where + why for where, why in faults if why), None)


def _curve_fault(figures: RecipeFigures, q: float, sigma: float) -> str | None:
    """What in the bounds around one surrogate is impossible."""
    points = sorted(figures.curve, key=lambda point: point.eta)
    for point in points:
        at = f"at eta {point.eta:g}"
        if abs(point.q_shifted - NORMAL.cdf(NORMAL.inv_cdf(q) + point.eta / sigma)) > ROUNDING:
            return f"{at} q_shifted {point.q_shifted:g} does not follow from q, eta and sigma"
        if (point.rank is None) != (point.certified_learnability is None):
            return f"{at} a bound and its rank must be there together"
        # An order statistic below the expected rank bounds no quantile at any alpha below one half.
        if point.rank is not None and not figures.draws * point.q_shifted - ROUNDING < point.rank <= figures.draws:
            return f"{at} rank {point.rank} of {figures.draws} draws gives no bound"
        if None not in (point.certified_learnability, point.population) and (
            (point.population or 0) < (point.certified_learnability or 0)
        ):
            return f"{at} the bound for the population is below the one for its sample"
    for name in ("certified_learnability", "population"):
        bounds = [value for point in points if (value := getattr(point, name)) is not None]
        if any(after < before for before, after in pairwise(bounds)):
            return f"{name} falls with eta, and a larger radius has no smaller bound"
    return None


def record_fault(name: str, found: AuditRecord) -> str | None:
    """Why the file `name` cannot be the record of this attack; None where it can."""
    key, result = found.key, found.result
    usual = f"{key.attack}-{key.arch}.json"
    if name.rpartition("/")[2] not in (usual, *([f"holdout-{usual}"] if key.attack == CLEAN_LINE else [])):
        return f"it holds the result of {key.attack} ({key.arch})"
    if key.attack != CLEAN_LINE and (result.attack, result.arch) != (key.attack, key.arch):
        return f"its key is for {key.attack} ({key.arch}), its result of {result.attack} ({result.arch})"
    if not (0 < key.epochs < float("inf") and 0 < result.epochs < float("inf")):
        return f"{result.epochs:g} epochs are impossible"
    if found.test_images is not None and found.test_images < 1:
        return f"{found.test_images} test images are impossible"
    return None
