"""Lists the images of a folder with their labels. No torch."""

from __future__ import annotations

import csv
import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath

import numpy as np
import numpy.typing as npt

from pueprotect.errors import InputError
from pueprotect.images.decode import FORMATS, HEIC_SUFFIXES

SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff"})
if "HEIF" in FORMATS:
    SUFFIXES |= HEIC_SUFFIXES
# Pictures that this package cannot write. They are reported, so that a release does not leave them out silently.
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

    `ignored` holds the paths of visible files that are no pictures. `unsupported` holds the paths of pictures that
    cannot be released, each with the reason.
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
        """The path of the entry's file."""
        return self.root / entry.path

    def without(self, unusable: Sequence[tuple[str, str]]) -> ImageFolder:
        """The folder without some images (path and reason), and without classes that become empty.

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

    The class of an image is folder number `depth` of its path; deeper folders belong to that class. With
    `labels_csv`, a UTF-8 file with the columns path (relative to `root`) and label, it is the label there. Hidden
    files and folders are skipped.

    Raises:
        InputError: `root` cannot be used, or holds no images, images without a class, fewer than two classes or a
            link that leaves it; or `labels_csv` does not match it.
    """
    root = Path(root)
    if not root.exists():
        raise InputError(f"{root}: no such folder; check the path.")
    if not root.is_dir():
        raise InputError(f"{root} is a file; name the folder that holds the images.")
    images, ignored, unsupported = _walk(root)
    if not images and unsupported:
        raise InputError(f"{root} holds no images that can be released. {unsupported[0][1]}")
    if not images:
        raise InputError(f"{root} holds no images; supported suffixes are {', '.join(sorted(SUFFIXES))}.")
    if labels_csv is not None:
        names = _read_labels(Path(labels_csv), root, images, {*ignored, *dict(unsupported)})
    else:
        for path in images:
            if path.count("/") < depth:
                what = "class folder" if depth == 1 else f"class folder {depth} levels deep"
                raise InputError(
                    f"{root / path} is in no {what}: put each image into {root}/{'FOLDER/' * (depth - 1)}CLASS/, "
                    "or pass --labels FILE.csv with the columns path,label."
                )
        names = {path: path.split("/")[depth - 1] for path in images}
    classes, entries = _labelled(Path(root if labels_csv is None else labels_csv), images, names)
    return ImageFolder(root, classes, entries, tuple(ignored), tuple(unsupported))


def _labelled(where: Path, images: list[str], names: dict[str, str]) -> tuple[tuple[str, ...], tuple[ImageEntry, ...]]:
    """The sorted classes, and an entry for each image."""
    classes = tuple(sorted(set(names.values())))
    if len(classes) < 2:
        has = f"only one class, {classes[0]!r}" if classes else "no class with usable images"
        raise InputError(f"{where} has {has}; protection needs at least two.")
    index = {name: label for label, name in enumerate(classes)}
    return classes, tuple(ImageEntry(path, index[names[path]]) for path in images)


def _walk(root: Path) -> tuple[list[str], list[str], list[tuple[str, str]]]:
    """Sorted POSIX paths below `root`: images, ignored files, and unsupported pictures with the reason."""
    images, ignored, unsupported = list[str](), list[str](), list[tuple[str, str]]()
    inside = root.resolve()

    def refuse(error: OSError) -> None:
        raise InputError(f"{error.filename} cannot be listed ({error.strerror}); check its permissions.") from error

    for folder, subfolders, files in os.walk(root, onerror=refuse):
        subfolders[:] = [name for name in subfolders if not name.startswith(".")]
        for name in subfolders:
            if (link := Path(folder, name)).is_symlink():
                raise InputError(f"{link} is a link to a folder; replace it by the folder itself.")
        for name in files:
            if name.startswith("."):
                continue
            path = Path(folder, name)
            if path.is_symlink() and not path.resolve().is_relative_to(inside):
                raise InputError(f"{path} is a link that leaves {root}; replace it by a copy of the file.")
            short, suffix = path.relative_to(root).as_posix(), path.suffix.lower()
            if suffix in SUFFIXES and path.is_file():
                images.append(short)
            elif suffix in SUFFIXES:
                unsupported.append((short, f"{path} is not a regular file; replace it by the picture itself."))
            elif suffix in OTHER_PICTURES:
                need_extra = "cannot be read without the extra, pip install 'pueprotect[heic]'"
                what = need_extra if suffix in HEIC_SUFFIXES else "cannot be released"
                why = f"{path}: {suffix[1:].upper()} files {what}; save it as JPEG or PNG, or remove it."
                unsupported.append((short, why))
            else:
                ignored.append(short)
    return sorted(images), sorted(ignored), sorted(unsupported)


def _read_labels(table: Path, root: Path, images: list[str], others: set[str]) -> dict[str, str]:
    """The label of each image; every image must have one row and every row must name an image."""
    known, names = set(images), dict[str, str]()
    try:
        with table.open(encoding="utf-8-sig", newline="") as lines:
            reader = csv.DictReader(lines, strict=True)
            if not {"path", "label"} <= set(reader.fieldnames or ()):
                raise InputError(f"{table}: the first line must name the columns path,label.")
            for row in reader:
                where = f"{table}, line {reader.line_num}"
                if not row["path"] or not row["label"] or None in row:
                    raise InputError(f"{where}: each row needs one path and one label; correct it.")
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
        raise InputError(f"{table} is not a CSV file in UTF-8 ({error}); save it in that format.") from error
    if missing := [path for path in images if path not in names]:
        raise InputError(f"{root / missing[0]} has no row in {table} ({len(missing)} lack one); add it.")
    return names
