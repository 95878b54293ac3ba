"""The 8 x 8 block DCT, as JPEG has it."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

BLOCK = 8


LUMA = (0.299, 0.587, 0.114)


Floats = npt.NDArray[np.float32]


def _cosines() -> Floats:
    """The orthonormal DCT of 8 points, as a matrix."""
    points = np.arange(BLOCK)
    matrix = 0.5 * np.cos(np.pi * (2 * points[None] + 1) * points[:, None] / (2 * BLOCK))
    matrix[0] /= np.sqrt(2)
    return matrix.astype(np.float32)


_DCT = _cosines()


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
