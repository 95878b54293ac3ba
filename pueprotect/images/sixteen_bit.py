"""Reads and writes images with 16 bits for each channel, in PNG and TIFF. No torch.

Pillow silently reads 16-bit colour as 8 bits, and does not write it. But it can unpack either byte of a sample: read
in the file's byte order it gives the upper bytes, read in the other order the lower ones.
"""

from __future__ import annotations

import re
import struct
import sys
import zlib
from io import BytesIO
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageOps
from PIL.TiffImagePlugin import ImageFileDirectory_v2

Deep = npt.NDArray[np.uint16]

_SIXTEEN_BITS = re.compile(r"^(I|LA|RGB|RGBA);16([BLN])?$")
_PHOTOMETRIC, _WHITE_IS_ZERO = 262, 0
_PNG_COLOURS = {1: 0, 2: 4, 3: 2, 4: 6}


def is_deep(image: Image.Image) -> bool:
    """Whether an opened image has more than 8 bits in a channel."""
    return image.mode.startswith("I;16") or any(";16" in raw or ";12" in raw for raw in _raw_modes(image))


def unfaithful(image: Image.Image) -> str:
    """Why a deep image cannot be released as it is; empty if it can."""
    raws = _raw_modes(image)
    if image.format not in ("PNG", "TIFF") or not raws or not all(_SIXTEEN_BITS.match(raw) for raw in raws):
        return f"mode {image.mode} stored as {', '.join(sorted(set(raws))) or 'unknown'}"
    if image.format == "TIFF" and image.tag_v2.get(_PHOTOMETRIC) == _WHITE_IS_ZERO:  # type: ignore[attr-defined]
        return "a 16-bit negative (white is zero)"
    if image.format == "PNG" and "transparency" in image.info:
        return "16 bits with a transparent colour"
    return ""


def pixels_of(image: Image.Image) -> Deep:
    """The upright pixels of an opened deep image: (H, W, C) uint16 in native order, C as in `Picture`."""
    raw = _raw_modes(image)[0]
    if raw.startswith("I;16"):
        return _upright(image)[..., None]
    source: Any = image.fp  # type: ignore[attr-defined]
    source.seek(0)
    second = Image.open(BytesIO(source.read()), formats=(str(image.format),))
    if raw == "LA;16B":
        _unpack(second, "RGBA")  # two big-endian samples are four bytes, read as they are
        four = _upright(second)
        return np.asarray(four[..., 0::2] << 8 | four[..., 1::2], dtype=np.uint16)
    order = raw[-1] if raw[-1] in "BL" else sys.byteorder[0].upper()
    _unpack(second, raw.split(";")[0] + (";16L" if order == "B" else ";16B"))
    return np.asarray(_upright(image) << 8 | _upright(second), dtype=np.uint16)


def _upright(image: Image.Image) -> Deep:
    return np.asarray(ImageOps.exif_transpose(image), dtype=np.uint16)


def _raw_modes(image: Image.Image) -> list[str]:
    """The layout of the samples in the file, for each tile."""
    return [str(tile[3][0] if isinstance(tile[3], tuple) else tile[3]) for tile in getattr(image, "tile", ())]


def _unpack(image: Image.Image, wanted: str) -> None:
    """Make `image` unpack its samples in the layout `wanted`."""
    tiles: Any = image.tile  # type: ignore[attr-defined]
    for number, tile in enumerate(tiles):
        args = (wanted, *tile[3][1:]) if isinstance(tile[3], tuple) else wanted
        tiles[number] = tile._replace(args=args)


def encode(
    pixels: Deep,
    container: str,
    *,
    icc: bytes | None,
    exif: Image.Exif | None,
    xmp: bytes | None,
    dpi: tuple[float, float] | None = None,
    chunks: tuple[tuple[bytes, bytes], ...] = (),
) -> bytes:
    """Write (H, W, C) uint16 as PNG or TIFF, lossless; TIFF takes the entries of `exif` outside its sub-directories.

    `dpi` and `chunks` are those of `Picture`.

    Raises:
        ValueError: another container.
    """
    if container == "PNG":
        return _png(pixels, icc, exif, xmp, dpi, chunks)
    if container == "TIFF":
        return _tiff(pixels, icc, exif, xmp, dpi)
    raise ValueError(f"16 bits in {container}")


def _png(
    pixels: Deep,
    icc: bytes | None,
    exif: Image.Exif | None,
    xmp: bytes | None,
    dpi: tuple[float, float] | None,
    colours: tuple[tuple[bytes, bytes], ...],
) -> bytes:
    height, width, channels = pixels.shape
    stored = pixels.astype(">u2").view(np.uint8).reshape(height, -1)
    lines = np.empty((height, stored.shape[1] + 1), dtype=np.uint8)
    lines[:, 0] = 2  # filter `up`: each byte as its difference from the one above
    lines[0, 1:] = stored[0]
    np.subtract(stored[1:], stored[:-1], out=lines[1:, 1:])
    chunks = [(b"IHDR", struct.pack(">IIBBBBB", width, height, 16, _PNG_COLOURS[channels], 0, 0, 0))]
    if icc:
        chunks.append((b"iCCP", b"ICC Profile\0\0" + zlib.compress(icc)))
    chunks += colours
    if dpi:
        chunks.append((b"pHYs", struct.pack(">IIB", *(round(value / 0.0254) for value in dpi), 1)))
    if xmp:
        chunks.append((b"iTXt", b"XML:com.adobe.xmp\0\0\0\0\0" + xmp))
    if exif:
        chunks.append((b"eXIf", exif.tobytes().removeprefix(b"Exif\0\0")))
    chunks += [(b"IDAT", zlib.compress(lines.tobytes(), 6)), (b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(_chunk(kind, data) for kind, data in chunks)


def _chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def _tiff(
    pixels: Deep, icc: bytes | None, exif: Image.Exif | None, xmp: bytes | None, dpi: tuple[float, float] | None
) -> bytes:
    height, width, channels = pixels.shape
    data = zlib.compress(pixels.astype("<u2").tobytes(), 6)
    tags = ImageFileDirectory_v2(prefix=b"II")
    for tag, value in dict(exif or {}).items():
        if tag not in tags and not isinstance(value, dict) and tag != 0x8769:
            tags[tag] = value
    tags[256], tags[257], tags[258], tags[259] = width, height, (16,) * channels, 8  # deflate
    tags[_PHOTOMETRIC] = 2 if channels > 2 else 1
    tags[277], tags[278], tags[279] = channels, height, len(data)
    if channels in (2, 4):
        tags[338] = 2  # unassociated alpha
    if dpi:
        (tags[282], tags[283]), tags[296] = dpi, 2  # in inches
    if icc:
        tags[34675] = icc
    if xmp:
        tags.tagtype[700] = 1
        tags[700] = xmp
    tags[273] = 0  # `save` adds the end of the directory
    buffer = BytesIO()
    tags.save(buffer)
    return buffer.getvalue() + data
