"""Reads and protects files in every supported format and mode."""

import io
import struct
import warnings

import numpy as np
import pytest
from helpers import CHANNELS, SUFFIX, cmyk_profile, colours, icc_profile, photo, put, round_trip
from PIL import Image
from PIL.TiffImagePlugin import ImageFileDirectory_v2

from pueprotect.errors import ImageError
from pueprotect.images.buffers import shared
from pueprotect.images.decode import decode, decode_rgb, identify, working_copy


def test_identify_reads_the_content_and_not_the_suffix(tmp_path):
    path = put(tmp_path / "a.jpg", format="PNG")
    assert identify(path) == (28, 20, "RGB", "PNG")


def deep_cmyk():
    """A TIFF with 16 bits for each of four inks, and a profile."""
    buffer, tags = io.BytesIO(), ImageFileDirectory_v2(prefix=b"II")
    tags[256], tags[257], tags[258], tags[259], tags[262], tags[277] = 4, 4, (16,) * 4, 1, 5, 4
    tags[278], tags[279], tags[34675], tags[273] = 4, 128, cmyk_profile(), 0
    tags.save(buffer)
    return buffer.getvalue() + bytes(128)


def planar_tiff(pixels):
    """An RGB TIFF that stores its red, green and blue one after another."""
    height, width, _ = pixels.shape
    tags = {256: width, 257: height, 258: 8, 259: 1, 262: 2, 277: 3, 278: height, 279: height * width, 284: 2}
    start = 8 + 2 + 12 * 10 + 4
    values = {258: (8, 8, 8), 279: (height * width,) * 3, 273: tuple(start + 36 + n * height * width for n in range(3))}
    entries, extra = b"", b""
    for tag in sorted({*tags, 273}):
        if tag in values:
            entries += struct.pack("<HHII", tag, 4, 3, start + len(extra))
            extra += struct.pack("<3I", *values[tag])
        else:
            entries += struct.pack("<HHII", tag, 4, 1, tags[tag])
    content = b"II*\0" + struct.pack("<IH", 8, 10) + entries + bytes(4) + extra
    return content + np.moveaxis(pixels, 2, 0).tobytes()


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
        (lambda path: path.write_bytes(deep_cmyk()), "mode CMYK stored as CMYK;16"),
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


def test_truncated_files_do_not_warn(tmp_path):
    path = put(tmp_path / "a.jpg", photo(64, 64))
    path.write_bytes(path.read_bytes()[:900])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(ImageError, match=r"a\.jpg cannot be decoded"):
            decode_rgb(path)


EIGHT = [(kind, mode) for kind in ("PNG", "TIFF") for mode in CHANNELS]
EIGHT += [("WEBP", "RGB"), ("WEBP", "RGBA"), ("BMP", "RGB"), ("BMP", "L"), ("JPEG", "RGB"), ("JPEG", "L")]


@pytest.mark.parametrize(("kind", "mode"), EIGHT)
def test_eight_bits_keep_everything_but_the_noise(tmp_path, kind, mode):
    pixels = colours(mode)
    icc = icc_profile() if kind != "BMP" else None
    save = {"lossless": True, "exact": True} if kind == "WEBP" else {}
    image = Image.fromarray(pixels[..., 0] if mode == "L" else pixels)
    source = tmp_path / f"ä b{SUFFIX[kind]}"
    image.save(source, kind, **save, **({"icc_profile": icc} if icc else {}))
    before, after, realised = round_trip(source, tmp_path)
    assert after.container == before.container == kind
    assert after.pixels.shape == before.pixels.shape == (20, 28, CHANNELS[mode])
    assert after.pixels.dtype == np.uint8
    assert before.icc == after.icc == icc
    gap = np.abs(after.colours.astype(int) - before.colours).max()
    assert 0 < gap == realised.linf <= (30 if kind == "JPEG" else 8)
    if before.alpha is not None:
        assert np.array_equal(before.alpha, pixels[..., -1])
        assert np.array_equal(after.alpha, before.alpha)
        hidden = before.alpha == 0
        assert hidden.any()
        assert (after.colours[hidden] != before.colours[hidden]).any(), "hidden colours are protected, too"


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("kind", ["JPEG", "PNG", "TIFF"])
def test_grey_pictures_are_turned_like_coloured_ones(tmp_path, kind, orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    extra = {"quality": 95} if kind == "JPEG" else {}
    source = put(tmp_path / f"a{SUFFIX[kind]}", photo()[..., 0], exif=exif, **extra)
    before, _, _ = round_trip(source, tmp_path)
    with Image.open(tmp_path / "out" / source.name) as released:
        assert 0x0112 not in released.getexif() or released.getexif()[0x0112] == 1
        stored = np.asarray(released)
    assert stored.shape == before.pixels.shape[:2]
    assert stored.shape == ((20, 28) if orientation < 5 else (28, 20))
    assert np.abs(stored.astype(int) - before.pixels[..., 0]).max() <= (30 if kind == "JPEG" else 8)


@pytest.mark.parametrize("transparent", [False, True])
def test_palettes_become_colours_and_are_reported(tmp_path, transparent):
    image = Image.fromarray(photo()).quantize(32)
    source = tmp_path / "a.png"
    image.save(source, **({"transparency": 3} if transparent else {}))
    before, after, realised = round_trip(source, tmp_path)
    assert before.converted == "palette"
    assert after.pixels.shape[2] == (4 if transparent else 3)
    assert realised.linf <= 8
    assert working_copy(source, 16)[1] == "palette"


def test_a_palette_with_alpha_becomes_rgba(tmp_path):
    alpha = np.full((20, 28), 9, np.uint8)
    indices = np.asarray(Image.fromarray(photo()).quantize(32))
    image = Image.frombytes("PA", (28, 20), np.dstack([indices, alpha]).tobytes())
    image.putpalette([value for number in range(256) for value in (number, 255 - number, 7)])
    from pueprotect.images.decode import picture_of

    made = picture_of(image)
    assert (made.pixels.shape, made.converted) == ((20, 28, 4), "palette")
    assert (made.alpha == 9).all()


def test_cmyk_is_released_in_rgb_through_its_own_profile(tmp_path):
    ink = np.zeros((16, 16, 4), np.uint8)
    ink[:8, :, 3] = 255
    ink[8:, :, 0] = 255
    source = tmp_path / "print.jpg"
    Image.fromarray(ink, "CMYK").save(source, "JPEG", quality=95, icc_profile=cmyk_profile())
    before, after, done = round_trip(source, tmp_path)
    assert before.converted == "CMYK"
    assert done.linf < 40, "colours are compared, and nothing else"
    assert before.pixels.shape == after.pixels.shape == (16, 16, 3)
    assert (shared(before.content)[..., 3] == 255).all(), "deviations include the filler"
    assert before.icc is after.icc is None
    assert before.pixels[:8].max() < 60, "black ink is black"
    red, green, _ = before.pixels[12, 8].tolist()
    assert red < green, "cyan ink reflects little red, as the profile says"
    assert np.abs(after.pixels.astype(int) - before.pixels).mean() < 9
    assert working_copy(source, 8)[1] == "CMYK"
    source.write_bytes(source.read_bytes().replace(b"mft1", b"xxxx"))
    with pytest.raises(ImageError, match=r"print\.jpg"):
        decode(source)


def test_a_png_called_jpg_stays_a_png_under_its_name(tmp_path):
    source = put(tmp_path / "a.jpg", format="PNG")
    before, after, realised = round_trip(source, tmp_path)
    assert (before.container, after.container) == ("PNG", "PNG")
    assert realised.linf <= 8


def test_a_large_jpeg_is_decoded_at_a_fraction_for_its_working_copy(tmp_path, monkeypatch):
    drafted = []
    from PIL import JpegImagePlugin

    draft = JpegImagePlugin.JpegImageFile.draft

    def spy(self, mode, size):
        result = draft(self, mode, size)
        drafted.append(self.size)
        return result

    monkeypatch.setattr(JpegImagePlugin.JpegImageFile, "draft", spy)
    rows, columns = np.mgrid[0:600, 0:800]
    pixels = np.stack([rows * 255 // 600, columns * 255 // 800, (rows + columns) % 256], axis=2).astype(np.uint8)
    source = put(tmp_path / "a.jpg", pixels, quality=95)
    copy = working_copy(source, 32).pixels
    assert drafted == [(100, 75)]
    full = Image.fromarray(decode_rgb(source)).resize((32, 32), Image.Resampling.LANCZOS, reducing_gap=3.0)
    assert np.abs(copy.astype(int) - np.asarray(full)).mean() < 2
    small = put(tmp_path / "b.jpg", photo(32, 32))
    working_copy(small, 32)
    assert len(drafted) == 1


def test_an_image_in_memory_needs_no_file(tmp_path):
    buffer = io.BytesIO()
    Image.fromarray(photo()).save(buffer, "PNG")
    assert np.array_equal(decode(tmp_path / "none.png", buffer.getvalue()).pixels, photo())


def heic(path, image, **options):
    pytest.importorskip("pillow_heif")
    path.parent.mkdir(parents=True, exist_ok=True)
    image.save(path, "HEIF", quality=90, **options)
    return path


def test_heic_is_read_as_viewers_show_it_and_reported(tmp_path):
    """The standard turns HEIC pictures by a property of the container; the tag in EXIF has no effect."""
    exif = Image.Exif()
    exif[0x0112] = 6
    source = heic(tmp_path / "a.heic", Image.fromarray(photo(64, 96)), exif=exif)
    picture = decode(source)
    assert (picture.container, picture.converted, picture.kind) == ("HEIF", "HEIC", ("RGB", (64, 96)))
    assert np.abs(picture.rgb.astype(int) - photo(64, 96)).mean() < 12
    copy, converted = working_copy(source, 16)[:2]
    assert (copy.shape, converted) == ((16, 16, 3), "HEIC")


def test_heic_of_more_than_8_bits_is_refused(tmp_path):
    deep = Image.fromarray(photo(32, 32)[..., 0].astype(np.uint16) * 257)
    source = heic(tmp_path / "a.heic", deep)
    with pytest.raises(ImageError, match=r"a\.heic: HEIC of 1[02] bits"):
        decode(source)


@pytest.mark.parametrize("file_format", ["keep", "png"])
def test_a_tiff_of_three_planes_is_an_ordinary_picture(tmp_path, file_format):
    source = tmp_path / "planar.tif"
    source.write_bytes(planar_tiff(photo()))
    before, after, realised = round_trip(source, tmp_path, file_format=file_format)
    assert np.array_equal(before.rgb, photo())
    assert 0 < realised.linf == np.abs(after.rgb.astype(int) - photo()).max() <= 8
    assert realised.psnr == pytest.approx(10 * np.log10(255**2 / np.square(after.rgb - photo().astype(float)).mean()))
