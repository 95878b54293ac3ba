"""Where a release may be made: refuses folders that would nest, overwrite or unprotect.

Everything here only looks; nothing is written.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

from pueprotect.errors import InputError, VaultError
from pueprotect.release.digests import verify
from pueprotect.release.records import ManifestRow
from pueprotect.release.vault import DRAFT, EVIDENCE, REPLACED, RUN, Vault, default_vault


def check_places(
    src: Path,
    out: Path,
    vault: Path,
    *,
    overwrite: bool = False,
    resume: bool = False,
    finished: bool = False,
    workers: int = 0,
) -> None:
    """Refuse folders that would overwrite or nest into each other, before anything is read.

    Args:
        src: the originals.
        out: the released folder to be.
        vault: its private folder.
        overwrite: `out` and `vault` may hold an earlier release, as long as it is as it was released.
        resume: a vault that holds a draft may be that of an earlier release, too.
        finished: `out` and `vault` may be the release itself that is asked for; whoever says so looks closer later.
        workers: threads that hash an earlier release; 0 chooses.

    Raises:
        InputError: names the folder and the mend.
    """
    if not src.exists():
        raise InputError(f"{src}: there is no such folder; check the path.")
    if not src.is_dir():
        raise InputError(f"{src} is a file; name the folder that holds one sub-folder of images for each class.")
    inside, outside, hidden = src.resolve(), out.resolve(), vault.resolve()
    if _nested(inside, outside):
        raise InputError(f"--out {out} and {src} lie inside each other; choose a folder elsewhere.")
    if hidden == outside or outside in hidden.parents:
        raise InputError(
            f"--vault {vault} lies inside --out {out} and would be released with it; choose another place."
        )
    if hidden in outside.parents:
        raise InputError(f"--out {out} lies inside the private --vault {vault}; choose another place.")
    if _nested(inside, hidden):
        raise InputError(f"--vault {vault} and {src} lie inside each other; choose another place.")
    if Vault(default_vault(src)).is_sealed:
        raise InputError(
            f"{src} is itself a release ({default_vault(src)} is its vault); protect the originals instead."
        )
    if vault.exists() and not vault.is_dir():
        raise InputError(f"--vault {vault} is a file; name a folder.")
    _check_out(out, vault, overwrite or (finished and Vault(vault).is_sealed), workers)
    _check_vault(vault, overwrite or finished, resume)


def refuse_released(src: Path, digests: dict[str, str], vaults: tuple[Path, ...]) -> None:
    """Refuse a source folder that holds files which one of `vaults` recorded as released.

    Args:
        src: the source folder, for the message.
        digests: SHA-256 of each of its images.
        vaults: where to look; those that are not sealed are skipped.

    Raises:
        InputError: names a file and the vault.
    """
    for path in dict.fromkeys(vaults):
        store = Vault(path)
        if not store.is_sealed:
            continue
        try:
            released = {row.released_sha256 for row in store.read_manifest()}
        except VaultError:
            continue
        found = [name for name, digest in digests.items() if digest in released]
        if found:
            raise InputError(
                f"{len(found)} files of {src}, such as {found[0]}, are a release already (recorded in {path}); "
                "protect the originals instead."
            )


def check_space(out: Path, needed: float, there: int = 0) -> None:
    """Refuse a release that would not fit on the disk of `out`.

    Args:
        out: the released folder to be.
        needed: bytes that the release is estimated to take.
        there: bytes of it that an interrupted run has written already.

    Raises:
        InputError: names both sizes.
    """
    above = next(place for place in (out.resolve(), *out.resolve().parents) if place.exists())
    free = shutil.disk_usage(above).free
    if needed - there > free:
        raise InputError(
            f"--out {out} will take about {_size(needed - there)} and only {_size(free)} are free on its disk; "
            "make room or choose another place."
        )


def _size(count: float) -> str:
    for unit in ("bytes", "KiB", "MiB"):
        if count < 1024:
            return f"{count:.0f} {unit}"
        count /= 1024
    return f"{count:.1f} GiB"


def exposed(vault: Path) -> str:
    """One sentence where git would take the vault along, else empty."""
    vault = vault.resolve()
    tree = next((place for place in vault.parents if (place / ".git").exists()), None)
    if tree is None:
        return ""
    try:
        done = subprocess.run(
            ["git", "check-ignore", "-q", "--", f"{vault}/"], cwd=tree, capture_output=True, timeout=10
        )
        ignored = done.returncode == 0
    except (OSError, subprocess.SubprocessError):
        ignored = False
    if ignored:
        return ""
    return (
        f"The vault {vault} lies in the git work tree {tree}, which does not ignore it: add *.vault/ to its .gitignore "
        "or choose another --vault, since whoever has the vault can undo the protection."
    )


def _nested(one: Path, other: Path) -> bool:
    return one == other or one in other.parents or other in one.parents


def _check_out(out: Path, vault: Path, overwrite: bool, workers: int) -> None:
    if out.exists() and not out.is_dir():
        raise InputError(f"--out {out} is a file; name a folder.")
    if os.path.ismount(out):
        raise InputError(f"--out {out} is a mount point and cannot be renamed into place; name a folder below it.")
    _check_writable(out.resolve().parent, f"--out {out}")
    if not out.is_dir() or not any(out.iterdir()):
        return
    if not overwrite:
        raise InputError(f"--out {out} is not empty; choose another folder, or add --overwrite to replace a release.")
    recorded = _releases(Vault(vault))
    if not recorded:
        raise InputError(
            f"--out {out} is not empty and {vault} does not say that it is a release, so --overwrite leaves it alone; "
            "choose another folder or empty it yourself."
        )
    differences = (verify(out, rows, workers) for rows in recorded)
    strangers = min(((*found.extra, *found.changed) for found in differences), key=len)
    if strangers:
        raise InputError(
            f"--out {out} holds {len(strangers)} files that are not as released, such as {strangers[0]}, so "
            "--overwrite leaves it alone; move them away first."
        )


def _releases(store: Vault) -> list[list[ManifestRow]]:
    """The manifests that the folder of a vault may have: of its release, and of one that was about to be replaced."""
    found = [store.read_manifest()] if store.is_sealed else []
    if (store.path / REPLACED).exists():
        found.append(store.read_manifest(REPLACED))
    return found


def _check_vault(vault: Path, overwrite: bool, resume: bool) -> None:
    _check_writable(vault.resolve(), f"--vault {vault}")
    if not vault.is_dir():
        return
    names = {path.name for path in vault.iterdir() if not path.name.startswith(".")}
    if names and not names & {RUN, DRAFT, REPLACED, *EVIDENCE}:
        raise InputError(f"--vault {vault} holds other files, such as {min(names)}; name a new or empty folder.")
    going_on = resume and DRAFT in names
    if RUN in names and not overwrite and not going_on:
        raise InputError(f"The vault {vault} belongs to an earlier release; choose another --vault or add --overwrite.")


def _check_writable(folder: Path, option: str) -> None:
    above = next(place for place in (folder, *folder.parents) if place.exists())
    if not above.is_dir():
        raise InputError(f"{option} cannot be made: {above} is a file; choose another place.")
    if not os.access(above, os.W_OK | os.X_OK):
        raise InputError(f"{option} cannot be made: {above} is not writable; choose another place.")
