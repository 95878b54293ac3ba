"""Reasons to doubt a certificate, each with its cause and its remedy. No torch."""

from __future__ import annotations

from pueprotect.audit.flags import FITTED, WEAK, Flag, way_from_chance
from pueprotect.release.records import RecipeFigures

FLAGS = {
    "informative-baseline-missing": Flag(
        "A small bound may only mean that sigma destroys any network.", "Add --baseline."
    ),
    "weak-baseline": Flag(
        "The clean baseline itself is near chance, so the bound proves little.", "Use --sigma auto, or more --epochs."
    ),
    "small-holdout": Flag(
        "Fewer than 500 clean images or 20 per class: the bound is coarse.", "Give more with --test."
    ),
    "online-unknown": Flag(
        "pueprotect did not make this release, so the surrogate of its optimisation is unknown.",
        "None is needed: the other recipes stand in.",
    ),
    "surrogate-unfitted": Flag(
        "The surrogate does not fit what it was trained on, so it shows little.", "Use more --epochs."
    ),
    "bound-at-chance": Flag(
        "On this many images the bound cannot be told from chance.", "Give more clean images with --test."
    ),
    "unanswered-draws": Flag(
        "Some draws gave logits that are not finite; they count as wrong.", "Use a smaller --sigma."
    ),
}
UNFITTED = ("weight-noise-early", "pst")  # recipes whose purpose is not to fit the perturbation


def raised(
    found: RecipeFigures, baseline: RecipeFigures | None, *, chance: float, images: int, few_images: bool, own: bool
) -> list[str]:
    """The flags of a certificate.

    Args:
        found: the surrogate that counts.
        baseline: the same recipe on the clean originals, if asked for.
        chance: accuracy of the constant answer.
        images: clean images behind each accuracy.
        few_images: whether these are few.
        own: whether pueprotect made the release.
    """
    from pueprotect.certify import bounds  # here: who only reads flags needs no scipy

    fit = found.surrogate_fit
    certified = (point.certified_learnability for point in found.curve)
    smallest = min((bound for bound in certified if bound is not None), default=1.0)
    doubts = {
        "informative-baseline-missing": baseline is None,
        "weak-baseline": baseline is not None and baseline.noisy_accuracy.median < way_from_chance(chance, WEAK),
        "small-holdout": few_images,
        "online-unknown": not own,
        "surrogate-unfitted": found.recipe not in UNFITTED
        and fit is not None
        and fit < way_from_chance(chance, FITTED),
        "bound-at-chance": smallest <= bounds.upper_limit(round(chance * images), images, 0.05),
        "unanswered-draws": found.unanswered > 0,
    }
    return [name for name, doubtful in doubts.items() if doubtful]
