"""Decodes one image file into pixels as viewers show them. No torch.

JPEG, PNG, WebP, BMP, TIFF and, with the extra `heic`, HEIC are recognised by content, not by suffix. Pixels are
upright; palettes become colours, and CMYK is converted through its own profile. Files that could not be released
faithfully (several frames, CMYK without a profile, bilevel, floating point) are refused by name. A JPEG with a second
embedded picture (MPO: gain maps, stereo pairs) counts as its first picture; the second is not released.
"""

from __future__ import annotations

import io
import struct
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageCms, ImageOps, UnidentifiedImageError

from pueprotect.errors import ImageError
from pueprotect.images import sixteen_bit as deep

try:
    import pillow_heif
except ImportError:  # the extra `heic` is not installed
    pillow_heif = None

Pixels = npt.NDArray[np.uint8]
AnyPixels = npt.NDArray[np.uint8] | npt.NDArray[np.uint16]

MODES = frozenset({"RGB", "RGBA", "L", "LA", "P", "PA"})
_ORIENTATION, _SIDEWAYS = 0x0112, (5, 6, 7, 8)  # the EXIF tag, and the values that exchange height and width
HEIC_SUFFIXES = frozenset({".heic", ".heif"})
FORMATS: tuple[str, ...] = ("JPEG", "PNG", "WEBP", "BMP", "TIFF")
if pillow_heif is not None:
    pillow_heif.register_heif_opener()
    FORMATS += ("HEIF",)


@dataclass(frozen=True)
class Picture:
    """A decoded image, upright.

    Attributes:
        content: an image in mode L, LA, RGB or RGBA; or 16-bit `pixels`.
        container: JPEG, PNG, WEBP, BMP, TIFF or HEIF.
        icc: colour profile of `pixels`, if any.
        converted: `palette`, `CMYK` or `HEIC` where `pixels` were converted from that, else empty.
        dpi: horizontal and vertical resolution of the upright picture, in pixels per inch.
        chunks: name and content of the PNG chunks that say which colours the values mean, if there is no `icc`.
    """

    content: Image.Image | npt.NDArray[np.uint16]
    container: str
    icc: bytes | None = None
    converted: str = ""
    dpi: tuple[float, float] | None = None
    chunks: tuple[tuple[bytes, bytes], ...] = ()

    @cached_property
    def pixels(self) -> AnyPixels:
        """(H, W, C) uint8 or uint16, not to be changed; C: 1 grey, 2 grey and alpha, 3 RGB, 4 RGBA."""
        pixels = np.asarray(self.content)
        return pixels[..., None] if pixels.ndim == 2 else pixels

    @property
    def kind(self) -> tuple[str, tuple[int, int]]:
        """Mode, with `;16` appended for 16 bits, and (height, width)."""
        if isinstance(self.content, Image.Image):
            return self.content.mode, (self.content.height, self.content.width)
        height, width, channels = self.content.shape
        return f"{('L', 'LA', 'RGB', 'RGBA')[channels - 1]};16", (height, width)

    @property
    def colours(self) -> AnyPixels:
        """The channels that hold colour: (H, W, 1 or 3)."""
        return self.pixels[..., :1] if self.pixels.shape[2] < 3 else self.pixels[..., :3]

    @property
    def alpha(self) -> AnyPixels | None:
        """(H, W) transparency, if there is any."""
        return self.pixels[..., -1] if self.pixels.shape[2] in (2, 4) else None

    @property
    def rgb(self) -> Pixels:
        """(H, W, 3) uint8: greyscale repeated, alpha dropped without compositing, the upper 8 of 16 bits."""
        colours = self.colours
        if colours.dtype == np.uint16:
            colours = (colours >> 8).astype(np.uint8)
        return np.repeat(colours, 3, axis=2) if colours.shape[2] == 1 else colours  # type: ignore[return-value]

    def corner(self, side: int = 16) -> Picture:
        """At most `side` x `side` pixels that can be written if, and only if, the whole picture can.

        They have its mode, profile and resolution, and are transparent if it is.
        """
        if not isinstance(self.content, Image.Image):
            part = self.content[:side, :side].copy()
            if self.alpha is not None:
                part[0, 0, -1] = self.alpha.min()
            return replace(self, content=part)
        small = self.content.crop((0, 0, min(side, self.content.width), min(side, self.content.height)))
        if "A" in small.mode:
            alpha = small.getchannel("A")
            alpha.putpixel((0, 0), self.content.getchannel("A").getextrema()[0])
            small.putalpha(alpha)
        return replace(self, content=small)


@contextmanager
def opened(path: Path, name: Path | None = None, content: bytes | None = None) -> Iterator[Image.Image]:
    """Open a supported image; any failure inside the block becomes an `ImageError`.

    Messages call the file `name`, or else `path`. `content` holds its bytes, if they have been read already.

    Raises:
        ImageError: not an image that this package can protect, or the block failed.
    """
    name = name or path
    try:
        with Image.open(path if content is None else io.BytesIO(content), formats=FORMATS) as image:
            _refuse_unfaithful(image, name)
            yield image
    except ImageError:
        raise
    except UnidentifiedImageError as error:
        empty = not (path.stat().st_size if content is None else content)
        what = "is empty" if empty else f"is not a readable {'/'.join(FORMATS)} image"
        raise ImageError(f"{name} {what}; save it again or remove it.") from error
    except (FileNotFoundError, PermissionError) as error:
        raise ImageError(f"{name} cannot be read ({error.strerror}); put it back or make it readable.") from error
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise ImageError(f"{name} has too many pixels ({error}); reduce it or remove it.") from error
    except Exception as error:  # decoders raise nearly anything on damaged data
        raise ImageError(f"{name} cannot be decoded ({error}); save it again or remove it.") from error


def _refuse_unfaithful(image: Image.Image, name: Path) -> None:
    if image.format != "MPO" and (frames := getattr(image, "n_frames", 1)) > 1:
        raise ImageError(f"{name} has {frames} frames; save the frame you want as a single image.")
    if (depth := image.info.get("bit_depth", 8)) > 8 and image.format == "HEIF":
        raise ImageError(f"{name}: HEIC of {depth} bits is not supported; save it as 16-bit PNG or 8-bit JPEG.")
    if image.mode == "CMYK" and not deep.is_deep(image):
        if not image.info.get("icc_profile"):
            raise ImageError(f"{name}: mode CMYK without a colour profile has no defined colours; convert it to RGB.")
        return
    plain = "" if image.mode in MODES else f"mode {image.mode}"
    if why := deep.unfaithful(image) if deep.is_deep(image) else plain:
        raise ImageError(f"{name}: {why} is not supported; convert it to 8-bit RGB or greyscale.")


def content_of(path: Path) -> bytes:
    """The bytes of an original.

    Raises:
        ImageError: they cannot be read.
    """
    try:
        return path.read_bytes()
    except OSError as error:
        fix = "put it back, and repeat the same command with --resume"
        raise ImageError(f"{path} cannot be read ({error.strerror}); {fix}.") from error


def decode(path: str | Path, content: bytes | None = None) -> Picture:
    """Decode a whole file, or its `content`.

    Raises:
        ImageError: the file cannot be decoded, or not faithfully.
    """
    path = Path(path)
    # From memory, because Pillow turns uncompressed TIFFs twice when it maps their file.
    with opened(path, content=content_of(path) if content is None else content) as image:
        return picture_of(image)


def picture_of(image: Image.Image) -> Picture:
    """The picture of an opened image."""
    container, dpi = container_of(image), _dpi(image)
    icc: bytes | None = image.info.get("icc_profile") or None
    chunks = _colour_chunks(image) if image.format == "PNG" and icc is None else ()
    if deep.is_deep(image):
        return Picture(deep.pixels_of(image), container, icc, dpi=dpi, chunks=chunks)
    content, converted = _shown(image)
    return Picture(content, container, None if converted == "CMYK" else icc, converted, dpi, chunks)


def _dpi(image: Image.Image) -> tuple[float, float] | None:
    """`Picture.dpi` of an image that has not been turned yet; None where it is absent or makes no sense."""
    try:
        across, down = (float(value) for value in image.info["dpi"])
    except (KeyError, TypeError, ValueError, ZeroDivisionError):
        return None
    if not (1 < across < 60_000 and 1 < down < 60_000):
        return None
    # Pillow decodes a whole PNG to look for EXIF behind the pixels.
    exif = {} if image.format == "PNG" and "exif" not in image.info else image.getexif()
    return (down, across) if exif.get(_ORIENTATION) in _SIDEWAYS else (across, down)


def _colour_chunks(image: Image.Image) -> tuple[tuple[bytes, bytes], ...]:
    """`Picture.chunks`: gamma and primaries as they were stored, or the mark of sRGB, which goes before both."""
    if (intent := image.info.get("srgb")) is not None:
        return ((b"sRGB", bytes([intent])),)
    gamma = [image.info["gamma"]] if "gamma" in image.info else []
    numbers = ((b"gAMA", gamma), (b"cHRM", image.info.get("chromaticity", ())))
    return tuple(
        (name, struct.pack(f">{len(values)}I", *(round(100_000 * value) for value in values)))
        for name, values in numbers
        if values
    )


def _shown(image: Image.Image) -> tuple[Image.Image, str]:
    """The upright image in mode L, LA, RGB or RGBA, and `Picture.converted`."""
    if image.mode == "CMYK":
        return _through_profile(_upright(image)), "CMYK"
    converted = "HEIC" if image.format == "HEIF" else "palette" if image.mode in ("P", "PA") else ""
    image = _upright(image)
    mode = "L" if image.mode in ("L", "LA") else "RGB"
    mode += "A" if image.has_transparency_data else ""
    return image if image.mode == mode else image.convert(mode), converted


def _upright(image: Image.Image) -> Image.Image:
    ImageOps.exif_transpose(image, in_place=True)
    return image


def _through_profile(image: Image.Image) -> Image.Image:
    """A CMYK image in sRGB."""
    own = ImageCms.ImageCmsProfile(io.BytesIO(image.info["icc_profile"]))
    made = ImageCms.profileToProfile(image, own, ImageCms.createProfile("sRGB"), outputMode="RGB")
    assert made is not None
    return Image.fromarray(np.asarray(made))  # with the fillers of a decoder, see `image_deviation`


def container_of(image: Image.Image) -> str:
    """The container of an opened image, as `Picture.container`."""
    return "JPEG" if image.format == "MPO" else str(image.format)


def identify(path: str | Path) -> tuple[int, int, str, str]:
    """Read the header alone: (width, height, mode, format), the size as stored, before orientation.

    Raises:
        ImageError: not an image that this package can protect.
    """
    with opened(Path(path)) as image:
        return image.width, image.height, image.mode, container_of(image)


def decode_rgb(path: str | Path) -> Pixels:
    """Decode to (H, W, 3) uint8, see `Picture.rgb`.

    Raises:
        ImageError: the file cannot be decoded, or not faithfully.
    """
    return decode(path).rgb


class WorkingCopy(NamedTuple):
    """A picture at the working size, and what its released file will be like.

    Attributes:
        pixels: (S, S, 3) uint8.
        converted: see `Picture.converted`.
        grey: whether the released file has no colours.
        sides: height and width of the whole upright picture in pixels.
    """

    pixels: Pixels
    converted: str
    grey: bool
    sides: tuple[int, int]


def working_copy(
    path: Path, size: int, content: bytes | None = None, inspect: Callable[[Image.Image, Picture], None] | None = None
) -> WorkingCopy:
    """Decode, and resize to `size` x `size` without keeping the aspect (Lanczos; unchanged if it fits).

    Large JPEGs are decoded at the smallest eighth of their size that is at least twice `size`. `inspect` receives the
    opened image and its picture, of that size, and may refuse it.

    Raises:
        ImageError: the file cannot be decoded, or not faithfully.
    """
    with opened(path, content=content_of(path) if content is None else content) as image:
        width, height = image.size
        if image.format in ("JPEG", "MPO") and image.mode != "CMYK" and min(image.size) >= 2 * size:
            image.draft(None, (2 * size, 2 * size))
        stored = image.size
        picture = picture_of(image)
        if inspect is not None:
            inspect(image, picture)
        mode, upright = picture.kind
        sides = (height, width) if upright == stored[::-1] else (width, height)  # else turned by a quarter
        shown = picture.content
        if not isinstance(shown, Image.Image):
            shown = Image.fromarray(picture.rgb)
        rgb = shown if shown.mode == "RGB" else shown.convert("RGB")
        # With a gap, large pictures are first reduced by whole factors, at no visible loss.
        fitted = rgb.resize((size, size), Image.Resampling.LANCZOS, reducing_gap=3.0)
        return WorkingCopy(np.array(fitted, dtype=np.uint8), picture.converted, mode.startswith("L"), sides)
