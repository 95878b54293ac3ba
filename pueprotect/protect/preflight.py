"""Refuses folders that a release would nest into, overwrite or unprotect, before any work.

Everything here only reads; nothing is written.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

from pueprotect.errors import InputError, VaultError
from pueprotect.release.digests import verify
from pueprotect.release.vault import DRAFT, EVIDENCE, MANIFEST, REPLACED, RUN, Vault, default_vault


def check_places(src: Path, out: Path, vault: Path) -> None:
    """Refuse folders that nest into each other or cannot be written, and a source that is itself a release.

    Raises:
        InputError: names the folder and what to do.
    """
    if not src.exists():
        raise InputError(f"{src}: there is no such folder; check the path.")
    if not src.is_dir():
        raise InputError(f"{src} is a file; name the folder that holds one sub-folder of images for each class.")
    inside, outside, hidden = src.resolve(), out.resolve(), vault.resolve()
    originals = (inside, *_linked(src))
    if any(_nested(place, outside) for place in originals):
        raise InputError(f"--out {out} and {src} are inside each other; choose a folder elsewhere.")
    if hidden == outside or outside in hidden.parents:
        raise InputError(f"--vault {vault} is inside --out {out} and would be released with it; choose another place.")
    if hidden in outside.parents:
        raise InputError(f"--out {out} is inside the private --vault {vault}; choose another place.")
    if any(_nested(place, hidden) for place in originals):
        raise InputError(f"--vault {vault} and {src} are inside each other; choose another place.")
    if Vault(default_vault(src)).is_sealed:
        raise InputError(
            f"{src} is itself a release ({default_vault(src)} is its vault); protect the originals instead."
        )
    for option, place in (("--vault", vault), ("--out", out)):
        if place.exists() and not place.is_dir():
            raise InputError(f"{option} {place} is a file; name a folder.")
    if os.path.ismount(out):
        raise InputError(f"--out {out} is a mount point and cannot be renamed into place; name a folder below it.")
    for option, place in ((f"--out {out}", outside.parent), (f"--vault {vault}", hidden)):
        above = _existing(place)
        if not above.is_dir():
            raise InputError(f"{option} cannot be made: {above} is a file; choose another place.")
        if not os.access(above, os.W_OK | os.X_OK):
            raise InputError(f"{option} cannot be made: {above} is not writable; choose another place.")


def check_contents(out: Path, vault: Path, *, replace_out: bool, replace_vault: bool, workers: int = 0) -> None:
    """Refuse to replace what `out` and `vault` hold.

    With `replace_out`, `out` may hold a release whose files are as they were released. With `replace_vault`, `vault`
    may hold a finished run.

    Raises:
        InputError: names the folder and what to do.
    """
    if out.is_dir() and any(out.iterdir()):
        if not replace_out:
            raise InputError(
                f"--out {out} is not empty; choose another folder, or add --overwrite to replace a release."
            )
        _check_unchanged(out, Vault(vault), workers)
    if not vault.is_dir():
        return
    names = {path.name for path in vault.iterdir() if not path.name.startswith(".")}
    if names and not names & {RUN, DRAFT, REPLACED, *EVIDENCE}:
        raise InputError(f"--vault {vault} holds other files, such as {min(names)}; name a new or empty folder.")
    if RUN in names and not replace_vault:
        raise InputError(f"The vault {vault} belongs to an earlier release; choose another --vault or add --overwrite.")


def _check_unchanged(out: Path, store: Vault, workers: int) -> None:
    """Refuse a folder unless it is the release of this vault, or the one that its run was about to replace."""
    recorded = {MANIFEST: store.is_sealed, REPLACED: (store.path / REPLACED).exists()}
    manifests = [name for name, exists in recorded.items() if exists]
    if not manifests:
        raise InputError(
            f"--out {out} is not empty and {store.path} does not record it as a release, so --overwrite leaves it "
            "alone; choose another folder or empty it yourself."
        )
    differences = (verify(out, store.read_manifest(name), workers) for name in manifests)
    unknown = min(((*found.extra, *found.changed) for found in differences), key=len)
    if unknown:
        raise InputError(
            f"--out {out} holds {len(unknown)} files that are not as released, such as {unknown[0]}, so --overwrite "
            "leaves it alone; move them away first."
        )


def refuse_released(src: Path, digests: dict[str, str], vaults: tuple[Path, ...]) -> None:
    """Refuse a source folder that holds files which one of `vaults` recorded as released.

    `digests` holds the SHA-256 of each image by its path. Vaults that are not sealed are skipped.

    Raises:
        InputError: names a file and the vault.
    """
    for store in map(Vault, dict.fromkeys(vaults)):
        if not store.is_sealed:
            continue
        try:
            released = {row.released_sha256 for row in store.read_manifest()}
        except VaultError:
            continue
        if found := [name for name, digest in digests.items() if digest in released]:
            raise InputError(
                f"{len(found)} files of {src}, such as {found[0]}, are a release already (recorded in {store.path}); "
                "protect the originals instead."
            )


def check_space(out: Path, needed: float, there: int = 0) -> None:
    """Refuse a release that would not fit on the disk of `out`.

    `needed` is the estimated size of the release in bytes; an interrupted run has already written `there` of them.

    Raises:
        InputError: names both sizes.
    """
    free = shutil.disk_usage(_existing(out.resolve())).free
    if needed - there > free:
        raise InputError(
            f"--out {out} will take about {_size(needed - there)}, but only {_size(free)} are free on its disk; make "
            "room or choose another place."
        )


def _size(count: float) -> str:
    for unit in ("bytes", "KiB", "MiB"):
        if count < 1024:
            return f"{count:.0f} {unit}"
        count /= 1024
    return f"{count:.1f} GiB"


def exposed(vault: Path) -> str:
    """A warning if git would commit the vault, else an empty string."""
    vault = vault.resolve()
    tree = next((place for place in vault.parents if (place / ".git").exists()), None)
    if tree is None:
        return ""
    command = ["git", "check-ignore", "-q", "--", f"{vault}/"]
    try:
        if subprocess.run(command, cwd=tree, capture_output=True, timeout=10).returncode == 0:
            return ""
    except (OSError, subprocess.SubprocessError):
        pass
    return (
        f"The vault {vault} is in the git work tree {tree}, which does not ignore it. Add *.vault/ to its .gitignore "
        "or choose another --vault, since anyone with the vault can undo the protection."
    )


def _linked(src: Path) -> tuple[Path, ...]:
    """Where the links directly below the source lead."""
    try:
        return tuple(path.resolve() for path in src.iterdir() if path.is_symlink())
    except OSError:  # what cannot be listed is refused with a sentence when it is scanned
        return ()


def _nested(one: Path, other: Path) -> bool:
    return one == other or one in other.parents or other in one.parents


def _existing(place: Path) -> Path:
    """The place itself, or the nearest folder above it that exists."""
    return next(path for path in (place, *place.parents) if path.exists())
