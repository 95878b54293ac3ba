import io
import os
import struct
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from conftest import photo, put
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import ExifTags, Image, ImageCms
from scipy.ndimage import uniform_filter

from pueprotect.errors import ImageError, InputError
from pueprotect.images import encode
from pueprotect.images.decode import decode, decode_rgb, identify
from pueprotect.images.encode import Encoder, released_names
from pueprotect.images.folders import ImageEntry, ImageFolder
from pueprotect.images.jpeg_quality import JPEG_QUALITIES, LARGEST_ERROR, LEAST_GAIN, choose_quality, survival
from pueprotect.images.overlay import lay
from pueprotect.images.similarity import PSNR_CAP, deviation, image_deviation, ssim

LOSSLESS = {"PNG": ("RGB", "RGBA", "L", "LA", "P"), "WEBP": ("RGB", "RGBA"), "BMP": ("RGB", "L", "P")}
LOSSLESS["TIFF"] = LOSSLESS["PNG"]
SUFFIX = {"PNG": ".png", "WEBP": ".webp", "BMP": ".bmp", "TIFF": ".tif", "JPEG": ".jpg"}


def protect_file(source, target, delta, *, epsilon_levels, **options):
    return Encoder(epsilon=epsilon_levels, **options).write(source, target, delta)


def noise(side=16, epsilon=8, seed=1):
    return np.random.default_rng(seed).integers(-epsilon, epsilon + 1, (side, side, 3)).astype(np.int8)


def test_only_the_first_picture_of_a_jpeg_is_released(tmp_path):
    second = [Image.fromarray(photo(seed=1))]
    Image.fromarray(photo()).save(tmp_path / "phone.jpg", "MPO", save_all=True, append_images=second)
    result = protect_file(tmp_path / "phone.jpg", tmp_path / "out.jpg", noise(), epsilon_levels=8)
    with Image.open(tmp_path / "out.jpg") as released:
        assert released.format == "JPEG"
    assert result.linf > 0


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "TIFF"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_orientation_is_applied_and_both_files_look_alike(tmp_path, kind, orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    options = {"JPEG": {"quality": 95}, "WEBP": {"lossless": True}}.get(kind, {})
    source = put(tmp_path / f"a{SUFFIX[kind]}", photo(), exif=exif, **options)
    turn = {1: lambda x: x, 2: np.fliplr, 3: lambda x: np.rot90(x, 2), 4: np.flipud}
    turn |= {5: lambda x: x.swapaxes(0, 1), 6: lambda x: np.rot90(x, -1), 7: lambda x: np.rot90(x, 2).swapaxes(0, 1)}
    expected = turn.get(orientation, np.rot90)(photo())
    seen = decode_rgb(source)
    assert seen.shape == expected.shape
    assert np.abs(seen.astype(int) - expected).mean() < 6
    target = tmp_path / f"b{SUFFIX[kind]}"
    protect_file(source, target, noise(), epsilon_levels=8, metadata="keep")
    with Image.open(target) as released:
        assert 0x0112 not in released.getexif()
        stored = np.asarray(released.convert("RGB")).astype(int)
    assert stored.shape == seen.shape
    assert np.abs(stored - seen).max() <= (30 if kind == "JPEG" else 8)


def source_of(kind, mode, folder, seed=0):
    alpha = photo(seed=seed)[..., 0]
    alpha[:9] = 0
    image = Image.fromarray(np.dstack([photo(seed=seed), alpha]))
    image = image.convert("RGB").quantize(64) if mode == "P" else image.convert(mode)
    path = folder / f"source{SUFFIX[kind]}"
    image.save(path, kind, **({"lossless": True, "exact": True} if kind == "WEBP" else {}))
    return path


@pytest.mark.parametrize(("kind", "mode"), [(kind, mode) for kind, modes in LOSSLESS.items() for mode in modes])
@settings(max_examples=8, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.integers(0, 20), st.integers(1, 40), st.integers(0, 1000))
def test_lossless_files_stay_within_epsilon(tmp_path, kind, mode, epsilon, side, seed):
    source = source_of(kind, mode, tmp_path, seed)
    target = tmp_path / f"target{SUFFIX[kind]}"
    delta = np.random.default_rng(seed).integers(-127, 128, (side, side, 3)).astype(np.int8)
    result = protect_file(source, target, delta, epsilon_levels=epsilon)
    gap = np.abs(decode_rgb(target).astype(int) - decode_rgb(source))
    assert gap.max() == result.linf <= epsilon
    assert (result.linf > 0) == (epsilon > 0)
    assert result.bytes_before == source.stat().st_size
    assert result.bytes_after == target.stat().st_size
    with Image.open(target) as released, Image.open(source) as original:
        assert released.format == original.format == kind
        assert released.mode == {"P": "RGB"}.get(mode, mode)
        if "A" in mode:
            assert np.array_equal(released.getchannel("A"), original.getchannel("A"))


def test_noise_of_the_image_size_is_added_exactly_and_signed(tmp_path):
    pixels = np.full((16, 16, 3), 128, np.uint8)
    pixels[0], pixels[1] = 2, 253
    source = put(tmp_path / "a.png", pixels)
    delta = noise(16, 8)
    protect_file(source, tmp_path / "b.png", delta, epsilon_levels=8)
    expected = np.clip(pixels.astype(int) + delta, 0, 255)
    assert np.array_equal(decode_rgb(tmp_path / "b.png"), expected)
    grey = put(tmp_path / "g.png", pixels[..., 0])
    protect_file(grey, tmp_path / "h.png", delta, epsilon_levels=8)
    mean = np.rint(delta.astype(np.float64).mean(axis=2))
    assert np.array_equal(decode_rgb(tmp_path / "h.png")[..., 0], np.clip(pixels[..., 0] + mean, 0, 255))


@pytest.mark.parametrize("shape", [(40, 80), (37, 64), (16, 33), (101, 16)])
def test_each_noise_value_fills_its_share_of_a_larger_picture(shape):
    delta = noise(16)
    flat = np.full((*shape, 3), 128, np.uint8)
    laid = lay(flat, delta, 8).astype(int) - 128
    rows, columns = ([int(Fraction(2 * place + 1, 2 * side) * 16) for place in range(side)] for side in shape)
    assert np.array_equal(laid, delta[rows][:, columns])
    assert (flat == 128).all()


def test_noise_is_reduced_smoothly_where_the_picture_is_smaller():
    delta = np.zeros((16, 16, 3), np.int8)
    delta[:, :8], delta[:, 8:] = -8, 8
    row = lay(np.full((40, 5, 3), 128, np.uint8), delta, 8)[20, :, 0].astype(int) - 128
    assert row.tolist() == [-8, -8, 0, 8, 8]


def test_sixteen_bits_get_the_same_share_of_their_range():
    delta = noise(16)
    shallow = np.full((16, 16, 4), 100, np.uint8)
    shallow[0], shallow[1] = 2, 253
    laid, deep = lay(shallow, delta, 8), lay(shallow.astype(np.uint16) * 257, delta, 8)
    assert np.array_equal(deep, laid.astype(np.uint16) * 257)
    assert np.array_equal(laid[..., 3], shallow[..., 3])


def test_psnr_is_measured_and_finite(tmp_path):
    source = put(tmp_path / "a.png", np.full((8, 8, 3), 100, np.uint8))
    two = protect_file(source, tmp_path / "b.png", np.full((8, 8, 3), 2, np.int8), epsilon_levels=8)
    assert two.linf == 2
    assert two.psnr == pytest.approx(10 * np.log10(255**2 / 4))
    none = protect_file(source, tmp_path / "c.png", np.zeros((8, 8, 3), np.int8), epsilon_levels=8)
    assert (none.linf, none.psnr) == (0, PSNR_CAP)


def test_jpeg_keeps_the_noise_and_reports_what_it_added(tmp_path):
    source = put(tmp_path / "a.jpg", photo(64, 64), quality=90)
    delta = noise(64, 8)
    result = protect_file(source, tmp_path / "b.jpg", delta, epsilon_levels=8)
    gap = decode_rgb(tmp_path / "b.jpg").astype(float) - decode_rgb(source)
    assert result.linf == np.abs(gap).max()
    meant = np.clip(decode_rgb(source).astype(float) + delta, 0, 255) - decode_rgb(source)
    assert 0.97 < (gap * meant).sum() / (meant**2).sum() < 1.03
    assert np.sqrt(((gap - meant) ** 2).mean()) < 2.5
    with Image.open(tmp_path / "b.jpg") as released:
        assert {layer[1:3] for layer in released.layer} == {(1, 1)}


def test_colour_keyed_transparency_stays_where_it_was(tmp_path):
    pixels = photo()
    pixels[:5] = (1, 2, 3)
    source = put(tmp_path / "a.png", pixels, transparency=(1, 2, 3))
    protect_file(source, tmp_path / "b.png", noise(), epsilon_levels=8)
    with Image.open(tmp_path / "b.png") as released:
        assert released.mode == "RGBA"
        alpha = np.asarray(released.getchannel("A"))
    assert (alpha[:5] == 0).all()
    assert (alpha[5:] == 255).all()


def bmp_with_alpha(path):
    masks = struct.pack("<IIII", 0xFF0000, 0xFF00, 0xFF, 0xFF000000)
    header = struct.pack("<IiiHHIIiiII", 108, 4, 4, 1, 32, 3, 64, 0, 0, 0, 0) + masks + bytes(52)
    path.write_bytes(b"BM" + struct.pack("<IHHI", 14 + 108 + 64, 0, 0, 122) + header + bytes([9, 8, 7, 99]) * 16)
    return path


def test_transparency_that_the_container_loses_is_an_error_with_a_mend(tmp_path):
    source = bmp_with_alpha(tmp_path / "a.bmp")
    assert identify(source)[2] == "RGBA"
    with pytest.raises(ImageError, match=r"a\.bmp.*--format png"):
        protect_file(source, tmp_path / "out" / "a.bmp", noise(), epsilon_levels=8)
    assert list((tmp_path / "out").iterdir()) == []
    protect_file(source, tmp_path / "out" / "a.png", noise(), epsilon_levels=8, file_format="png")
    with Image.open(tmp_path / "out" / "a.png") as released:
        assert released.getpixel((0, 0))[3] == 99


def rich_exif():
    """EXIF with everything that may give the original or the place away, and three harmless entries."""
    exif = Image.Exif()
    exif[0x010F], exif[0x0112], exif[0x8298] = "Maker", 1, "Owner"
    details = {0x9003: "2020:01:01 00:00:00", 0x927C: b"MAKERNOTE" * 3, 0x9286: b"PREVIEW" * 400}
    for tag, entries in ((0x8769, details), (0x8825, {1: "N", 2: (48.0, 8.0, 0.0)})):
        exif.get_ifd(tag).update(entries)
        exif[tag] = entries
    return exif


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "TIFF"])
def test_metadata_is_minimal_unless_asked_for(tmp_path, kind):
    icc = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    extra = {"comment": b"COMMENT"} if kind == "JPEG" else {}
    source = put(tmp_path / f"a{SUFFIX[kind]}", exif=rich_exif(), icc_profile=icc, **extra)
    assert b"PREVIEW" in source.read_bytes()
    bare, kept = tmp_path / f"b{SUFFIX[kind]}", tmp_path / f"c{SUFFIX[kind]}"
    protect_file(source, bare, noise(), epsilon_levels=8)
    protect_file(source, kept, noise(), epsilon_levels=8, metadata="keep")
    for path in (bare, kept):
        assert not any(word in path.read_bytes() for word in (b"PREVIEW", b"MAKERNOTE", b"COMMENT"))
        with Image.open(path) as image:
            assert image.info["icc_profile"] == icc
            assert not image.getexif().get_ifd(0x8825)
            assert not image.getexif().get_ifd(ExifTags.IFD.IFD1)
            owner = image.getexif().get(0x8298)
            date = image.getexif().get_ifd(0x8769).get(0x9003)
        if path is bare:
            assert (owner, date) == (None, None)
        else:
            assert (owner, date) == ("Owner", "2020:01:01 00:00:00")


def test_an_embedded_thumbnail_never_reaches_the_release(tmp_path):
    buffer = io.BytesIO()
    Image.fromarray(photo(8, 8)).save(buffer, "JPEG")
    thumbnail = buffer.getvalue()
    # IFD0 with one entry (Make), then IFD1 with the offset and the length of the thumbnail.
    first = struct.pack("<HHHI4sI", 1, 0x010F, 2, 4, b"Mk\0\0", 26)
    second = struct.pack("<HHHIIHHIII", 2, 0x0201, 4, 1, 56, 0x0202, 4, 1, len(thumbnail), 0)
    exif = b"Exif\0\0" + b"II*\0\x08\0\0\0" + first + second + thumbnail
    source = put(tmp_path / "a.jpg", exif=exif)
    with Image.open(source) as image:
        assert image.getexif().get_ifd(ExifTags.IFD.IFD1)[0x0202] == len(thumbnail)
    assert source.read_bytes().count(b"\xff\xd8\xff") == 2
    for metadata in ("minimal", "keep"):
        target = tmp_path / f"{metadata}.jpg"
        protect_file(source, target, noise(), epsilon_levels=8, metadata=metadata)
        assert target.read_bytes().count(b"\xff\xd8\xff") == 1


def test_nothing_is_left_behind_when_writing_fails(tmp_path, monkeypatch):
    source = put(tmp_path / "a.png")
    out = tmp_path / "out"

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(encode.os, "replace", full)
    with pytest.raises(ImageError, match=r"a\.png cannot be written.*No space"):
        protect_file(source, out / "a.png", noise(), epsilon_levels=8)
    assert list(out.iterdir()) == []


def test_the_original_is_never_overwritten(tmp_path):
    source = put(tmp_path / "a.png")
    before = source.read_bytes()
    os.link(source, tmp_path / "twin.png")
    for target in (source, tmp_path / "twin.png"):
        with pytest.raises(InputError, match="original itself"):
            protect_file(source, target, noise(), epsilon_levels=8)
    assert source.read_bytes() == before


def test_the_same_noise_gives_the_same_bytes(tmp_path):
    for kind in ("JPEG", "PNG", "WEBP"):
        source = put(tmp_path / f"a{SUFFIX[kind]}")
        written = [tmp_path / f"{name}{SUFFIX[kind]}" for name in "bc"]
        for target in written:
            protect_file(source, target, noise(), epsilon_levels=8)
        assert written[0].read_bytes() == written[1].read_bytes()


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


def test_released_names_keep_or_change_the_suffix():
    folder = ImageFolder(Path("r"), ("a", "b"), (ImageEntry("a/x.JPG", 0), ImageEntry("b/y.v2.tiff", 1)))
    assert released_names(folder, "keep") == ["a/x.JPG", "b/y.v2.tiff"]
    assert released_names(folder, "png") == ["a/x.png", "b/y.v2.png"]


def test_heic_becomes_jpeg_in_name_and_content(tmp_path):
    pytest.importorskip("pillow_heif")
    Image.fromarray(photo(64, 64)).save(tmp_path / "a.heic", "HEIF", quality=90)
    result = protect_file(tmp_path / "a.heic", tmp_path / "a.jpg", noise(), epsilon_levels=8)
    assert identify(tmp_path / "a.jpg")[2:] == ("RGB", "JPEG")
    assert 8 <= result.linf < 25
    assert choose_quality([(tmp_path / "a.heic", noise())], 8).files == 1
    protect_file(tmp_path / "a.heic", tmp_path / "a.png", noise(), epsilon_levels=8, file_format="png")
    assert identify(tmp_path / "a.png")[3] == "PNG"
    Image.fromarray(np.dstack([photo(64, 64), photo(64, 64)[..., :1]])).save(tmp_path / "t.heic", "HEIF", quality=90)
    with pytest.raises(ImageError, match=r"t\.heic: JPEG does not keep its transparency; use --format png"):
        protect_file(tmp_path / "t.heic", tmp_path / "t.jpg", noise(), epsilon_levels=8)


def test_released_names_of_heic():
    folder = ImageFolder(Path("r"), ("a",), (ImageEntry("a/x.HEIC", 0), ImageEntry("a/y.JPG", 0)))
    assert released_names(folder, "keep") == ["a/x.jpg", "a/y.JPG"]
    for other in ("a/x.jpg", "a/X.JPG"):
        folder = ImageFolder(Path("r"), ("a",), (ImageEntry("a/x.heic", 0), ImageEntry(other, 0)))
        with pytest.raises(InputError, match=r"a/x\.heic and a/[xX]\.(jpg|JPG) would both become .*rename one\.$"):
            released_names(folder, "keep")


@pytest.mark.parametrize("other", ["a/x.png", "a/X.webp"])
def test_released_names_refuse_collisions(other):
    folder = ImageFolder(Path("r"), ("a",), (ImageEntry("a/x.jpg", 0), ImageEntry(other, 0)))
    assert len(released_names(folder, "keep")) == 2
    with pytest.raises(InputError, match=r"a/x\.jpg and"):
        released_names(folder, "png")


def test_quality_is_chosen_by_what_survives(tmp_path):
    tiny = [(put(tmp_path / f"{n}.jpg", photo(16, 16, seed=n), quality=95), noise(16, seed=n)) for n in range(3)]
    large = [(put(tmp_path / f"l{n}.jpg", photo(256, 256, seed=n), quality=95), noise(16, seed=n)) for n in range(2)]
    fine, coarse = (choose_quality(pictures, 8) for pictures in (tiny, large))
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
    assert choose_quality([(put(tmp_path / "a.png"), noise())], 8) is None


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
