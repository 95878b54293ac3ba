import numpy as np
import pytest
from helpers import noise_levels, photo, put

from pueprotect.images.decode import decode, decode_rgb
from pueprotect.images.encode import Encoder
from pueprotect.images.jpeg_quality import JPEG_QUALITIES, LARGEST_ERROR, LEAST_GAIN, choose_quality, survival
from pueprotect.images.overlay import lay


def test_the_lowest_quality_at_which_noise_survives_is_chosen(tmp_path):
    def pictures(side, count):
        names = (tmp_path / f"{side}-{n}.jpg" for n in range(count))
        return [
            (put(name, photo(side, side, seed=n), quality=95), noise_levels(16, seed=n)) for n, name in enumerate(names)
        ]

    tiny, large = pictures(16, 3), pictures(256, 2)
    fine, coarse = (choose_quality(chosen, 8) for chosen in (tiny, large))
    assert coarse.quality < fine.quality, "noise that fills many pixels needs less"
    assert (fine.files, coarse.files) == (3, 2)
    assert coarse.gain >= LEAST_GAIN
    assert coarse.error <= LARGEST_ERROR
    below = JPEG_QUALITIES[JPEG_QUALITIES.index(fine.quality) - 1]
    measured = [survival(decode(path), delta, 8, below) for path, delta in tiny]
    gain, error = np.median(measured, axis=0)
    assert gain < LEAST_GAIN or error > LARGEST_ERROR
    path, delta = tiny[0]
    before = decode_rgb(path).astype(float)
    Encoder(epsilon=8, quality=below).write(path, tmp_path / "out.jpg", delta)
    meant = lay(decode_rgb(path), delta, 8) - before
    realised = decode_rgb(tmp_path / "out.jpg") - before
    assert measured[0][0] == pytest.approx((realised * meant).sum() / (meant**2).sum(), abs=1e-4)
    assert choose_quality([(put(tmp_path / "a.png"), noise_levels())], 8) is None
