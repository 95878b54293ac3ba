import io

import numpy as np
import pytest
from helpers import noise_levels, photo
from PIL import Image

from pueprotect.images import jpeg_budget
from pueprotect.images.jpeg_budget import JPEG_QUALITIES, LEAST_KEPT, compared, fit, fitted, read_back, sampled
from pueprotect.images.overlay import lay


def pictures(height, width, channels=3, seed=0, epsilon=8):
    """An original and the same with strong noise, most of it at the budget."""
    before = photo(height, width, seed=seed)[..., :channels]
    noise = np.random.default_rng(seed).choice([-epsilon, -3, 2, epsilon], (height, width, 3)).astype(np.int8)
    return before, lay(before, noise, epsilon)


def through_pillow(pixels, quality):
    """What a viewer reads from the file that Pillow writes."""
    file = io.BytesIO()
    Image.fromarray(pixels[..., 0] if pixels.shape[2] == 1 else pixels).save(
        file, "JPEG", quality=quality, subsampling=0
    )
    with Image.open(file) as image:
        return np.asarray(image).reshape(pixels.shape)


def gap(one, other):
    return int(np.abs(one.astype(int) - other).max())


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("size", [(32, 32), (8, 8), (37, 21), (1, 1), (9, 40)])
def test_files_read_back_within_the_limit_and_keep_most_of_the_noise(size, channels):
    before, wanted = pictures(*size, channels)
    plain = through_pillow(wanted, 98)
    pixels, quality = fit(before, wanted, 8, 99)
    after = through_pillow(pixels, quality)
    assert gap(after, before) <= 8
    assert compared(before, wanted, after, 8, quality).kept > LEAST_KEPT
    if size == (32, 32) and channels == 3:
        assert gap(plain, before) > 12, "without the fit it is outside"
        assert compared(before, wanted, plain, 8, 98).outside > 0.1


def test_room_above_the_noise_keeps_all_of_it():
    before, wanted = pictures(40, 48)
    tight, roomy = (fitted(before, wanted, limit, 100)[1] for limit in (8, 10))
    assert tight.outside == roomy.outside == 0
    assert roomy.kept > 0.99 > tight.kept > 0.7


@pytest.mark.parametrize("size", [(32, 32), (29, 43)])
@pytest.mark.parametrize("quality", [90, 98, 100])
def test_what_is_predicted_is_what_the_file_holds(size, quality):
    before, wanted = pictures(*size)
    pixels, predicted = fitted(before, wanted, 8, quality)
    after = through_pillow(pixels, quality)
    assert np.array_equal(read_back(pixels, quality), after)
    assert compared(before, wanted, after, 8, quality) == predicted


def test_the_measures_are_those_of_their_definitions():
    before, wanted = pictures(40, 33)
    after = through_pillow(wanted, 92)
    found = compared(before, wanted, after, 8, 92)
    old, aim, new = (each.astype(float) for each in (before, wanted, after))
    assert found.outside == (np.abs(new - old) > 8).mean() > 0
    assert found.kept == pytest.approx(((new - old) * (aim - old)).sum() / ((aim - old) ** 2).sum())
    assert found.error == pytest.approx(np.sqrt(((new - aim) ** 2).mean()))
    assert compared(before, before, before, 8, 92).kept == 1


def test_the_lowest_quality_that_fits_is_taken_for_each_file():
    smooth = np.full((64, 64, 3), 120, np.uint8)
    laid = lay(smooth, noise_levels(4, 6), 8)
    fine, wanted = pictures(64, 64)
    chosen = [fit(*pair, 8, 90)[1] for pair in ((smooth, laid), (fine, wanted))]
    assert chosen[0] < chosen[1]
    for (before, aim), quality in zip(((smooth, laid), (fine, wanted)), chosen, strict=True):
        for lower in JPEG_QUALITIES[: JPEG_QUALITIES.index(quality)]:
            found = fitted(before, aim, 8, lower)[1]
            assert found.outside or found.kept < LEAST_KEPT


def test_the_noise_is_not_given_up_for_a_limit_out_of_reach():
    before, wanted = pictures(32, 32, epsilon=1)
    assert fitted(before, wanted, 1, 100)[1].outside, "else this test needs another limit"
    pixels, quality = fit(before, wanted, 1, 90)
    assert quality == 100
    assert compared(before, wanted, through_pillow(pixels, quality), 1, quality).kept > LEAST_KEPT


def test_large_pictures_are_fitted_in_bands_to_the_same_pixels(monkeypatch):
    before, wanted = pictures(61, 50)
    whole = fitted(before, wanted, 8, 98)
    monkeypatch.setattr(jpeg_budget, "_TALLEST", 15)
    banded = fitted(before, wanted, 8, 98)
    assert np.array_equal(whole[0], banded[0])
    assert whole[1] == banded[1]


def test_a_sample_holds_blocks_of_both_pictures():
    before, wanted = pictures(80, 80)
    old, aim = sampled(before, wanted, 10)
    assert old.shape == aim.shape == (80, 8, 3)
    assert np.array_equal(old[:8], before[:8, :8])
    assert np.array_equal(aim[8:16], wanted[8:16, :8])
