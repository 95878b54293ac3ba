import hashlib
import struct

import numpy as np
import pytest
from helpers import bmp_with_alpha, noise_levels, photo, put, two_classes
from hypothesis import given
from hypothesis import strategies as st

from pueprotect.errors import ImageError
from pueprotect.images.encode import Encoder
from pueprotect.images.folders import scan
from pueprotect.images.working_copies import compacted, load, read_folder, twins, working_size


def test_load_is_the_identity_where_the_size_fits_and_reduces_otherwise(tmp_path):
    root = tmp_path / "r"
    put(root / "ant" / "a.png", photo(16, 16))
    put(root / "bee" / "b.png", np.full((100, 40, 3), (10, 200, 90), np.uint8))
    checker = (np.indices((64, 64)).sum(axis=0) % 2 * 255).astype(np.uint8)
    put(root / "bee" / "c.png", checker)
    loaded = load(scan(root), 16)
    assert loaded.shape == (3, 16, 16, 3)
    assert loaded.dtype == np.uint8
    assert np.array_equal(loaded[0], photo(16, 16))
    assert (loaded[1] == (10, 200, 90)).all()
    assert np.abs(loaded[2].astype(int) - 127).max() <= 3


class Tally:
    def __init__(self):
        self.events = []

    def start(self, label, total):
        self.events.append((label, total))

    def advance(self, parts=1, note=""):
        self.events.append(parts)

    def finish(self, note=""):
        self.events.append("end")


def test_load_reports_progress_whatever_the_number_of_workers(tmp_path):
    folder = scan(two_classes(tmp_path))
    tally = Tally()
    one = load(folder, 8, workers=1, progress=tally, label="peek")
    assert tally.events == [("peek", 6), *[1] * 6, "end"]
    assert np.array_equal(one, load(folder, 8, workers=4))


def test_load_names_all_unreadable_files_in_one_error(tmp_path):
    root = two_classes(tmp_path, per_class=5)
    for index in range(4):
        path = root / "ant" / f"{index}.png"
        path.write_bytes(path.read_bytes()[:-60])
    with pytest.raises(ImageError) as caught:
        load(scan(root), 8)
    message = str(caught.value)
    assert message.startswith("4 of 10 images")
    assert all(f"{index}.png" in message for index in range(3))
    assert "1 more" in message


SIZES = [(6, 8), (8, 8), (17, 16), (28, 28), (32, 32), (48, 32), (50, 48), (63, 60), (64, 64), (500, 64)]


@pytest.mark.parametrize(("side", "expected"), SIZES)
def test_working_size_follows_the_short_side(tmp_path, side, expected):
    for name in ("ant", "bee"):
        put(tmp_path / name / "a.png", np.zeros((side, 700, 3), np.uint8))
    size, why = working_size(scan(tmp_path))
    assert size == expected
    assert f"{side} px" in why


def test_working_size_ignores_damaged_files(tmp_path):
    folder = scan(two_classes(tmp_path))
    folder.path_of(folder.entries[0]).write_bytes(b"x")
    assert working_size(folder)[0] == 20
    for entry in folder.entries:
        folder.path_of(entry).write_bytes(b"x")
    with pytest.raises(ImageError):
        working_size(folder)


def test_large_sets_are_kept_in_a_file_without_a_name(tmp_path, monkeypatch):
    folder = scan(two_classes(tmp_path / "src"))
    (tmp_path / "cache").mkdir()
    plain = read_folder(folder, 8, cache=tmp_path / "cache")
    assert not isinstance(plain.pixels, np.memmap)
    monkeypatch.setattr("pueprotect.images.working_copies.CACHE_ABOVE", 100)
    mapped = read_folder(folder, 8, cache=tmp_path / "cache")
    assert isinstance(mapped.pixels, np.memmap)
    assert np.array_equal(mapped.pixels, plain.pixels)
    assert list((tmp_path / "cache").iterdir()) == []


def test_reading_once_gives_pixels_and_digests(tmp_path):
    folder = scan(two_classes(tmp_path))
    folder.path_of(folder.entries[1]).write_bytes(b"")
    loaded = read_folder(folder, 8)
    assert [path for path, _ in loaded.unusable] == [folder.entries[1].path]
    assert loaded.digests == {
        entry.path: hashlib.sha256(folder.path_of(entry).read_bytes()).hexdigest()
        for entry in folder.entries
        if entry is not folder.entries[1]
    }


def test_equal_pictures_are_found_in_all_classes(tmp_path):
    folder = scan(two_classes(tmp_path))

    def found():
        return [tuple(entry.path for entry in same) for same in twins(folder, load(folder, 8))]

    assert found() == [(f"ant/{index}.png", f"bee/{index}.png") for index in range(3)]
    put(tmp_path / "ant" / "0.png", photo(seed=9))
    put(tmp_path / "ant" / "1.png", photo(seed=9))
    assert found() == [("ant/0.png", "ant/1.png"), ("ant/2.png", "bee/2.png")]


@given(st.lists(st.booleans(), min_size=1, max_size=3000))
def test_wanted_rows_are_moved_together_in_place(wanted):
    pixels = np.arange(len(wanted), dtype=np.uint32)[:, None]
    expected = pixels[np.array(wanted)]
    found = compacted(pixels, wanted)
    assert np.array_equal(found, expected)
    assert np.shares_memory(found, pixels) or not any(wanted)


def broken_exif():
    """EXIF whose description is a number, which encoders do not write."""
    return b"Exif\0\0II*\0\x08\0\0\0" + struct.pack("<HHHIfI", 1, 270, 11, 1, 1.5, 0)


@pytest.mark.parametrize(
    ("name", "make", "options", "says"),
    [
        ("a.bmp", bmp_with_alpha, {}, "BMP does not keep its transparency; use --format png"),
        ("a.bmp", bmp_with_alpha, {"file_format": "png"}, ""),
        ("a.jpg", lambda path: put(path, exif=broken_exif()), {"metadata": "keep"}, "use --metadata minimal"),
        ("a.jpg", lambda path: put(path, exif=broken_exif()), {}, ""),
        (
            "a.jpg",
            lambda path: put(path, icc_profile=bytes(2**20 + 1)),
            {"file_format": "png"},
            "a.jpg cannot be decoded",
        ),
        ("a.jpg", lambda path: put(path, icc_profile=bytes(2**20 + 1)), {}, ""),
    ],
)
def test_what_the_encoder_would_refuse_is_unusable_when_it_is_read(tmp_path, name, make, options, says):
    root = two_classes(tmp_path)
    make(root / "ant" / name)
    loaded = read_folder(scan(root), 8, encoder=Encoder(epsilon=8, **options))
    assert [path for path, _ in loaded.unusable] == ([f"ant/{name}"] if says else [])
    assert all(str(root / "ant" / name) in reason and says in reason for _, reason in loaded.unusable)
    if says:
        with pytest.raises(ImageError):
            Encoder(epsilon=8, **options).write(root / "ant" / name, tmp_path / "out" / name, noise_levels())


def test_each_kind_of_picture_is_tried_once_for_the_whole_folder(tmp_path, monkeypatch):
    root, tried = two_classes(tmp_path), []
    rehearse = Encoder.rehearse
    monkeypatch.setattr(Encoder, "rehearse", lambda self, *rest: tried.append(rest[2].name) or rehearse(self, *rest))
    see_through = np.dstack([photo(), photo()[..., 0]])
    put(root / "bee" / "clear.png", see_through)
    put(root / "bee" / "clearer.png", see_through // 2)
    put(root / "bee" / "opaque.png", np.dstack([photo(), np.full((20, 28), 255, np.uint8)]))
    read_folder(scan(root), 8, workers=1, encoder=Encoder(epsilon=8))
    assert tried == ["0.png", "clear.png", "opaque.png"]
    tried.clear()
    read_folder(scan(root), 8, workers=1, encoder=Encoder(epsilon=8, metadata="keep"))
    assert len(tried) == 9, "descriptions differ from file to file"
