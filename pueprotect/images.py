"""Image folders: what is in them, their labels and their pixels. No torch.

Only the standard containers are opened (JPEG, PNG, WebP, BMP, TIFF), told apart by content and not by
suffix, with 8 bits per channel. Anything whose release would not be faithful (CMYK, 16 bits, several
frames) is refused by name instead of being converted quietly. A JPEG with a second embedded picture
(MPO: gain maps, stereo pairs) counts as its first picture, as in every viewer; the second is not released.
"""

from __future__ import annotations

import csv
import os
import re
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageOps, UnidentifiedImageError

from pueprotect.errors import ImageError, InputError
from pueprotect.runtime import SILENT, Progress, child_seed

Pixels = npt.NDArray[np.uint8]

SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff"})
MODES = frozenset({"RGB", "RGBA", "L", "LA", "P"})

_FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "TIFF")
# Pillow reads 16-bit colour as 8 bits without a word; only the raw mode of the tile tells.
_SIXTEEN_BITS = re.compile(r";16[BLN]")


@dataclass(frozen=True)
class ImageEntry:
    """One image: its POSIX path relative to the folder's root and the index of its class."""

    path: str
    label: int


@dataclass(frozen=True)
class ImageFolder:
    """A scanned folder; `entries` are sorted by path and `classes` by name.

    `ignored` lists the paths of the visible files that are not images of a supported suffix.
    """

    root: Path
    classes: tuple[str, ...]
    entries: tuple[ImageEntry, ...]
    ignored: tuple[str, ...] = ()

    @property
    def labels(self) -> npt.NDArray[np.int64]:
        """The class index of each entry: (N,) int64."""
        return np.array([entry.label for entry in self.entries], dtype=np.int64)

    def path_of(self, entry: ImageEntry) -> Path:
        """Where the file of `entry` lies."""
        return self.root / entry.path


def scan(root: str | Path, labels_csv: str | Path | None = None) -> ImageFolder:
    """List the images below `root` with their labels, without opening them.

    The class of an image is the first folder of its path, at any depth below it; or its label in `labels_csv`, a
    UTF-8 file with the columns path (relative to `root`) and label. Hidden files and folders are skipped.

    Raises:
        InputError: `root` cannot be used, holds no images, images without a class or fewer than two classes, holds a
            link that leaves it, or does not agree with `labels_csv`.
    """
    root = Path(root)
    if not root.exists():
        raise InputError(f"{root}: there is no such folder; check the path.")
    if not root.is_dir():
        raise InputError(f"{root} is a file; name the folder that holds the images.")
    images, ignored = _walk(root)
    if not images:
        raise InputError(f"{root} holds no images; supported suffixes are {', '.join(sorted(SUFFIXES))}.")
    if labels_csv is not None:
        names = _read_labels(Path(labels_csv), root, images, ignored)
    else:
        for path in images:
            if "/" not in path:
                raise InputError(
                    f"{root / path} lies in no class folder: put each image into {root}/CLASS/, "
                    "or pass --labels FILE.csv with the columns path,label."
                )
        names = {path: path.split("/", 1)[0] for path in images}
    classes = tuple(sorted(set(names.values())))
    if len(classes) < 2:
        where = labels_csv if labels_csv is not None else root
        raise InputError(f"{where} has only one class, {classes[0]!r}; protection needs at least two.")
    index = {name: label for label, name in enumerate(classes)}
    entries = tuple(ImageEntry(path, index[names[path]]) for path in images)
    return ImageFolder(root, classes, entries, tuple(ignored))


def _walk(root: Path) -> tuple[list[str], list[str]]:
    images: list[str] = []
    others: list[str] = []
    inside = root.resolve()

    def refuse(error: OSError) -> None:
        raise InputError(f"{error.filename} cannot be listed ({error.strerror}); check its permissions.") from error

    for folder, subfolders, files in os.walk(root, onerror=refuse):
        subfolders[:] = [name for name in subfolders if not name.startswith(".")]
        for name in subfolders:
            if (link := Path(folder, name)).is_symlink():
                raise InputError(f"{link} is a link to a folder; put the folder itself in its place.")
        for name in files:
            if name.startswith("."):
                continue
            path = Path(folder, name)
            try:
                name.encode()
            except UnicodeEncodeError as error:
                raise InputError(f"{path!r} has a name that is not UTF-8; rename it.") from error
            if path.is_symlink() and not path.resolve().is_relative_to(inside):
                raise InputError(f"{path} is a link that leaves {root}; copy the file into its place.")
            is_image = path.suffix.lower() in SUFFIXES and path.is_file()
            (images if is_image else others).append(path.relative_to(root).as_posix())
    return sorted(images), sorted(others)


def _read_labels(table: Path, root: Path, images: Sequence[str], ignored: Sequence[str]) -> dict[str, str]:
    """The label of each image; every image must be listed once and every row must name an image."""
    known, names = set(images), dict[str, str]()
    try:
        with table.open(encoding="utf-8-sig", newline="") as lines:
            reader = csv.DictReader(lines, strict=True)
            if not {"path", "label"} <= set(reader.fieldnames or ()):
                raise InputError(f"{table}: the first line must name the columns path,label.")
            for row in reader:
                where = f"{table}, line {reader.line_num}"
                if not row["path"] or not row["label"] or None in row:
                    raise InputError(f"{where}: each row needs one path and one label, as the header says.")
                path = PurePosixPath(row["path"]).as_posix()
                if path not in known:
                    why = "is not an image of a supported suffix" if path in ignored else f"is not below {root}"
                    raise InputError(f"{where}: {path} {why}; correct or remove the row.")
                if path in names:
                    raise InputError(f"{where}: {path} is listed twice; remove one of the rows.")
                names[path] = row["label"]
    except OSError as error:
        raise InputError(f"{table} cannot be read ({error.strerror}); check --labels.") from error
    except (UnicodeDecodeError, csv.Error) as error:
        raise InputError(f"{table} is not a CSV file in UTF-8 ({error}); save it again as such.") from error
    for path in images:
        if path not in names:
            raise InputError(f"{root / path} has no row in {table} ({len(known) - len(names)} lack one); add it.")
    return names


@contextmanager
def opened(path: Path, name: Path | None = None) -> Iterator[Image.Image]:
    """Open a supported image; any failure inside the block becomes an `ImageError`.

    Args:
        path: the file.
        name: what the message calls it; None takes `path`.

    Raises:
        ImageError: not an image that this package can protect, or the block failed.
    """
    name = name or path
    try:
        with Image.open(path, formats=_FORMATS) as image:
            frames = 1 if image.format == "MPO" else getattr(image, "n_frames", 1)
            if frames > 1:
                raise ImageError(f"{name} has {frames} frames; save the one that matters as a single image.")
            mode = image.mode
            if mode in MODES and any(_SIXTEEN_BITS.search(str(tile[3])) for tile in image.tile):
                mode += " with 16 bits"
            if mode not in MODES:
                raise ImageError(f"{name}: mode {mode} is not supported yet; convert it to 8-bit RGB or greyscale.")
            yield image
    except ImageError:
        raise
    except UnidentifiedImageError as error:
        raise ImageError(f"{name} is not a readable {'/'.join(_FORMATS)} image; save it again or remove it.") from error
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise ImageError(f"{name} has too many pixels ({error}); reduce it or remove it.") from error
    except Exception as error:  # decoders raise nearly anything on damaged data
        raise ImageError(f"{name} cannot be decoded ({error}); save it again or remove it.") from error


def upright(image: Image.Image) -> Image.Image:
    """Turned as its EXIF orientation says, in mode L, LA, RGB or RGBA."""
    turned = ImageOps.exif_transpose(image)
    plain = "L" if turned.mode in ("L", "LA") else "RGB"
    return turned.convert(plain + "A" if turned.has_transparency_data else plain)


def identify(path: str | Path) -> tuple[int, int, str, str]:
    """Read the header only: (width, height, mode, format), the size as stored, before orientation.

    Raises:
        ImageError: not an image that this package can protect.
    """
    with opened(Path(path)) as image:
        return image.width, image.height, image.mode, container_of(image)


def container_of(image: Image.Image) -> str:
    """The container of an opened image: JPEG, PNG, WEBP, BMP or TIFF."""
    return "JPEG" if image.format == "MPO" else str(image.format)


def decode_rgb(path: str | Path) -> Pixels:
    """Decode to (H, W, 3) uint8, upright; greyscale is repeated, alpha dropped without compositing.

    Raises:
        ImageError: the file cannot be decoded, or not faithfully.
    """
    with opened(Path(path)) as image:
        return rgb_of(upright(image))


def rgb_of(image: Image.Image) -> Pixels:
    """(H, W, 3) uint8; greyscale is repeated, alpha dropped without compositing."""
    return np.array(image.convert("RGB"), dtype=np.uint8)


def load(
    folder: ImageFolder, size: int, *, workers: int = 0, progress: Progress = SILENT, label: str = "read"
) -> Pixels:
    """Decode every image and bring it to size x size, the aspect not kept (Lanczos; untouched where it fits).

    Args:
        folder: what `scan` returned.
        size: side in pixels.
        workers: decoding threads; 0 lets the standard library choose.
        progress: told of every image.
        label: name of the work in `progress`.

    Returns:
        (N, size, size, 3) uint8 in the order of `folder.entries`.

    Raises:
        ImageError: some files cannot be decoded; one error for all of them.
    """

    def read(entry: ImageEntry) -> Pixels | ImageError:
        try:
            with opened(folder.path_of(entry)) as image:
                rgb = upright(image).convert("RGB")
            # The gap only reduces giants by whole factors first, at no visible loss.
            fitted = rgb.resize((size, size), Image.Resampling.LANCZOS, reducing_gap=3.0)
            return np.array(fitted, dtype=np.uint8)
        except ImageError as error:
            return error

    images = np.empty((len(folder.entries), size, size, 3), dtype=np.uint8)
    errors: list[str] = []
    progress.start(label, len(images))
    with ThreadPoolExecutor(workers or None) as pool:
        for index, result in enumerate(pool.map(read, folder.entries)):
            if isinstance(result, ImageError):
                errors.append(str(result))
            else:
                images[index] = result
            progress.advance()
    progress.finish()
    if len(errors) == 1:
        raise ImageError(errors[0])
    if errors:
        more = f" ... and {len(errors) - 3} more." if len(errors) > 3 else ""
        raise ImageError(f"{len(errors)} of {len(images)} images cannot be used: {' '.join(errors[:3])}{more}")
    return images


def working_size(folder: ImageFolder, sample: int = 64) -> tuple[int, str]:
    """Choose the side in pixels at which noise is computed, with one sentence of why.

    Raises:
        ImageError: none of the sampled files can be identified.
    """
    picked = np.unique(np.linspace(0, len(folder.entries) - 1, sample).astype(int))
    sides, failure = [], None
    for index in picked:
        try:
            sides.append(min(identify(folder.path_of(folder.entries[index]))[:2]))
        except ImageError as error:
            failure = error
    if failure is not None and not sides:
        raise failure
    median = float(np.median(sides))
    size = 32 if median <= 48 else 64
    side = "at most" if size == 32 else "above"
    return size, f"size {size}: the median short side of {len(sides)} sampled images is {median:g} px, {side} 48 px"


def stratified_holdout(
    labels: npt.NDArray[np.int64], share: float, seed: int, classes: Sequence[str] = ()
) -> npt.NDArray[np.bool_]:
    """Mark `share` of each class as held out: at least one image, and at least two kept where there are three.

    Args:
        labels: (N,) int64 class indices.
        share: fraction in (0, 1) of each class.
        seed: the choice within a class depends on (seed, class index, class size) alone.
        classes: names for error messages.

    Returns:
        (N,) bool, true where held out.

    Raises:
        InputError: `share` is out of range or a class has fewer than two images.
    """
    if not 0.0 < share < 1.0:
        raise InputError(f"--holdout {share:g} is not between 0 and 1, both excluded.")
    held = np.zeros(len(labels), dtype=np.bool_)
    for label in np.unique(labels):
        members = np.flatnonzero(labels == label)
        if len(members) < 2:
            name = repr(classes[label]) if label < len(classes) else str(label)
            raise InputError(f"class {name} has only one image and at least two are needed; add some or remove it.")
        count = min(max(1, int(share * len(members) + 0.5)), max(1, len(members) - 2))
        stream = np.random.default_rng(child_seed(seed, "holdout", int(label)))
        held[stream.permutation(members)[:count]] = True
    return held
