"""Defines the command `pueprotect verify`."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from pueprotect.cli.arguments import AsJson, Released, VaultPath
from pueprotect.cli.console import escape, note, out, print_json
from pueprotect.errors import ExitCode, InputError


def verify(
    folder: Released,
    vault: VaultPath = None,
    signature: Annotated[
        Path | None, typer.Option(metavar="SIG", help="A signed statement of check --attest --sign.")
    ] = None,
    public_key: Annotated[Path | None, typer.Option(metavar="KEY", help="The signer's public key (PEM).")] = None,
    as_json: AsJson = False,
) -> int:
    """Compare released files with their recorded digests.

    Every difference is listed. With --signature the digests are those of a signed statement, and no vault is needed.

    Exit codes: 0 all as released; 3 files are missing, added or changed, or not what was signed; 2 no vault.
    """  # fmt: skip
    if signature is not None or public_key is not None:
        return _verify_signature(folder, vault, signature, public_key, as_json)
    from pueprotect.release.digests import verify as compare
    from pueprotect.release.vault import Vault, default_vault

    store = Vault.open(vault or default_vault(folder))
    store.run()
    rows = store.read_manifest()
    found = compare(folder, rows)
    if as_json:
        print_json({"ok": found.ok, "files": len(rows), **asdict(found)})
    else:
        for kind, names in asdict(found).items():
            for name in names:
                out.print(f"{kind:8} {escape(name)}", soft_wrap=True)
        note(
            f"{len(rows)} files recorded; "
            + ("all are as released." if found.ok else "the differences are listed above.")
        )
    return ExitCode.PASS if found.ok else ExitCode.INCONCLUSIVE


def _verify_signature(
    folder: Path, vault: Path | None, signature: Path | None, public_key: Path | None, as_json: bool
) -> int:
    if signature is None or public_key is None:
        raise InputError("--signature and --public-key work together only; give both.")
    from pueprotect.check.attest import verify_statement
    from pueprotect.release.vault import default_vault

    found = verify_statement(folder, vault or default_vault(folder), signature, public_key)
    if as_json:
        print_json({"ok": True, "statement": found})
    else:
        note(f"{folder} is what was signed; the result of its check was {found['predicate']['result']}.")
    return 0
