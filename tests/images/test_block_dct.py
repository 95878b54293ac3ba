import numpy as np
from scipy.fft import dctn

from pueprotect.images.block_dct import block_dct, inverse_block_dct


def test_the_block_transform_is_the_orthonormal_dct() -> None:
    planes = np.random.default_rng(0).normal(0, 50, (2, 16, 24)).astype(np.float32)
    found = block_dct(planes)
    for row in range(2):
        for column in range(3):
            block = planes[1, 8 * row : 8 * row + 8, 8 * column : 8 * column + 8]
            assert np.allclose(found[1, row, column], dctn(block, norm="ortho"), atol=1e-3)
    assert np.allclose(inverse_block_dct(found), planes, atol=1e-3)
