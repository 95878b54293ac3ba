"""Keeps a JPEG within its budget after rounding, and measures what rounding did. No torch.

JPEG rounds the transform of each block of 8 x 8 pixels, so that pixels read back differ from those encoded. At 4:4:4 no
block depends on another: each is encoded and read back by itself until every value is within the limit.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt

from pueprotect.images.block_dct import BLOCK
from pueprotect.images.decode import AnyPixels, Pixels

JPEG_QUALITIES = (90, 92, 94, 96, 98, 99, 100)
REFLECTIONS = 6
MARGINS = (1, 2, 3, 4)
LEAST_KEPT = 0.6
_TALLEST = 65_500 // BLOCK  # blocks in one column, the tallest picture that libjpeg writes
_ROWS = 32

_Blocks = npt.NDArray[np.int16]
_Indices = npt.NDArray[np.intp]


@dataclass(frozen=True)
class Rounding:
    """What JPEG did to one picture, measured on the pixels read back.

    Attributes:
        quality: of the file.
        outside: share of the values that differ from the original by more than the limit.
        kept: regression of the realised on the intended difference: 1 if all the noise survives, 0 if none.
        error: RMS difference in levels between the intended pixels and those read back.
    """

    quality: int
    outside: float
    kept: float
    error: float


def compared(before: Pixels, wanted: Pixels, after: Pixels, limit: int, quality: int) -> Rounding:
    """Measure three pictures of one shape, (H, W, 1) or (H, W, 3) uint8: original, intended and read back."""
    return _rounding(_sums(before, wanted, after, limit), before.size, quality)


def fitted(before: Pixels, wanted: Pixels, limit: int, quality: int) -> tuple[Pixels, Rounding]:
    """Pixels that, as JPEG of this quality at 4:4:4, read back within the limit and near the wanted ones.

    A block that is outside is first reflected between the limit and what JPEG can hold (Douglas-Rachford), which keeps
    most of the noise. What is still outside gets its noise cut short by a growing margin.

    Args:
        before: the original, (H, W, 1) grey or (H, W, 3) RGB uint8.
        wanted: the original with its noise, of the same shape.
        limit: largest allowed difference from the original in levels.
        quality: of the JPEG.

    Returns:
        The pixels to encode, of the same shape, and what is measured on them as read back.
    """
    out = np.empty(wanted.shape, dtype=np.uint8)
    height, width = before.shape[:2]
    band = max(1, _TALLEST // -(-width // BLOCK)) * BLOCK
    sums = np.zeros(4)
    for top in range(0, height, band):
        old, aim = before[top : top + band], wanted[top : top + band]
        found, read = _fitted_blocks(_blocks(old), _blocks(aim), limit, quality, _edges(*old.shape[:2]))
        out[top : top + band] = _pixels(found, *old.shape[:2])
        sums += _sums(old, aim, _pixels(read, *old.shape[:2]), limit)
    return out, _rounding(sums, before.size, quality)


def fit(before: Pixels, wanted: Pixels, limit: int, quality: int) -> tuple[Pixels, int]:
    """The pixels to encode, and the lowest quality from `quality` up at which all values are within the limit.

    The noise is never given up for the limit: where less than `LEAST_KEPT` of it would be left even at the highest
    quality, the result is `wanted` itself at that quality, and some values are outside. For the arguments see `fitted`.
    """
    for tried in (quality, *(other for other in JPEG_QUALITIES if other > quality)):
        pixels, rounding = fitted(before, wanted, limit, tried)
        if not rounding.outside and rounding.kept >= LEAST_KEPT:
            break
    return (pixels if rounding.kept >= LEAST_KEPT else wanted), rounding.quality


def sampled(before: AnyPixels, wanted: AnyPixels, blocks: int) -> tuple[Pixels, Pixels]:
    """About so many blocks of each, evenly spread, as pictures that are one block wide."""
    old, aim = _blocks(before), _blocks(wanted)
    step = max(1, len(old) // blocks)
    return tuple(_pixels(each[::step], len(each[::step]) * BLOCK, BLOCK) for each in (old, aim))  # type: ignore[return-value]


def read_back(pixels: Pixels, quality: int) -> Pixels:
    """The pixels of a JPEG of (H, W, 1) grey or (H, W, 3) RGB uint8, at 4:4:4."""
    sampling = (cv2.IMWRITE_JPEG_SAMPLING_FACTOR, cv2.IMWRITE_JPEG_SAMPLING_FACTOR_444)
    colour = pixels.shape[2] == 3
    ordered = cv2.cvtColor(pixels, cv2.COLOR_RGB2BGR) if colour else pixels
    _, content = cv2.imencode(".jpg", ordered, (cv2.IMWRITE_JPEG_QUALITY, quality, *sampling))
    decoded = cv2.imdecode(content, cv2.IMREAD_COLOR if colour else cv2.IMREAD_GRAYSCALE)
    assert decoded is not None
    return np.asarray(cv2.cvtColor(decoded, cv2.COLOR_BGR2RGB) if colour else decoded[..., None], dtype=np.uint8)


def _sums(before: Pixels, wanted: Pixels, after: Pixels, limit: int) -> npt.NDArray[np.float64]:
    """How many values are outside, and the squares of the intended, the realised and the missed difference."""
    sums = np.zeros(4)
    for top in range(0, len(before), _ROWS):  # few enough to stay in the processor's cache
        old, aim, new = (np.ascontiguousarray(each[top : top + _ROWS]) for each in (before, wanted, after))
        pairs = (old, aim), (old, new), (aim, new)
        squares = (cv2.norm(one, other, cv2.NORM_L2SQR) for one, other in pairs)
        sums += np.array([np.count_nonzero(cv2.absdiff(old, new) > limit), *squares])
    return sums


def _rounding(sums: npt.NDArray[np.float64], values: int, quality: int) -> Rounding:
    outside, intended, realised, missed = sums.tolist()
    kept = (intended + realised - missed) / (2 * intended) if intended else 1.0
    return Rounding(quality, outside / values, kept, float(np.sqrt(missed / values)))


def _fitted_blocks(
    old: _Blocks, aim: _Blocks, limit: int, quality: int, edges: tuple[_Indices, _Indices] | None
) -> tuple[_Blocks, _Blocks]:
    """`fitted` for blocks that `edges` cuts off: those to encode, and those read back."""
    margins = [margin for margin in MARGINS if 2 * margin <= limit]
    low, high = np.maximum(old - limit, 0), np.minimum(old + limit, 255)
    found, shown, live, target = aim.copy(), old.copy(), np.arange(len(old)), aim
    for turn in range(REFLECTIONS + len(margins) + 1):
        column = _within(target, 0, 255).astype(np.uint8).reshape(-1, BLOCK, old.shape[-1])
        read = _repeated(read_back(column, quality).reshape(target.shape).astype(np.int16), live, edges)
        found[live], shown[live] = target, read
        nearest = _within(read, low, high)
        outside = (read != nearest).any(axis=(1, 2, 3))
        if not outside.any():
            break
        live, read, target, low, high = (each[outside] for each in (live, read, target, low, high))
        clean = old[live]
        if turn < REFLECTIONS:
            inward = turn % 2  # every other turn aims one level inside the limit: the end is reached in fewer turns
            mirrored = _within(2 * read - target, np.minimum(low + inward, clean), np.maximum(high - inward, clean))
            target = target + mirrored - read
        elif turn < REFLECTIONS + len(margins):
            room = limit - margins[turn - REFLECTIONS]
            target = _within(aim[live], clean - room, clean + room)
        target = _repeated(target, live, edges)
    return found, shown


def _within(blocks: _Blocks, low: _Blocks | int, high: _Blocks | int) -> _Blocks:
    return np.asarray(np.minimum(np.maximum(blocks, low), high))  # `np.clip` takes twice as long on small pictures


def _edges(height: int, width: int) -> tuple[_Indices, _Indices] | None:
    """For each block, which of its own rows and columns each of its rows and columns repeats; None if all are whole."""
    if height % BLOCK == width % BLOCK == 0:
        return None
    places = np.arange(BLOCK)
    rows = [np.minimum(places, height - 1 - top) for top in range(0, height, BLOCK)]
    columns = [np.minimum(places, width - 1 - left) for left in range(0, width, BLOCK)]
    return np.repeat(rows, len(columns), axis=0), np.tile(columns, (len(rows), 1))


def _repeated(blocks: _Blocks, live: _Indices, edges: tuple[_Indices, _Indices] | None) -> _Blocks:
    """Blocks whose cut-off part repeats their last row and column, as the encoder does."""
    if edges is None:
        return blocks
    rows, columns = (each[live] for each in edges)
    return blocks[np.arange(len(blocks))[:, None, None], rows[:, :, None], columns[:, None, :]]


def _blocks(pixels: AnyPixels) -> _Blocks:
    """(N, 8, 8, C): the blocks row by row; JPEG repeats the last row and column in those that are cut off."""
    height, width, channels = pixels.shape
    if height % BLOCK or width % BLOCK:
        pixels = np.pad(pixels, ((0, -height % BLOCK), (0, -width % BLOCK), (0, 0)), mode="edge")  # type: ignore[assignment]
    rows = pixels.reshape(pixels.shape[0] // BLOCK, BLOCK, -1, BLOCK, channels)
    return rows.swapaxes(1, 2).reshape(-1, BLOCK, BLOCK, channels).astype(np.int16)


def _pixels(blocks: _Blocks, height: int, width: int) -> Pixels:
    """The inverse of `_blocks`, clipped to the range of uint8."""
    across, channels = -(-width // BLOCK), blocks.shape[-1]
    rows = _within(blocks, 0, 255).astype(np.uint8).reshape(-1, across, BLOCK, BLOCK, channels).swapaxes(1, 2)
    return rows.reshape(-1, across * BLOCK, channels)[:height, :width]
