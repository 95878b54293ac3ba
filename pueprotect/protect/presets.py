"""The effort of `protect`, in three steps."""

from __future__ import annotations

from dataclasses import dataclass

from pueprotect.learning.augment import RESIZED_ABOVE

FULL_SIZE = 4000  # training images from which on a preset's passes are meant
SHUFFLED = 0.5
MOST_REPEATS = 10.0


@dataclass(frozen=True)
class Preset:
    """One dial for the effort; passes are those over `FULL_SIZE` small training images or more.

    Attributes:
        rounds: passes of the optimisation.
        draws: weight draws averaged within one step.
        check_epochs: passes of the self-check.
        extra_rounds: further passes when the self-check learnt too much.
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
        passes: on the sample at 64 pixels another network than the surrogate still learnt 53 % from the noise of 40
        rounds, and 25 % from that of 80 (chance 20).
        """
        repeats = min(MOST_REPEATS, max(1.0, FULL_SIZE / images))
        scales = 2 if size > RESIZED_ABOVE else 1
        rounds, extra = (round(scales * repeats * passes) for passes in (self.rounds, self.extra_rounds))
        checks = round(repeats * self.check_epochs)
        shuffled = SHUFFLED if images < FULL_SIZE else 0.0
        return Preset(rounds, self.draws, checks, extra, shuffled)


PRESETS = {
    "quick": Preset(rounds=4, draws=1, check_epochs=3, extra_rounds=4),
    "standard": Preset(rounds=6, draws=1, check_epochs=5, extra_rounds=4),
    "strong": Preset(rounds=12, draws=2, check_epochs=10, extra_rounds=8),
}
