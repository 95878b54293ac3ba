"""`pueprotect audit`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from pueprotect.cli.console import (
    bars,
    escape,
    gate,
    hint,
    note,
    numbers,
    out,
    percent,
    print_json,
    reported,
    table,
    warn,
)
from pueprotect.errors import InputError

if TYPE_CHECKING:
    from rich.table import Table

    from pueprotect.audit import AuditReport

BAR = 10


def add_to(app: typer.Typer) -> None:
    """Register the command."""
    app.command("audit")(reported(audit))


def audit(
    folder: Annotated[Path, typer.Argument(metavar="OUT", help="The released folder.", show_default=False)],
    vault: Annotated[Path | None, typer.Option(help="Its vault.", show_default="OUT.vault")] = None,
    test: Annotated[
        Path | None, typer.Option(help="Clean labelled images to measure on.", show_default="holdout")
    ] = None,
    attack: Annotated[
        list[str] | None,
        typer.Option(help="An attack; repeat for several. See: pueprotect attacks.", show_default="suite"),
    ] = None,
    suite: Annotated[str, typer.Option(help="A fixed set of attacks.")] = "quick",
    arch: Annotated[
        list[str] | None, typer.Option(help="The attacker's network; repeat for several.", show_default="surrogate's")
    ] = None,
    epochs: Annotated[float | None, typer.Option(help="Passes of each training.", show_default="by size")] = None,
    clean_fraction: Annotated[float, typer.Option(help="Clean share of the recovery attack.")] = 0.2,
    eta: Annotated[str, typer.Option(help="Radii of the recovery attack, comma-separated.")] = "0.5,1,2",
    max_accuracy: Annotated[
        float | None, typer.Option(help="Gate: fail when an attack ends above this accuracy.", show_default=False)
    ] = None,
    max_recovered: Annotated[
        float | None, typer.Option(help="Gate: fail when an attack recovers more than this share.", show_default=False)
    ] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Keep the attacks that are finished.")] = False,
    device: Annotated[str, typer.Option(help="auto, cpu or cuda[:i].")] = "auto",
    seed: Annotated[int, typer.Option(help="Everything random is a function of it.")] = 0,
    as_json: Annotated[bool, typer.Option("--json", help="Write the result as JSON to stdout.")] = False,
) -> int:
    """Attack the released files and report the clean accuracy that each attacker reaches.

    Exit codes: 0 pass; 1 a gate failed; 2 unusable input; 3 files changed since protection, or a gate without figure.
    """
    gate(max_accuracy, "--max-accuracy")
    gate(max_recovered, "--max-recovered")
    etas = numbers(eta, "--eta")

    from pueprotect.runtime import choose_device

    chosen = choose_device(device)
    from pueprotect.audit import SUITES, Settings
    from pueprotect.audit import audit as run_audit
    from pueprotect.evidence import open_release

    if not attack and suite not in SUITES:
        raise InputError(f"Unknown suite {suite!r}; known: {', '.join(SUITES)}.")
    attacks = tuple(dict.fromkeys(attack)) if attack else SUITES[suite]
    # Checked before anything is read; the architecture's default is known only once the release is open.
    Settings(attacks=attacks, suite=None, archs=(), epochs=epochs, clean_fraction=clean_fraction, etas=etas, seed=seed)
    with bars() as progress:
        evidence = open_release(folder, vault=vault, test=test, device=chosen.name, progress=progress)
        settings = Settings(
            attacks=attacks, suite=None if attack else suite, archs=tuple(arch or [evidence.default_arch]),
            epochs=epochs, clean_fraction=clean_fraction, etas=etas, seed=seed,
        )  # fmt: skip
        report = run_audit(evidence, settings, resume=resume, progress=progress)
    if as_json:
        print_json(report.as_json())
    else:
        _show(report, len(evidence.released), len(evidence.test))
        hint(f"pueprotect report {folder}")
    return _outcome(report, max_accuracy, max_recovered)


def _outcome(report: AuditReport, max_accuracy: float | None, max_recovered: float | None) -> int:
    """The exit code of the gates, a policy of one rule; each failed one is said."""
    from pueprotect.policy import attack_verdicts, exit_code
    from pueprotect.records import Line
    from pueprotect.rules import AuditRules

    if max_accuracy is None and max_recovered is None:
        return 0
    rules = AuditRules(max_accuracy=max_accuracy, max_recovered=max_recovered)
    by_attack: dict[str, list[Line]] = {}
    for row in report.rows:
        found = row.result
        line = Line(found.attack, found.arch, found.accuracy, row.recovered, found.epochs)
        by_attack.setdefault(line.attack, []).append(line)
    verdicts = [verdict for lines in by_attack.values() for verdict in attack_verdicts(rules, lines)]
    for verdict in verdicts:
        if not verdict.passed:
            note(f"gate {verdict.rule}: {verdict.reason}")
    return exit_code(verdicts)


def _show(report: AuditReport, images: int, test_images: int) -> None:
    from pueprotect.audit import FLAGS

    out.print(f"[bold]Audit[/bold] of {images} released images, measured on {test_images} clean test images")
    out.print(_figures(report))
    for row in report.rows:
        if points := row.result.details.get("points"):
            out.print(f"\n[bold]{row.result.attack}[/bold] ({row.result.arch}), clean test accuracy")
            details = table("network", "accuracy")
            for name, value in points.items():
                details.add_row(escape(name), percent(value))
            out.print(details)
    worst = report.worst
    recovered = f", {worst.recovered:.0%} of what the clean originals give" if worst.recovered is not None else ""
    out.print(
        f"\nThe worst case of these attacks: an attacker who runs {worst.result.attack} with {worst.result.arch} "
        f"reaches {percent(worst.result.accuracy)} on clean images{recovered}. Attacks that were not run may reach "
        "more."
    )
    for flag in dict.fromkeys([*report.flags, *(flag for row in report.rows for flag in row.flags)]):
        warn(flag, FLAGS.get(flag, "see the attack"))


def _figures(report: AuditReport) -> Table:
    """One line for each attack, the clean lines and chance; bars on the scale of the clean line."""
    rows = table("attack", "network", "end", "best", "recovered", "seconds", "", left=(0, 1, 6))
    for number, row in enumerate(report.rows):
        result = row.result
        clean = report.clean.get(result.arch)
        top = clean.accuracy if clean is not None and clean.accuracy > 0 else 1.0
        rows.add_row(
            result.attack, result.arch, percent(result.accuracy), percent(result.best_accuracy), percent(row.recovered),
            f"{result.seconds:.0f}", f"[red]{'#' * round(BAR * min(1.0, result.accuracy / top))}[/red]",
            style="bold" if number == 0 else None,
        )  # fmt: skip
    for arch, line in report.clean.items():
        rows.add_row(
            "clean originals", arch, percent(line.accuracy), percent(line.best_accuracy), "100.0 %",
            f"{line.seconds:.0f}", f"[green]{'#' * BAR}[/green]", style="dim",
        )  # fmt: skip
    rows.add_row("chance", "", percent(report.chance), "", "0.0 %", "", "", style="dim")
    return rows
