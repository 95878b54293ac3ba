"""Keeps harmless descriptions of a picture: no second copy of it, no place, no serial number. No torch.

These are lists of what is kept, because nobody can list everything that gives a picture or a place away: previews,
thumbnails, depth maps, gain maps, maker notes and positions share their containers with harmless text. Author and
copyright are kept, since they are written to be read.
"""

from __future__ import annotations

from dataclasses import dataclass
from xml.etree import ElementTree

from PIL import ExifTags, Image

_EXIF_IFD = 0x8769
# Exposure, lens, dates and texts, except maker notes and pointers to other directories (GPS and more).
_DETAILS = range(0x829A, 0xA500)
_NOT_DETAILS = (0x8769, 0x8825, 0x927C, 0xA005)
# The unique number of the image, the camera's owner, and the serial numbers of body and lens.
_IDENTITIES = (0xA420, 0xA430, 0xA431, 0xA435)
# Camera, date, author and titles. Pixels are stored upright, and the encoder writes the resolution.
_KEPT_TAGS = (270, 271, 272, 305, 306, 315, 33432, 40091, 40092, 40093, 40094, 40095)
_LONGEST = 1024

_RDF = "http://www.w3.org/1999/02/22-rdf-syntax-ns#"
_DC = "http://purl.org/dc/elements/1.1/"
_XMP = "http://ns.adobe.com/xap/1.0/"
_RIGHTS = "http://ns.adobe.com/xap/1.0/rights/"
_PHOTOSHOP = "http://ns.adobe.com/photoshop/1.0/"
_KEPT_XMP = {
    _DC: ("title", "description", "creator", "contributor", "publisher", "rights", "subject", "date", "language"),
    _XMP: ("CreateDate", "ModifyDate", "MetadataDate", "CreatorTool", "Rating", "Label"),
    _RIGHTS: ("Marked", "UsageTerms", "WebStatement", "Owner"),
    _PHOTOSHOP: ("Headline", "Credit", "DateCreated", "CaptionWriter", "AuthorsPosition", "Source"),
}
_META = "adobe:ns:meta/"
# Some readers look for the usual prefixes instead of the full names.
for _prefix, _space in {"x": _META, "xmp": _XMP, "xmpRights": _RIGHTS, "photoshop": _PHOTOSHOP}.items():
    ElementTree.register_namespace(_prefix, _space)


@dataclass(frozen=True)
class Descriptions:
    """Harmless text of one file: EXIF entries and an XMP packet, if any."""

    exif: Image.Exif | None = None
    xmp: bytes | None = None


def descriptions(image: Image.Image) -> Descriptions:
    """The EXIF and XMP of an opened image that can hold neither a second copy of the picture nor a place."""
    packet = image.info.get("xmp")
    return Descriptions(_exif(image), _xmp(packet) if isinstance(packet, bytes) else None)


def _exif(image: Image.Image) -> Image.Exif | None:
    old, new = image.getexif(), Image.Exif()
    new.update({tag: old[tag] for tag in _KEPT_TAGS if tag in old and _short(old[tag])})
    details = {
        tag: value
        for tag, value in old.get_ifd(_EXIF_IFD).items()
        if tag in _DETAILS and tag in ExifTags.TAGS and tag not in (*_NOT_DETAILS, *_IDENTITIES) and _short(value)
    }
    if details:
        new.get_ifd(_EXIF_IFD).update(details)
        new[_EXIF_IFD] = details  # the TIFF encoder reads the pointer, the others the directory
    return new if len(new) else None


def _short(value: object) -> bool:
    if isinstance(value, bytes | str | tuple | list):
        return len(value) <= _LONGEST
    return not isinstance(value, dict)


def _xmp(packet: bytes) -> bytes | None:
    """A new packet with the kept properties of an old one, if there are any."""
    try:
        old = ElementTree.fromstring(packet.strip(b"\0 \n\r\t"))
    except (ElementTree.ParseError, ValueError):
        return None
    kept = {f"{{{space}}}{name}" for space, names in _KEPT_XMP.items() for name in names}
    packet_root = ElementTree.Element(f"{{{_META}}}xmpmeta")
    rdf = ElementTree.SubElement(packet_root, f"{{{_RDF}}}RDF")
    new = ElementTree.SubElement(rdf, f"{{{_RDF}}}Description", {f"{{{_RDF}}}about": ""})
    for description in old.iter(f"{{{_RDF}}}Description"):
        for name, value in description.attrib.items():
            if name in kept and len(value) <= _LONGEST:
                new.set(name, value)
        for child in description:
            if child.tag in kept and _only_text(child):
                new.append(child)
    if not len(new) and len(new.attrib) == 1:
        return None
    return bytes(ElementTree.tostring(packet_root, encoding="utf-8"))


def _only_text(element: ElementTree.Element) -> bool:
    """Whether a property holds only short text, alone or in an RDF list."""
    inner = list(element.iter())[1:]
    lists = all(part.tag.startswith(f"{{{_RDF}}}") for part in inner)
    words = [text for part in (element, *inner) for text in (part.text, part.tail, *part.attrib.values()) if text]
    return lists and sum(map(len, words)) <= 4 * _LONGEST and all(len(word) <= _LONGEST for word in words)
