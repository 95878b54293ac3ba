"""Image folders: what is in them, their labels, and protected copies of their files. No torch.

Only the standard containers are opened (JPEG, PNG, WebP, BMP, TIFF), told apart by content and not by
suffix, with 8 bits per channel. Anything whose release would not be faithful (CMYK, 16 bits, several
frames) is refused by name instead of being converted quietly. A JPEG with a second embedded picture
(MPO: gain maps, stereo pairs) counts as its first picture, as in every viewer; the second is not released.
"""

from __future__ import annotations

import csv
import io
import os
import re
import uuid
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageOps, UnidentifiedImageError

from pueprotect.errors import ImageError, InputError
from pueprotect.runtime import SILENT, Progress, child_seed

Pixels = npt.NDArray[np.uint8]
FileFormat = Literal["keep", "png"]
Metadata = Literal["minimal", "keep"]

SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff"})
MODES = frozenset({"RGB", "RGBA", "L", "LA", "P"})

# Measured on 200 CIFAR-10 images (32x32 JPEG) with uniform noise in +-8 levels, 4:4:4. Regression of the
# decoded difference on the noise / RMS error / median L-inf / bytes: quality 95 0.85 / 3.7 / 18 / 1620,
# 98 1.01 / 1.8 / 14 / 2160, 100 1.01 / 0.8 / 11 / 2830. 98 is the first that does not attenuate the noise;
# with 4:2:0 chroma it keeps only 0.43 of it.
JPEG_QUALITY = 98
PSNR_CAP = 100.0

_FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "TIFF")
_SAVE: dict[str, dict[str, Any]] = {
    "JPEG": {"quality": JPEG_QUALITY, "subsampling": 0},
    "PNG": {},
    # Without `exact` the encoder rewrites the colours below transparent pixels.
    "WEBP": {"lossless": True, "exact": True},
    "BMP": {},
    "TIFF": {"compression": "tiff_lzw"},
}
# Pillow reads 16-bit colour as 8 bits without a word; only the raw mode of the tile tells.
_SIXTEEN_BITS = re.compile(r";16[BLN]")

_EXIF_IFD = 0x8769
_MAKER_NOTE = 0x927C
# Camera, date, author, resolution and titles; a list of what to keep, since previews, GPS, orientation and
# the layout tags of TIFF live in the same directory.
_KEPT_TAGS = (270, 271, 272, 282, 283, 296, 305, 306, 315, 316, 33432, 40091, 40092, 40093, 40094, 40095)
_LONGEST_BINARY = 1024


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


@dataclass(frozen=True)
class Realised:
    """What a released file differs by from its original, measured on the decoded bytes over RGB.

    Attributes:
        linf: largest absolute difference in levels (0..255).
        psnr: in dB; `PSNR_CAP` where the two are equal, so that JSON can hold it.
        bytes_before: size of the original file.
        bytes_after: size of the released file.
    """

    linf: int
    psnr: float
    bytes_before: int
    bytes_after: int


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
def _opened(path: Path, name: Path | None = None) -> Iterator[Image.Image]:
    """Open a supported image; any failure inside the block becomes an `ImageError` about `name`."""
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


def _upright(image: Image.Image) -> Image.Image:
    """Turned as its EXIF orientation says, in mode L, LA, RGB or RGBA."""
    turned = ImageOps.exif_transpose(image)
    plain = "L" if turned.mode in ("L", "LA") else "RGB"
    return turned.convert(plain + "A" if turned.has_transparency_data else plain)


def identify(path: str | Path) -> tuple[int, int, str, str]:
    """Read the header only: (width, height, mode, format), the size as stored, before orientation.

    Raises:
        ImageError: not an image that this package can protect.
    """
    with _opened(Path(path)) as image:
        return image.width, image.height, image.mode, _format_of(image)


def _format_of(image: Image.Image) -> str:
    return "JPEG" if image.format == "MPO" else str(image.format)


def decode_rgb(path: str | Path) -> Pixels:
    """Decode to (H, W, 3) uint8, upright; greyscale is repeated, alpha dropped without compositing.

    Raises:
        ImageError: the file cannot be decoded, or not faithfully.
    """
    with _opened(Path(path)) as image:
        return _rgb(_upright(image))


def _rgb(image: Image.Image) -> Pixels:
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
            with _opened(folder.path_of(entry)) as image:
                rgb = _upright(image).convert("RGB")
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


def protect_file(
    source: str | Path,
    target: str | Path,
    delta_levels: npt.NDArray[np.int8],
    *,
    file_format: FileFormat = "keep",
    metadata: Metadata = "minimal",
    epsilon_levels: int,
) -> Realised:
    """Write `source` plus noise to `target` and measure the file that was written.

    Pixels are stored upright and the orientation tag is dropped, so that viewers show both files alike. Alpha and the
    ICC profile are kept; greyscale stays greyscale and gets the mean of the three channels; palettes become RGB(A).
    PNG, WebP, BMP and TIFF are written lossless: there no pixel moves by more than `epsilon_levels`. JPEG adds its
    own rounding on top (see `JPEG_QUALITY`). The file appears under its name only once it is complete and measured.

    Args:
        source: the original.
        target: the released file; its folder is made.
        delta_levels: (S, S, 3) int8 noise in levels of 0..255, resized bilinearly to the upright image.
        file_format: keep the container of `source`, or write PNG.
        metadata: `minimal` drops EXIF, XMP and comments; `keep` keeps the EXIF text (camera, date, author, exposure)
            and still drops thumbnails, maker notes, GPS and XMP, which can hold a preview or a place.
        epsilon_levels: the L-infinity budget in levels; larger noise is clipped to it.

    Raises:
        InputError: `target` is `source`.
        ImageError: the file cannot be read or written, or the written file does not hold what was meant.
    """
    source, target = Path(source), Path(target)
    if target.exists() and target.samefile(source):
        raise InputError(f"{target} is the original itself; choose another folder for --out.")
    with _opened(source) as image:
        container = "PNG" if file_format == "png" else _format_of(image)
        before = _upright(image)
        options = dict(_SAVE[container])
        if icc := image.info.get("icc_profile"):
            options["icc_profile"] = icc
        if metadata == "keep" and (exif := _harmless_exif(image)):
            options["exif"] = exif
            if container == "TIFF":
                options["compression"] = "raw"  # libtiff, which compresses, cannot write an EXIF directory
    buffer = io.BytesIO()
    try:
        _add_noise(before, delta_levels, epsilon_levels).save(buffer, container, **options)
    except Exception as error:  # damaged EXIF raises nearly anything in the encoder
        raise ImageError(f"{source} cannot be encoded as {container} ({error}); use --metadata minimal.") from error
    partial = target.with_name(f".{uuid.uuid4().hex}.tmp")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        partial.write_bytes(buffer.getvalue())
        with _opened(partial, target) as image:
            after = _upright(image)
        linf, psnr = _difference(_rgb(before), _rgb(after))
        if not np.array_equal(_alpha(before), _alpha(after)):
            raise ImageError(f"{source}: {container} does not keep its transparency; use --format png.")
        if container != "JPEG" and linf > epsilon_levels:
            raise ImageError(f"{target} differs by {linf} levels instead of {epsilon_levels}; use --format png.")
        os.replace(partial, target)
    except OSError as error:
        raise ImageError(f"{target} cannot be written ({error}); check the folder and the space on it.") from error
    finally:
        partial.unlink(missing_ok=True)
    return Realised(linf, psnr, source.stat().st_size, target.stat().st_size)


def _add_noise(image: Image.Image, delta_levels: npt.NDArray[np.int8], epsilon_levels: int) -> Image.Image:
    pixels = np.atleast_3d(np.array(image))
    colours = pixels.shape[2] - (image.mode in ("LA", "RGBA"))
    planes = [
        np.asarray(Image.fromarray(plane).resize(image.size, Image.Resampling.BILINEAR))
        for plane in np.moveaxis(delta_levels.astype(np.float32), 2, 0)
    ]
    noise = np.stack(planes, axis=2)
    if colours == 1:
        noise = noise.mean(axis=2, keepdims=True)
    noise = np.clip(np.rint(noise), -epsilon_levels, epsilon_levels).astype(np.int16)
    pixels[..., :colours] = np.clip(pixels[..., :colours] + noise, 0, 255)
    return Image.fromarray(pixels[..., 0] if pixels.shape[2] == 1 else pixels)


def _harmless_exif(image: Image.Image) -> Image.Exif | None:
    """The EXIF entries that can hold neither a second copy of the picture nor a place."""
    old, new = image.getexif(), Image.Exif()
    for tag in _KEPT_TAGS:
        if tag in old:
            new[tag] = old[tag]
    details = {
        tag: value
        for tag, value in old.get_ifd(_EXIF_IFD).items()
        if tag != _MAKER_NOTE and not (isinstance(value, bytes) and len(value) > _LONGEST_BINARY)
    }
    if details:
        new.get_ifd(_EXIF_IFD).update(details)
        new[_EXIF_IFD] = details  # the TIFF encoder looks for the pointer, the others for the directory
    return new if len(new) else None


def _alpha(image: Image.Image) -> Pixels:
    if image.mode in ("LA", "RGBA"):
        return np.array(image.getchannel("A"), dtype=np.uint8)
    return np.full((image.height, image.width), 255, dtype=np.uint8)


def _difference(before: Pixels, after: Pixels) -> tuple[int, float]:
    """(L-infinity in levels, PSNR in dB) of two arrays of one shape."""
    gap = after.astype(np.int16) - before
    squared = float(np.mean(np.square(gap, dtype=np.float32), dtype=np.float64))
    psnr = 10.0 * np.log10(255.0**2 / squared) if squared else PSNR_CAP
    return int(np.abs(gap).max()), float(min(psnr, PSNR_CAP))


def ssim(a: Pixels, b: Pixels) -> float:
    """Mean structural similarity of two (H, W, 3) uint8 images, at most 1 (equal).

    Wang, Bovik, Sheikh and Simoncelli 2004, on luma, with a uniform 7x7 window wholly inside the image (smaller where
    the image is) and without their optional reduction of large images.

    Raises:
        ValueError: the shapes differ.
    """
    if a.shape != b.shape:
        raise ValueError(f"ssim of shapes {a.shape} and {b.shape}")
    window = min(7, *a.shape[:2])
    rows = a.shape[0] - window + 1
    columns = a.shape[1] - window + 1
    total = 0.0
    # In strips: a 50-megapixel photograph would take gigabytes in one piece.
    for start in range(0, rows, 256):
        strip = slice(start, start + 256 + window - 1)
        total += float(_ssim_map(_luma(a[strip]), _luma(b[strip]), window).sum())
    return float(total / (rows * columns))


def _luma(image: Pixels) -> npt.NDArray[np.float64]:
    weights = np.array([0.299, 0.587, 0.114])
    return np.asarray(image @ weights, dtype=np.float64)


def _ssim_map(x: npt.NDArray[np.float64], y: npt.NDArray[np.float64], window: int) -> npt.NDArray[np.float64]:
    c1, c2 = (0.01 * 255) ** 2, (0.03 * 255) ** 2
    mean_x, mean_y = _box_mean(x, window), _box_mean(y, window)
    variances = _box_mean(x * x, window) - mean_x**2 + _box_mean(y * y, window) - mean_y**2
    covariance = _box_mean(x * y, window) - mean_x * mean_y
    numerator = (2 * mean_x * mean_y + c1) * (2 * covariance + c2)
    return np.asarray(numerator / ((mean_x**2 + mean_y**2 + c1) * (variances + c2)))


def _box_mean(x: npt.NDArray[np.float64], window: int) -> npt.NDArray[np.float64]:
    """Mean over each window x window square inside `x`."""
    for axis in (0, 1):
        sums = np.moveaxis(np.cumsum(np.insert(x, 0, 0.0, axis=axis), axis=axis), axis, 0)
        x = np.moveaxis(sums[window:] - sums[:-window], 0, axis)
    return x / window**2


def released_name(path: str, file_format: FileFormat) -> str:
    """The path of the released file for the image at `path`, both relative and POSIX."""
    return PurePosixPath(path).with_suffix(".png").as_posix() if file_format == "png" else path


def released_names(folder: ImageFolder, file_format: FileFormat) -> list[str]:
    """The released path of every entry, in order.

    Raises:
        InputError: two images would be written to one file, letter case aside.
    """
    owners: dict[str, str] = {}
    names = []
    for entry in folder.entries:
        name = released_name(entry.path, file_format)
        key = name.casefold() if file_format == "png" else name
        if (other := owners.setdefault(key, entry.path)) != entry.path:
            raise InputError(f"{other} and {entry.path} would both become {name}; rename one or use --format keep.")
        names.append(name)
    return names
