"""Defines the command `pueprotect audit`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from pueprotect.cli.arguments import AsJson, Device, Released, Seed, TestImages, VaultPath
from pueprotect.cli.console import escape, hint, note, out, percent, print_json, table, warn
from pueprotect.cli.parsing import gate, numbers
from pueprotect.cli.progress import at_work
from pueprotect.errors import ExitCode

if TYPE_CHECKING:
    from rich.table import Table

    from pueprotect.check.verdicts import Verdict
    from pueprotect.release.audits import Audit, AuditRow

BAR = 10


def audit(
    folder: Released,
    vault: VaultPath = None,
    test: TestImages = None,
    attack: Annotated[
        list[str] | None,
        typer.Option(help="An attack; repeat for several. See: pueprotect attacks.", show_default="suite"),
    ] = None,
    suite: Annotated[str, typer.Option(help="A fixed set of attacks: quick, standard-v1 or standard-v2.")] = "quick",
    arch: Annotated[
        list[str] | None,
        typer.Option(
            help="The attacker's network; repeat for several.",
            show_default="surrogate's; standard suites transfer to others",
        ),
    ] = None,
    epochs: Annotated[float | None, typer.Option(help="Passes of each training.", show_default="by size")] = None,
    clean_fraction: Annotated[float, typer.Option(help="Clean share of attacks that need clean images.")] = 0.2,
    eta: Annotated[str, typer.Option(help="Radii of the recovery attack, comma-separated.")] = "0.5,1,2",
    max_accuracy: Annotated[
        float | None, typer.Option(help="Gate: fail when an attack ends above this accuracy.")
    ] = None,
    max_recovered: Annotated[
        float | None, typer.Option(help="Gate: fail when an attack recovers more than this share.")
    ] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Keep the attacks that are finished.")] = False,
    device: Device = "auto",
    seed: Seed = 0,
    seeds: Annotated[int, typer.Option(help="Run everything with this many seeds: mean and spread.")] = 1,
    as_json: AsJson = False,
) -> int:
    """Attack the released files and measure what attackers learn.

    The figures are clean test accuracies. Started by torchrun, the processes share the attacks.

    Exit codes: 0 pass; 1 a gate failed; 2 unusable input; 3 inconclusive: an attack failed or was skipped, a gated
    figure is missing, or files have changed.
    """
    gate(max_accuracy, "--max-accuracy")
    gate(max_recovered, "--max-recovered")
    etas = numbers(eta, "--eta")
    with at_work(device) as machine:
        from pueprotect.audit.findings import Gates
        from pueprotect.audit.pipeline import AuditSettings
        from pueprotect.audit.pipeline import audit as run_audit
        from pueprotect.release.opened import open_release

        settings = AuditSettings(
            attacks=tuple(dict.fromkeys(attack or ())), suite=None if attack else suite,
            archs=tuple(dict.fromkeys(arch or ())), epochs=epochs, clean_fraction=clean_fraction, etas=etas, seed=seed,
            seeds=seeds, gates=Gates(accuracy=max_accuracy, recovered=max_recovered),
        )  # fmt: skip
        release = open_release(folder, vault=vault, test=test, machine=machine)
        report = run_audit(release, settings, resume=resume)
    if machine.group.leads:
        if as_json:
            print_json(report.as_json())
        else:
            _show(report, len(release.released), len(release.test))
            hint("report", folder, vault=vault)
    return _outcome(report, max_accuracy, max_recovered)


def _outcome(report: Audit, max_accuracy: float | None, max_recovered: float | None) -> ExitCode:
    """The exit code of the gates, a policy of one rule; the largest seed decides, and each failed gate is reported."""
    from pueprotect.audit.findings import by_seed
    from pueprotect.check.policy import AuditRules
    from pueprotect.check.verdicts import attack_verdicts, exit_code

    verdicts: list[Verdict] = []
    if max_accuracy is not None or max_recovered is not None:
        rules = AuditRules(max_accuracy=max_accuracy, max_recovered=max_recovered)
        for name in dict.fromkeys(row.attack for row in report.results):
            rows = [row for row in report.results if row.attack == name]
            single = [by_seed(row, report.clean_line(row), report.chance_of(row)) for row in rows]
            verdicts += attack_verdicts(rules, [row for seeds in single for row in seeds])
    for verdict in verdicts:
        if not verdict.passed:
            note(f"gate {verdict.rule}: {verdict.reason}")
    code = exit_code(verdicts)
    return ExitCode.INCONCLUSIVE if code == ExitCode.PASS and not report.complete else code


def _show(report: Audit, images: int, test_images: int) -> None:
    from pueprotect.audit.attacks import find
    from pueprotect.audit.findings import verdict
    from pueprotect.audit.flags import FLAGS

    of_suite = f", suite {report.suite}" if report.suite else ""
    share = f" ({percent(report.attacked_share)} of all)" if report.attacked_share != 1 else ""
    out.print(
        f"[bold]Audit[/bold] of {images} released images{share}, measured on {test_images} clean test images{of_suite}"
    )
    out.print(_figures(report))
    for row in report.results:
        _show_details(row)
    worst = report.worst_row
    line, chance = (report.clean_line(worst), report.chance_of(worst)) if worst else (None, report.chance)
    about = find(worst.attack).about if worst else ""
    out.print(f"\n{escape(verdict(worst, line.accuracy if line else None, chance, about))}")
    if report.skipped:
        warn("left out", f"{', '.join(report.skipped)}: no clean training images are available.")
    for flag in dict.fromkeys([*report.flags, *(flag for row in report.results for flag in row.flags)]):
        concerned = [f"{row.attack} ({row.arch})" for row in report.results if flag in row.flags]
        warn(flag, str(FLAGS[flag]) + (f" Concerns: {', '.join(concerned)}." if concerned else ""))


def _figures(report: Audit) -> Table:
    """One line each for attacks, clean lines and chance; bars show the recovered share, else the accuracy."""
    several = any(row.seeds for row in report.results)
    headers = ("attack", "network", "mean" if several else "end", "seeds" if several else "best", "recovered")
    rows = table(*headers, "seconds", "", left=(0, 1, 6))

    def add(name: str, row: AuditRow, style: str | None, colour: str) -> None:
        share = row.recovered if row.recovered is not None else row.accuracy
        seeds = row.seeds
        spread = f"{100 * seeds.lowest:.0f}-{100 * seeds.highest:.0f} %" if seeds else percent(row.best_accuracy)
        rows.add_row(
            name, row.arch, "failed" if row.failed else percent(row.accuracy), spread, percent(row.recovered),
            f"{row.seconds:.0f}", f"[{colour}]{'#' * round(BAR * (share or 0.0))}[/{colour}]", style=style,
        )  # fmt: skip

    for row in report.results:
        add(row.attack, row, "bold" if row is report.worst_row else None, "red")
    for line in report.clean_lines.values():
        add("clean originals", line, "dim", "green")
    for line in report.held_out_lines.values():
        add("clean held-out", line, "dim", "green")
    rows.add_row("chance", "", percent(report.chance), "", "", "", "", style="dim")
    return rows


def _show_details(row: AuditRow) -> None:
    """The networks that recovery compares, and the alarms of PST; of the first seed."""
    details, name = row.details, f"[bold]{row.attack}[/bold] ({row.arch}{', first seed' if row.seeds else ''})"
    if len(points := details.get("points", {})) > 1:
        out.print(f"\n{name}, clean test accuracy")
        shown = table("network", "accuracy")
        for point, value in points.items():
            shown.add_row(escape(point), percent(value))
        out.print(shown)
    if details.get("alarms"):
        steps = [str(reading["step"]) for reading in details.get("trace", ()) if reading["alarm"]]
        out.print(f"\n{name}: alarm at step {', '.join(steps)} of {details['steps']}")
