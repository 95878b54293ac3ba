import hashlib
import struct
import warnings
import zlib

import numpy as np
import pytest
from conftest import photo, put
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from pueprotect.errors import ImageError, InputError
from pueprotect.images.decode import decode_rgb, identify
from pueprotect.images.folders import ImageEntry, scan
from pueprotect.images.holdout import stratified_holdout
from pueprotect.images.working_copies import compacted, load, read_folder, twins, working_size


def two_classes(root, per_class=3):
    for name in ("ant", "bee"):
        for index in range(per_class):
            put(root / name / f"{index}.png", photo(seed=index))
    return root


def png_header(bit_depth, colour_type, side=2):
    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    samples = {0: 1, 2: 3}[colour_type]
    rows = (b"\0" + bytes(side * samples * bit_depth // 8)) * side
    header = struct.pack(">IIBBBBB", side, side, bit_depth, colour_type, 0, 0, 0)
    body = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + body


def test_scan_takes_the_first_folder_as_class_at_any_depth(tmp_path):
    put(tmp_path / "bee" / "x.PNG", format="PNG")
    put(tmp_path / "ant" / "deep" / "er" / "y.jpg")
    put(tmp_path / "ant" / "a.webp")
    put(tmp_path / "ant" / ".hidden.png")
    put(tmp_path / ".cache" / "z.png")
    (tmp_path / "bee" / "Thumbs.db").write_bytes(b"x")
    (tmp_path / "notes.txt").write_text("x")
    folder = scan(tmp_path)
    assert folder.classes == ("ant", "bee")
    assert folder.entries == (
        ImageEntry("ant/a.webp", 0),
        ImageEntry("ant/deep/er/y.jpg", 0),
        ImageEntry("bee/x.PNG", 1),
    )
    assert folder.labels.tolist() == [0, 0, 1]
    assert folder.labels.dtype == np.int64
    assert folder.ignored == ("bee/Thumbs.db", "notes.txt")
    assert folder.path_of(folder.entries[2]) == tmp_path / "bee" / "x.PNG"


def test_scan_reads_labels_from_a_table(tmp_path):
    put(tmp_path / "a.png")
    put(tmp_path / "sub" / "b.png")
    table = tmp_path / "labels.csv"
    table.write_text("\ufeffpath,label,note\r\n./sub/b.png,zebra,n\r\na.png,lion,\r\n", encoding="utf-8")
    folder = scan(tmp_path, table)
    assert folder.classes == ("lion", "zebra")
    assert [(entry.path, entry.label) for entry in folder.entries] == [("a.png", 0), ("sub/b.png", 1)]
    assert folder.ignored == ("labels.csv",)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("file,label\na.png,x\n", "path,label"),
        ("", "path,label"),
        ("path,label\na.png,x\n", "b.png has no row"),
        ("path,label\na.png,x\nb.png,y\nc.png,y\n", "line 4: c.png is not below"),
        ("path,label\na.png,x\nb.png,y\nnote.txt,y\n", "not an image of a supported suffix"),
        ("path,label\na.png,x\nb.png,y\n../a.png,y\n", "line 4"),
        ("path,label\na.png,x\na.png,y\nb.png,y\n", "line 3: a.png is listed twice"),
        ("path,label\na.png\nb.png,y\n", "line 2"),
        ("path,label\na.png,\nb.png,y\n", "line 2"),
        ("path,label\na.png,x,extra\nb.png,y\n", "line 2"),
        ('path,label\n"a.png"x,x\nb.png,y\n', "not a CSV file"),
        ("path,label\na.png,x\nb.png,x\n", "only one class"),
    ],
)
def test_scan_refuses_a_table_that_does_not_fit(tmp_path, text, says):
    put(tmp_path / "a.png")
    put(tmp_path / "b.png")
    (tmp_path / "note.txt").write_text("x")
    (tmp_path / "labels.csv").write_text(text)
    with pytest.raises(InputError, match=says) as caught:
        scan(tmp_path, tmp_path / "labels.csv")
    assert "labels.csv" in str(caught.value)


def test_scan_refuses_a_missing_or_binary_table(tmp_path):
    two_classes(tmp_path)
    with pytest.raises(InputError, match="--labels"):
        scan(tmp_path, tmp_path / "none.csv")
    (tmp_path / "l.csv").write_bytes(b"path,label\n\xff\xfe,x\n")
    with pytest.raises(InputError, match="UTF-8"):
        scan(tmp_path, tmp_path / "l.csv")


def test_scan_says_what_is_wrong_with_a_folder(tmp_path):
    with pytest.raises(InputError, match="no such folder"):
        scan(tmp_path / "none")
    file = tmp_path / "file"
    file.write_text("x")
    with pytest.raises(InputError, match="is a file"):
        scan(file)
    empty = tmp_path / "empty"
    empty.mkdir()
    with pytest.raises(InputError, match="holds no images"):
        scan(empty)
    put(tmp_path / "flat" / "a.png")
    with pytest.raises(InputError, match=r"a\.png.*--labels"):
        scan(tmp_path / "flat")
    put(tmp_path / "one" / "ant" / "a.png")
    with pytest.raises(InputError, match="only one class, 'ant'"):
        scan(tmp_path / "one")


def test_scan_refuses_links_that_leave_the_folder(tmp_path):
    root = two_classes(tmp_path / "root")
    (root / "ant" / "same.png").symlink_to(root / "bee" / "0.png")
    assert "ant/same.png" in [entry.path for entry in scan(root).entries]
    outside = put(tmp_path / "secret.png")
    link = root / "ant" / "link.png"
    link.symlink_to(outside)
    with pytest.raises(InputError, match=r"link\.png is a link that leaves"):
        scan(root)
    link.unlink()
    (root / "loop").symlink_to(root)
    with pytest.raises(InputError, match="loop is a link to a folder"):
        scan(root)


def test_identify_reads_the_content_and_not_the_suffix(tmp_path):
    path = put(tmp_path / "a.jpg", format="PNG")
    assert identify(path) == (28, 20, "RGB", "PNG")


def save_frames(path, count=2, **options):
    frames = [Image.fromarray(photo(seed=index)) for index in range(count)]
    frames[0].save(path, save_all=True, append_images=frames[1:], **options)


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda path: path.write_bytes(b"not an image"), "not a readable"),
        (lambda path: path.write_bytes(b""), "is empty"),
        (lambda path: Image.new("RGB", (4, 4)).save(path, "GIF"), "not a readable"),
        (lambda path: Image.new("CMYK", (4, 4)).save(path, "JPEG"), "CMYK without a colour profile"),
        (lambda path: Image.new("1", (4, 4)).save(path, "PNG"), "mode 1 is not supported"),
        (lambda path: Image.new("F", (4, 4)).save(path, "TIFF"), "mode F is not supported"),
        (lambda path: Image.new("I", (4, 4)).save(path, "TIFF"), "mode I is not supported"),
        (lambda path: Image.new("I;16", (4, 4)).save(path, "TIFF", tiffinfo={262: 0}), "white is zero"),
        (lambda path: save_frames(path, format="TIFF"), "2 frames"),
        (lambda path: save_frames(path, format="WEBP"), "2 frames"),
        (lambda path: save_frames(path, format="PNG"), "2 frames"),
    ],
)
def test_files_that_cannot_be_released_faithfully_are_refused_by_name(tmp_path, make, says):
    path = tmp_path / "odd.png"
    make(path)
    for read in (identify, decode_rgb):
        with pytest.raises(ImageError, match=says) as caught:
            read(path)
        assert "odd.png" in str(caught.value)


def test_a_decompression_bomb_is_an_image_error(tmp_path, monkeypatch):
    path = put(tmp_path / "big.png")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    with pytest.raises(ImageError, match=r"big\.png has too many pixels"):
        identify(path)


def test_a_jpeg_with_a_second_picture_counts_as_its_first(tmp_path):
    save_frames(tmp_path / "phone.jpg", format="MPO")
    assert identify(tmp_path / "phone.jpg") == (28, 20, "RGB", "JPEG")


def test_decode_rgb_drops_alpha_without_compositing(tmp_path):
    pixels = np.dstack([photo(), np.zeros((20, 28), np.uint8)])
    assert np.array_equal(decode_rgb(put(tmp_path / "a.png", pixels)), photo())
    grey = photo()[..., 0]
    assert np.array_equal(decode_rgb(put(tmp_path / "g.png", grey)), np.dstack([grey] * 3))


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


@pytest.mark.parametrize(("side", "expected"), [(32, 32), (48, 32), (49, 64), (500, 64)])
def test_working_size_follows_the_short_side(tmp_path, side, expected):
    for name in ("ant", "bee"):
        put(tmp_path / name / "a.png", np.zeros((side, 700, 3), np.uint8))
    size, why = working_size(scan(tmp_path))
    assert size == expected
    assert f"{side} px" in why


def test_working_size_steps_over_damaged_files(tmp_path):
    folder = scan(two_classes(tmp_path))
    folder.path_of(folder.entries[0]).write_bytes(b"x")
    assert working_size(folder)[0] == 32
    for entry in folder.entries:
        folder.path_of(entry).write_bytes(b"x")
    with pytest.raises(ImageError):
        working_size(folder)


@given(st.lists(st.integers(2, 40), min_size=1, max_size=5), st.floats(0.01, 0.99), st.integers(0, 9))
def test_holdout_takes_its_share_of_every_class(counts, share, seed):
    labels = np.repeat(np.arange(len(counts)), counts)
    held = stratified_holdout(labels, share, seed)
    assert np.array_equal(held, stratified_holdout(labels, share, seed))
    for label, count in enumerate(counts):
        taken = held[labels == label].sum()
        assert 1 <= taken <= count - 1
        assert count - taken >= min(2, count - 1)
        if 1 <= share * count <= count - 2:
            assert abs(taken - share * count) <= 0.5


def test_holdout_depends_on_the_seed_and_not_on_other_classes():
    labels = np.repeat([0, 1], [40, 40])
    first = stratified_holdout(labels, 0.25, 0)
    assert first.sum() == 20
    assert not np.array_equal(first, stratified_holdout(labels, 0.25, 1))
    assert np.array_equal(first[:40], stratified_holdout(np.repeat([0, 1], [40, 7]), 0.25, 0)[:40])
    assert not np.array_equal(first[:40], first[40:])


def test_holdout_refuses_what_cannot_be_split():
    with pytest.raises(InputError, match="'bee'"):
        stratified_holdout(np.array([0, 0, 1]), 0.2, 0, ["ant", "bee"])
    with pytest.raises(InputError, match="class 1"):
        stratified_holdout(np.array([0, 0, 1]), 0.2, 0)
    for share in (0.0, 1.0, -0.1, float("nan")):
        with pytest.raises(InputError, match="--holdout"):
            stratified_holdout(np.array([0, 0]), share, 0)


def test_truncated_files_do_not_warn(tmp_path):
    path = put(tmp_path / "a.jpg", photo(64, 64))
    path.write_bytes(path.read_bytes()[:900])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(ImageError, match=r"a\.jpg cannot be decoded"):
            decode_rgb(path)


def test_large_sets_lie_in_a_file_that_has_no_name(tmp_path, monkeypatch):
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


def test_equal_pictures_of_other_classes_are_twins(tmp_path):
    folder = scan(two_classes(tmp_path))
    assert twins(folder, load(folder, 8)) == [(f"ant/{index}.png", f"bee/{index}.png") for index in range(3)]
    put(tmp_path / "ant" / "0.png", photo(seed=9))
    put(tmp_path / "ant" / "1.png", photo(seed=9))
    assert twins(folder, load(folder, 8)) == [("ant/2.png", "bee/2.png")]


@given(st.lists(st.booleans(), min_size=1, max_size=3000))
def test_wanted_rows_move_together_where_they_lie(wanted):
    pixels = np.arange(len(wanted), dtype=np.uint32)[:, None]
    expected = pixels[np.array(wanted)]
    found = compacted(pixels, wanted)
    assert np.array_equal(found, expected)
    assert np.shares_memory(found, pixels) or not any(wanted)
