"""Writes the protected files and gives the finished folder its name.

The folder is built under a temporary name and renamed last, after the vault is sealed: a folder with the wanted name is
complete. A file that could not be protected stops the release; it is never copied.
"""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

from pueprotect.protect.draft import discard, sibling
from pueprotect.release.records import ManifestRow
from pueprotect.release.vault import DELTA, DRAFT, EVIDENCE, MANIFEST, REPLACED, SURROGATE, Vault


def publish(store: Vault, partial: Path, out: Path, rows: list[ManifestRow], record: dict[str, Any]) -> None:
    """Turn the draft into the vault of the finished folder, and give that folder its name.

    A failure leaves the vault unsealed, with its draft, and `out` as it was; so does a killed process, except that the
    vault may be sealed already: then the same run with `--resume` does this again.

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
        store.adopt(MANIFEST, REPLACED)  # so that a later run knows the folder for a release
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
    """Remove what a finished run needs no longer."""
    discard(sibling(out, "old"))
    (store.path / REPLACED).unlink(missing_ok=True)
    discard(store.path / DRAFT)


def _replace(partial: Path, out: Path) -> None:
    """Give the finished folder its name; an older release of that name goes only once the new one stands."""
    if not out.exists():
        partial.rename(out)
        return
    old = sibling(out, "old")
    discard(old)
    out.rename(old)
    try:
        partial.rename(out)
    except BaseException:
        old.rename(out)
        raise
