"""Seals the vault and gives the finished folder its name.

The partial folder is renamed last, after the vault is sealed: a folder with the wanted name is complete.
"""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

from pueprotect.protect.draft import hidden_folder
from pueprotect.release.records import ManifestRow
from pueprotect.release.vault import DELTA, DRAFT, EVIDENCE, MANIFEST, REPLACED, SURROGATE, Vault


def publish(store: Vault, partial: Path, out: Path, rows: list[ManifestRow], record: dict[str, Any]) -> None:
    """Turn the draft into the vault of the finished folder, and give that folder its name.

    A failure leaves the vault unsealed, with its draft, and `out` as it was. So does a killed process, except that the
    vault may be sealed already; the same run with `--resume` then repeats these steps.

    Args:
        store: the vault, whose draft holds the noise and the surrogate.
        partial: the finished folder under its temporary name.
        out: the wanted name, resolved; an older release of that name is replaced.
        rows: the manifest.
        record: `run.json`.

    Raises:
        VaultError: the vault cannot be written.
        OSError: the folder cannot be renamed.
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
        store.write_manifest(rows)
        store.seal(record)
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
