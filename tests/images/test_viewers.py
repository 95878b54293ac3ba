"""What a viewer shows of each kind of file, before and after its protection."""

import io
import struct
import zlib
from functools import cache

import numpy as np
import pytest
from helpers import SUFFIX, cmyk_profile, colours, icc_profile, noise_levels, photo
from PIL import Image, ImageCms, ImageOps

from pueprotect.images import sixteen_bit
from pueprotect.images.decode import decode, working_copy
from pueprotect.images.encode import Encoder

MODES = {
    "JPEG": ("L", "RGB", "CMYK"),
    "PNG": ("L", "LA", "RGB", "RGB key", "RGBA", "P", "P key", "L;16", "LA;16", "RGB;16", "RGBA;16"),
    "WEBP": ("RGB", "RGBA"),
    "TIFF": ("L", "LA", "RGB", "RGBA", "P", "CMYK", "L;16", "RGB;16", "RGBA;16"),
    "BMP": ("L", "RGB", "P"),
}
TURNS = tuple(f"orientation {value}" for value in range(2, 9))
PROPERTIES = {
    "JPEG": ("nothing", *TURNS, "icc", "dpi", "dpi turned"),
    "PNG": ("nothing", *TURNS, "icc", "gamma", "srgb", "dpi", "dpi turned"),
    "WEBP": ("nothing", *TURNS, "icc"),
    "TIFF": ("nothing", *TURNS, "icc", "dpi", "dpi turned"),
    "BMP": ("nothing", "dpi"),
}
TABLE = [(kind, mode, what) for kind, modes in MODES.items() for mode in modes for what in PROPERTIES[kind]]
PROFILE = icc_profile("XYZ")
CHUNKS = {
    "gamma": ((b"gAMA", struct.pack(">I", 100_000)), (b"cHRM", struct.pack(">8I", *range(30_000, 38_000, 1000)))),
    "srgb": ((b"sRGB", b"\1"),),
}
DPI = (72, 144)


def saved(kind, mode, what, folder):
    """A file of this mode with this property."""
    path, exif = folder / f"a{SUFFIX[kind]}", Image.Exif()
    if "orientation" in what or "turned" in what:
        exif[0x0112] = 6 if what == "dpi turned" else int(what[-1])
    profile = cmyk_profile() if mode == "CMYK" else PROFILE if what == "icc" else None
    dpi = DPI if what.startswith("dpi") else None
    if mode.endswith(";16"):
        pixels, chunks = colours(mode[:-3], np.uint16), CHUNKS.get(what, ())
        path.write_bytes(sixteen_bit.encode(pixels, kind, icc=profile, exif=exif, xmp=None, dpi=dpi, chunks=chunks))
        return path
    image = Image.fromarray(colours("RGBA")).convert({"P key": "P", "RGB key": "RGB"}.get(mode, mode))
    options = {"JPEG": {"quality": 95}, "WEBP": {"lossless": True, "exact": True}}.get(kind, {})
    options |= {"exif": exif} if len(exif) else {}
    options |= {"icc_profile": profile} if profile else {}
    options |= {"dpi": dpi} if dpi else {}
    if mode.endswith("key"):
        options["transparency"] = image.getpixel((20, 10))
    image.save(path, kind, **options)
    content = path.read_bytes()
    made = b"".join(
        struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))
        for name, data in CHUNKS.get(what, ())
    )
    path.write_bytes(content[:33] + made + content[33:])  # behind the header of a PNG
    return path


@cache
def from_ink(profile):
    """The transform from the CMYK of a profile to sRGB."""
    own = ImageCms.getOpenProfile(io.BytesIO(profile))
    return ImageCms.buildTransform(own, ImageCms.createProfile("sRGB"), "CMYK", "RGB")


def shown(path, deep):
    """Upright colours and alpha, (H, W, 4) in levels of 0..255, and what decides how a viewer shows them.

    `deep` pictures have 16 bits.
    """
    # From memory, because Pillow turns uncompressed TIFFs twice when it maps their file.
    with Image.open(io.BytesIO(path.read_bytes())) as image:
        info = image.info
        meaning = {
            "icc": info.get("icc_profile"),
            "gamma": (info.get("gamma"), info.get("chromaticity"), info.get("srgb")),
            "dpi": info.get("dpi"),
        }
        turned = image.getexif().get(0x0112, 1)
        if deep:
            pixels = decode(path).pixels  # Pillow reads colours of 16 bits as 8; test_sixteen_bit checks this reader
            levels = pixels / 257
            levels = levels[..., [0, 0, 0, *range(1, levels.shape[2])]] if levels.shape[2] < 3 else levels
            alpha = levels[..., 3:] if levels.shape[2] == 4 else np.full((*levels.shape[:2], 1), 255.0)
            seen = np.concatenate([levels[..., :3], alpha], axis=2)
        else:
            if image.mode == "CMYK":
                upright = ImageCms.applyTransform(ImageOps.exif_transpose(image), from_ink(info["icc_profile"]))
                meaning["icc"] = None
            else:
                upright = ImageOps.exif_transpose(image)
            seen = np.asarray(upright.convert("RGBA"), dtype=float)
    if turned > 4 and meaning["dpi"]:
        meaning["dpi"] = meaning["dpi"][::-1]
    return seen, meaning


@pytest.mark.parametrize(("kind", "mode", "what"), TABLE)
def test_a_viewer_shows_the_same_picture(tmp_path, kind, mode, what):
    """In the format of the original, and as PNG."""
    source = saved(kind, mode, what, tmp_path)
    deep = mode.endswith(";16")
    before, meant = shown(source, deep)
    assert before.shape == ((28, 20, 4) if what[-1] in "5678" or "turned" in what else (20, 28, 4))
    assert meant["icc"] == (PROFILE if what == "icc" and mode != "CMYK" else None)
    copy = working_copy(source, 16).pixels
    small = Image.fromarray(before[..., :3].astype(np.uint8)).resize((16, 16), Image.Resampling.LANCZOS)
    assert np.abs(copy.astype(float) - np.asarray(small)).mean() < 3, "the noise is made for what is shown"
    for file_format in ("keep", "png"):
        target = tmp_path / file_format / source.with_suffix(".png" if file_format == "png" else source.suffix).name
        Encoder(epsilon=8, file_format=file_format).write(source, target, noise_levels())
        after, means = shown(target, deep)
        assert after.shape == before.shape, file_format
        assert np.array_equal(before[..., 3], after[..., 3]), file_format
        gap = np.abs(before[..., :3] - after[..., :3]).round(6)
        assert 0 < gap.max() <= 8, file_format
        assert gap.mean() < 10, file_format
        assert (means["icc"], means["gamma"]) == (meant["icc"], meant["gamma"]), file_format
        assert (means["gamma"] != (None, None, None)) == (what in CHUNKS), file_format
        if what.startswith("dpi"):
            assert means["dpi"] == pytest.approx(DPI[::-1] if "turned" in what else DPI, abs=0.02), file_format


def test_the_pictures_of_this_page_look_different_from_every_side():
    turned = [photo(20, 20), photo(20, 20)[::-1], photo(20, 20)[:, ::-1], photo(20, 20).swapaxes(0, 1)]
    assert all(np.abs(turned[0].astype(int) - other).mean() > 15 for other in turned[1:])
