"""Reasons to doubt an audit or a certificate, each with its cause and its remedy; pure, no torch.

After the flags of AutoAttack (Croce and Hein, ICML 2020): an evaluation that looks strong may only be broken. Two
further causes end an audit before it starts, with a sentence and exit code 3 or 2: released files that are missing,
added or changed since protection, and originals that an attack needs and that are gone.
"""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Flag:
    """What was seen, and what to do about it; one sentence each."""

    cause: str
    remedy: str

    def __str__(self) -> str:
        return f"{self.cause} {self.remedy}"


FLAGS = {
    "no-clean-line": Flag(
        "The clean originals are not at hand, so the recovered share is unknown.",
        "Audit a release made by pueprotect with its originals in place.",
    ),
    "weak-clean-line": Flag(
        "Even the clean originals teach little, so a low figure proves little.", "Use more --epochs, or more images."
    ),
    "clean-line-not-converged": Flag(
        "Training on the clean originals was still improving, so attacks may be cut short too.", "Use more --epochs."
    ),
    "small-test": Flag(
        "Fewer than 500 test images or 20 per class: figures are coarse.", "Give more clean images with --test."
    ),
    "class-imbalance": Flag(
        "The largest class has over three times the images of the smallest: one accuracy hides the small classes.",
        "Audit a balanced part, or read the figures against chance, which is the largest class's share.",
    ),
    "partly-protected": Flag(
        "Some released images equal their originals: every attacker learns from those.",
        "Protect all images, and publish no unprotected copy.",
    ),
    "coverage-unknown": Flag(
        "Another tool made this release, so whether every image is protected is not known.",
        "Compare the files with their originals.",
    ),
    "below-chance": Flag(
        "The network does worse than always answering the largest class: it predicts a constant.",
        "Read it as nothing learnt, not as protection; another --seed or --arch tells the two apart.",
    ),
    "under-trained": Flag(
        "The attack did not even fit its own training images, so it shows less than this attacker can do.",
        "Use more --epochs.",
    ),
    "diverged": Flag("Training ended in weights that are not finite.", "Try another --seed or --arch."),
    "failed": Flag(
        "The attack broke off for a numerical reason.", "See details.failure in its evidence; try another --seed."
    ),
    "suite-incomplete": Flag(
        "Attacks of the suite need clean images that are not at hand, and were left out.",
        "Audit a release made by pueprotect with its originals in place.",
    ),
    "seed-spread": Flag(
        "The seeds differ by more than the margin to the gate: another seed may decide otherwise.",
        "Use more --seeds, or leave a wider margin.",
    ),
}
IMBALANCE = 3
WEAK = 0.2  # of the way from chance to 1, likewise `FITTED`
STILL_RISING = 0.03
FITTED = 0.5
FITTED_OF_CLEAN = 2 / 3


def way_from_chance(chance: float, share: float) -> float:
    """The accuracy that lies a share of the way from chance to 1."""
    return chance + share * (1 - chance)


def weak_clean_line(accuracy: float, chance: float) -> bool:
    """Whether the clean line stands less than a fifth of the way from chance to 1."""
    return accuracy < way_from_chance(chance, WEAK)


def not_converged(epoch_accuracy: Sequence[float], train_accuracy: float | None, chance: float) -> bool:
    """Whether a clean training looks cut short.

    Args:
        epoch_accuracy: test accuracy after each pass.
        train_accuracy: on its training images at the end, if known.
        chance: accuracy of the constant answer.

    Returns:
        True when the last tenth of the passes gained over three points on the tenth before, or when half of what
        lies between chance and 1 is not fitted.
    """
    tenth = max(1, len(epoch_accuracy) // 10)
    last, before = epoch_accuracy[-tenth:], epoch_accuracy[-2 * tenth : -tenth]
    rising = bool(before) and statistics.mean(last) - statistics.mean(before) > STILL_RISING
    return rising or (train_accuracy is not None and train_accuracy < way_from_chance(chance, FITTED))


def under_trained(train_accuracy: float | None, clean_train_accuracy: float | None, chance: float) -> bool:
    """Whether an attack fitted its training images clearly worse than the clean line fitted the originals.

    Without a clean line half of the way from chance to 1 is asked for.
    """
    if train_accuracy is None:
        return False
    share = FITTED if clean_train_accuracy is None else FITTED_OF_CLEAN * (clean_train_accuracy - chance) / (1 - chance)
    return train_accuracy < way_from_chance(chance, share)


def imbalanced(counts: Sequence[int]) -> bool:
    """Whether the largest class has over three times the images of the smallest."""
    return max(counts) > IMBALANCE * min(counts)


def spread_exceeds_margin(values: Sequence[float], limit: float | None) -> bool:
    """Whether the standard deviation over seeds is larger than the distance of their mean to a gate."""
    if limit is None or len(values) < 2:
        return False
    return statistics.stdev(values) > abs(limit - statistics.mean(values))
