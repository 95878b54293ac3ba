"""Every supported format and mode, there and back through a protected file."""

import io
import struct
import zlib

import numpy as np
import pytest
from conftest import photo, put
from PIL import Image, ImageCms

from pueprotect.errors import ImageError, InputError
from pueprotect.images import decode as pixels
from pueprotect.images import folders as images
from pueprotect.images.buffers import shared
from pueprotect.images.decode import decode, decode_rgb, working_copy
from pueprotect.images.encode import Encoder
from pueprotect.images.folders import scan

SUFFIX = {"PNG": ".png", "WEBP": ".webp", "BMP": ".bmp", "TIFF": ".tif", "JPEG": ".jpg"}
CHANNELS = {"L": 1, "LA": 2, "RGB": 3, "RGBA": 4}


def noise(side=16, seed=1):
    return np.random.default_rng(seed).integers(-8, 9, (side, side, 3)).astype(np.int8)


def profile(space="sRGB"):
    return ImageCms.ImageCmsProfile(ImageCms.createProfile(space)).tobytes()


def colours(mode, dtype=np.uint8, seed=0):
    """A picture with all its channels, (H, W, C), partly transparent where it can be."""
    rgb = photo(seed=seed)
    alpha = rgb[..., :1].copy()
    alpha[:6] = 0
    parts = [rgb if mode.startswith("RGB") else rgb[..., :1], *([alpha] if mode.endswith("A") else [])]
    pixels = np.concatenate(parts, axis=2)
    if dtype == np.uint16:
        low = np.random.default_rng(seed).integers(0, 256, pixels.shape)
        return (pixels.astype(np.uint16) << 8) | low.astype(np.uint16)
    return pixels


def png16(pixels, icc=b""):
    """A 16-bit PNG written straight from the specification, rows unfiltered."""

    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    height, width, channels = pixels.shape
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in pixels)
    head = struct.pack(">IIBBBBB", width, height, 16, {1: 0, 2: 4, 3: 2, 4: 6}[channels], 0, 0, 0)
    extra = chunk(b"iCCP", b"p\0\0" + zlib.compress(icc)) if icc else b""
    body = chunk(b"IHDR", head) + extra + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + body


def tiff16(pixels, order="<", orientation=1):
    """A 16-bit TIFF written straight from the specification, one uncompressed strip."""
    height, width, channels = pixels.shape
    kind = np.dtype(np.uint16).newbyteorder(order)
    tags = [(256, 4, 1, width), (257, 4, 1, height), (258, 3, 1, 16), (259, 3, 1, 1)]
    tags += [(262, 3, 1, 2 if channels > 2 else 1), (273, 4, 1, 0), (274, 3, 1, orientation), (277, 3, 1, channels)]
    tags += [(278, 4, 1, height), (279, 4, 1, 2 * pixels.size)] + ([(338, 3, 1, 2)] if channels == 4 else [])
    bits = 8 + 2 + 12 * len(tags) + 4
    start = bits + 2 * channels
    entries = b""
    for tag, kind_of, count, value in tags:
        if tag == 258 and channels > 2:
            entries += struct.pack(order + "HHII", tag, 3, channels, bits)
        elif kind_of == 3:
            entries += struct.pack(order + "HHIHH", tag, kind_of, count, value, 0)
        else:
            entries += struct.pack(order + "HHII", tag, kind_of, count, start if tag == 273 else value)
    head = (b"II*\0" if order == "<" else b"MM\0*") + struct.pack(order + "I", 8)
    directory = struct.pack(order + "H", len(tags)) + entries + bytes(4)
    return head + directory + struct.pack(order + f"{channels}H", *[16] * channels) + pixels.astype(kind).tobytes()


def round_trip(source, tmp_path, **options):
    target = tmp_path / "out" / source.name
    realised = Encoder(epsilon=8, **options).write(source, target, noise())
    return decode(source), decode(target), realised


EIGHT = [(kind, mode) for kind in ("PNG", "TIFF") for mode in CHANNELS]
EIGHT += [("WEBP", "RGB"), ("WEBP", "RGBA"), ("BMP", "RGB"), ("BMP", "L"), ("JPEG", "RGB"), ("JPEG", "L")]


@pytest.mark.parametrize(("kind", "mode"), EIGHT)
def test_eight_bits_keep_everything_but_the_noise(tmp_path, kind, mode):
    pixels = colours(mode)
    icc = profile() if kind != "BMP" else None
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


SIXTEEN = [("PNG", mode, "") for mode in CHANNELS]
SIXTEEN += [("TIFF", mode, order) for mode in ("L", "RGB", "RGBA") for order in "<>"]


@pytest.mark.parametrize(("kind", "mode", "order"), SIXTEEN)
def test_sixteen_bits_keep_their_depth(tmp_path, kind, mode, order):
    pixels = colours(mode, np.uint16)
    source = tmp_path / f"deep{SUFFIX[kind]}"
    source.write_bytes(png16(pixels, profile()) if kind == "PNG" else tiff16(pixels, order))
    before, after, realised = round_trip(source, tmp_path)
    assert np.array_equal(before.pixels, pixels), "all 16 bits are read"
    assert (after.container, after.pixels.dtype, after.pixels.shape) == (kind, np.uint16, pixels.shape)
    assert after.icc == before.icc == (profile() if kind == "PNG" else None)
    gap = np.abs(after.colours.astype(int) - before.colours.astype(int)).max()
    assert 0 < gap <= 8 * 257
    assert realised.linf == -(-gap // 257)
    if before.alpha is not None:
        assert np.array_equal(after.alpha, before.alpha)
    assert np.array_equal(decode_rgb(source), np.repeat(before.colours >> 8, 3 if mode in ("L", "LA") else 1, axis=2))
    copy, converted = working_copy(source, 16)
    assert (copy.shape, converted) == ((16, 16, 3), "")
    again, _, _ = round_trip(source, tmp_path, file_format="png")
    assert again.pixels.dtype == np.uint16


@pytest.mark.parametrize("orientation", range(1, 9))
def test_sixteen_bits_are_turned_as_viewers_show_them(tmp_path, orientation):
    shallow = np.repeat(photo()[..., :1], 3, axis=2)
    exif = Image.Exif()
    exif[0x0112] = orientation
    turned = decode(put(tmp_path / "shallow.tif", shallow, exif=exif)).pixels
    source = tmp_path / "deep.tif"
    source.write_bytes(tiff16(shallow.astype(np.uint16) * 257, "<", orientation))
    before, after, realised = round_trip(source, tmp_path)
    assert np.array_equal(before.pixels, turned.astype(np.uint16) * 257)
    assert after.pixels.shape == before.pixels.shape
    assert realised.linf <= 8


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
def test_palettes_become_colours_and_say_so(tmp_path, transparent):
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


def cmyk_profile():
    """The smallest CMYK output profile that Little CMS accepts: one lookup table from CMYK to XYZ-like Lab."""
    grid = 2
    table = b""
    for corner in range(grid**4):
        c, m, y, k = ((corner >> shift) & 1 for shift in (3, 2, 1, 0))
        lightness = 0 if k else 255 - 60 * (c + m + y)
        table += bytes((max(0, lightness), 128 + 40 * (m - c), 128 + 40 * (y - c)))
    linear = bytes(range(256))
    lut = b"mft1\0\0\0\0" + bytes((4, 3, grid, 0))
    lut += b"".join(struct.pack(">i", value) for value in (65536, 0, 0, 0, 65536, 0, 0, 0, 65536))
    lut += linear * 4 + table + linear * 3
    lut += bytes(-len(lut) % 4)
    white = b"XYZ \0\0\0\0" + struct.pack(">iii", 63190, 65536, 54061)
    text = b"desc\0\0\0\0" + struct.pack(">I", 5) + b"cmyk\0" + bytes(78) + bytes(3)
    parts, offset, tags = [(b"A2B0", lut), (b"wtpt", white), (b"desc", text)], 128 + 4 + 12 * 3, b""
    for name, data in parts:
        tags += name + struct.pack(">II", offset, len(data))
        offset += len(data)
    head = struct.pack(">I4sI4s4s4s", offset, b"lcms", 0x02100000, b"prtr", b"CMYK", b"Lab ") + bytes(12) + b"acsp"
    head += bytes(24) + struct.pack(">III", 0, 0, 0) + struct.pack(">iii", 63190, 65536, 54061)
    head += bytes(128 - len(head))
    return head + struct.pack(">I", 3) + tags + b"".join(data for _, data in parts)


def test_cmyk_is_released_in_rgb_through_its_own_profile(tmp_path):
    ink = np.zeros((16, 16, 4), np.uint8)
    ink[:8, :, 3] = 255
    ink[8:, :, 0] = 255
    source = tmp_path / "print.jpg"
    Image.fromarray(ink, "CMYK").save(source, "JPEG", quality=95, icc_profile=cmyk_profile())
    before, after, done = round_trip(source, tmp_path)
    assert before.converted == "CMYK"
    assert done.linf < 40, "colours are compared, and nothing beside them"
    assert before.pixels.shape == after.pixels.shape == (16, 16, 3)
    assert (shared(before.content)[..., 3] == 255).all(), "deviations are taken over the filler, too"
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
    copy, _ = working_copy(source, 32)
    assert drafted == [(100, 75)]
    full = Image.fromarray(decode_rgb(source)).resize((32, 32), Image.Resampling.LANCZOS, reducing_gap=3.0)
    assert np.abs(copy.astype(int) - np.asarray(full)).mean() < 2
    small = put(tmp_path / "b.jpg", photo(32, 32))
    working_copy(small, 32)
    assert len(drafted) == 1


def test_other_pictures_are_listed_as_unsupported(tmp_path, monkeypatch):
    monkeypatch.setattr(images, "SUFFIXES", images.SUFFIXES - pixels.HEIC_SUFFIXES)  # as without the extra
    for name in ("ant/a.png", "bee/b.png"):
        put(tmp_path / name)
    for name in ("ant/live.HEIC", "bee/move.gif"):
        (tmp_path / name).write_bytes(b"x")
    (tmp_path / "ant/pipe.jpg").symlink_to(tmp_path / "ant/nothing.jpg")
    found = dict(scan(tmp_path).unsupported)
    assert set(found) == {"ant/live.HEIC", "bee/move.gif", "ant/pipe.jpg"}
    assert "HEIC" in found["ant/live.HEIC"]
    assert "pip install 'pueprotect[heic]'" in found["ant/live.HEIC"]
    assert "GIF files cannot be released" in found["bee/move.gif"]
    assert "no regular file" in found["ant/pipe.jpg"]
    (tmp_path / "only/phone").mkdir(parents=True)
    (tmp_path / "only/phone/live.heic").write_bytes(b"x")
    with pytest.raises(InputError, match=r"live\.heic: HEIC .*pip install 'pueprotect\[heic\]'"):
        scan(tmp_path / "only")


def test_an_image_in_memory_needs_no_file(tmp_path):
    buffer = io.BytesIO()
    Image.fromarray(photo()).save(buffer, "PNG")
    assert np.array_equal(decode(tmp_path / "none.png", buffer.getvalue()).pixels, photo())


def heic(path, image, **options):
    pytest.importorskip("pillow_heif")
    path.parent.mkdir(parents=True, exist_ok=True)
    image.save(path, "HEIF", quality=90, **options)
    return path


def test_heic_is_read_as_viewers_show_it_and_named(tmp_path):
    """The standard turns HEIC pictures by a property of the container; the tag in EXIF counts for nothing."""
    exif = Image.Exif()
    exif[0x0112] = 6
    source = heic(tmp_path / "a.heic", Image.fromarray(photo(64, 96)), exif=exif)
    picture = decode(source)
    assert (picture.container, picture.converted, picture.kind) == ("HEIF", "HEIC", ("RGB", (64, 96)))
    assert np.abs(picture.rgb.astype(int) - photo(64, 96)).mean() < 12
    copy, converted = working_copy(source, 16)
    assert (copy.shape, converted) == ((16, 16, 3), "HEIC")


def test_heic_of_more_than_8_bits_is_refused(tmp_path):
    deep = Image.fromarray(photo(32, 32)[..., 0].astype(np.uint16) * 257)
    source = heic(tmp_path / "a.heic", deep)
    with pytest.raises(ImageError, match=r"a\.heic: HEIC of 1[02] bits"):
        decode(source)
