"""Plants second copies of the picture and places where phones and editors put them; none may reach a release."""

import base64
import io
import os
import struct

import numpy as np
import pytest
from helpers import photo, put
from PIL import ExifTags, Image

from pueprotect.images.encode import Encoder

KINDS = {"JPEG": ".jpg", "PNG": ".png", "WEBP": ".webp", "TIFF": ".tif"}
OTHERS = {"IDENTITY": b"IDENTITY-", "PLACE": b"48.137154", "MAKER": b"MAKERNOTE-LENS", "DEPTH": b"DEPTH-MAP-BYTES"}


def jpeg(seed=3):
    buffer = io.BytesIO()
    Image.fromarray(photo(16, 16, seed=seed)).save(buffer, "JPEG")
    return buffer.getvalue()


PREVIEW = jpeg()
TEXT = base64.b64encode(PREVIEW)


def xmp():
    spaces = {
        "dc": "http://purl.org/dc/elements/1.1/", "xmp": "http://ns.adobe.com/xap/1.0/",
        "xmpGImg": "http://ns.adobe.com/xap/1.0/g/img/", "exif": "http://ns.adobe.com/exif/1.0/",
        "GDepth": "http://ns.google.com/photos/1.0/depthmap/", "GImage": "http://ns.google.com/photos/1.0/image/",
        "aux": "http://ns.adobe.com/exif/1.0/aux/", "exifEX": "http://cipa.jp/exif/1.0/",
        "xmpMM": "http://ns.adobe.com/xap/1.0/mm/", "photoshop": "http://ns.adobe.com/photoshop/1.0/",
        "Iptc4xmpCore": "http://iptc.org/std/Iptc4xmpCore/1.0/xmlns/",
    }  # fmt: skip
    declared = " ".join(f'xmlns:{name}="{space}"' for name, space in spaces.items())
    text = TEXT.decode()
    return f"""<?xpacket begin="" id="W5M0MpCehiHzreSzNTczkc9d"?>
<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#">
<rdf:Description rdf:about="" {declared} xmp:Rating="4" exif:GPSLatitude="48.137154" GDepth:Data="{text}"
 aux:SerialNumber="IDENTITY-a" aux:LensSerialNumber="IDENTITY-b" aux:OwnerName="IDENTITY-c"
 exif:ImageUniqueID="IDENTITY-d" exifEX:BodySerialNumber="IDENTITY-e" exifEX:CameraOwnerName="IDENTITY-f"
 xmpMM:DocumentID="IDENTITY-g" photoshop:City="48.137154" Iptc4xmpCore:Location="48.137154">
<dc:title><rdf:Alt><rdf:li xml:lang="x-default">A quiet lake</rdf:li></rdf:Alt></dc:title>
<dc:description><rdf:Alt><rdf:li>{text * 4}</rdf:li></rdf:Alt></dc:description>
<dc:creator><rdf:Seq><rdf:li><xmpGImg:image>{text}</xmpGImg:image></rdf:li></rdf:Seq></dc:creator>
<xmp:Thumbnails><rdf:Alt><rdf:li rdf:parseType="Resource"><xmpGImg:image>{text}</xmpGImg:image></rdf:li></rdf:Alt>
</xmp:Thumbnails><GImage:Data>{text}</GImage:Data></rdf:Description></rdf:RDF></x:xmpmeta>
<?xpacket end="w"?>""".encode()


def exif_with_everything():
    """An EXIF block with a thumbnail in IFD1, GPS, a maker note and previews in other tags."""
    exif = Image.Exif()
    exif[0x010F], exif[0x8298], exif[0x9C9B] = "Maker", "Owner", b"T\0i\0"
    details = {0x9003: "2020:01:01 00:00:00", 0x927C: OTHERS["MAKER"] * 40, 0x9286: PREVIEW * 4} | {
        tag: f"IDENTITY-{tag:X}" for tag in (0xA420, 0xA430, 0xA431, 0xA435)
    }
    for tag, entries in ((0x8769, details), (0x8825, {1: "N", 2: (48.0, 8.0, 13.0), 29: "48.137154"})):
        exif.get_ifd(tag).update(entries)
        exif[tag] = entries
    return exif


def with_thumbnail(block):
    """The EXIF block with IFD1 behind IFD0, holding `PREVIEW`."""
    body = bytearray(block.removeprefix(b"Exif\0\0"))
    order = "<" if body[:2] == b"II" else ">"
    first = struct.unpack_from(order + "I", body, 4)[0]
    link = first + 2 + 12 * struct.unpack_from(order + "H", body, first)[0]
    start = len(body)
    struct.pack_into(order + "I", body, link, start)
    second = struct.pack(order + "HHHIIHHII", 2, 0x0201, 4, 1, start + 30, 0x0202, 4, 1, len(PREVIEW)) + bytes(4)
    return b"Exif\0\0" + bytes(body) + second + PREVIEW


def segment(marker, data):
    return bytes((0xFF, marker)) + struct.pack(">H", len(data) + 2) + data


def planted(folder, kind):
    source = folder / f"a{KINDS[kind]}"
    exif = exif_with_everything()
    if kind == "TIFF":
        exif[700], exif[34377], exif[37724] = xmp(), b"8BIM" + PREVIEW, OTHERS["DEPTH"]
        return put(source, exif=exif)
    block = with_thumbnail(exif.tobytes())
    if kind == "PNG":
        from PIL.PngImagePlugin import PngInfo

        info = PngInfo()
        info.add_itxt("XML:com.adobe.xmp", xmp().decode())
        info.add_text("Raw profile type exif", "exif\n  4\n" + PREVIEW.hex())
        info.add_text("Place", "48.137154")
        put(source, exif=block, pnginfo=info)
    elif kind == "WEBP":
        put(source, exif=block, xmp=xmp(), lossless=True)
    else:
        put(source, quality=92, comment=b"48.137154")
        content = source.read_bytes()
        irb = b"Photoshop 3.0\x008BIM\x04\x0c\0\0" + struct.pack(">I", len(PREVIEW)) + PREVIEW
        extra = segment(0xE1, block) + segment(0xE1, b"http://ns.adobe.com/xap/1.0/\0" + xmp())
        extra += segment(0xE1, b"http://ns.adobe.com/xmp/extension/\0" + TEXT) + segment(0xED, irb)
        extra += segment(0xE2, b"MPF\0" + PREVIEW) + segment(0xEB, OTHERS["DEPTH"] + PREVIEW)
        # Behind the end of the picture: the second image of an MPO, a gain map, a motion photo.
        source.write_bytes(content[:2] + extra + content[2:] + PREVIEW + b"ftypmp42" + OTHERS["DEPTH"])
    return source


def hidden_copies(content):
    """The encodings in which some bytes contain `PREVIEW`."""
    core = PREVIEW[-48:-8]  # its pixels; the tables before them are in every JPEG
    spellings = {"as it is": core, "hex": core.hex().encode(), "base64": TEXT[-60:-12]}
    return [name for name, word in spellings.items() if word in content]


@pytest.mark.filterwarnings("ignore:Image appears to be a malformed MPO")
@pytest.mark.parametrize("metadata", ["minimal", "keep"])
@pytest.mark.parametrize("kind", list(KINDS))
def test_no_second_copy_and_no_place_reaches_the_release(tmp_path, kind, metadata):
    source = planted(tmp_path, kind)
    os.utime(source, (1_000_000_000, 1_000_000_000))
    before = source.read_bytes()
    assert hidden_copies(before), "else nothing was planted"
    target = tmp_path / "out" / source.name
    noise = np.random.default_rng(0).integers(-8, 9, (16, 16, 3)).astype(np.int8)
    Encoder(epsilon=8, metadata=metadata).write(source, target, noise)
    after = target.read_bytes()
    assert hidden_copies(after) == []
    assert [name for name, word in OTHERS.items() if word in after] == []
    if kind == "JPEG":
        assert after.count(b"\xff\xd8\xff") == 1
        assert after.endswith(b"\xff\xd9")
    with Image.open(target) as image:
        exif = image.getexif()
        assert getattr(image, "n_frames", 1) == 1
        assert dict(exif.get_ifd(0x8825)) == {}
        assert 0x8825 not in exif
        assert dict(exif.get_ifd(ExifTags.IFD.IFD1)) == {}
        assert 0x927C not in exif.get_ifd(0x8769)
        if metadata == "minimal":
            assert "xmp" not in image.info
            assert exif.get(0x8298) is None
            assert not exif.get_ifd(0x8769)
        else:
            assert exif[0x8298] == "Owner"
            assert exif.get_ifd(0x8769)[0x9003] == "2020:01:01 00:00:00"
            kept = image.info["xmp"]
            kept = kept if isinstance(kept, bytes) else kept.encode()
            assert b"A quiet lake" in kept
            assert b"Rating" in kept
            assert b"GPS" not in kept
    assert abs(target.stat().st_mtime - 1_000_000_000) > 1e6, "the time of the picture is not carried over"


def test_broken_xmp_is_dropped_and_nothing_else(tmp_path):
    source = put(tmp_path / "a.jpg")
    content = source.read_bytes()
    broken = segment(0xE1, b"http://ns.adobe.com/xap/1.0/\0<x:xmpmeta><unclosed>")
    source.write_bytes(content[:2] + broken + content[2:])
    Encoder(epsilon=8, metadata="keep").write(source, tmp_path / "b.jpg", np.zeros((16, 16, 3), np.int8))
    with Image.open(tmp_path / "b.jpg") as image:
        assert "xmp" not in image.info
