import numpy as np
import pytest
from helpers import photo
from PIL import Image
from scipy.ndimage import uniform_filter

from pueprotect.images.similarity import PSNR_CAP, deviation, image_deviation, ssim


def slow_ssim(a, b):
    """Wang et al. 2004 with a 7x7 box, through scipy."""
    x, y = (image @ np.array([0.299, 0.587, 0.114]) for image in (a, b))
    mean_x, mean_y = uniform_filter(x, 7), uniform_filter(y, 7)
    var_x, var_y = uniform_filter(x * x, 7) - mean_x**2, uniform_filter(y * y, 7) - mean_y**2
    cov = uniform_filter(x * y, 7) - mean_x * mean_y
    c1, c2 = 6.5025, 58.5225
    full = (2 * mean_x * mean_y + c1) * (2 * cov + c2) / ((mean_x**2 + mean_y**2 + c1) * (var_x + var_y + c2))
    return full[3:-3, 3:-3].mean()


@pytest.mark.parametrize("shape", [(20, 28), (300, 11), (262, 9), (263, 9)])
def test_ssim_equals_the_reference(shape):
    a = photo(*shape)
    b = np.clip(a + np.random.default_rng(3).normal(0, 12, a.shape), 0, 255).astype(np.uint8)
    assert ssim(a, b) == pytest.approx(slow_ssim(a, b), abs=1e-9)
    assert ssim(a, a) == pytest.approx(1.0, abs=1e-9)
    assert ssim(a, b) == pytest.approx(ssim(b, a), abs=1e-12)


def test_ssim_of_tiny_and_of_unequal_images():
    tiny = photo(3, 2)
    assert ssim(tiny, tiny) == pytest.approx(1.0)
    assert ssim(tiny, 255 - tiny) < 0.9
    with pytest.raises(ValueError, match="shapes"):
        ssim(tiny, photo(4, 4))


@pytest.mark.parametrize("mode", ["RGB", "L"])
def test_both_ways_to_measure_agree(mode):
    one, other = (Image.fromarray(photo(seed=seed)).convert(mode) for seed in (0, 1))
    assert image_deviation(one, other) == deviation(np.asarray(one), np.asarray(other))
    assert image_deviation(one, one) == (0, PSNR_CAP)
    gap = np.asarray(one).astype(int) - np.asarray(other)
    linf, psnr = deviation(np.asarray(one), np.asarray(other))
    assert linf == np.abs(gap).max()
    assert psnr == pytest.approx(10 * np.log10(255**2 / np.square(gap).mean()))
    deep = [np.asarray(image).astype(np.uint16) * 257 for image in (one, other)]
    assert deviation(*deep) == (linf, pytest.approx(psnr))


def test_large_pictures_are_compared_at_the_advised_size():
    a = photo(520, 400)
    b = np.clip(a + np.random.default_rng(3).normal(0, 12, a.shape), 0, 255).astype(np.uint8)
    small = [np.asarray(Image.fromarray(image).convert("L").reduce(2)) for image in (a, b)]
    expected = slow_ssim(*(np.repeat(image[..., None], 3, axis=2) for image in small))
    assert ssim(a, b) == pytest.approx(expected, abs=1e-3)
