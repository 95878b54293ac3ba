"""`pueprotect report`."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import typer

from pueprotect.cli.arguments import Released, VaultPath
from pueprotect.cli.check import DEFAULT_POLICY
from pueprotect.cli.console import err, escape, hint, note, write_file
from pueprotect.errors import StaleDataError


def report(
    folder: Released,
    vault: VaultPath = None,
    out_file: Annotated[
        Path | None, typer.Option("--out", help="The HTML file to write.", show_default="report.html in the vault")
    ] = None,
    policy: Annotated[
        Path | None, typer.Option(help="Policy whose verdict stands first.", show_default="pueprotect.yaml if there")
    ] = None,
    with_originals: Annotated[
        bool, typer.Option("--with-originals", help="Show originals and noise: such a report must stay private.")
    ] = False,
    images: Annotated[int, typer.Option(min=0, max=60, help="Pictures shown.")] = 12,
) -> int:
    """Write the recorded evidence as one HTML file.

    The file needs no network and runs no script.

    Exit codes: 0 written; 2 unusable input; 3 files changed since protection.
    """
    from pueprotect.check.evidence import read_evidence
    from pueprotect.check.formats import CheckReport
    from pueprotect.check.policyfile import read_policy
    from pueprotect.check.report.page import render
    from pueprotect.check.verdicts import judge

    chosen = policy or (DEFAULT_POLICY if DEFAULT_POLICY.is_file() else None)
    file = read_policy(chosen) if chosen else None
    evidence = read_evidence(folder, vault)
    if not evidence.difference.ok:
        raise StaleDataError(
            f"Files in {folder} are not as released (pueprotect verify {folder} lists them): restore them first."
        )
    today = datetime.now(UTC).date()
    found = None
    if file:
        # The page goes to people who need not know where it was made.
        named = replace(file, path=Path(file.path.name))
        found = CheckReport(named, folder.resolve().name, evidence.digest, judge(file.policy, evidence, today))
    place = out_file or evidence.vault / "report.html"
    page = render(evidence, found, today=today, with_originals=with_originals, images=images)
    write_file(place, page, private=with_originals or out_file is None)
    err.print(f"Report: {escape(str(place))}", soft_wrap=True)
    if with_originals:
        note("note: this report shows originals and noise; whoever has it can undo the protection of those images.")
    if not chosen:
        hint("check", folder, vault=vault, policy=DEFAULT_POLICY)
    return 0
