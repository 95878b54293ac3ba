"""Reads every picture of a folder once, at the working size."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image

from pueprotect.errors import ImageError, InputError, UnusableImages
from pueprotect.images.buffers import kept_blocks
from pueprotect.images.decode import Picture, Pixels, WorkingCopy, identify, working_copy
from pueprotect.images.encode import Encoder
from pueprotect.images.folders import ImageEntry, ImageFolder
from pueprotect.images.metadata import Descriptions, descriptions
from pueprotect.runtime import SILENT, Progress

CACHE_ABOVE = 2**29  # bytes of working copies; larger sets are kept in a file and paged in when needed


@dataclass(frozen=True)
class Loaded:
    """Working copies of a folder.

    Attributes:
        pixels: (N, S, S, 3) uint8 in the order of the folder's entries; rows of unusable images are undefined.
        digests: SHA-256 of each usable file, by path.
        unusable: path of each file that cannot be protected, and one sentence of why.
        converted: paths of palette, CMYK and HEIC images, by these names.
        grey: (N,) bool, true for images that are released without colours.
        sides: (N, 2) int64, height and width of the whole upright images in pixels.
    """

    pixels: Pixels
    digests: dict[str, str]
    unusable: tuple[tuple[str, str], ...]
    converted: dict[str, list[str]]
    grey: npt.NDArray[np.bool_]
    sides: npt.NDArray[np.int64]


def read_folder(
    folder: ImageFolder,
    size: int,
    *,
    workers: int = 0,
    progress: Progress = SILENT,
    label: str = "read",
    cache: Path | None = None,
    encoder: Encoder | None = None,
) -> Loaded:
    """Read and decode every image once, resized to `size` x `size` pixels without keeping the aspect.

    `workers` is the number of decoding threads; 0 lets the standard library choose. `progress` receives one part for
    each image, of work named `label`. Copies above `CACHE_ABOVE` bytes are kept in a file in the folder `cache`, see
    `empty_pixels`; None keeps all in memory. Images that `encoder` could not write count as unusable.
    """
    rehearsed = set[tuple[object, ...]]()

    def inspect(path: Path) -> Callable[[Image.Image, Picture], None] | None:
        return None if encoder is None else lambda image, picture: _rehearse(encoder, image, picture, path, rehearsed)

    def read(entry: ImageEntry) -> tuple[WorkingCopy, str] | ImageError:
        path = folder.path_of(entry)
        try:
            content = path.read_bytes()
            return working_copy(path, size, content, inspect(path)), hashlib.sha256(content).hexdigest()
        except ImageError as error:
            return error
        except OSError as error:
            return ImageError(f"{path} cannot be read ({error.strerror}); check that it exists and is readable.")

    pixels = empty_pixels((len(folder.entries), size, size, 3), cache)
    grey, sides = np.zeros(len(pixels), dtype=np.bool_), np.zeros((len(pixels), 2), dtype=np.int64)
    digests, unusable, converted = dict[str, str](), list[tuple[str, str]](), dict[str, list[str]]()
    progress.start(label, len(pixels))
    with kept_blocks(), ThreadPoolExecutor(workers or None) as pool:
        for index, (entry, result) in enumerate(zip(folder.entries, pool.map(read, folder.entries), strict=True)):
            if isinstance(result, ImageError):
                unusable.append((entry.path, str(result)))
            else:
                copy, digests[entry.path] = result
                pixels[index], grey[index], sides[index] = copy.pixels, copy.grey, copy.sides
                if copy.converted:
                    converted.setdefault(copy.converted, []).append(entry.path)
            progress.advance()
    progress.finish()
    return Loaded(pixels, digests, tuple(unusable), converted, grey, sides)


def _rehearse(
    encoder: Encoder, image: Image.Image, picture: Picture, path: Path, known: set[tuple[object, ...]]
) -> None:
    """Let `encoder` refuse a picture; without descriptions, pictures alike in all that counts are tried once."""
    if encoder.metadata == "keep":
        encoder.rehearse(picture, descriptions(image), path)
        return
    transparent = picture.alpha is not None and int(picture.alpha.min()) < np.iinfo(picture.alpha.dtype).max
    alike = (picture.container, picture.kind[0], transparent, picture.icc, picture.dpi, picture.chunks)
    if alike not in known:
        encoder.rehearse(picture, Descriptions(), path)
        known.add(alike)


def empty_pixels(shape: tuple[int, ...], cache: Path | None) -> Pixels:
    """An array for working copies: in memory or, above `CACHE_ABOVE` bytes, in a file in `cache` without a name.

    Raises:
        InputError: the file cannot be made.
    """
    if cache is None or int(np.prod(shape, dtype=np.int64)) <= CACHE_ABOVE:
        return np.empty(shape, dtype=np.uint8)
    path = cache / f".{os.getpid()}.cache"
    try:
        made: Pixels = np.memmap(path, dtype=np.uint8, mode="w+", shape=shape)
    except OSError as error:
        raise InputError(f"{path} cannot be made ({error.strerror}); choose another --vault.") from error
    finally:
        path.unlink(missing_ok=True)  # the mapping keeps the file until the process ends
    return made


def compacted(pixels: Pixels, wanted: Sequence[bool]) -> Pixels:
    """The wanted rows of `pixels` in their order, moved together in place: a set may fill half the memory."""
    rows = np.flatnonzero(wanted)
    for start in range(0, len(rows), 1024):
        part = rows[start : start + 1024]
        pixels[start : start + len(part)] = pixels[part]
    return pixels[: len(rows)]


def load(
    folder: ImageFolder, size: int, *, workers: int = 0, progress: Progress = SILENT, label: str = "read"
) -> Pixels:
    """The pixels of `read_folder`: (N, size, size, 3) uint8 in the order of `folder.entries`.

    Raises:
        UnusableImages: some files cannot be decoded; one error for all of them.
    """
    loaded = read_folder(folder, size, workers=workers, progress=progress, label=label)
    if loaded.unusable:
        raise UnusableImages(loaded.unusable, len(folder.entries))
    return loaded.pixels


def twins(folder: ImageFolder, pixels: Pixels) -> list[tuple[ImageEntry, ...]]:
    """The images of each picture that is there more than once: those with equal working copies.

    `pixels` are (N, S, S, 3) uint8 in the order of the folder's entries.
    """
    alike = dict[bytes, list[ImageEntry]]()
    for entry, copy in zip(folder.entries, pixels, strict=True):
        alike.setdefault(hashlib.sha256(copy.tobytes()).digest(), []).append(entry)
    return [tuple(entries) for entries in alike.values() if len(entries) > 1]


def working_size(folder: ImageFolder, sample: int = 64) -> tuple[int, str]:
    """The side in pixels at which noise is computed, and the reason.

    Raises:
        ImageError: none of the sampled files can be identified.
    """
    sides, failure = [], None
    for index in np.unique(np.linspace(0, len(folder.entries) - 1, sample).astype(int)):
        try:
            sides.append(min(identify(folder.path_of(folder.entries[index]))[:2]))
        except ImageError as error:
            failure = error
    if failure is not None and not sides:
        raise failure
    median = float(np.median(sides))
    size = fitting_size(median)
    return size, f"size {size}: the median short side of {len(sides)} sampled images is {median:g} px"


def fitting_size(side: float) -> int:
    """The working size for pictures whose short side has so many pixels: 64, 32, or the pictures' own size.

    Noise loses strength where a picture is smaller than the working size, so the size is at most that of the pictures,
    rounded down to a multiple of four, but not below 8. Pictures of 32 to 48 pixels get 32.
    """
    if 32 <= side <= 48:
        return 32
    return max(8, min(64, int(side) // 4 * 4))
