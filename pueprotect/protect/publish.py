"""Seals the vault and gives the finished folder its name.

The partial folder is renamed last, after the vault is sealed: a folder with the wanted name is complete.
"""

from __future__ import annotations

import os
import shutil
import sys
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any

from pueprotect.protect.draft import hidden_folder
from pueprotect.protect.methods.base import Labels, Noise
from pueprotect.release.records import ManifestRow
from pueprotect.release.vault import DELTA, DRAFT, EVIDENCE, MANIFEST, REPLACED, SURROGATE, Vault


def publish(
    store: Vault, partial: Path, out: Path, rows: list[ManifestRow], record: dict[str, Any],
    part: tuple[Noise, Labels] | None = None, workers: int = 0,
) -> None:  # fmt: skip
    """Turn the draft into the vault of the finished folder, and give that folder its name.

    Every file and folder is on the disk before the vault is sealed: no power cut leaves a sealed vault for files that
    are empty. A failure leaves the vault unsealed, with its draft, and `out` as it was. So does a killed process,
    except that the vault may be sealed already; the same run with `--resume` then repeats these steps.

    Args:
        store: the vault, whose draft holds the noise and the surrogate.
        partial: the finished folder under its temporary name.
        out: the wanted name, resolved; an older release of that name is replaced.
        rows: the manifest.
        record: `run.json`.
        part: noise and rows of the released images, where they are not all that the draft holds.
        workers: threads that wait for the disk; 0 chooses.

    Raises:
        VaultError: the vault cannot be written.
        OSError: a file cannot be flushed to the disk, or the folder cannot be renamed.
    """
    if out.exists() and store.is_sealed and not (store.path / REPLACED).exists():
        store.adopt(MANIFEST, REPLACED)  # so that a later run recognises the old folder as a release
    store.unseal()
    try:
        for name in EVIDENCE:
            stale = store.path / name
            shutil.rmtree(stale) if stale.is_dir() else stale.unlink(missing_ok=True)
        for name in (DELTA, SURROGATE):
            store.adopt(f"{DRAFT}/{name}", name)
        if part is not None:
            store.write_tensors(DELTA, dict(zip(("delta", "rows"), part, strict=True)))
        store.write_manifest(rows)
        _flush(partial, rows, workers)
        _flush_folder(store.path)
        store.seal(record)
        _flush_folder(store.path)
        _replace(partial, out)
    except BaseException:
        store.unseal()
        raise
    clean_up(store, out)


def clean_up(store: Vault, out: Path) -> None:
    """Remove what a finished run no longer needs."""
    shutil.rmtree(hidden_folder(out, "old"), ignore_errors=True)
    (store.path / REPLACED).unlink(missing_ok=True)
    shutil.rmtree(store.path / DRAFT, ignore_errors=True)


def _replace(partial: Path, out: Path) -> None:
    """Rename the partial folder to `out`; an older release is put back if that fails."""
    old = hidden_folder(out, "old")
    replaces = out.exists()
    if replaces:
        shutil.rmtree(old, ignore_errors=True)
        out.rename(old)
    try:
        partial.rename(out)
    except BaseException:
        if replaces:
            old.rename(out)
        raise
    _flush_folder(out.parent)


def _flush(partial: Path, rows: list[ManifestRow], workers: int) -> None:
    """Wait until the released files and their folders are on the disk."""
    with ThreadPoolExecutor(workers or None) as pool:
        for _ in pool.map(_flush_file, (partial / row.path for row in rows)):
            pass
    for folder, _, _ in os.walk(partial, topdown=False):
        _flush_folder(Path(folder))


def _flush_file(path: Path) -> None:
    handle = os.open(path, os.O_RDWR)  # Windows flushes only what is open for writing
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _flush_folder(path: Path) -> None:
    """Flush the names in a folder; Windows and some network file systems cannot."""
    if sys.platform == "win32":
        return
    handle = os.open(path, os.O_RDONLY)
    try:
        with suppress(OSError):
            os.fsync(handle)
    finally:
        os.close(handle)
