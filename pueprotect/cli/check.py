"""Defines the command `pueprotect check`. No torch."""

from __future__ import annotations

import json
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal, get_args

import typer

from pueprotect.cli.arguments import Released, VaultPath
from pueprotect.cli.console import escape, note, out, write_file
from pueprotect.cli.exits import uncollected
from pueprotect.errors import InputError

if TYPE_CHECKING:
    from pueprotect.check.formats import CheckReport
    from pueprotect.check.schemas import Check

DEFAULT_POLICY = Path("pueprotect.yaml")
COLOURS = {True: "green", False: "bold red", None: "yellow"}
Format = Literal["text", "json", "junit", "sarif", "github"]


@uncollected()
def check(
    folder: Released,
    vault: VaultPath = None,
    policy: Annotated[Path, typer.Option(help="Policy file; see: pueprotect schema policy.")] = DEFAULT_POLICY,
    output: Annotated[Format, typer.Option("--format", help="What is written to stdout.")] = "text",
    reports: Annotated[
        list[str] | None, typer.Option("--report", metavar="FMT=PATH", help="Write a format to a file too; repeatable.")
    ] = None,
    baseline: Annotated[Path | None, typer.Option(help="JSON of an earlier check: fail on regressions only.")] = None,
    attest: Annotated[Path | None, typer.Option(help="Write the result as an in-toto statement.")] = None,
    sign: Annotated[
        Path | None, typer.Option(metavar="KEY", help="Sign the statement with this private key (PEM).")
    ] = None,
    workers: Annotated[int, typer.Option(help="Threads that hash; 0 chooses.")] = 0,
) -> int:
    """Check a release against a policy.

    Hashes the files and reads recorded results; trains nothing.

    Exit codes: 0 pass; 1 a rule failed; 2 unusable policy or input; 3 evidence is missing or for other files.
    """  # fmt: skip
    if sign is not None and attest is None:
        raise InputError("--sign needs a statement to sign; name its file with --attest PATH.")
    if workers < 0:
        raise InputError(f"--workers {workers} is below 0; 0 chooses.")
    targets = [_target(text) for text in reports or ()]

    from pueprotect.check.evidence import read_evidence
    from pueprotect.check.formats import FORMATS, CheckReport
    from pueprotect.check.policyfile import read_policy
    from pueprotect.check.verdicts import judge, only_regressions

    file = read_policy(policy)
    previous = _previous(baseline) if baseline else None
    evidence = read_evidence(folder, vault, workers)
    if previous is not None and baseline is not None:
        _same_check(baseline, previous, evidence.digest, file.sha256)
    verdicts = judge(file.policy, evidence, datetime.now(UTC).date())
    if previous is not None:
        verdicts = only_regressions(verdicts, previous.verdicts)
    found = CheckReport(file, str(folder), evidence.digest, verdicts)
    for name, path in targets:
        write_file(path, FORMATS[name](found))
    if attest is not None:
        from pueprotect.check.attest import sign_statement, statement

        write_file(attest, json.dumps(statement(found, evidence), indent=2, ensure_ascii=False) + "\n")
        if sign is not None:
            note(f"signed: {sign_statement(attest, sign)}")
    if output == "text" and out.is_terminal:
        _show(found)
    else:
        sys.stdout.write(FORMATS[output](found))
    return found.code


def _show(found: CheckReport) -> None:
    """Write each rule and its reason on lines of their own, in colour."""
    from rich.padding import Padding

    from pueprotect.check.formats import MARKS, remark

    for verdict in found.verdicts:
        colour = "dim" if verdict.waived or verdict.known else COLOURS[verdict.passed]
        out.print(f"[{colour}]{MARKS[verdict.passed]:4}[/{colour}]  {escape(verdict.rule)}")
        out.print(Padding(escape(remark(verdict)), (0, 0, 0, 6)))
    out.print(escape(found.summary))


def _target(text: str) -> tuple[str, Path]:
    name, equals, path = text.partition("=")
    if not equals or not path or name not in get_args(Format):
        raise InputError(f"--report {text!r} is not FMT=PATH; the format is one of {', '.join(get_args(Format))}.")
    return name, Path(path)


def _same_check(path: Path, previous: Check, digest: str, policy: str) -> None:
    """Refuse an earlier check of another release or by another policy: its failures excuse nothing here."""
    others = {"release": previous.data_digest != digest, "policy": previous.policy_sha256 != policy}
    if other := " and of another ".join(name for name, differs in others.items() if differs):
        raise InputError(
            f"--baseline {path} is the check of another {other}; write a new one with: pueprotect check OUT --report "
            "json=previous.json"
        )


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
