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
    policy: Annotated[
        Path | None, typer.Option(metavar="FILE", help="The policy that the signed check must have used.")
    ] = None,
    as_json: AsJson = False,
) -> int:
    """Compare released files with their recorded digests.

    Every difference is listed. With --signature the digests are those of a signed statement, and no vault is needed;
    where there is one, its evidence must be the signed one.

    Exit codes: 0 all as released; 1 the signed check failed; 3 files are missing, added or changed, or not what was
    signed; 2 no vault.
    """  # fmt: skip
    if signature is not None or public_key is not None or policy is not None:
        return _verify_signature(folder, vault, signature, public_key, policy, as_json)
    from pueprotect.check.verdicts import counted
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
            f"{counted(len(rows), 'file')} recorded; "
            + ("all are as released." if found.ok else "the differences are listed above.")
        )
    return ExitCode.PASS if found.ok else ExitCode.INCONCLUSIVE


def _verify_signature(
    folder: Path,
    vault: Path | None,
    signature: Path | None,
    public_key: Path | None,
    policy: Path | None,
    as_json: bool,
) -> int:
    if signature is None or public_key is None:
        raise InputError("--signature, --public-key and --policy work together only; give both of the first two.")
    if vault is not None and not vault.is_dir():
        raise InputError(f"--vault {vault} is not a folder; leave it out to compare the released files alone.")
    from pueprotect.check.attest import verify_statement
    from pueprotect.release.vault import default_vault

    place = vault or default_vault(folder)
    found = verify_statement(folder, place, signature, public_key, policy)
    if as_json:
        print_json({"ok": found.passed, "statement": found.statement, "evidence_compared": found.with_evidence})
    else:
        compared = "" if found.with_evidence else f" Only its files were compared, as there is no vault {place}."
        note(f"{folder} is what was signed.{compared}")
        if found.passed:
            note(f"The result of its check was {found.result}.")
        else:
            note("The signed check failed: this release does not meet its policy; ask the signer for one that does.")
    return ExitCode.PASS if found.passed else ExitCode.FAIL
