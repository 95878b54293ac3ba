from fractions import Fraction

import numpy as np
import pytest
from helpers import noise_levels

from pueprotect.images.overlay import lay


@pytest.mark.parametrize("shape", [(40, 80), (37, 64), (16, 33), (101, 16)])
def test_each_noise_value_fills_its_share_of_a_larger_picture(shape):
    delta = noise_levels(16)
    flat = np.full((*shape, 3), 128, np.uint8)
    laid = lay(flat, delta, 8).astype(int) - 128
    rows, columns = ([int(Fraction(2 * place + 1, 2 * side) * 16) for place in range(side)] for side in shape)
    assert np.array_equal(laid, delta[rows][:, columns])
    assert (flat == 128).all()


def test_noise_is_reduced_smoothly_where_the_picture_is_smaller():
    delta = np.zeros((16, 16, 3), np.int8)
    delta[:, :8], delta[:, 8:] = -8, 8
    row = lay(np.full((40, 5, 3), 128, np.uint8), delta, 8)[20, :, 0].astype(int) - 128
    assert row.tolist() == [-8, -8, 0, 8, 8]


def test_sixteen_bits_get_the_same_share_of_their_range():
    delta = noise_levels(16)
    shallow = np.full((16, 16, 4), 100, np.uint8)
    shallow[0], shallow[1] = 2, 253
    laid, deep = lay(shallow, delta, 8), lay(shallow.astype(np.uint16) * 257, delta, 8)
    assert np.array_equal(deep, laid.astype(np.uint16) * 257)
    assert np.array_equal(laid[..., 3], shallow[..., 3])
