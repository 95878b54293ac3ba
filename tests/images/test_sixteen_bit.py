import struct
import zlib

import numpy as np
import pytest
from helpers import CHANNELS, SUFFIX, colours, icc_profile, photo, put, round_trip
from PIL import Image

from pueprotect.images.decode import decode, decode_rgb, working_copy


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


SIXTEEN = [("PNG", mode, "") for mode in CHANNELS]
SIXTEEN += [("TIFF", mode, order) for mode in ("L", "RGB", "RGBA") for order in "<>"]


@pytest.mark.parametrize(("kind", "mode", "order"), SIXTEEN)
def test_sixteen_bits_keep_their_depth(tmp_path, kind, mode, order):
    pixels = colours(mode, np.uint16)
    source = tmp_path / f"deep{SUFFIX[kind]}"
    source.write_bytes(png16(pixels, icc_profile()) if kind == "PNG" else tiff16(pixels, order))
    before, after, realised = round_trip(source, tmp_path)
    assert np.array_equal(before.pixels, pixels), "all 16 bits are read"
    assert (after.container, after.pixels.dtype, after.pixels.shape) == (kind, np.uint16, pixels.shape)
    assert after.icc == before.icc == (icc_profile() if kind == "PNG" else None)
    gap = np.abs(after.colours.astype(int) - before.colours.astype(int)).max()
    assert 0 < gap <= 8 * 257
    assert realised.linf == -(-gap // 257)
    if before.alpha is not None:
        assert np.array_equal(after.alpha, before.alpha)
    assert np.array_equal(decode_rgb(source), np.repeat(before.colours >> 8, 3 if mode in ("L", "LA") else 1, axis=2))
    copy, converted = working_copy(source, 16)[:2]
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
