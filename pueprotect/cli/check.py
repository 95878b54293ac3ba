"""`pueprotect check`, `report` and `schema`: what CI and readers use. Nothing here imports torch."""

from __future__ import annotations

import json
import os
import sys
from dataclasses import replace
from datetime import UTC, datetime
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from pueprotect.cli.console import err, escape, hint, note, out, uncollected
from pueprotect.cli.options import Released, VaultPath
from pueprotect.errors import InputError, StaleDataError

if TYPE_CHECKING:
    from pydantic import BaseModel

    from pueprotect.check.formats import CheckReport
    from pueprotect.check.schemas import Check

DEFAULT_POLICY = Path("pueprotect.yaml")
COLOURS = {True: "green", False: "bold red", None: "yellow"}


class Format(StrEnum):
    """How the result of `check` is written."""

    text = "text"
    json = "json"
    junit = "junit"
    sarif = "sarif"
    github = "github"


@uncollected()
def check(
    folder: Released,
    vault: VaultPath = None,
    policy: Annotated[Path, typer.Option(help="Policy file; see: pueprotect schema policy.")] = DEFAULT_POLICY,
    output: Annotated[Format, typer.Option("--format", help="What is written to stdout.")] = Format.text,
    reports: Annotated[
        list[str] | None,
        typer.Option(
            "--report", metavar="FMT=PATH", help="Write a format to a file too; repeatable.", show_default=False
        ),
    ] = None,
    baseline: Annotated[
        Path | None, typer.Option(help="JSON of an earlier check: fail on regressions only.", show_default=False)
    ] = None,
    attest: Annotated[
        Path | None, typer.Option(help="Write the result as an in-toto statement.", show_default=False)
    ] = None,
    sign: Annotated[
        Path | None,
        typer.Option(metavar="KEY", help="Sign the statement with this private key (PEM).", show_default=False),
    ] = None,
    workers: Annotated[int, typer.Option(help="Threads that hash; 0 chooses.")] = 0,
) -> int:
    """Hold a release's digests and evidence against a policy.

    Files are hashed; nothing else is computed anew.

    Exit codes: 0 pass; 1 a rule failed; 2 unusable policy or input; 3 evidence is missing, stale or foreign.
    """  # fmt: skip
    if sign is not None and attest is None:
        raise InputError("--sign signs the statement: name its file with --attest PATH.")
    if workers < 0:
        raise InputError(f"--workers {workers} is below 0; 0 chooses.")
    targets = [_target(text) for text in reports or ()]

    from pueprotect.check.evidence import read_records
    from pueprotect.check.formats import FORMATS, CheckReport
    from pueprotect.check.policyfile import read_policy
    from pueprotect.check.verdicts import judge, only_regressions

    file = read_policy(policy)
    previous = _previous(baseline) if baseline else None
    records = read_records(folder, vault, workers)
    verdicts = judge(file.policy, records, datetime.now(UTC).date())
    if previous is not None:
        verdicts = only_regressions(verdicts, previous.verdicts)
    found = CheckReport(file, str(folder), records.digest, verdicts)
    for name, path in targets:
        _write(path, FORMATS[name](found))
    if attest is not None:
        from pueprotect.check.attest import sign_statement, statement

        _write(attest, json.dumps(statement(found, records), indent=2, ensure_ascii=False) + "\n")
        if sign is not None:
            note(f"signed: {sign_statement(attest, sign)}")
    if output is Format.text:
        _show(found)
    else:
        sys.stdout.write(FORMATS[output](found))
    return found.code


def _show(found: CheckReport) -> None:
    """A rule and its reason on lines of their own where somebody reads along, else the plain text."""
    from pueprotect.check.formats import MARKS, as_text, remark

    if not out.is_terminal:
        sys.stdout.write(as_text(found))
        return
    from rich.padding import Padding

    for verdict in found.verdicts:
        colour = "dim" if verdict.waived or verdict.known else COLOURS[verdict.passed]
        out.print(f"[{colour}]{MARKS[verdict.passed]:4}[/{colour}]  {escape(verdict.rule)}")
        out.print(Padding(escape(remark(verdict)), (0, 0, 0, 6)))
    out.print(escape(found.summary))


def _target(text: str) -> tuple[str, Path]:
    name, equals, path = text.partition("=")
    if not equals or not path or name not in list(Format):
        raise InputError(f"--report {text!r} is not FMT=PATH with a format of {', '.join(Format)}.")
    return name, Path(path)


def _write(path: Path, text: str, *, private: bool = False) -> None:
    """Write a whole file or none; a private one is readable by its owner alone."""
    partial = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        partial.touch(0o600 if private else 0o666)
        partial.write_text(text, encoding="utf-8")
        partial.replace(path)
    except OSError as error:
        raise InputError(f"{path} cannot be written ({error.strerror}); check its folder.") from error
    finally:
        partial.unlink(missing_ok=True)


def _previous(path: Path) -> Check:
    from pydantic import ValidationError

    from pueprotect.check.schemas import Check

    try:
        return Check.model_validate_json(path.read_bytes())
    except OSError as error:
        raise InputError(f"--baseline {path} cannot be read ({error.strerror}); check the path.") from error
    except ValidationError as error:
        raise InputError(
            f"--baseline {path} is not the result of a check; write one with: pueprotect check OUT --report "
            "json=previous.json"
        ) from error


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
    from pueprotect.check.evidence import read_records
    from pueprotect.check.formats import CheckReport
    from pueprotect.check.policyfile import read_policy
    from pueprotect.check.report.page import render
    from pueprotect.check.verdicts import judge

    chosen = policy or (DEFAULT_POLICY if DEFAULT_POLICY.is_file() else None)
    file = read_policy(chosen) if chosen else None
    records = read_records(folder, vault)
    if not records.difference.ok:
        raise StaleDataError(
            f"Files in {folder} are not as released (pueprotect verify {folder} lists them): restore them first."
        )
    today = datetime.now(UTC).date()
    found = None
    if file:
        # The page goes to people who need not know where it was made.
        named = replace(file, path=Path(file.path.name))
        found = CheckReport(named, folder.resolve().name, records.digest, judge(file.policy, records, today))
    place = out_file or records.vault / "report.html"
    page = render(records, found, today=today, with_originals=with_originals, images=images)
    _write(place, page, private=with_originals or out_file is None)
    err.print(f"Report: {escape(str(place))}", soft_wrap=True)
    if with_originals:
        note("note: this report shows originals and noise; whoever has it can undo the protection of those images.")
    if not chosen:
        hint("check", folder, vault=vault, policy=DEFAULT_POLICY)
    return 0


def schema(
    name: Annotated[str | None, typer.Argument(help="policy, or an artefact.", show_default="list the names")] = None,
) -> int:
    """Print the JSON Schema of the policy or of an artefact."""
    from pueprotect.check.policy import Policy
    from pueprotect.check.schemas import ARTEFACTS

    models: dict[str, type[BaseModel]] = {"policy": Policy, **ARTEFACTS}
    if name is None:
        out.print("\n".join(models))
        return 0
    if name not in models:
        raise InputError(f"There is no schema {name!r}; known: {', '.join(models)}.")
    found = {"$schema": "https://json-schema.org/draft/2020-12/schema", **models[name].model_json_schema()}
    sys.stdout.write(json.dumps(found, indent=2, ensure_ascii=False) + "\n")
    return 0
