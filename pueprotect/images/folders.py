"""Lists the images of a folder with their labels. No torch."""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt

from pueprotect.errors import InputError
from pueprotect.images.label_table import read_labels
from pueprotect.images.listing import SUFFIXES, list_folder

# Names of folders that hold a part of a data set, or a kind of files, and not a class.
SPLITS = frozenset({"train", "training", "validation", "valid", "val", "dev", "test", "testing", "eval", "evaluation"})
KINDS = frozenset(
    {"jpegimages", "segmentationclass", "segmentationobject", "annotations", "imagesets", "images", "imgs", "labels"}
    | {"masks", "labeltxt", "groundtruth", "ground_truth"}
)


@dataclass(frozen=True)
class ImageEntry:
    """One image: its POSIX path relative to the folder's root and the index of its class."""

    path: str
    label: int


@dataclass(frozen=True)
class ImageFolder:
    """A scanned folder; `entries` are sorted by path and `classes` by name.

    `ignored` holds the paths of visible files that are no pictures, and `hidden` those of hidden pictures and of
    folders that are hidden or belong to a system. `unsupported` holds the paths of pictures that cannot be released,
    each with the reason. `empty` holds the class folders without pictures that can be.
    """

    root: Path
    classes: tuple[str, ...]
    entries: tuple[ImageEntry, ...]
    ignored: tuple[str, ...] = ()
    unsupported: tuple[tuple[str, str], ...] = ()
    hidden: tuple[str, ...] = ()
    empty: tuple[str, ...] = ()

    @property
    def labels(self) -> npt.NDArray[np.int64]:
        """The class index of each entry: (N,) int64."""
        return np.array([entry.label for entry in self.entries], dtype=np.int64)

    @property
    def counts(self) -> dict[str, int]:
        """How many images each class has, by its name."""
        numbers = np.bincount(self.labels, minlength=len(self.classes)).tolist()
        return dict(zip(self.classes, numbers, strict=True))

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


def scan(
    root: str | Path, labels_csv: str | Path | None = None, *, depth: int = 1, follow: bool = False
) -> ImageFolder:
    """List the images below `root` with their labels; images with a usual suffix are not opened.

    The class of an image is folder number `depth` of its path; deeper folders belong to that class. With
    `labels_csv`, a UTF-8 file with the columns path (relative to `root`) and label, it is the label there. Hidden
    files and folders are skipped. `follow` allows linked folders, see `list_folder`.

    Raises:
        InputError: `root` cannot be used, or holds no images, images without a class, fewer than two classes, two
            classes with nearly the same name, parts of a data set instead of classes or a link that leaves it; or
            `labels_csv` does not match it.
    """
    root = Path(root)
    if not root.exists():
        raise InputError(f"{root}: no such folder; check the path.")
    if not root.is_dir():
        raise InputError(f"{root} is a file; name the folder that holds the images.")
    found = list_folder(root, follow=follow)
    if not found.images and found.unsupported:
        raise InputError(f"{root} holds no images that can be released. {found.unsupported[0][1]}")
    if not found.images:
        raise InputError(f"{root} holds no images; supported suffixes are {', '.join(sorted(SUFFIXES))}.")
    empty: list[str] = []
    if labels_csv is not None:
        names = read_labels(Path(labels_csv), root, found.images, {*found.ignored, *dict(found.unsupported)})
    else:
        names = _class_folders(root, found.images, depth)
        folders = {path.split("/")[-1] for path in found.folders if path.count("/") == depth - 1}
        empty = sorted(folders - set(names.values()))
    classes, entries = _labelled(Path(root if labels_csv is None else labels_csv), found.images, names)
    return ImageFolder(
        root, classes, entries, tuple(found.ignored), tuple(found.unsupported), tuple(found.hidden), tuple(empty)
    )


def _class_folders(root: Path, images: list[str], depth: int) -> dict[str, str]:
    """The class of each image by its path; InputError where folder number `depth` is no class."""
    for path in images:
        if path.count("/") < depth:
            what = "class folder" if depth == 1 else f"class folder {depth} levels deep"
            raise InputError(
                f"{root / path} is in no {what}: put each image into {root}/{'FOLDER/' * (depth - 1)}CLASS/, "
                "or pass --labels FILE.csv with the columns path,label."
            )
    names = {path: path.split("/")[depth - 1] for path in images}
    held = sorted(set(names.values()))
    listed = f"{root} holds the folders {', '.join(held)}, which are"
    if {name.casefold() for name in held} <= SPLITS:
        first = next((name for name in held if name.casefold() in ("train", "training")), held[0])
        place = next(root.joinpath(*path.split("/")[:depth]) for path in images if names[path] == first)
        deeper = all(path.count("/") > depth for path in images)
        fix = f"name {place} instead, or add --label-depth {depth + 1} for all" if deeper else "use --labels FILE.csv"
        raise InputError(f"{listed} parts of a data set and not classes; {fix}.")
    if {name.casefold() for name in held} <= KINDS:
        raise InputError(
            f"{listed} kinds of files and not classes; put the pictures into one folder for each class, or protect "
            "the folder of pictures with --labels FILE.csv."
        )
    return names


def _labelled(where: Path, images: list[str], names: dict[str, str]) -> tuple[tuple[str, ...], tuple[ImageEntry, ...]]:
    """The sorted classes, and an entry for each image."""
    classes = tuple(sorted(set(names.values())))
    if len(classes) < 2:
        has = f"only one class, {classes[0]!r}" if classes else "no class with usable images"
        raise InputError(f"{where} has {has}; protection needs at least two.")
    alike = dict[str, str]()
    for name in classes:
        if (other := alike.setdefault(_plain(name), name)) != name:
            raise InputError(
                f"{where} has the classes {other!a} and {name!a}, which differ only in spaces, letter case "
                "or the form of Unicode; rename one, or merge them."
            )
    index = {name: label for label, name in enumerate(classes)}
    return classes, tuple(ImageEntry(path, index[names[path]]) for path in images)


def _plain(name: str) -> str:
    """A name without what people overlook."""
    return "".join(unicodedata.normalize("NFC", unicodedata.normalize("NFC", name).casefold()).split())
