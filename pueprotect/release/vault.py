"""Reads and writes the private vault of one release: settings, noise, surrogate, manifest and evidence.

A vault must not be published: its contents undo the protection. The folder is made with mode 0700 and every file with
0600. Each file is written to a temporary name, flushed to disk and renamed, so that a reader never sees half a file.
`run.json` is written last and holds the digest of the manifest: without it the run did not finish.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import sys
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

from pydantic import TypeAdapter, ValidationError

from pueprotect.errors import InputError, VaultError
from pueprotect.release.records import ManifestRow

if sys.platform != "win32":
    import fcntl

# Imported by the functions that handle tensors: `check` and `verify` hash files and start without them.
if TYPE_CHECKING:
    import numpy.typing as npt

SCHEMA_VERSION = 1

RUN = "run.json"
MANIFEST = "manifest.jsonl"
DELTA = "delta.safetensors"
SURROGATE = "surrogate.safetensors"
DRAFT = "draft"  # folder of a run that has not released yet
REPLACED = "replaced.jsonl"  # manifest of the release that a run is about to replace
CERTIFICATE = "certificate.json"
EVIDENCE = (CERTIFICATE, "certify", "audit", "report.html")  # what certify and audit add
# Any of these makes a folder a vault; evidence about a folder that was not protected here has no run.
_MARKS = (RUN, MANIFEST, CERTIFICATE, "audit")
_REMEDY = "restore the vault from a copy, or run the command that writes this file again"


def default_vault(out: Path) -> Path:
    """The default vault of the released folder `out`: next to it, with `.vault` appended."""
    out = out.resolve() if out.name in ("", "..") else out
    return out.parent / f"{out.name}.vault"


class Vault:
    """A vault folder; make one with `create` or `open`. Names are POSIX paths inside it, such as `audit/pst.json`.

    Methods that read raise `VaultError` when a file is missing or damaged, methods that write when they cannot.
    """

    def __init__(self, path: str | Path) -> None:
        """Point at `path` without touching the disk."""
        self.path = Path(path)

    @classmethod
    def create(cls, path: str | Path) -> Vault:
        """Make the folder, or use the existing one."""
        vault = cls(path)
        try:
            vault.path.parent.mkdir(parents=True, exist_ok=True)
            vault.path.mkdir(mode=0o700, exist_ok=True)
        except OSError as error:
            why = "there is a file of that name" if vault.path.is_file() else str(error.strerror)
            raise VaultError(f"{vault.path}: the vault cannot be made ({why}); choose another --vault.") from error
        return vault

    @classmethod
    def open(cls, path: str | Path) -> Vault:
        """The vault at `path`, finished or not."""
        vault = cls(path)
        if not any((vault.path / mark).exists() for mark in _MARKS):
            why = "is not a vault" if vault.path.exists() else "does not exist"
            raise VaultError(
                f"{vault.path} {why}: pass --vault DIR, or --test DIR with clean images for a folder "
                "that pueprotect did not protect."
            )
        return vault

    @property
    def is_sealed(self) -> bool:
        """Whether the run that writes the vault has finished."""
        return (self.path / RUN).is_file()

    def seal(self, run: Mapping[str, Any]) -> None:
        """Write `run.json`, the last file of a run, after the manifest: `run`, schema_version and manifest_sha256."""
        digest = hashlib.sha256(self._read(MANIFEST)).hexdigest()
        self.write_json(RUN, {**run, "schema_version": SCHEMA_VERSION, "manifest_sha256": digest})

    def unseal(self) -> None:
        """Remove `run.json`, so that an interrupted new run in this vault does not count as finished."""
        (self.path / RUN).unlink(missing_ok=True)

    def run(self) -> dict[str, Any]:
        """What `seal` wrote, checked against the manifest.

        Raises:
            VaultError: not sealed, of another schema, or the manifest is not the recorded one.
        """
        if not self.is_sealed:
            raise VaultError(f"{self.path} holds no {RUN}: the run did not finish; repeat protect with --resume.")
        run = self.read_json(RUN)
        if run.get("schema_version") != SCHEMA_VERSION:
            raise VaultError(
                f"{self.path / RUN} has schema_version {run.get('schema_version')!r}, but this version of pueprotect "
                f"reads {SCHEMA_VERSION}; use the version that wrote it."
            )
        if hashlib.sha256(self._read(MANIFEST)).hexdigest() != run.get("manifest_sha256"):
            raise VaultError(
                f"{self.path / MANIFEST} is not the one that {RUN} recorded; restore both or protect again."
            )
        return run

    def write_json(self, name: str, obj: Mapping[str, Any]) -> None:
        """Write one JSON object, keys in the order given.

        Raises:
            ValueError: `obj` holds NaN or infinity.
        """
        self._write(name, json_line(obj, indent=2))

    def read_json(self, name: str) -> dict[str, Any]:
        """Read one JSON object."""
        try:
            obj = json.loads(self._read(name))
        except ValueError as error:
            raise VaultError(f"{self.path / name} is not JSON ({error}); {_REMEDY}.") from error
        if not isinstance(obj, dict):
            raise VaultError(f"{self.path / name} is not a JSON object; {_REMEDY}.")
        return obj

    def write_tensors(self, name: str, tensors: Mapping[str, npt.NDArray[Any]]) -> None:
        """Write named arrays as safetensors; shape and dtype are kept."""
        import numpy as np
        from safetensors import numpy as safetensors

        # safetensors stores the buffer as it is in memory, so every array must be contiguous.
        ordered = {key: np.asarray(value, order="C") for key, value in tensors.items()}
        self._write(name, safetensors.save(ordered))

    def read_tensors(self, name: str) -> dict[str, npt.NDArray[Any]]:
        """Read what `write_tensors` wrote."""
        from safetensors import SafetensorError
        from safetensors import numpy as safetensors

        try:
            return dict(safetensors.load(self._read(name)))
        except (SafetensorError, ValueError, KeyError) as error:
            raise VaultError(f"{self.path / name} is damaged ({error}); {_REMEDY}.") from error

    def write_manifest(self, rows: Iterable[ManifestRow]) -> None:
        """Write one JSON line per released image, in the order given."""
        self._write(MANIFEST, b"".join(json_line(row.model_dump(by_alias=True)) for row in rows))

    def read_manifest(self, name: str = MANIFEST) -> list[ManifestRow]:
        """Read the rows back; unknown keys are ignored. `run` checks the file's digest, this does not."""
        content = self._read(name)
        try:  # as one array, which is faster than line by line
            rows = content.removesuffix(b"\n").replace(b"\n", b",")
            return TypeAdapter(list[ManifestRow]).validate_json(b"[" + rows + b"]")
        except ValidationError:  # a damaged line, or a name that is not UTF-8, which pydantic's own parser refuses
            return [self._row(name, number, line) for number, line in enumerate(content.splitlines(), start=1)]

    def _row(self, name: str, number: int, line: bytes) -> ManifestRow:
        try:
            return ManifestRow.model_validate(json.loads(line))
        except ValueError as error:
            why = str(error)
            if isinstance(error, ValidationError):
                detail = error.errors()[0]
                why = ": ".join(map(str, (*detail["loc"], detail["msg"])))
            raise VaultError(f"{self.path / name}, line {number}: {why}; {_REMEDY}.") from error

    def adopt(self, name: str, new: str) -> None:
        """Give the file `name` the name `new` as well, replacing the file of that name; a copy where links fail."""
        source = self._at(name)
        with _replacing(self._at(new)) as temporary:
            try:
                os.link(source, temporary)
            except OSError:
                shutil.copyfile(source, temporary)
                temporary.chmod(0o600)

    def sweep(self) -> None:
        """Remove the temporary files of a process that was killed; no other process may be writing."""
        for path in [*self.path.glob(".*.tmp"), *self.path.glob("*/.*.tmp")]:
            path.unlink(missing_ok=True)

    def _at(self, name: str) -> Path:
        parts = PurePosixPath(name)
        if parts.is_absolute() or ".." in parts.parts or not parts.name:
            raise VaultError(f"{name!r} does not name a file inside {self.path}; use a plain relative name.")
        return self.path / parts

    def _write(self, name: str, content: bytes) -> None:
        path = self._at(name)
        with _replacing(path) as temporary:
            if path.parent != self.path:
                path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            with os.fdopen(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())

    def _read(self, name: str) -> bytes:
        path = self._at(name)
        try:
            return path.read_bytes()
        except OSError as error:
            raise VaultError(f"{path} cannot be read ({error.strerror}); {_REMEDY}.") from error


@contextmanager
def _replacing(path: Path) -> Iterator[Path]:
    """A temporary name next to `path`; what the caller writes there replaces `path` at the end, or is removed."""
    temporary = path.with_name(f".{os.urandom(8).hex()}.tmp")
    try:
        yield temporary
        os.replace(temporary, path)
    except OSError as error:
        why = error.strerror or error
        raise VaultError(f"{path} cannot be written ({why}); check its folder and the space on it.") from error
    finally:
        temporary.unlink(missing_ok=True)


@contextmanager
def locked(folder: Path, option: str) -> Iterator[None]:
    """Hold `folder` against other processes (not on Windows, nor where it cannot be opened or has no locks).

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
    except OSError:
        yield
        return
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


def json_line(obj: Mapping[str, Any], indent: int | None = None) -> bytes:
    """One JSON object and a newline, in UTF-8; names that are not Unicode are written as escapes.

    Raises:
        ValueError: `obj` holds NaN or infinity.
    """
    separators = (",", ":") if indent is None else None
    dump = partial(json.dumps, obj, indent=indent, allow_nan=False, separators=separators)
    try:
        return f"{dump(ensure_ascii=False)}\n".encode()
    except UnicodeEncodeError:
        return f"{dump()}\n".encode()


def refuse_other(path: Path, found: dict[str, Any], key: dict[str, Any]) -> None:
    """Refuse to continue a file that was made with other settings or data.

    Raises:
        InputError: names what differs.
    """
    differing = [name for name in sorted(found.keys() | key.keys()) if found.get(name) != key.get(name)]
    if differing:
        told = ", ".join(f"{name} {found.get(name)!r} instead of {key.get(name)!r}" for name in differing)
        raise InputError(f"{path} was made with other settings or data ({told}); leave out --resume to start anew.")
