"""Says what a release leaves out: how many files of which kind and of which class."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from pathlib import PurePosixPath

from pueprotect.errors import InputError
from pueprotect.images.folders import ImageFolder

NAMED = 5  # kinds or classes in one sentence


def breakdown(paths: Iterable[str], depth: int | None) -> str:
    """How many of some POSIX paths have each suffix, and how many each class.

    The class is folder number `depth` of the path; None leaves classes out, and so do files outside of class folders.
    """
    paths = list(paths)
    kinds = _counted(paths, lambda path: PurePosixPath(path).suffix.lower() or "without a suffix")
    parts = [path.split("/") for path in paths]
    names = [folders[depth - 1] for folders in parts if depth is not None and len(folders) > depth]
    return f"{kinds}; by class: {_counted(names, str)}" if names else kinds


def _counted(things: Sequence[str], kind: Callable[[str], str]) -> str:
    counts = Counter(map(kind, things)).most_common()
    more = f" and {len(counts) - NAMED} more" if len(counts) > NAMED else ""
    return ", ".join(f"{count} {name}" for name, count in counts[:NAMED]) + more


def refuse_empty(folder: ImageFolder) -> None:
    """Refuse a folder with class folders that hold no pictures.

    Raises:
        InputError: names the first of them.
    """
    if folder.empty:
        more = f" (as in {len(folder.empty) - 1} more)" if len(folder.empty) > 1 else ""
        raise InputError(
            f"{folder.root}: the class folder {folder.empty[0]!r} holds no pictures{more}; add pictures or remove the "
            "folder, or add --skip-unsupported to release the other classes."
        )


def notes(folder: ImageFolder, lost: Sequence[str], depth: int | None) -> list[str]:
    """A note for each kind of thing that is not released; `lost` are classes without any picture in the release."""
    found = []
    if folder.ignored:
        found.append(
            f"Files that are not images and are not released: {len(folder.ignored)} "
            f"({breakdown(folder.ignored, depth)}), such as {folder.ignored[0]}."
        )
    if folder.hidden:
        found.append(
            f"Hidden pictures, and folders that are hidden or belong to a system, are not released: "
            f"{len(folder.hidden)}, such as {folder.hidden[0]}."
        )
    if folder.unsupported:
        path, reason = folder.unsupported[0]
        which = breakdown((path for path, _ in folder.unsupported), depth)
        found.append(f"Pictures left out: {len(folder.unsupported)} ({which}), such as {path}: {reason}")
    if lost:
        more = f" and {len(lost) - NAMED} more" if len(lost) > NAMED else ""
        names = ", ".join(map(repr, lost[:NAMED]))
        found.append(f"Classes left out, because none of their pictures can be released: {names}{more}.")
    return found
