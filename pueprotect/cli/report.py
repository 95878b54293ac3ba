"""Defines the command `pueprotect report`."""

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
        Path | None, typer.Option(help="Policy whose verdict comes first.", show_default="pueprotect.yaml if there")
    ] = None,
    with_originals: Annotated[
        bool, typer.Option("--with-originals", help="Show originals and noise; keep such a report private.")
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
            f"Files in {folder} are not as released; restore them. List them with: pueprotect verify {folder}"
        )
    today = datetime.now(UTC).date()
    found = None
    if file:
        # The page may be published, so it holds no paths of this machine.
        named = replace(file, path=Path(file.path.name))
        found = CheckReport(named, folder.resolve().name, evidence.digest, judge(file.policy, evidence, today))
    page = render(evidence, found, today=today, with_originals=with_originals, images=images)
    place = out_file or evidence.vault / "report.html"
    write_file(place, page, private=with_originals or out_file is None)
    err.print(f"Report: {escape(str(place))}", soft_wrap=True)
    if with_originals:
        note("note: this report shows originals and noise, which undo the protection of those images; keep it private.")
    if not chosen:
        hint("check", folder, vault=vault, policy=DEFAULT_POLICY)
    return 0
