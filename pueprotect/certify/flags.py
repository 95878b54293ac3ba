"""Names the reasons to doubt a certificate, each with its cause and its remedy. No torch."""

from __future__ import annotations

from pueprotect.audit.flags import FITTED, WEAK, Flag, way_from_chance
from pueprotect.audit.flags import raised as those_that_hold
from pueprotect.release.records import RecipeFigures

FLAGS = {
    "informative-baseline-missing": Flag("A small bound may only mean that sigma is too large.", "Add --baseline."),
    "weak-baseline": Flag(
        "The clean baseline itself is near chance, so the bound proves little.", "Use --sigma auto, or more --epochs."
    ),
    "small-holdout": Flag("Under 500 clean images or 20 per class: the bound is coarse.", "Give more with --test."),
    "online-unknown": Flag(
        "Another tool made this release, so the surrogate of its optimisation is unknown.",
        "Nothing to do: the other recipes replace it.",
    ),
    "surrogate-unfitted": Flag(
        "The surrogate does not fit its own training images, so the bound shows little.", "Use more --epochs."
    ),
    "bound-at-chance": Flag("With so few images the bound cannot be told from chance.", "Give more with --test."),
    "unanswered-draws": Flag("Some logits were not finite; these answers count as wrong.", "Use a smaller --sigma."),
}
UNFITTED = ("weight-noise-early", "pst")  # recipes whose purpose is not to fit the perturbation


def raised(
    found: RecipeFigures, baseline: RecipeFigures | None, *, chance: float, images: int, few_images: bool, own: bool
) -> list[str]:
    """The flags of a certificate.

    `found` is the certified surrogate, `baseline` the same recipe on the clean originals, if certified. `images` are
    the clean images behind each accuracy, `few_images` says whether these are few, and `own` whether pueprotect made
    the release.
    """
    from pueprotect.certify import bounds  # here, so that reading the flags alone loads no scipy

    fit = found.surrogate_fit
    certified = (point.certified_learnability for point in found.curve)
    smallest = min((bound for bound in certified if bound is not None), default=1.0)
    return those_that_hold({
        "informative-baseline-missing": baseline is None,
        "weak-baseline": baseline is not None and baseline.noisy_accuracy.median < way_from_chance(chance, WEAK),
        "small-holdout": few_images,
        "online-unknown": not own,
        "surrogate-unfitted": found.recipe not in UNFITTED
        and fit is not None
        and fit < way_from_chance(chance, FITTED),
        "bound-at-chance": smallest <= bounds.upper_limit(round(chance * images), images, 0.05),
        "unanswered-draws": found.unanswered > 0,
    })  # fmt: skip
