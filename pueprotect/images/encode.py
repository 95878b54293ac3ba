"""Writes one protected file and measures it. No torch.

A file is written under a temporary name, read back and compared with its original, and only then gets its name.
"""

from __future__ import annotations

import hashlib
import io
import os
import uuid
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import IO, Any, Literal

import numpy as np
from PIL import Image, PngImagePlugin

from pueprotect.errors import ImageError, InputError
from pueprotect.images import sixteen_bit as deep
from pueprotect.images.buffers import scratch, shared
from pueprotect.images.decode import HEIC_SUFFIXES, AnyPixels, Picture, content_of, opened, picture_of
from pueprotect.images.folders import ImageFolder
from pueprotect.images.jpeg_budget import Rounding, compared, fit
from pueprotect.images.listing import OTHER_PICTURES, SUFFIXES
from pueprotect.images.metadata import Descriptions, descriptions
from pueprotect.images.overlay import Levels, lay
from pueprotect.images.similarity import deviation, image_deviation, ssim

FileFormat = Literal["keep", "png"]
Metadata = Literal["minimal", "keep"]

JPEG_QUALITY = 98

_SAVE: dict[str, dict[str, Any]] = {
    "JPEG": {"subsampling": 0},  # 4:2:0 chroma destroys most of the noise of small images
    "PNG": {},
    "WEBP": {"lossless": True, "exact": True},  # without `exact`, colours below transparent pixels are rewritten
    "BMP": {},
    "TIFF": {"compression": "tiff_lzw"},
}


@dataclass(frozen=True)
class Realised:
    """How far a released file is from its original, measured on the decoded bytes.

    `linf` is the largest absolute difference of a colour in levels (0..255), rounded up. `psnr` is in dB over the
    colours, and `similarity.PSNR_CAP` where the two are equal, so that JSON can hold it. `ssim` is None if not asked
    for, and `rounding` where the file is not a JPEG. Sizes are those of the two files.
    """

    linf: int
    psnr: float
    ssim: float | None
    bytes_before: int
    bytes_after: int
    released_sha256: str
    rounding: Rounding | None = None


def released_name(path: str, file_format: FileFormat) -> str:
    """The path of the released file for the image at `path`, both relative and POSIX; HEIC becomes JPEG.

    A suffix that is not one of pictures is a part of the name and stays.
    """
    old = PurePosixPath(path)
    if file_format == "png":
        known = old.suffix.lower() in SUFFIXES | OTHER_PICTURES
        return old.with_suffix(".png").as_posix() if known else f"{path}.png"
    return old.with_suffix(".jpg").as_posix() if old.suffix.lower() in HEIC_SUFFIXES else path


def released_names(folder: ImageFolder, file_format: FileFormat) -> list[str]:
    """The released path of every entry, in order.

    Raises:
        InputError: two images would be written to one file; if suffixes change, letter case is ignored.
    """
    names = [released_name(entry.path, file_format) for entry in folder.entries]
    paths = [entry.path for entry in folder.entries]
    changed = file_format == "png" or names != paths
    owners: dict[str, str] = {}
    for name, path in zip(names, paths, strict=True):
        if (other := owners.setdefault(name.casefold() if changed else name, path)) != path:
            fix = "rename one or use --format keep" if file_format == "png" else "rename one"
            raise InputError(f"{other} and {path} would both become {name}; {fix}.")
    return names


@dataclass(frozen=True, kw_only=True)
class Encoder:
    """How protected files are written.

    Attributes:
        epsilon: the L-infinity budget in levels of 0..255; larger noise is clipped to it.
        file_format: keep each container, or write PNG.
        metadata: `minimal` drops EXIF, XMP and comments; `keep` keeps the text that `metadata` lists.
        quality: the lowest that JPEG files get, written as 4:4:4; see `choose_quality`.
        limit: how far rounding may move a value of a JPEG from its original, in levels; None takes `epsilon`. A JPEG
            that cannot keep to it without losing its noise is written all the same, see `jpeg_budget.fit`.
    """

    epsilon: int
    file_format: FileFormat = "keep"
    metadata: Metadata = "minimal"
    quality: int = JPEG_QUALITY
    limit: int | None = None

    @property
    def largest(self) -> int:
        """The limit in levels."""
        return self.epsilon if self.limit is None else self.limit

    def write(
        self,
        source: str | Path,
        target: str | Path,
        noise: Levels,
        *,
        similarity: bool = False,
        source_sha256: str | None = None,
    ) -> Realised:
        """Write `source` plus noise to `target` and measure the written file.

        Pixels are stored upright, without the orientation tag. Alpha, bit depth and the ICC profile are kept. Greyscale
        stays greyscale and gets the mean of the three channels; palettes become RGB(A), CMYK becomes sRGB, HEIC becomes
        JPEG. PNG, WebP, BMP and TIFF are written lossless: no pixel moves by more than `epsilon`. JPEG is
        fitted to `limit` at the lowest quality that allows it. The file appears under its name only when it is complete
        and measured.

        Args:
            source: the original.
            target: the released file; its folder is made.
            noise: (S, S, 3) int8 levels of 0..255, see `lay`.
            similarity: measure SSIM, too.
            source_sha256: digest of the original when the noise was made.

        Raises:
            InputError: `target` is `source`.
            ImageError: a file cannot be read or written, the original has changed, or the written file is wrong.
        """
        source, target = Path(source), Path(target)
        if target.exists() and target.samefile(source):
            raise InputError(f"{target} is the original itself; choose another folder for --out.")
        original = _unchanged(source, source_sha256)
        with opened(source, content=original) as image:
            before = picture_of(image)
            kept = descriptions(image) if self.metadata == "keep" else Descriptions()
        partial = target.with_name(f".{uuid.uuid4().hex}.tmp")
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
            with partial.open("wb") as file:  # other threads run while Pillow encodes to a file, not to memory
                quality, wanted = self._encode(before, noise, kept, source, file)
            released = partial.read_bytes()
            after, linf, psnr = _read_back(before, released, source, self.epsilon)
            rounding = None
            if after.container == "JPEG":
                rounding = compared(before.colours, wanted, after.colours, self.largest, quality)  # type: ignore[arg-type]
            os.replace(partial, target)
        except OSError as error:
            fix = "fix the cause, and repeat the same command with --resume"
            why = error.strerror or error
            raise ImageError(f"The protected copy of {source} cannot be written ({why}); {fix}.") from error
        finally:
            partial.unlink(missing_ok=True)
        return Realised(
            linf=linf,
            psnr=psnr,
            ssim=ssim(before.rgb, after.rgb) if similarity else None,
            bytes_before=len(original),
            bytes_after=len(released),
            released_sha256=hashlib.sha256(released).hexdigest(),
            rounding=rounding,
        )

    def container(self, before: Picture) -> str:
        """The container of the released picture; HEIC becomes JPEG, whose quality can be fitted to the noise."""
        if self.file_format == "png":
            return "PNG"
        return "JPEG" if before.container == "HEIF" else before.container

    def rehearse(self, before: Picture, kept: Descriptions, source: Path) -> None:
        """Write a corner of a picture to memory, without noise, and read it back as `write` does.

        Raises:
            ImageError: `write` would refuse the picture.
        """
        corner = before.corner()
        released = self.encoded(corner, np.zeros((1, 1, 3), dtype=np.int8), kept, source)
        _read_back(corner, released, source, 0)

    def encoded(self, before: Picture, noise: Levels, kept: Descriptions, source: Path) -> bytes:
        """The bytes of the released file, made in memory; raises as `encode` does."""
        buffer = io.BytesIO()
        self.encode(before, noise, kept, source, buffer)
        return buffer.getvalue()

    def encode(self, before: Picture, noise: Levels, kept: Descriptions, source: Path, file: IO[bytes]) -> None:
        """Write the bytes of the released file to an open file.

        Raises:
            ImageError: they cannot be made.
            OSError: they cannot be written.
        """
        self._encode(before, noise, kept, source, file)

    def _encode(
        self, before: Picture, noise: Levels, kept: Descriptions, source: Path, file: IO[bytes]
    ) -> tuple[int, AnyPixels]:
        """`encode`, which returns the quality of a JPEG and its intended pixels until this thread encodes again."""
        container = self.container(before)
        if container == "JPEG" and "A" in before.kind[0]:
            raise ImageError(f"{source}: JPEG does not keep its transparency; use --format png.")
        quality = self.quality
        if container == "JPEG":
            # The filler of Pillow's own layout is not encoded.
            filled = shared(before.content) if isinstance(before.content, Image.Image) else None
            old = before.pixels if filled is None else filled
            out = None if filled is None else scratch(filled.shape)
            wanted = lay(old, noise, self.epsilon, out)[..., :3]
            pixels, quality = fit(old[..., :3], wanted, self.largest, quality)  # type: ignore[arg-type]
        else:
            pixels = wanted = lay(before.pixels, noise, self.epsilon)  # type: ignore[assignment]
        try:
            if pixels.dtype == np.uint16:
                file.write(deep.encode(pixels, container, **_tags(before, kept)))  # type: ignore[arg-type]
                return quality, wanted
            image = Image.fromarray(pixels[..., 0] if pixels.shape[2] == 1 else pixels)
            image.save(file, container, **_options(container, quality, before, kept))
        except Exception as error:  # damaged EXIF raises nearly anything in the encoder
            if isinstance(error, OSError) and error.errno is not None:
                raise
            raise ImageError(f"{source} cannot be encoded as {container} ({error}); use --metadata minimal.") from error
        return quality, wanted


def _read_back(before: Picture, released: bytes, source: Path, epsilon: int) -> tuple[Picture, int, float]:
    """The released picture, L-infinity in levels and PSNR in dB; ImageError if it is not `before` within `epsilon`."""
    with opened(source, Path(f"the protected copy of {source}"), released) as image:
        after = picture_of(image)
    (mode, size), (new_mode, new_size) = before.kind, after.kind
    if size != new_size or mode.replace("A", "") != new_mode.replace("A", ""):
        raise ImageError(f"{source}: {after.container} does not keep {mode} pixels; use --format png.")
    old, new = (picture.alpha if "A" in picture.kind[0] else None for picture in (before, after))
    if old is None or new is None:
        # A container may drop an alpha channel that is opaque everywhere.
        kept = new is None and (old is None or int(old.min()) == np.iinfo(old.dtype).max)
    else:
        kept = np.array_equal(old, new)
    if not kept:
        raise ImageError(f"{source}: {after.container} does not keep its transparency; use --format png.")
    if before.icc != after.icc:
        raise ImageError(f"{source}: {after.container} does not keep its colour profile; remove the profile.")
    linf, psnr = _deviation(before, after)
    if after.container != "JPEG" and linf > epsilon:
        raise ImageError(f"{source}: {after.container} moves pixels by {linf - epsilon} levels; use --format png.")
    return after, linf, psnr


def _unchanged(source: Path, sha256: str | None) -> bytes:
    """The file's bytes; ImageError when their digest is not `sha256`."""
    content = content_of(source)
    if sha256 is not None and hashlib.sha256(content).hexdigest() != sha256:
        raise ImageError(f"{source} has changed since it was read; put the old file back, or protect again.")
    return content


def _deviation(before: Picture, after: Picture) -> tuple[int, float]:
    one, other = before.content, after.content
    if isinstance(one, Image.Image) and isinstance(other, Image.Image) and one.mode == other.mode in ("L", "RGB"):
        return image_deviation(one, other)
    return deviation(before.colours, after.colours)


def _tags(before: Picture, kept: Descriptions) -> dict[str, Any]:
    """What `sixteen_bit.encode` writes beside the pixels."""
    return {"icc": before.icc, "exif": kept.exif, "xmp": kept.xmp, "dpi": before.dpi, "chunks": before.chunks}


def _options(container: str, quality: int, before: Picture, kept: Descriptions) -> dict[str, Any]:
    options = dict(_SAVE[container])
    if container == "JPEG":
        options["quality"] = quality
    if before.icc:
        options["icc_profile"] = before.icc
    if before.dpi:
        options["dpi"] = before.dpi
    if container == "TIFF" and (kept.exif or kept.xmp):
        options["exif"] = kept.exif or Image.Exif()
        if kept.xmp:
            options["exif"][700] = kept.xmp
        options["compression"] = "raw"  # libtiff, which compresses, cannot write an EXIF directory
        return options
    if kept.exif:
        options["exif"] = kept.exif
    if container == "PNG":
        options["pnginfo"] = PngImagePlugin.PngInfo()
        for name, content in before.chunks:
            options["pnginfo"].add(name, content)
        if kept.xmp:
            options["pnginfo"].add_itxt("XML:com.adobe.xmp", kept.xmp.decode())
    elif kept.xmp:
        options["xmp"] = kept.xmp
    return options
