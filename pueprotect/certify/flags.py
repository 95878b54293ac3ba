"""Names the reasons to doubt a certificate, each with its cause and its remedy. No torch."""

from __future__ import annotations

from pueprotect.audit.flags import FITTED, TEST_OVERLAP, WEAK, Flag, names_of, way_from_chance
from pueprotect.release.certificates import RecipeFigures

FLAGS = {
    "informative-baseline-missing": Flag("A small bound may only mean that sigma is too large.", "Add --baseline."),
    "weak-baseline": Flag(
        "The clean baseline itself is near chance, so the bound proves little.", "Use --sigma auto, or more --epochs."
    ),
    "small-holdout": Flag("Under 500 clean images or 20 per class: the bound is coarse.", "Give more with --test."),
    "test-overlap": TEST_OVERLAP,
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
    found: RecipeFigures, baseline: RecipeFigures | None, *, chance: float, images: int, few_images: bool, own: bool,
    overlap: bool = False,
) -> list[str]:  # fmt: skip
    """The flags of a certificate.

    `found` is the certified surrogate, and `baseline` the same recipe on the clean originals, if certified. `chance` is
    the accuracy of the constant answer, `images` the clean images behind each accuracy, and `own` is for a release made
    by pueprotect. `overlap` says that some of the clean images are near training images.
    """
    from pueprotect.certify import bounds  # here, so that reading the flags alone loads no scipy

    fit = found.surrogate_fit
    unfitted = found.recipe not in UNFITTED and fit is not None and fit < way_from_chance(chance, FITTED)
    certified = (point.certified_learnability for point in found.curve)
    smallest = min((bound for bound in certified if bound is not None), default=1.0)
    return names_of({
        "informative-baseline-missing": baseline is None,
        "weak-baseline": baseline is not None and baseline.noisy_accuracy.median < way_from_chance(chance, WEAK),
        "small-holdout": few_images,
        "test-overlap": overlap,
        "online-unknown": not own,
        "surrogate-unfitted": unfitted,
        "bound-at-chance": smallest <= bounds.upper_limit(round(chance * images), images, 0.05),
        "unanswered-draws": found.unanswered > 0,
    })  # fmt: skip
