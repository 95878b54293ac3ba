"""What the user can ask of `protect`: presets and options."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from pueprotect.errors import InputError
from pueprotect.images.encode import FileFormat, Metadata
from pueprotect.learning.augment import RESIZED_ABOVE
from pueprotect.protect.methods import error_minimising as protect
from pueprotect.protect.methods.texture import Visibility


@dataclass(frozen=True)
class Preset:
    """One dial for the effort; passes are those over `FULL_SIZE` small training images or more.

    Attributes:
        rounds: passes of the optimisation.
        draws: weight draws averaged within one step.
        check_epochs: passes of the self-check.
        extra_rounds: further passes when the self-check learnt too much.
    """

    rounds: int
    draws: int
    check_epochs: int
    extra_rounds: int

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
        return Preset(rounds=rounds, draws=self.draws, check_epochs=checks, extra_rounds=extra)


FULL_SIZE = 4000
SHUFFLED = 0.5
MOST_REPEATS = 10.0
PRESETS = {
    "quick": Preset(rounds=4, draws=1, check_epochs=3, extra_rounds=4),
    "standard": Preset(rounds=6, draws=1, check_epochs=5, extra_rounds=4),
    "strong": Preset(rounds=12, draws=2, check_epochs=10, extra_rounds=8),
}


@dataclass(frozen=True, kw_only=True)
class Options:
    """What the user asked for; `None` and `auto` are resolved by `protect_folder` and recorded.

    Attributes:
        method: see `protect.Settings`, likewise `mode`, `epsilon` (levels of 0..255), `sigma` and `seed`.
        mode: one pattern for each class or for each image; `hardened` is always sample-wise.
        epsilon: L-infinity budget in levels of 0..255.
        preset: a key of `PRESETS`.
        surrogate: architecture or `auto`.
        size: working size in pixels; None chooses.
        sigma: standard deviation of the weight noise.
        rounds: passes of the optimisation; None takes the preset's.
        seed: everything random is a function of it.
        visibility: how far `hardened` yields where a picture is flat.
        holdout: share of each class kept out of training, in (0, 1).
        labels: CSV with the columns path,label instead of class folders.
        label_depth: which folder of an image's path names its class, from 1.
        file_format: keep each container, or write PNG.
        metadata: what is kept beside the pixels.
        overwrite: replace an earlier release and its vault.
        skip_unsupported: leave out pictures that cannot be released faithfully, instead of refusing the folder.
        resume: take finished noise and finished files from an interrupted run.
        release_anyway: release even when the self-check fails.
        workers: threads that decode and encode; 0 chooses.

    Raises:
        InputError: a value is out of range.
    """

    method: protect.Method = "pue"
    mode: protect.Mode = "class-wise"
    epsilon: int = 8
    preset: str = "standard"
    surrogate: str = "auto"
    size: int | None = None
    sigma: float = 0.05
    rounds: int | None = None
    seed: int = 0
    visibility: Visibility = "standard"
    holdout: float = 0.2
    labels: Path | None = None
    label_depth: int = 1
    file_format: FileFormat = "keep"
    metadata: Metadata = "minimal"
    overwrite: bool = False
    skip_unsupported: bool = False
    resume: bool = False
    release_anyway: bool = False
    workers: int = 0

    def __post_init__(self) -> None:
        if self.preset not in PRESETS:
            raise InputError(f"--preset {self.preset!r} is not one of {', '.join(PRESETS)}.")
        if self.size is not None and not 16 <= self.size <= 512:
            raise InputError(f"--size {self.size} is outside 16 .. 512 pixels.")
        if not 0 < self.holdout < 1:
            raise InputError(f"--holdout {self.holdout:g} is not inside (0, 1): it is the share kept to measure with.")
        if self.label_depth < 1:
            raise InputError(f"--label-depth {self.label_depth} is below 1, the folders directly below the source.")
        if self.label_depth != 1 and self.labels is not None:
            raise InputError("--label-depth and --labels exclude each other; leave one out.")
        if self.method == "hardened" and self.rounds is not None:
            raise InputError("--rounds does not apply to --method hardened, which optimises nothing; leave it out.")
        if self.method != "hardened" and self.visibility != "standard":
            raise InputError(f"--visibility {self.visibility} is a dial of --method hardened; leave it out.")
        if self.workers < 0:
            raise InputError(f"--workers {self.workers} is below 0; 0 chooses.")

    def settings(self, surrogate: str, images: int, size: int) -> protect.Settings:
        """What the optimisation needs, with the preset for this many training images of this size filled in."""
        preset = PRESETS[self.preset].for_images(images, size)
        return protect.Settings(
            method=self.method,
            mode="sample-wise" if self.method == "hardened" else self.mode,
            epsilon=self.epsilon,
            sigma=self.sigma,
            rounds=preset.rounds if self.rounds is None else self.rounds,
            shuffled=SHUFFLED if images < FULL_SIZE else 0.0,
            draws=preset.draws,
            surrogate=surrogate,
            seed=self.seed,
            visibility=self.visibility,
        )
