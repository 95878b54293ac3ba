"""How alike two pictures are: largest difference, PSNR and structural similarity. Numpy and Pillow only."""

from __future__ import annotations

from functools import reduce

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageChops

Pixels = npt.NDArray[np.uint8]

PSNR_CAP = 100.0
_STRIP = 24_000  # values compared at once: they and their squares stay in the processor's cache
_SIDE = 256  # Wang et al. average larger images down to about this short side before they compare


def deviation(
    before: npt.NDArray[np.uint8] | npt.NDArray[np.uint16], after: npt.NDArray[np.uint8] | npt.NDArray[np.uint16]
) -> tuple[int, float]:
    """L-infinity in levels of 0..255, rounded up, and PSNR in dB (`PSNR_CAP` where equal) of two arrays of one shape.

    Args:
        before: uint8, or uint16 with 257 steps for each level.
        after: the same.

    Raises:
        ValueError: shapes or types differ.
    """
    if before.shape != after.shape or before.dtype != after.dtype:
        raise ValueError(f"{before.shape} {before.dtype} against {after.shape} {after.dtype}")
    step, wider = (1, np.uint16) if before.dtype == np.uint8 else (257, np.uint32)
    height = before.shape[0]
    rows = max(1, _STRIP * height // max(1, before.size))
    largest, squares = 0, 0
    for top in range(0, height, rows):
        one, other = before[top : top + rows], after[top : top + rows]
        gap = np.maximum(one, other)
        gap -= np.minimum(one, other)
        largest = max(largest, int(gap.max()))
        # Whole numbers, so that the sum is exact in any order; no BLAS, whose threads wait for each other.
        squares += int(np.square(gap, dtype=wider).sum(dtype=np.uint64))
    return -(-largest // step), _psnr(squares / before.size / step**2)


def image_deviation(before: Image.Image, after: Image.Image) -> tuple[int, float]:
    """`deviation` of two images of one size in mode L or RGB, without turning them into arrays."""
    counts = np.array(ImageChops.difference(before, after).histogram(), dtype=np.int64).reshape(-1, 256).sum(axis=0)
    levels = np.arange(256)
    return int(np.flatnonzero(counts)[-1]), _psnr(int((counts * levels**2).sum()) / int(counts.sum()))


def _psnr(mean_square: float) -> float:
    return float(min(10.0 * np.log10(255.0**2 / mean_square), PSNR_CAP)) if mean_square else PSNR_CAP


def ssim(a: Pixels, b: Pixels) -> float:
    """Mean structural similarity of two (H, W, 3) uint8 images, at most 1 (equal).

    Wang, Bovik, Sheikh and Simoncelli 2004, on luma, with a uniform 7x7 window wholly inside the image (smaller where
    the image is). As they advise, images whose short side is 384 or more are averaged down to about 256 first.

    Raises:
        ValueError: the shapes differ.
    """
    if a.shape != b.shape:
        raise ValueError(f"ssim of shapes {a.shape} and {b.shape}")
    return image_ssim(Image.fromarray(a), Image.fromarray(b))


def image_ssim(before: Image.Image, after: Image.Image) -> float:
    """`ssim` of two RGB images of one size."""
    factor = max(1, round(min(before.size) / _SIDE))
    x, y = (_luma(image, factor) for image in (before, after))
    return float(_ssim_map(x, y, min(7, *x.shape)).mean())


def _luma(image: Image.Image, factor: int) -> npt.NDArray[np.float64]:
    if factor > 1:
        return np.asarray(image.reduce(factor).convert("L"), dtype=np.float64)
    return np.asarray(np.asarray(image) @ np.array([0.299, 0.587, 0.114]), dtype=np.float64)


def _ssim_map(x: npt.NDArray[np.float64], y: npt.NDArray[np.float64], window: int) -> npt.NDArray[np.float64]:
    c1, c2 = (0.01 * 255) ** 2, (0.03 * 255) ** 2
    mean_x, mean_y = _box_mean(x, window), _box_mean(y, window)
    products, squares = mean_x * mean_y, mean_x**2 + mean_y**2
    covariance = _box_mean(x * y, window) - products
    variances = _box_mean(x * x + y * y, window) - squares  # of both together
    return np.asarray((2 * products + c1) * (2 * covariance + c2) / ((squares + c1) * (variances + c2)))


def _box_mean(x: npt.NDArray[np.float64], window: int) -> npt.NDArray[np.float64]:
    """Mean over each window x window square inside `x`."""
    height, width = (length - window + 1 for length in x.shape)
    rows = reduce(np.add, (x[row : row + height] for row in range(window)))
    return np.asarray(reduce(np.add, (rows[:, column : column + width] for column in range(window))) / window**2)
