"""Chooses the lowest JPEG quality at which the noise survives within its budget."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from pueprotect.images.decode import Pixels, decode
from pueprotect.images.encode import Encoder
from pueprotect.images.jpeg_budget import JPEG_QUALITIES, Rounding, fitted, sampled
from pueprotect.images.overlay import Levels, lay

LEAST_GAIN = 0.95
LARGEST_ERROR = 2.0
BLOCKS = 512


@dataclass(frozen=True)
class QualityChoice:
    """The JPEG quality that files are tried at first, and what was measured with it on so many files.

    `gain` is `Rounding.kept`, and `error` is `Rounding.error`; both are medians over the files.
    """

    quality: int
    gain: float
    error: float
    files: int


def choose_quality(
    pictures: Iterable[tuple[Path, Levels]], epsilon: int, limit: int | None = None
) -> QualityChoice | None:
    """The lowest quality of `JPEG_QUALITIES` at which noise survives within the limit, measured as read back.

    The medians over the pictures decide: no value is outside the limit, the gain is at least `LEAST_GAIN` of the gain
    at the highest quality, and the RMS error is at most `LARGEST_ERROR` levels. If no quality reaches all of them, the
    highest is taken. About `BLOCKS` blocks of each picture are tried. Pictures are originals with their noise; those
    that would not be released as JPEG are ignored, and the result is None if none is left. `epsilon` and `limit` are in
    levels, see `Encoder`.

    Raises:
        ImageError: an original cannot be read.
    """
    encoder = Encoder(epsilon=epsilon, limit=limit)
    tried: list[tuple[Pixels, Pixels]] = []
    for path, noise in pictures:
        picture = decode(path)
        if encoder.container(picture) == "JPEG" and picture.alpha is None:
            pixels = picture.colours
            tried.append(sampled(pixels, lay(pixels, noise, epsilon), BLOCKS))
    if not tried:
        return None

    def measured(quality: int) -> tuple[QualityChoice, float]:
        found: list[Rounding] = [fitted(*pair, encoder.largest, quality)[1] for pair in tried]
        outside, gain, error = np.median([(each.outside, each.kept, each.error) for each in found], axis=0).tolist()
        return QualityChoice(quality, gain, error, len(tried)), outside

    best, _ = measured(JPEG_QUALITIES[-1])
    for quality in JPEG_QUALITIES[:-1]:
        choice, outside = measured(quality)
        if not outside and choice.gain >= LEAST_GAIN * best.gain and choice.error <= LARGEST_ERROR:
            return choice
    return best
