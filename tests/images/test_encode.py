import io
import os
import struct
from pathlib import Path

import numpy as np
import pytest
from helpers import SUFFIX, bmp_with_alpha, noise_levels, photo, put
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import ExifTags, Image, ImageCms

from pueprotect.errors import ImageError, InputError
from pueprotect.images import encode
from pueprotect.images.decode import decode, decode_rgb, identify
from pueprotect.images.encode import Encoder, released_names
from pueprotect.images.folders import ImageEntry, ImageFolder
from pueprotect.images.jpeg_quality import choose_quality
from pueprotect.images.overlay import lay
from pueprotect.images.similarity import PSNR_CAP

LOSSLESS = {"PNG": ("RGB", "RGBA", "L", "LA", "P"), "WEBP": ("RGB", "RGBA"), "BMP": ("RGB", "L", "P")}
LOSSLESS["TIFF"] = LOSSLESS["PNG"]


def protect_file(source, target, delta, *, epsilon_levels, **options):
    return Encoder(epsilon=epsilon_levels, **options).write(source, target, delta)


def test_only_the_first_picture_of_a_jpeg_is_released(tmp_path):
    second = [Image.fromarray(photo(seed=1))]
    Image.fromarray(photo()).save(tmp_path / "phone.jpg", "MPO", save_all=True, append_images=second)
    result = protect_file(tmp_path / "phone.jpg", tmp_path / "out.jpg", noise_levels(), epsilon_levels=8)
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
    protect_file(source, target, noise_levels(), epsilon_levels=8, metadata="keep")
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
    delta = noise_levels(16, 8)
    protect_file(source, tmp_path / "b.png", delta, epsilon_levels=8)
    expected = np.clip(pixels.astype(int) + delta, 0, 255)
    assert np.array_equal(decode_rgb(tmp_path / "b.png"), expected)
    grey = put(tmp_path / "g.png", pixels[..., 0])
    protect_file(grey, tmp_path / "h.png", delta, epsilon_levels=8)
    mean = np.rint(delta.astype(np.float64).mean(axis=2))
    assert np.array_equal(decode_rgb(tmp_path / "h.png")[..., 0], np.clip(pixels[..., 0] + mean, 0, 255))


def test_psnr_is_measured_and_finite(tmp_path):
    source = put(tmp_path / "a.png", np.full((8, 8, 3), 100, np.uint8))
    two = protect_file(source, tmp_path / "b.png", np.full((8, 8, 3), 2, np.int8), epsilon_levels=8)
    assert two.linf == 2
    assert two.psnr == pytest.approx(10 * np.log10(255**2 / 4))
    none = protect_file(source, tmp_path / "c.png", np.zeros((8, 8, 3), np.int8), epsilon_levels=8)
    assert (none.linf, none.psnr) == (0, PSNR_CAP)


def test_jpeg_keeps_the_noise_and_reports_what_it_added(tmp_path):
    source = put(tmp_path / "a.jpg", photo(64, 64), quality=90)
    delta = noise_levels(64, 8)
    result = protect_file(source, tmp_path / "b.jpg", delta, epsilon_levels=8)
    gap = decode_rgb(tmp_path / "b.jpg").astype(float) - decode_rgb(source)
    assert result.linf == np.abs(gap).max() <= 8
    meant = np.clip(decode_rgb(source).astype(float) + delta, 0, 255) - decode_rgb(source)
    assert result.rounding.kept == pytest.approx((gap * meant).sum() / (meant**2).sum())
    assert result.rounding.kept > 0.85
    assert result.rounding.error == pytest.approx(np.sqrt(((gap - meant) ** 2).mean()))
    assert result.rounding.outside == 0
    roomy = Encoder(epsilon=8, limit=12).write(source, tmp_path / "c.jpg", delta)
    assert 8 < roomy.linf <= 12
    assert roomy.rounding.kept > 0.98
    with Image.open(tmp_path / "b.jpg") as released:
        assert {layer[1:3] for layer in released.layer} == {(1, 1)}


def test_colour_keyed_transparency_stays_where_it_was(tmp_path):
    pixels = photo()
    pixels[:5] = (1, 2, 3)
    source = put(tmp_path / "a.png", pixels, transparency=(1, 2, 3))
    protect_file(source, tmp_path / "b.png", noise_levels(), epsilon_levels=8)
    with Image.open(tmp_path / "b.png") as released:
        assert released.mode == "RGBA"
        alpha = np.asarray(released.getchannel("A"))
    assert (alpha[:5] == 0).all()
    assert (alpha[5:] == 255).all()


def test_transparency_that_the_container_loses_is_an_error_with_a_remedy(tmp_path):
    source = bmp_with_alpha(tmp_path / "a.bmp")
    assert identify(source)[2] == "RGBA"
    with pytest.raises(ImageError, match=r"a\.bmp.*--format png"):
        protect_file(source, tmp_path / "out" / "a.bmp", noise_levels(), epsilon_levels=8)
    assert list((tmp_path / "out").iterdir()) == []
    protect_file(source, tmp_path / "out" / "a.png", noise_levels(), epsilon_levels=8, file_format="png")
    with Image.open(tmp_path / "out" / "a.png") as released:
        assert released.getpixel((0, 0))[3] == 99


def rich_exif():
    """EXIF that reveals the original and the place, and three harmless entries."""
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
    protect_file(source, bare, noise_levels(), epsilon_levels=8)
    protect_file(source, kept, noise_levels(), epsilon_levels=8, metadata="keep")
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
        protect_file(source, target, noise_levels(), epsilon_levels=8, metadata=metadata)
        assert target.read_bytes().count(b"\xff\xd8\xff") == 1


def test_nothing_is_left_behind_when_writing_fails(tmp_path, monkeypatch):
    source = put(tmp_path / "a.png")
    out = tmp_path / "out"

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(encode.os, "replace", full)
    with pytest.raises(ImageError, match=r"a\.png cannot be written.*No space"):
        protect_file(source, out / "a.png", noise_levels(), epsilon_levels=8)
    assert list(out.iterdir()) == []


def test_the_original_is_never_overwritten(tmp_path):
    source = put(tmp_path / "a.png")
    before = source.read_bytes()
    os.link(source, tmp_path / "twin.png")
    for target in (source, tmp_path / "twin.png"):
        with pytest.raises(InputError, match="original itself"):
            protect_file(source, target, noise_levels(), epsilon_levels=8)
    assert source.read_bytes() == before


def test_the_same_noise_gives_the_same_bytes(tmp_path):
    for kind in ("JPEG", "PNG", "WEBP"):
        source = put(tmp_path / f"a{SUFFIX[kind]}")
        written = [tmp_path / f"{name}{SUFFIX[kind]}" for name in "bc"]
        for target in written:
            protect_file(source, target, noise_levels(), epsilon_levels=8)
        assert written[0].read_bytes() == written[1].read_bytes()


def test_released_names_keep_or_change_the_suffix():
    folder = ImageFolder(Path("r"), ("a", "b"), (ImageEntry("a/x.JPG", 0), ImageEntry("b/y.v2.tiff", 1)))
    assert released_names(folder, "keep") == ["a/x.JPG", "b/y.v2.tiff"]
    assert released_names(folder, "png") == ["a/x.png", "b/y.v2.png"]


def test_heic_becomes_jpeg_in_name_and_content(tmp_path):
    pytest.importorskip("pillow_heif")
    Image.fromarray(photo(64, 64)).save(tmp_path / "a.heic", "HEIF", quality=90)
    result = protect_file(tmp_path / "a.heic", tmp_path / "a.jpg", noise_levels(), epsilon_levels=8)
    assert identify(tmp_path / "a.jpg")[2:] == ("RGB", "JPEG")
    assert result.linf <= 8
    assert result.rounding.kept > 0.7
    assert choose_quality([(tmp_path / "a.heic", noise_levels())], 8).files == 1
    protect_file(tmp_path / "a.heic", tmp_path / "a.png", noise_levels(), epsilon_levels=8, file_format="png")
    assert identify(tmp_path / "a.png")[3] == "PNG"
    Image.fromarray(np.dstack([photo(64, 64), photo(64, 64)[..., :1]])).save(tmp_path / "t.heic", "HEIF", quality=90)
    with pytest.raises(ImageError, match=r"t\.heic: JPEG does not keep its transparency; use --format png"):
        protect_file(tmp_path / "t.heic", tmp_path / "t.jpg", noise_levels(), epsilon_levels=8)


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


@pytest.mark.parametrize("size", [(40, 60), (2100, 2000)])
def test_jpeg_bytes_are_those_of_the_array(tmp_path, size: tuple[int, int]) -> None:
    """In Pillow's own layout and, above 16 MiB, as an array."""
    source = put(tmp_path / "a.jpg", photo(*size), quality=90)
    noise = np.random.default_rng(0).integers(-8, 9, (16, 16, 3)).astype(np.int8)
    Encoder(epsilon=8, quality=90, limit=255).write(source, tmp_path / "b.jpg", noise)
    expected = io.BytesIO()
    Image.fromarray(lay(decode(source).pixels, noise, 8)).save(expected, "JPEG", quality=90, subsampling=0)
    assert (tmp_path / "b.jpg").read_bytes() == expected.getvalue()


def test_the_protected_copy_is_named_after_its_original(tmp_path, monkeypatch):
    """The place where it is written is hidden, and gone after a failure."""
    source, place = put(tmp_path / "src" / "a.png"), tmp_path / ".hidden"
    monkeypatch.setattr(Image.Image, "save", lambda self, file, *_, **__: file.write(b"nonsense"))
    with pytest.raises(ImageError, match=r"src.a\.png is not a readable") as caught:
        protect_file(source, place / "a.png", noise_levels(), epsilon_levels=8)
    assert ".hidden" not in str(caught.value)
    monkeypatch.undo()
    monkeypatch.setattr(encode.os, "replace", lambda *_: (_ for _ in ()).throw(OSError(28, "No space left")))
    with pytest.raises(ImageError, match=r"src.a\.png cannot be written \(No space left\)") as caught:
        protect_file(source, place / "a.png", noise_levels(), epsilon_levels=8)
    assert ".hidden" not in str(caught.value)
