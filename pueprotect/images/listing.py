"""Finds the pictures below a folder, by their suffix or their first bytes. No torch."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from pathlib import Path

from pueprotect.errors import InputError
from pueprotect.images.decode import FORMATS, HEIC_SUFFIXES

SUFFIXES = frozenset({".jpg", ".jpeg", ".jpe", ".jfif", ".mpo", ".png", ".apng", ".webp", ".bmp", ".tif", ".tiff"})
if "HEIF" in FORMATS:
    SUFFIXES |= HEIC_SUFFIXES
# Cameras keep their own formats in TIFF containers.
_RAW = frozenset({".dng", ".cr2", ".cr3", ".nef", ".arw", ".raf", ".orf", ".rw2"})
# Pictures that this package cannot write. They are reported, so that a release does not leave them out silently.
OTHER_PICTURES = (
    _RAW
    | frozenset({".gif", ".heic", ".heif", ".avif", ".jp2", ".j2k", ".jxl", ".psd", ".tga"})
    | frozenset({".ppm", ".pgm", ".pbm", ".pnm", ".exr", ".hdr"})
)
# What systems, file servers and archives put beside pictures: previews, deleted files, settings.
SYSTEM_FOLDERS = frozenset(
    {"@eadir", "@__thumb", "@recycle", "#recycle", "#snapshot", "$recycle.bin", "lost+found"}
    | {"system volume information", "__macosx"}
)
_READ = 32
_STARTS = {
    b"\xff\xd8\xff": "JPEG",
    b"\x89PNG\r\n\x1a\n": "PNG",
    b"II*\0": "TIFF",
    b"MM\0*": "TIFF",
    b"GIF8": "GIF",
    b"8BPS": "PSD",
    b"\0\0\0\x0cjP  ": "JP2",
    b"\0\0\0\x0cJXL ": "JXL",
}
_BRANDS = {b"avif": "AVIF", b"avis": "AVIF"} | dict.fromkeys((b"heic", b"heix", b"heim", b"heis", b"mif1"), "HEIF")
_BMP_HEADERS = (12, 40, 52, 56, 64, 108, 124)


def format_of(start: bytes) -> str:
    """The format of a picture from its first 32 bytes, such as JPEG; empty for what is none that is known here."""
    if start[4:8] == b"ftyp":
        return _BRANDS.get(start[8:12], "")
    if start[:4] == b"RIFF" and start[8:12] == b"WEBP":
        return "WEBP"
    if start[:2] == b"BM" and start[6:10] == bytes(4) and int.from_bytes(start[14:18], "little") in _BMP_HEADERS:
        return "BMP"
    return next((name for known, name in _STARTS.items() if start.startswith(known)), "")


@dataclass
class Listing:
    """What is below a folder, as sorted POSIX paths relative to it.

    Attributes:
        images: pictures that can be released.
        ignored: visible files that are no pictures.
        unsupported: pictures that cannot be released, each with the reason.
        hidden: hidden pictures, and folders that are hidden or belong to a system.
        folders: all other folders.
    """

    images: list[str] = field(default_factory=list)
    ignored: list[str] = field(default_factory=list)
    unsupported: list[tuple[str, str]] = field(default_factory=list)
    hidden: list[str] = field(default_factory=list)
    folders: list[str] = field(default_factory=list)

    def add(self, path: Path, short: str) -> None:
        """Sort one visible file in; only files of an unknown suffix, and of another format's suffix, are opened."""
        suffix = path.suffix.lower()
        if suffix in SUFFIXES:
            if path.is_file():
                self.images.append(short)
            else:
                self.unsupported.append((short, f"{path} is not a regular file; replace it by the picture itself."))
            return
        found = format_of(_start(path))
        raw = found == "TIFF" and suffix in _RAW
        if found in FORMATS and not raw:
            self.images.append(short)
        elif found or suffix in OTHER_PICTURES:
            kind = "HEIC" if found == "HEIF" else suffix[1:].upper() if raw or not found else found
            heic = found == "HEIF" or suffix in HEIC_SUFFIXES
            need_extra = "cannot be read without the extra, pip install 'pueprotect[heic]'"
            what = need_extra if heic and "HEIF" not in FORMATS else "cannot be released"
            why = f"{path}: {kind} files {what}; save it as JPEG or PNG, or remove it."
            self.unsupported.append((short, why))
        else:
            self.ignored.append(short)


def _start(path: Path) -> bytes:
    """The first bytes of a regular file; none if it cannot be read."""
    try:
        if not path.is_file():  # opening a named pipe would wait
            return b""
        with path.open("rb", buffering=0) as file:
            return file.read(_READ)
    except OSError:
        return b""


def list_folder(root: Path, *, follow: bool = False) -> Listing:
    """List everything below `root`.

    Links must stay inside `root`. With `follow`, they may also lead into one other folder, and folders may be links:
    the folder that corresponds to `root` where the first link leads.

    Raises:
        InputError: a folder cannot be listed, or a link leads elsewhere or in a circle.
    """

    def refuse(error: OSError) -> None:
        raise InputError(f"{error.filename} cannot be listed ({error.strerror}); check its permissions.") from error

    found, links = Listing(), _Links(root, follow)
    for folder, subfolders, files in os.walk(root, onerror=refuse, followlinks=follow):
        seen = []
        for name in sorted(subfolders):
            path = Path(folder, name)
            short = path.relative_to(root).as_posix()
            if name.startswith(".") or name.casefold() in SYSTEM_FOLDERS:
                found.hidden.append(f"{short}/")
                continue
            if path.is_symlink():
                links.check(path, is_folder=True)
            seen.append(name)
            found.folders.append(short)
        subfolders[:] = seen
        for name in sorted(files):
            path = Path(folder, name)
            short = path.relative_to(root).as_posix()
            if name.startswith("."):
                if path.suffix.lower() in SUFFIXES:
                    found.hidden.append(short)
                continue
            if path.is_symlink():
                links.check(path, is_folder=False)
            found.add(path, short)
    for paths in (found.images, found.ignored, found.unsupported, found.hidden, found.folders):
        paths.sort()
    return found


@dataclass
class _Links:
    """Decides which links may be followed; `pool` is the folder, outside the root, that all of them share."""

    root: Path
    follow: bool
    pool: Path | None = None

    def check(self, link: Path, *, is_folder: bool) -> None:
        """Raise `InputError` for a link that may not be followed."""
        target, inside = link.resolve(), self.root.resolve()
        if is_folder and not self.follow:
            raise InputError(
                f"{link} is a link to a folder; replace it by the folder itself, or protect with --follow-symlinks."
            )
        if is_folder and target in (above.resolve() for above in (link.parent, *link.parent.parents)):
            raise InputError(f"{link} is a link to {target}, which holds the link itself; remove it.")
        if target.is_relative_to(inside):
            return
        if not self.follow:
            raise InputError(
                f"{link} is a link that leaves {self.root}; replace it by a copy of the file, or protect with "
                "--follow-symlinks."
            )
        if self.pool is None:
            depth = len(link.relative_to(self.root).parts)
            place = target.parents[min(depth, len(target.parents)) - 1]
            self.pool = place if place.parent != place else target.parent
        if not target.is_relative_to(self.pool):
            raise InputError(
                f"{link} is a link to {target}, but the links before it lead into {self.pool}; move what they lead to "
                "into one folder, or protect copies."
            )
