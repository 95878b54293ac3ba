"""Computes the 8 x 8 block DCT of JPEG and its inverse."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

BLOCK = 8
LUMA = (0.299, 0.587, 0.114)  # weights of red, green and blue

Floats = npt.NDArray[np.float32]

_POINTS = np.arange(BLOCK)
_COSINES = 0.5 * np.cos(np.pi * (2 * _POINTS[None] + 1) * _POINTS[:, None] / (2 * BLOCK))
_COSINES[0] /= np.sqrt(2)
_DCT: Floats = _COSINES.astype(np.float32)  # orthonormal


def block_dct(planes: Floats) -> Floats:
    """(N, H, W) -> (N, H/8, W/8, 8, 8), orthonormal."""
    count, height, width = planes.shape
    blocks = planes.reshape(count, height // BLOCK, BLOCK, width // BLOCK, BLOCK).swapaxes(2, 3)
    return np.asarray(_DCT @ blocks @ _DCT.T)


def inverse_block_dct(coefficients: Floats) -> Floats:
    """The inverse of `block_dct`."""
    count, rows, columns = coefficients.shape[:3]
    blocks = _DCT.T @ coefficients @ _DCT
    return np.asarray(blocks.swapaxes(2, 3).reshape(count, rows * BLOCK, columns * BLOCK))
