"""Chooses the lowest JPEG quality at which the noise survives."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from pueprotect.images.decode import Picture, decode, opened, picture_of
from pueprotect.images.encode import Encoder
from pueprotect.images.metadata import Descriptions
from pueprotect.images.overlay import Levels, lay

JPEG_QUALITIES = (90, 92, 94, 96, 98, 100)
LEAST_GAIN = 0.95
LARGEST_ERROR = 2.0


@dataclass(frozen=True)
class QualityChoice:
    """A JPEG quality and what was measured with it on so many files.

    `gain` is the regression of the realised on the intended difference, 1 if all the noise survives. `error` is the
    RMS difference in levels between the intended pixels and those read back.
    """

    quality: int
    gain: float
    error: float
    files: int


def choose_quality(pictures: Iterable[tuple[Path, Levels]], epsilon: int) -> QualityChoice | None:
    """The lowest quality of `JPEG_QUALITIES` at which noise survives, measured on pictures read back.

    Noise survives if the median gain over the pictures is at least `LEAST_GAIN` and their median RMS error at most
    `LARGEST_ERROR` levels. If no quality reaches both, the highest is taken. Pictures are originals with their noise;
    those that would not be released as JPEG are ignored, and the result is None if none is left. `epsilon` is in
    levels.

    Raises:
        ImageError: an original cannot be read.
    """
    encoder = Encoder(epsilon=epsilon)
    decoded = [(decode(path), noise) for path, noise in pictures]
    tried = [(picture, noise) for picture, noise in decoded if encoder.container(picture) == "JPEG"]
    choice = None
    for quality in JPEG_QUALITIES if tried else ():
        found = np.median([survival(picture, noise, epsilon, quality) for picture, noise in tried], axis=0)
        choice = QualityChoice(quality, float(found[0]), float(found[1]), len(tried))
        if choice.gain >= LEAST_GAIN and choice.error <= LARGEST_ERROR:
            break
    return choice


def survival(before: Picture, noise: Levels, epsilon: int, quality: int) -> tuple[float, float]:
    """The gain and the RMS error in levels of one picture at a quality, see `QualityChoice`."""
    intended = lay(before.pixels, noise, epsilon).astype(np.float32)
    written = Encoder(epsilon=epsilon, quality=quality).encoded(before, noise, Descriptions(), Path("sample"))
    with opened(Path("sample"), content=written) as image:
        after = picture_of(image).pixels
    wanted = intended - before.pixels
    size = float(np.square(wanted).sum(dtype=np.float64))
    gain = float(((after - before.pixels.astype(np.float32)) * wanted).sum(dtype=np.float64)) / size if size else 1.0
    return gain, float(np.sqrt(np.mean(np.square(after - intended), dtype=np.float64)))
