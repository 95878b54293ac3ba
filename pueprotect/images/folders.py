"""Image folders: what is in them, their labels, working copies of their pixels, splits. No torch."""

from __future__ import annotations

import csv
import os
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path, PurePosixPath

import numpy as np
import numpy.typing as npt

from pueprotect.errors import InputError
from pueprotect.images.decode import FORMATS, HEIC_SUFFIXES

SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff"})
if "HEIF" in FORMATS:
    SUFFIXES |= HEIC_SUFFIXES
# Pictures that this package cannot write; a folder that holds them would otherwise lose them without a word.
OTHER_PICTURES = frozenset(
    f".{suffix}"
    for suffix in (
        *("gif", "heic", "heif", "avif", "jfif", "jpe", "jp2", "j2k", "jxl", "psd", "tga", "ppm", "pgm", "pbm", "pnm"),
        *("dng", "cr2", "cr3", "nef", "arw", "raf", "orf", "rw2", "exr", "hdr"),
    )
)


@dataclass(frozen=True)
class ImageEntry:
    """One image: its POSIX path relative to the folder's root and the index of its class."""

    path: str
    label: int


@dataclass(frozen=True)
class ImageFolder:
    """A scanned folder; `entries` are sorted by path and `classes` by name.

    `ignored` lists the paths of the visible files that are no pictures, `unsupported` those that are, and why they
    cannot be released.
    """

    root: Path
    classes: tuple[str, ...]
    entries: tuple[ImageEntry, ...]
    ignored: tuple[str, ...] = ()
    unsupported: tuple[tuple[str, str], ...] = ()

    @property
    def labels(self) -> npt.NDArray[np.int64]:
        """The class index of each entry: (N,) int64."""
        return np.array([entry.label for entry in self.entries], dtype=np.int64)

    def path_of(self, entry: ImageEntry) -> Path:
        """Where the file of `entry` lies."""
        return self.root / entry.path

    def without(self, unusable: Sequence[tuple[str, str]]) -> ImageFolder:
        """The folder without some images (path and reason), and without the classes that are empty then.

        Raises:
            InputError: fewer than two classes are left.
        """
        gone = {path for path, _ in unusable}
        kept = [entry for entry in self.entries if entry.path not in gone]
        labels = {entry.path: self.classes[entry.label] for entry in kept}
        classes, entries = _labelled(self.root, [entry.path for entry in kept], labels)
        return replace(self, classes=classes, entries=entries, unsupported=(*self.unsupported, *unusable))


def scan(root: str | Path, labels_csv: str | Path | None = None, *, depth: int = 1) -> ImageFolder:
    """List the images below `root` with their labels, without opening them.

    The class of an image is the folder number `depth` of its path, with any folders below it; or its label in
    `labels_csv`, a UTF-8 file with the columns path (relative to `root`) and label. Hidden files and folders
    are skipped.

    Raises:
        InputError: `root` cannot be used, holds no images, images without a class or fewer than two classes, holds a
            link that leaves it, or does not agree with `labels_csv`.
    """
    root = Path(root)
    if not root.exists():
        raise InputError(f"{root}: there is no such folder; check the path.")
    if not root.is_dir():
        raise InputError(f"{root} is a file; name the folder that holds the images.")
    found = _walk(root)
    if not found.images and found.unsupported:
        raise InputError(f"{root} holds no images that can be released. {found.unsupported[0][1]}")
    if not found.images:
        raise InputError(f"{root} holds no images; supported suffixes are {', '.join(sorted(SUFFIXES))}.")
    if labels_csv is not None:
        others = [*found.ignored, *(path for path, _ in found.unsupported)]
        names = _read_labels(Path(labels_csv), root, found.images, others)
    else:
        for path in found.images:
            if path.count("/") < depth:
                what = "class folder" if depth == 1 else f"class folder {depth} levels deep"
                raise InputError(
                    f"{root / path} lies in no {what}: put each image into {root}/{'FOLDER/' * (depth - 1)}CLASS/, "
                    "or pass --labels FILE.csv with the columns path,label."
                )
        names = {path: path.split("/")[depth - 1] for path in found.images}
    classes, entries = _labelled(Path(labels_csv) if labels_csv is not None else root, found.images, names)
    return ImageFolder(root, classes, entries, tuple(found.ignored), tuple(found.unsupported))


def _labelled(
    where: Path, images: Sequence[str], names: dict[str, str]
) -> tuple[tuple[str, ...], tuple[ImageEntry, ...]]:
    classes = tuple(sorted(set(names.values())))
    if len(classes) < 2:
        has = f"only one class, {classes[0]!r}" if classes else "no class with usable images"
        raise InputError(f"{where} has {has}; protection needs at least two.")
    index = {name: label for label, name in enumerate(classes)}
    return classes, tuple(ImageEntry(path, index[names[path]]) for path in images)


@dataclass
class _Found:
    """Sorted POSIX paths below a folder."""

    images: list[str] = field(default_factory=list)
    ignored: list[str] = field(default_factory=list)
    unsupported: list[tuple[str, str]] = field(default_factory=list)


def _walk(root: Path) -> _Found:
    found, inside = _Found(), root.resolve()

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
            if path.is_symlink() and not path.resolve().is_relative_to(inside):
                raise InputError(f"{path} is a link that leaves {root}; copy the file into its place.")
            short, suffix = path.relative_to(root).as_posix(), path.suffix.lower()
            if suffix in SUFFIXES and path.is_file():
                found.images.append(short)
            elif suffix in SUFFIXES:
                found.unsupported.append((short, f"{path} is no regular file; put the picture itself in its place."))
            elif suffix in OTHER_PICTURES:
                what = "cannot be released"
                if suffix in HEIC_SUFFIXES:
                    what = "cannot be read without the extra, pip install 'pueprotect[heic]'"
                why = f"{path}: {suffix[1:].upper()} files {what}; save it as JPEG or PNG, or remove it."
                found.unsupported.append((short, why))
            else:
                found.ignored.append(short)
    for names in (found.images, found.ignored, found.unsupported):
        names.sort()
    return found


def _read_labels(table: Path, root: Path, images: Sequence[str], others: Collection[str]) -> dict[str, str]:
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
                    why = "is not an image of a supported suffix" if path in others else f"is not below {root}"
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
