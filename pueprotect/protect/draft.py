"""Holds what a run keeps until it has released: the partial folder under a temporary name, and a journal of its files.

Both survive a killed process. The partial folder is next to OUT and holds protected images only. The journal is in the
vault's draft; it records the source and the digest of each finished file, so that a later run keeps the files that are
whole and writes the others again.
"""

from __future__ import annotations

import json
import os
import shutil
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, ValidationError

from pueprotect.errors import InputError, VaultError
from pueprotect.images.jpeg_budget import Rounding
from pueprotect.release.records import ManifestRow
from pueprotect.release.vault import DRAFT, Vault, json_line, locked

JOURNAL = f"{DRAFT}/written.jsonl"


def hidden_folder(out: Path, purpose: Literal["partial", "old"]) -> Path:
    """A hidden folder of this package next to `out`: `partial` is unfinished, `old` is being replaced."""
    out = out.resolve()
    return out.with_name(f".{out.name}.pueprotect-{purpose}")


@contextmanager
def partial_folder(out: Path) -> Iterator[Path]:
    """The folder in which `out` is built, locked against a second run on it.

    On leaving, it is removed if it is empty; otherwise it stays for a run with `--resume`, unless it was renamed.

    Raises:
        InputError: another run has it, or it cannot be made.
    """
    partial = hidden_folder(out, "partial")
    made = [place for place in (partial, *partial.parents) if not place.exists()]
    try:
        partial.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"--out {out} cannot be made ({error.strerror}); choose another place.") from error
    with locked(partial, f"--out {out}"):
        try:
            yield partial
        finally:
            below = [Path(folder) for folder, _, _ in os.walk(partial, topdown=False)]
            for folder in (*below, *made):
                with suppress(OSError):
                    os.rmdir(folder)


def emptied(folder: Path) -> None:
    """Remove everything below `folder`."""
    for path in folder.iterdir():
        shutil.rmtree(path) if path.is_dir() else path.unlink()


class Written(BaseModel):
    """One finished file: its row of the manifest, the bytes of both files, and what rounding did to a JPEG."""

    model_config = ConfigDict(frozen=True, defer_build=True)

    row: ManifestRow
    before: int
    after: int
    rounding: Rounding | None = None


class Journal:
    """The finished files of one run, one on each line, written as soon as the file is.

    Args:
        store: the vault.
        key: what the files depend on; a journal with another key is discarded.
        goes_on: whether an earlier journal is continued.

    Raises:
        VaultError: the journal cannot be written; so does `add`.
    """

    def __init__(self, store: Vault, key: str, *, goes_on: bool) -> None:
        self.path = store.path / JOURNAL
        self._lock = threading.Lock()
        self.finished = {written.row.path: written for written in self._earlier(key)} if goes_on else {}
        try:
            self.path.unlink(missing_ok=True)
            self._file = os.fdopen(os.open(self.path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb")
        except OSError as error:
            raise VaultError(f"{self.path} cannot be written ({error.strerror}); check its folder.") from error
        self._append({"key": key})
        for written in self.finished.values():
            self.add(written)

    def add(self, written: Written) -> None:
        """Record a finished file, from any thread."""
        with self._lock:
            self._append(written.model_dump(by_alias=True))

    def close(self) -> None:
        """Close the journal; the file stays."""
        self._file.close()

    def tidy(self, partial: Path) -> None:
        """Remove every file below `partial` that the journal does not list."""
        for folder, _, files in os.walk(partial):
            for path in (Path(folder, name) for name in files):
                if path.relative_to(partial).as_posix() not in self.finished:
                    path.unlink()

    def _append(self, line: dict[str, Any]) -> None:
        try:
            self._file.write(json_line(line))
            self._file.flush()
        except OSError as error:
            raise VaultError(
                f"{self.path} cannot be written ({error.strerror}); fix that, then repeat the command with --resume."
            ) from error

    def _earlier(self, key: str) -> Iterator[Written]:
        """The files that an earlier journal with the same key lists."""
        # No journal, or a last line that a killed process did not finish.
        with suppress(OSError, ValueError):
            lines = map(json.loads, self.path.read_bytes().splitlines())
            if next(lines, None) != {"key": key}:
                return
            for line in lines:
                with suppress(ValidationError):
                    yield Written.model_validate(line)
