import numpy as np
from helpers import noise_levels, photo, put

from pueprotect.images.decode import decode
from pueprotect.images.encode import Encoder
from pueprotect.images.jpeg_budget import JPEG_QUALITIES, fitted
from pueprotect.images.jpeg_quality import LARGEST_ERROR, LEAST_GAIN, choose_quality
from pueprotect.images.overlay import lay


def test_the_lowest_quality_at_which_noise_survives_within_the_budget_is_chosen(tmp_path):
    def pictures(side, count):
        names = (tmp_path / f"{side}-{n}.jpg" for n in range(count))
        return [
            (put(name, photo(side, side, seed=n), quality=95), noise_levels(16, seed=n)) for n, name in enumerate(names)
        ]

    tiny, large = pictures(16, 3), pictures(128, 2)
    fine, coarse = (choose_quality(chosen, 8) for chosen in (tiny, large))
    assert coarse.quality < fine.quality, "noise that fills many pixels needs less"
    assert (fine.files, coarse.files) == (3, 2)
    for chosen, choice in ((tiny, fine), (large, coarse)):
        before = [decode(path).pixels for path, _ in chosen]
        wanted = [lay(old, noise, 8) for old, (_, noise) in zip(before, chosen, strict=True)]

        def medians(quality, before=before, wanted=wanted):
            found = [fitted(*pair, 8, quality)[1] for pair in zip(before, wanted, strict=True)]
            return np.median([(each.outside, each.kept, each.error) for each in found], axis=0)

        outside, gain, error = medians(choice.quality)
        assert (gain, error) == (choice.gain, choice.error)
        best = medians(100)[1]
        if choice.quality < 100:
            assert not outside
            assert gain >= LEAST_GAIN * best
        for lower in JPEG_QUALITIES[: JPEG_QUALITIES.index(choice.quality)]:
            outside, gain, error = medians(lower)
            assert outside or gain < LEAST_GAIN * best or error > LARGEST_ERROR


def test_room_above_the_budget_lowers_the_quality(tmp_path):
    pictures = [(put(tmp_path / "a.jpg", photo(64, 64), quality=95), noise_levels(16))]
    assert choose_quality(pictures, 8, 12).quality < choose_quality(pictures, 8).quality


def test_only_pictures_that_are_released_as_jpeg_count(tmp_path):
    assert choose_quality([(put(tmp_path / "a.png"), noise_levels())], 8) is None
    grey = put(tmp_path / "g.jpg", photo()[..., 0], quality=90)
    assert choose_quality([(grey, noise_levels())], 8).files == 1


def test_each_file_keeps_to_the_budget_from_the_chosen_quality_up(tmp_path):
    source = put(tmp_path / "a.jpg", photo(64, 64), quality=90)
    done = Encoder(epsilon=8, quality=90).write(source, tmp_path / "b.jpg", noise_levels(64))
    assert done.linf <= 8
    assert done.rounding.quality > 90
    assert done.rounding.outside == 0
