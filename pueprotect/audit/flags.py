"""Names the reasons to doubt an audit or a certificate, each with its cause and its remedy. No torch.

The flags follow AutoAttack (Croce and Hein, ICML 2020): an evaluation that looks strong may be broken. Two further
causes stop an audit before it starts, with a sentence and exit code 3 or 2: released files that are missing, added or
changed since protection, and originals that an attack needs and that are gone.
"""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Flag:
    """What was observed, and what to do about it; one sentence each."""

    cause: str
    remedy: str

    def __str__(self) -> str:
        return f"{self.cause} {self.remedy}"


TEST_OVERLAP = Flag(
    "Some test images nearly equal training images, so figures on them show memory.",
    "Remove one of each pair (test_overlap in the JSON names the first), or give other images with --test.",
)
FLAGS = {
    "no-clean-line": Flag(
        "The clean originals are missing, so the recovered share is unknown.",
        "Audit a release made by pueprotect with its originals in place.",
    ),
    "weak-clean-line": Flag(
        "Even the clean originals teach little, so low figures prove little.", "Use more --epochs, or more images."
    ),
    "clean-line-not-converged": Flag(
        "Training on the clean originals was still improving, so attacks may be cut short too.", "Use more --epochs."
    ),
    "small-test": Flag("Under 500 test images or 20 per class: figures are coarse.", "Give more with --test."),
    "test-overlap": TEST_OVERLAP,
    "class-imbalance": Flag(
        "The largest class has over three times the images of the smallest, so accuracy hides the small classes.",
        "Audit a balanced part, or compare figures with chance, which is the largest class's share.",
    ),
    "partly-protected": Flag(
        "Some released images equal their originals, and every attacker learns from those.",
        "Protect all images, and publish no unprotected copy.",
    ),
    "coverage-unknown": Flag(
        "Another tool made this release, so some images may be unprotected.", "Compare the files with their originals."
    ),
    "below-chance": Flag(
        "The network does worse than always answering the largest class, so it predicts a constant.",
        "Read it as nothing learnt, not as protection; try another --seed or --arch to tell the two apart.",
    ),
    "under-trained": Flag(
        "The attack did not even fit its own training images, so it may be stronger than this.", "Use more --epochs."
    ),
    "diverged": Flag("Training ended with weights that are not finite.", "Try another --seed or --arch."),
    "failed": Flag(
        "The attack broke off with a numerical error.", "See details.failure in its evidence; try another --seed."
    ),
    "suite-incomplete": Flag(
        "Attacks that need clean images were left out: the originals are missing.",
        "Audit a release made by pueprotect with its originals in place.",
    ),
    "seed-spread": Flag(
        "The seeds differ by more than the margin to the gate, so another seed may decide otherwise.",
        "Use more --seeds, or a gate with a wider margin.",
    ),
}
IMBALANCE = 3
WEAK = 0.2  # of the way from chance to 1, likewise `FITTED`
STILL_RISING = 0.03
FITTED = 0.5
FITTED_OF_CLEAN = 2 / 3


def names_of(doubts: Mapping[str, bool]) -> list[str]:
    """The names of the flags whose condition holds."""
    return [name for name, doubtful in doubts.items() if doubtful]


def way_from_chance(chance: float, share: float) -> float:
    """The accuracy at this share of the way from chance to 1."""
    return chance + share * (1 - chance)


def weak_clean_line(accuracy: float, chance: float) -> bool:
    """Whether the clean line is less than a fifth of the way from chance to 1."""
    return accuracy < way_from_chance(chance, WEAK)


def not_converged(epoch_accuracy: Sequence[float], train_accuracy: float | None, chance: float) -> bool:
    """Whether a clean training looks cut short.

    That is so when the last tenth of the passes gained over three points of test accuracy (`epoch_accuracy`) on the
    tenth before, or when training accuracy is below half of the way from chance to 1.
    """
    tenth = max(1, len(epoch_accuracy) // 10)
    last, before = epoch_accuracy[-tenth:], epoch_accuracy[-2 * tenth : -tenth]
    rising = bool(before) and statistics.mean(last) - statistics.mean(before) > STILL_RISING
    return rising or (train_accuracy is not None and train_accuracy < way_from_chance(chance, FITTED))


def under_trained(train_accuracy: float | None, clean_train_accuracy: float | None, chance: float) -> bool:
    """Whether an attack fitted its training images clearly worse than the clean line fitted the originals.

    Without a clean line the limit is half of the way from chance to 1.
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
