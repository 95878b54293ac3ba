"""Defines and checks the options of `protect`."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from pueprotect.errors import InputError
from pueprotect.images.encode import FileFormat, Metadata
from pueprotect.protect.key import check_key, new_key
from pueprotect.protect.methods.base import LARGEST_BUDGET, METHODS, Mode, NoiseSettings, Visibility, find
from pueprotect.protect.presets import PRESETS


@dataclass(frozen=True, kw_only=True)
class Options:
    """The user's options; `protect_folder` replaces `None` and `auto` and records its choice.

    Attributes:
        method: one of `methods.base.method_names`; for `sigma` see `NoiseSettings`.
        mode: one pattern for each class or for each image; methods in closed form are always sample-wise.
        epsilon: L-infinity budget in levels of 0..255, 1 .. `LARGEST_BUDGET`.
        preset: a key of `PRESETS`.
        surrogate: architecture or `auto`.
        size: working size in pixels, 8 .. 512; None chooses.
        rounds: passes of the optimisation; None takes the preset's.
        seed: decides which images are held out, and the trainings of the self-check.
        key: secret key of the noise, 32 hexadecimal digits; None draws one, or with `resume` takes that of the vault.
        visibility: how visible the noise of `hardened` is where a picture is flat.
        holdout: share of each class kept out of training, in (0, 1).
        labels: CSV with the columns path,label instead of class folders.
        label_depth: which folder of an image's path names its class, from 1.
        follow_symlinks: follow linked folders and files that lead into one other folder.
        file_format: keep each container, or write PNG.
        metadata: keep ICC profile, gamma and resolution only, or EXIF and XMP text as well.
        max_linf: largest change of a released value in levels, at least `epsilon`; files beyond it are refused. JPEG
            rounding is fitted to it. None fits to `epsilon` and refuses nothing.
        overwrite: replace an earlier release and its vault.
        skip_unsupported: leave out pictures that cannot be released faithfully, instead of refusing the folder.
        resume: use finished noise and finished files of an interrupted run.
        release_anyway: release even when the self-check fails, or cannot tell because the originals teach nothing.
        workers: threads that decode and encode; 0 chooses.

    Raises:
        InputError: a value is out of range.
    """

    method: str = "pue"
    mode: Mode = "class-wise"
    epsilon: int = 8
    preset: str = "standard"
    surrogate: str = "auto"
    size: int | None = None
    sigma: float = 0.05
    rounds: int | None = None
    seed: int = 0
    key: str | None = field(default=None, repr=False)
    visibility: Visibility = "standard"
    holdout: float = 0.2
    labels: Path | None = None
    label_depth: int = 1
    follow_symlinks: bool = False
    file_format: FileFormat = "keep"
    metadata: Metadata = "minimal"
    max_linf: int | None = None
    overwrite: bool = False
    skip_unsupported: bool = False
    resume: bool = False
    release_anyway: bool = False
    workers: int = 0

    def __post_init__(self) -> None:
        if self.preset not in PRESETS:
            raise InputError(f"--preset {self.preset!r} is not one of {', '.join(PRESETS)}.")
        if self.size is not None and not 8 <= self.size <= 512:
            raise InputError(f"--size {self.size} is outside 8 .. 512 pixels.")
        if not 0 < self.holdout < 1:
            raise InputError(f"--holdout {self.holdout:g} is outside (0, 1); it is the share kept for measuring.")
        if self.label_depth < 1:
            raise InputError(f"--label-depth {self.label_depth} is below 1; 1 is a folder directly below the source.")
        if self.label_depth != 1 and self.labels is not None:
            raise InputError("--label-depth and --labels exclude each other; leave one out.")
        if not 1 <= self.epsilon <= LARGEST_BUDGET:
            raise InputError(f"--epsilon {self.epsilon}/255 is outside 1/255 .. {LARGEST_BUDGET}/255.")
        if self.max_linf is not None and self.max_linf < (levels := find(self.method).budget or self.epsilon):
            raise InputError(
                f"--max-linf {self.max_linf} is below the budget of {levels} levels; raise it, or lower --epsilon."
            )
        for dial, moved in {"rounds": self.rounds is not None, "visibility": self.visibility != "standard"}.items():
            if moved and dial not in find(self.method).dials:
                having = " or ".join(name for name in METHODS if dial in find(name).dials)
                raise InputError(
                    f"--{dial} does not apply to --method {self.method}; leave it out, or use --method {having}."
                )
        if self.key is not None:
            check_key(self.key)
        if self.workers < 0:
            raise InputError(f"--workers {self.workers} is below 0; 0 chooses.")

    @property
    def class_depth(self) -> int | None:
        """Which folder of a path names the class of any file, from 1; None where a table does."""
        return None if self.labels is not None else self.label_depth

    def settings(self, surrogate: str, images: int, size: int) -> NoiseSettings:
        """The settings of the noise, with the preset for so many training images of this size filled in."""
        preset, method = PRESETS[self.preset].for_images(images, size), find(self.method)
        return NoiseSettings(
            method=self.method,
            mode=self.mode if self.mode in method.modes else method.modes[0],
            epsilon=method.budget or self.epsilon,
            sigma=self.sigma,
            rounds=preset.rounds if self.rounds is None else self.rounds,
            shuffled=preset.shuffled,
            draws=preset.draws,
            surrogate=surrogate,
            seed=self.seed,
            key=self.key or new_key(),
            visibility=self.visibility,
        )
