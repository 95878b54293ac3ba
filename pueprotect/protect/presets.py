"""Defines the presets of `protect`: three levels of effort."""

from __future__ import annotations

from dataclasses import dataclass

from pueprotect.learning.augment import RESIZED_ABOVE

FULL_SIZE = 4000  # training images; a smaller set gets more passes than the preset names
SHUFFLED = 0.5  # share of the rounds, for small sets
MOST_REPEATS = 10.0


@dataclass(frozen=True)
class Preset:
    """The effort of one run, for at least `FULL_SIZE` small training images.

    Attributes:
        rounds: passes of the optimisation.
        draws: weight draws averaged within one step.
        check_epochs: passes of the self-check.
        extra_rounds: further passes of the optimisation when the self-check learnt too much.
        shuffled: share of the rounds in which images are exchanged, see `NoiseSettings`; for small sets only.
    """

    rounds: int
    draws: int
    check_epochs: int
    extra_rounds: int
    shuffled: float = 0.0

    def for_images(self, images: int, size: int) -> Preset:
        """The same number of steps for a smaller set, within `MOST_REPEATS` times the passes.

        Above `RESIZED_ABOVE` pixels, where crops show the noise at many scales, the optimisation takes twice the
        passes; with fewer, other networks than the surrogate still learn (examples/results/trials.md).
        """
        repeats = min(MOST_REPEATS, max(1.0, FULL_SIZE / images))
        scales = 2 if size > RESIZED_ABOVE else 1
        return Preset(
            rounds=round(scales * repeats * self.rounds),
            draws=self.draws,
            check_epochs=round(repeats * self.check_epochs),
            extra_rounds=round(scales * repeats * self.extra_rounds),
            shuffled=SHUFFLED if images < FULL_SIZE else 0.0,
        )


PRESETS = {
    "quick": Preset(rounds=4, draws=1, check_epochs=3, extra_rounds=4),
    "standard": Preset(rounds=6, draws=1, check_epochs=5, extra_rounds=4),
    "strong": Preset(rounds=12, draws=2, check_epochs=10, extra_rounds=8),
}
