"""Small commands: sample, verify, attacks, doctor."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import typer

from pueprotect.cli.console import escape, hint, indented, note, out, print_json, table
from pueprotect.cli.options import AsJson, Released, Seed, VaultPath
from pueprotect.errors import InputError, PlatformError

STALE = 3


def sample(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="Folder to make.", show_default=False)],
    per_class: Annotated[int, typer.Option(help="Images of each class.")] = 150,
    size: Annotated[int, typer.Option(help="Side in pixels.")] = 32,
    seed: Seed = 0,
) -> int:
    """Write a small labelled photo-like data set to try everything on."""
    from pueprotect.images.sample import write_sample

    count = write_sample(folder, per_class=per_class, size=size, seed=seed)
    out.print(f"{count} images under {escape(str(folder))}", soft_wrap=True)
    hint("protect", folder, out=Path(f"{folder}-shared"))
    return 0


def verify(
    folder: Released,
    vault: VaultPath = None,
    signature: Annotated[
        Path | None,
        typer.Option(metavar="SIG", help="A signed statement of check --attest --sign.", show_default=False),
    ] = None,
    public_key: Annotated[
        Path | None, typer.Option(metavar="KEY", help="The signer's public key (PEM).", show_default=False)
    ] = None,
    as_json: AsJson = False,
) -> int:
    """Compare released files with their recorded digests.

    Every difference is listed. With --signature the digests are those of a signed statement, and no vault is needed.

    Exit codes: 0 all as released; 3 files are missing, added or changed, or not what was signed; 2 no vault.
    """  # fmt: skip
    if signature is not None or public_key is not None:
        return _verify_signature(folder, vault, signature, public_key, as_json)
    from pueprotect.release.digests import verify as compare
    from pueprotect.release.vault import SCHEMA_VERSION, Vault, default_vault

    store = Vault.open(vault or default_vault(folder))
    store.run()
    rows = store.read_manifest()
    found = compare(folder, rows)
    lists = {"missing": list(found.missing), "extra": list(found.extra), "changed": list(found.changed)}
    if as_json:
        print_json({"schema_version": SCHEMA_VERSION, "ok": found.ok, "files": len(rows), **lists})
    else:
        for kind, names in lists.items():
            for name in names:
                out.print(f"{kind:8} {escape(name)}", soft_wrap=True)
        note(f"{len(rows)} files recorded; " + ("all as released." if found.ok else "differences above."))
    return 0 if found.ok else STALE


def _verify_signature(
    folder: Path, vault: Path | None, signature: Path | None, public_key: Path | None, as_json: bool
) -> int:
    if signature is None or public_key is None:
        raise InputError("--signature and --public-key belong together: give both.")
    from pueprotect.check.attest import verify_statement
    from pueprotect.release.vault import SCHEMA_VERSION, default_vault

    found = verify_statement(folder, vault or default_vault(folder), signature, public_key)
    if as_json:
        print_json({"schema_version": SCHEMA_VERSION, "ok": True, "statement": found})
    else:
        note(f"{folder} is what was signed; the result of its check was {found['predicate']['result']}.")
    return 0


def attacks(as_json: AsJson = False) -> int:
    """List the attacks: what each does and needs, and its source."""
    from pueprotect.runtime import check_torch

    check_torch()
    from pueprotect.audit.attacks import REGISTRY

    if as_json:
        fields = ("name", "about", "needs", "source", "cost")
        from pueprotect.release.vault import SCHEMA_VERSION

        print_json(
            {
                "schema_version": SCHEMA_VERSION,
                "attacks": [{field: getattr(attack, field) for field in fields} for attack in REGISTRY.values()],
            }
        )
        return 0
    for attack in REGISTRY.values():
        out.print(f"[bold]{attack.name}[/bold]")
        out.print(indented("does", attack.about))
        out.print(indented("needs", f"{attack.needs}; costs about {attack.cost:g} x plain training"))
        out.print(indented("source", attack.source))
    return 0


def doctor(as_json: AsJson = False) -> int:
    """Show versions, device, memory and what auto would choose.

    Also whether torchvision's operators load.

    Exit codes: 0 ready; 2 something is missing, with the mend.
    """
    from pueprotect.release.vault import SCHEMA_VERSION
    from pueprotect.runtime import choose_device, environment

    try:
        device = choose_device("auto")
    except PlatformError as error:
        if as_json:
            print_json({"schema_version": SCHEMA_VERSION, "ready": False, "mend": str(error)})
        raise
    from pueprotect.learning.models import choose_surrogate

    surrogate, why = choose_surrogate("auto", device)
    facts: dict[str, str] = environment(device) | {
        "torchvision_operators": "load",
        "cpus": str(os.cpu_count()),
        "auto_device": device.reason,
        "auto_surrogate": f"{surrogate} ({why})",
        "auto_size": "32 pixels for images up to 48 pixels, else 64",
    }
    if hasattr(os, "sysconf"):
        facts["memory"] = f"{os.sysconf('SC_PAGE_SIZE') * os.sysconf('SC_PHYS_PAGES') / 2**30:.1f} GiB"
    if as_json:
        print_json({"schema_version": SCHEMA_VERSION, "ready": True, **facts})
        return 0
    rows = table("what", "value", left=(0, 1))
    for name, value in facts.items():
        rows.add_row(name, escape(value))
    out.print(rows)
    return 0
