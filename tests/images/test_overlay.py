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


@pytest.mark.parametrize("shape", [(8, 8), (5, 16), (40, 7)])
def test_a_smaller_picture_takes_the_value_at_the_centre_of_each_pixel(shape):
    delta = noise_levels(16)
    laid = lay(np.full((*shape, 3), 128, np.uint8), delta, 8).astype(int) - 128
    rows, columns = ([int(Fraction(2 * place + 1, 2 * side) * 16) for place in range(side)] for side in shape)
    assert np.array_equal(laid, delta[rows][:, columns])


def test_sixteen_bits_get_the_same_share_of_their_range():
    delta = noise_levels(16)
    shallow = np.full((16, 16, 4), 100, np.uint8)
    shallow[0], shallow[1] = 2, 253
    laid, deep = lay(shallow, delta, 8), lay(shallow.astype(np.uint16) * 257, delta, 8)
    assert np.array_equal(deep, laid.astype(np.uint16) * 257)
    assert np.array_equal(laid[..., 3], shallow[..., 3])
