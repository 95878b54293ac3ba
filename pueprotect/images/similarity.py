"""Measures how far two pictures differ: largest difference, PSNR and structural similarity. No torch."""

from __future__ import annotations

import cv2
import numpy as np
import numpy.typing as npt
from PIL import Image

from pueprotect.images.block_dct import LUMA
from pueprotect.images.buffers import shared
from pueprotect.images.decode import AnyPixels, Pixels

PSNR_CAP = 100.0
_ROWS = 32
_SIDE = 256  # Wang et al. average larger images down to about this short side before they compare


def deviation(before: AnyPixels, after: AnyPixels) -> tuple[int, float]:
    """L-infinity in levels of 0..255, rounded up, and PSNR in dB (`PSNR_CAP` where equal) of two arrays.

    Both are (H, W, C) of one shape and type: uint8, or uint16 with 257 steps for each level.

    Raises:
        ValueError: shapes or types differ.
    """
    if before.shape != after.shape or before.dtype != after.dtype:
        raise ValueError(f"{before.shape} {before.dtype} against {after.shape} {after.dtype}")
    return _deviation(before, after, before.size)


def image_deviation(before: Image.Image, after: Image.Image) -> tuple[int, float]:
    """`deviation` of two images of one size in mode L or RGB, without a copy where Pillow shares its memory."""
    one, other = (shared(image) for image in (before, after))
    # Decoders set the filler behind red, green and blue to 255, but for planar TIFF to 0.
    if one is None or other is None or not np.array_equal(one[..., 3], other[..., 3]):
        return deviation(np.asarray(before), np.asarray(after))
    return _deviation(one, other, 3 * before.width * before.height)


def _deviation(before: AnyPixels, after: AnyPixels, values: int) -> tuple[int, float]:
    step = 1 if before.dtype == np.uint8 else 257
    largest, squares = 0.0, 0.0
    for top in range(0, len(before), _ROWS):  # few enough to stay in the processor's cache
        one, other = before[top : top + _ROWS], after[top : top + _ROWS]
        largest = max(largest, cv2.norm(one, other, cv2.NORM_INF))
        squares += cv2.norm(one, other, cv2.NORM_L2SQR)
    mean_square = squares / values / step**2
    psnr = min(10.0 * np.log10(255.0**2 / mean_square), PSNR_CAP) if mean_square else PSNR_CAP
    return -int(-largest // step), float(psnr)


def ssim(a: Pixels, b: Pixels) -> float:
    """Mean structural similarity of two (H, W, 3) uint8 images, at most 1 (equal).

    Wang, Bovik, Sheikh and Simoncelli 2004, on luma, with a uniform 7x7 window wholly inside the image (smaller where
    the image is). As they advise, images whose short side is 384 or more are averaged down to about 256 first.

    Raises:
        ValueError: the shapes differ.
    """
    if a.shape != b.shape:
        raise ValueError(f"ssim of shapes {a.shape} and {b.shape}")
    factor = max(1, round(min(a.shape[:2]) / _SIDE))
    x, y = (_luma(pixels, factor) for pixels in (a, b))
    window = min(7, *x.shape)
    c1, c2 = (0.01 * 255) ** 2, (0.03 * 255) ** 2
    mean_x, mean_y = _box_mean(x, window), _box_mean(y, window)
    products, squares = mean_x * mean_y, mean_x**2 + mean_y**2
    covariance = _box_mean(x * y, window) - products
    variances = _box_mean(x * x + y * y, window) - squares  # of both together
    return float(((2 * products + c1) * (2 * covariance + c2) / ((squares + c1) * (variances + c2))).mean())


def _luma(pixels: Pixels, factor: int) -> npt.NDArray[np.float64]:
    if factor > 1:
        return np.asarray(Image.fromarray(pixels).reduce(factor).convert("L"), dtype=np.float64)
    return np.asarray(np.ascontiguousarray(pixels) @ np.array(LUMA), dtype=np.float64)


def _box_mean(x: npt.NDArray[np.float64], window: int) -> npt.NDArray[np.float64]:
    """Mean over each window x window square inside `x`."""
    height, width = (length - window + 1 for length in x.shape)
    return np.asarray(cv2.boxFilter(x, -1, (window, window), anchor=(0, 0))[:height, :width])
