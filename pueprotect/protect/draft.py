"""What a run keeps until it has released: a locked folder under a temporary name, and a journal of finished files.

Both survive a killed process. The folder lies beside OUT and holds protected images only; the journal lies in the vault
and says of each file what it was made from and its digest, so that a later run takes what is whole and writes the rest
again.
"""

from __future__ import annotations

import json
import os
import shutil
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pueprotect.errors import InputError, VaultError
from pueprotect.release.records import ManifestRow
from pueprotect.release.vault import DRAFT, Vault, json_line

if sys.platform != "win32":
    import fcntl

JOURNAL = f"{DRAFT}/written.jsonl"


def sibling(out: Path, purpose: str) -> Path:
    """A hidden folder beside `out` that belongs to this package: `partial` is being built, `old` is being replaced."""
    out = out.resolve()
    return out.with_name(f".{out.name}.pueprotect-{purpose}")


@contextmanager
def building(out: Path) -> Iterator[Path]:
    """The folder in which `out` is built, locked against a second run on it.

    Afterwards it is gone when it was renamed or holds no file; else it stays for a run that goes on.

    Raises:
        InputError: another run has it, or it cannot be made.
    """
    partial = sibling(out, "partial")
    made = [place for place in (partial, *partial.parents) if not place.exists()]
    try:
        partial.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"--out {out} cannot be made ({error.strerror}); choose another place.") from error
    with locked(partial, f"--out {out}"):
        try:
            yield partial
        finally:
            for folder, _, _ in os.walk(partial, topdown=False):
                with suppress(OSError):
                    os.rmdir(folder)
            for place in made:
                with suppress(OSError):
                    place.rmdir()


@contextmanager
def locked(folder: Path, option: str) -> Iterator[None]:
    """Hold `folder` against other processes (not on Windows, nor where the file system has no locks).

    Raises:
        InputError: another run holds it.
    """
    if sys.platform == "win32":
        yield
        return
    taken = InputError(f"{option} is in use by another run; wait for it to end, or stop it first.")
    try:
        handle = os.open(folder, os.O_RDONLY)
    except FileNotFoundError as error:
        raise taken from error
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise taken from error
        except OSError:
            pass
        if not folder.exists() or not os.path.samestat(os.fstat(handle), folder.stat()):
            raise taken  # renamed or removed by a run that ended in between
        yield
    finally:
        os.close(handle)


@dataclass(frozen=True)
class Written:
    """One finished file.

    Attributes:
        row: its line of the manifest.
        before: bytes of the original.
        after: bytes of the released file.
    """

    row: ManifestRow
    before: int
    after: int


class Journal:
    """The finished files of one run, each on a line of its own that is written when the file is.

    Args:
        store: the vault.
        key: what the files depend on; a journal with another key is of no use and is begun anew.
        goes_on: whether an earlier journal counts at all.

    Raises:
        VaultError: it cannot be written.
    """

    def __init__(self, store: Vault, key: str, *, goes_on: bool) -> None:
        self.path = store.path / JOURNAL
        self.finished: dict[str, Written] = {}
        self._lock = threading.Lock()
        lines = self._lines() if goes_on else []
        if lines and lines[0] == {"key": key}:
            self.finished = {written.row.path: written for written in map(_written, lines[1:]) if written}
        try:
            self.path.unlink(missing_ok=True)
            self._file = os.fdopen(os.open(self.path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb")
        except OSError as error:
            raise VaultError(f"{self.path} cannot be written ({error.strerror}); check its folder.") from error
        self._append({"key": key})
        for written in self.finished.values():
            self._append(_line(written))

    def add(self, written: Written) -> None:
        """Record a finished file, from any thread.

        Raises:
            VaultError: it cannot be written.
        """
        with self._lock:
            self._append(_line(written))

    def close(self) -> None:
        """End the journal; the file stays."""
        self._file.close()

    def tidy(self, partial: Path) -> None:
        """Remove every file below `partial` that the journal does not know."""
        for folder, _, files in os.walk(partial):
            for name in files:
                path = Path(folder, name)
                if path.relative_to(partial).as_posix() not in self.finished:
                    path.unlink()

    def _append(self, line: dict[str, Any]) -> None:
        try:
            self._file.write(json_line(line))
            self._file.flush()
        except OSError as error:
            raise VaultError(
                f"{self.path} cannot be written ({error.strerror}); mend that, and go on with --resume."
            ) from error

    def _lines(self) -> list[Any]:
        try:
            content = self.path.read_bytes()
        except OSError:
            return []
        found = []
        for line in content.splitlines():
            try:
                found.append(json.loads(line))
            except ValueError:
                break  # the process died while it wrote this one
        return found


def _line(written: Written) -> dict[str, Any]:
    return {"row": written.row.model_dump(by_alias=True), "before": written.before, "after": written.after}


def _written(line: dict[str, Any]) -> Written | None:
    try:
        return Written(ManifestRow.model_validate(line["row"]), int(line["before"]), int(line["after"]))
    except (ValueError, KeyError, TypeError):
        return None


def discard(folder: Path) -> None:
    """Remove a folder that `sibling` named, if it is there."""
    shutil.rmtree(folder, ignore_errors=True)
