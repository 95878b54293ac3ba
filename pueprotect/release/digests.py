"""Computes SHA-256 digests of released files and compares a folder with its manifest.

Decodes nothing and imports nothing heavy, so that a gate hashes thousands of files in a fraction of a second.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from pueprotect.errors import InputError

if TYPE_CHECKING:
    from pueprotect.release.records import ManifestRow

SMALL = 64 * 1024  # bytes; larger files are hashed in threads
NAMED = 10  # names in one message


@dataclass(frozen=True)
class Verification:
    """How a released folder differs from its manifest: sorted POSIX paths."""

    missing: tuple[str, ...]
    extra: tuple[str, ...]
    changed: tuple[str, ...]

    @property
    def ok(self) -> bool:
        """Whether the folder holds exactly the recorded bytes."""
        return not (self.missing or self.extra or self.changed)


def verify(out: str | Path, rows: Iterable[ManifestRow], workers: int = 0) -> Verification:
    """Compare the files in `out` with the manifest, byte for byte.

    Every file counts, hidden ones too. A linked folder is never entered: it counts as extra, its contents as missing.

    Raises:
        InputError: `out` is not a folder, or something in it cannot be read.
    """
    out = Path(out)
    if not out.is_dir():
        raise InputError(f"{out} is not a folder; name the released folder.")
    recorded = {row.path: row.released_sha256 for row in rows}
    found = released_files(out)
    digests = digest_files(out, [name for name in recorded if name in found], workers)
    return Verification(
        missing=tuple(sorted(recorded.keys() - found)),
        extra=tuple(sorted(found - recorded.keys())),
        changed=tuple(sorted(name for name, digest in digests.items() if digest != recorded[name])),
    )


def released_files(root: Path) -> set[str]:
    """POSIX paths of all files below `root`, hidden ones too; a linked folder counts as one file.

    Raises:
        InputError: a folder cannot be listed.
    """
    found: set[str] = set()
    folders = [""]
    while folders:
        below = folders.pop()
        try:
            with os.scandir(os.path.join(root, below)) as entries:
                for entry in entries:
                    if entry.is_dir(follow_symlinks=False):
                        folders.append(f"{below}{entry.name}/")
                    else:
                        found.add(below + entry.name)
        except OSError as error:
            raise InputError(f"{error.filename} cannot be listed ({error.strerror}); check its permissions.") from error
    return found


def digest_files(root: str | Path, names: Iterable[str], workers: int = 0) -> dict[str, str]:
    """SHA-256 of each file `names` below `root`, in that order; `workers` threads, 0 for the usual number.

    Small files are hashed in the calling thread, since handing one to another thread takes longer than hashing it.

    Raises:
        InputError: a file cannot be read.
    """
    prefix = os.path.join(root, "")
    found = {name: _small_sha256(prefix + name) for name in names}
    if large := [name for name, digest in found.items() if not digest]:
        # Imported here: most folders of small pictures need no threads.
        from concurrent.futures import ThreadPoolExecutor

        with ThreadPoolExecutor(workers or None) as pool:
            found.update(zip(large, pool.map(sha256_of, [prefix + name for name in large]), strict=True))
    return found


def sha256_of(path: str | Path) -> str:
    """Lower-case hex SHA-256 of one file.

    Raises:
        InputError: the file cannot be read.
    """
    try:
        with open(path, "rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise _unreadable(path, error) from error


def _small_sha256(path: str) -> str:
    """The digest of a file under `SMALL` bytes; empty for larger ones."""
    try:
        file = os.open(path, os.O_RDONLY | getattr(os, "O_BINARY", 0))
        try:
            content = os.read(file, SMALL)
            # One read may return only a part of the file; an empty read after it marks the end.
            return "" if len(content) == SMALL or os.read(file, 1) else hashlib.sha256(content).hexdigest()
        finally:
            os.close(file)
    except OSError as error:
        raise _unreadable(path, error) from error


def _unreadable(path: str | Path, error: OSError) -> InputError:
    return InputError(f"{path} cannot be read ({error.strerror}); check that it exists and is readable.")


def data_digest(digests: Mapping[str, str]) -> str:
    """One digest of a whole folder from {path: sha256} in any order: `sha256:` and 64 hex digits.

    The same as `sha256sum FILES | LC_ALL=C sort | sha256sum` in the folder.
    """
    lines = []
    for path, digest in digests.items():
        escaped = path.replace("\\", "\\\\").replace("\n", "\\n").replace("\r", "\\r")
        mark = "" if escaped == path else "\\"  # sha256sum marks a line whose name holds escapes
        lines.append(f"{mark}{digest}  {escaped}\n".encode("utf-8", "surrogateescape"))
    return "sha256:" + hashlib.sha256(b"".join(sorted(lines))).hexdigest()


def describe(difference: Verification, out: Path) -> str:
    """A sentence on missing, extra and changed files, naming up to `NAMED` of each."""
    kinds = {"missing": difference.missing, "extra": difference.extra, "changed": difference.changed}
    parts = [f"{len(names)} {kind} ({first_of(names)})" for kind, names in kinds.items() if names]
    return f"Files in {out} differ from what was protected: {'; '.join(parts)}."


def first_of(names: Sequence[str]) -> str:
    """The first `NAMED` names, for a message."""
    return ", ".join(names[:NAMED]) + (" ..." if len(names) > NAMED else "")
