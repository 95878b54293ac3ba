"""Adds noise of the working size to a picture of any size."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt

from pueprotect.images.decode import AnyPixels

Levels = npt.NDArray[np.int8]


def lay(pixels: AnyPixels, noise: Levels, epsilon: int, out: AnyPixels | None = None) -> AnyPixels:
    """Add noise that was made at the working size to a picture of any size.

    Each pixel takes the noise value at its centre. Where the picture is larger, each value thus fills its share of the
    pixels: this survives an attacker's own reduction better than smooth enlargement (see `examples/results/trials.md`).
    Where it is smaller, values are left out, and the others keep their size; a mean would shrink them.

    Args:
        pixels: (H, W, C) uint8 or uint16, alpha last.
        noise: (S, S, 3) int8 levels of 0..255; greyscale gets the mean of the channels.
        epsilon: L-infinity budget in levels.
        out: where to write; None makes a new array.

    Returns:
        The same shape and type, clipped to the range of the type; alpha is unchanged.
    """
    height, width, channels = pixels.shape
    levels: npt.NDArray[Any] = _sampled(noise, height, width)
    if channels < 3:
        levels = levels.mean(axis=2, keepdims=True)
    steps = np.zeros((*levels.shape[:2], channels), dtype=np.int32)
    steps[..., : levels.shape[2]] = np.clip(np.rint(levels), -epsilon, epsilon)
    steps *= 1 if pixels.dtype == np.uint8 else 257
    bounds = np.maximum(-steps, 0), np.iinfo(pixels.dtype).max - np.maximum(steps, 0), steps
    across = np.bincount(shares(steps.shape[1], width), minlength=steps.shape[1])
    floor, ceiling, change = (np.repeat(each.astype(pixels.dtype), across, axis=1) for each in bounds)
    result = np.empty_like(pixels) if out is None else out
    edges = np.searchsorted(shares(len(steps), height), np.arange(len(steps) + 1)).tolist()
    for row, (top, bottom) in enumerate(pairwise(edges)):
        # Clamped before the addition, because a negative step is stored as an unsigned number that wraps around.
        block = result[top:bottom]
        np.minimum(pixels[top:bottom], ceiling[row], out=block)
        np.maximum(block, floor[row], out=block)
        block += change[row]
    return result


def shares(parts: int, length: int) -> npt.NDArray[np.int64]:
    """For each of `length` pixels, which of `parts` equal parts holds its centre."""
    return np.asarray((2 * np.arange(length) + 1) * parts // (2 * length), dtype=np.int64)


def _sampled(noise: Levels, height: int, width: int) -> Levels:
    """The noise with at most `height` rows and `width` columns."""
    if height < len(noise):
        noise = noise[shares(len(noise), height)]
    return noise[:, shares(noise.shape[1], width)] if width < noise.shape[1] else noise
