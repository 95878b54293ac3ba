"""`pueprotect audit`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from pueprotect.cli.arguments import AsJson, Device, Released, Seed, TestImages, VaultPath
from pueprotect.cli.console import escape, hint, note, out, percent, print_json, table, warn
from pueprotect.cli.parsing import gate, numbers
from pueprotect.cli.progress import bars

if TYPE_CHECKING:
    from rich.table import Table

    from pueprotect.audit.findings import AuditReport, Row
    from pueprotect.release.opened import OpenedRelease

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
        float | None, typer.Option(help="Gate: fail when an attack ends above this accuracy.", show_default=False)
    ] = None,
    max_recovered: Annotated[
        float | None, typer.Option(help="Gate: fail when an attack recovers more than this share.", show_default=False)
    ] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Keep the attacks that are finished.")] = False,
    device: Device = "auto",
    seed: Seed = 0,
    seeds: Annotated[int, typer.Option(help="Run everything with so many seeds: mean and spread.")] = 1,
    as_json: AsJson = False,
) -> int:
    """Attack the released files and measure what attackers learn.

    The figures are clean test accuracies. Started by torchrun, the processes share the attacks.

    Exit codes: 0 pass; 1 a gate failed; 2 unusable input; 3 an attack failed or had to be left out, files changed
    since protection, or a gate without figure.
    """
    gate(max_accuracy, "--max-accuracy")
    gate(max_recovered, "--max-recovered")
    etas = numbers(eta, "--eta")

    from pueprotect.learning.device import choose_device
    from pueprotect.learning.distributed import joined, own_device

    chosen = choose_device(own_device(device))
    from pueprotect.audit.findings import Gates
    from pueprotect.audit.pipeline import AuditSettings, default_archs
    from pueprotect.audit.pipeline import audit as run_audit
    from pueprotect.audit.suites import suite as attacks_of
    from pueprotect.release.opened import open_release

    wanted = tuple(dict.fromkeys(attack)) if attack else attacks_of(suite)

    def settings(archs: tuple[str, ...]) -> AuditSettings:
        return AuditSettings(
            attacks=wanted, suite=None if attack else suite, archs=archs, epochs=epochs, clean_fraction=clean_fraction,
            etas=etas, seed=seed, seeds=seeds, gates=Gates(accuracy=max_accuracy, recovered=max_recovered),
        )  # fmt: skip

    settings(())  # checked before anything is read; the default architectures are known only once the release is open
    with joined(chosen.name) as group, bars(group.leads) as progress:
        release = open_release(folder, vault=vault, test=test, device=chosen.name, progress=progress)
        archs = tuple(dict.fromkeys(arch)) if arch else default_archs(
            None if attack else suite, release.default_arch, release.size, release.device
        )  # fmt: skip
        report = run_audit(release, settings(archs), resume=resume, progress=progress, group=group)
    if group.leads:
        if as_json:
            print_json(report.as_json())
        else:
            _show(report, release)
            hint("report", folder, vault=vault)
    return _outcome(report, max_accuracy, max_recovered)


def _outcome(report: AuditReport, max_accuracy: float | None, max_recovered: float | None) -> int:
    """The exit code of the gates, a policy of one rule; each failed one is said."""
    from pueprotect.check.evidence import Line
    from pueprotect.check.policy import AuditRules
    from pueprotect.check.verdicts import INCONCLUSIVE, PASS, attack_verdicts, exit_code

    verdicts = []
    if max_accuracy is not None or max_recovered is not None:
        rules = AuditRules(max_accuracy=max_accuracy, max_recovered=max_recovered)
        by_attack: dict[str, list[Line]] = {}
        for row in report.rows:
            line = Line(row.result.attack, row.result.arch, row.accuracy, row.recovered, row.result.epochs)
            by_attack.setdefault(line.attack, []).append(line)
        verdicts = [verdict for lines in by_attack.values() for verdict in attack_verdicts(rules, lines)]
    for verdict in verdicts:
        if not verdict.passed:
            note(f"gate {verdict.rule}: {verdict.reason}")
    code = exit_code(verdicts)
    return INCONCLUSIVE if code == PASS and not report.complete else code


def _show(report: AuditReport, release: OpenedRelease) -> None:
    from pueprotect.audit.flags import FLAGS

    of_suite = f", suite {report.suite}" if report.suite else ""
    out.print(
        f"[bold]Audit[/bold] of {len(release.released)} released images, measured on {len(release.test)} clean "
        f"test images{of_suite}"
    )
    out.print(_figures(report))
    for row in report.rows:
        _show_details(row)
    out.print(f"\n{escape(verdict(report, len(release.test)))}")
    if report.skipped:
        warn("left out", f"{', '.join(report.skipped)}: no clean training images at hand.")
    for flag in dict.fromkeys([*report.flags, *(flag for row in report.rows for flag in row.flags)]):
        concerned = [f"{row.result.attack} ({row.result.arch})" for row in report.rows if flag in row.flags]
        warn(flag, f"{FLAGS[flag]}" + (f" Concerns: {', '.join(concerned)}." if concerned else ""))


def verdict(report: AuditReport, test_images: int) -> str:
    """What the worst case says and what it does not, in one sentence."""
    worst = report.worst
    if worst is None:
        return "No attack of this audit ended with a figure, so it says nothing about these images."
    from pueprotect.audit.attacks import find

    clean = report.clean.get(worst.result.arch)
    beside = "the clean originals were not at hand to compare with"
    if clean is not None:
        beside = f"the clean originals give {percent(clean.accuracy)}"
        beside += f", so {worst.recovered:.0%} is recovered" if worst.recovered is not None else ", no measure for it"
    over = f", mean of {len(worst.results)} seeds" if len(worst.results) > 1 else ""
    return (
        f"The worst case here is {worst.result.attack} with {worst.result.arch}: an attacker who "
        f"{find(worst.result.attack).about} reaches {percent(worst.accuracy)} on these {test_images} clean "
        f"images{over} (chance {percent(report.chance)}; {beside}); attacks, networks and longer trainings that were "
        "not run may reach more."
    )


def _figures(report: AuditReport) -> Table:
    """One line for each attack, the clean lines and chance; bars show the recovered share, else the accuracy."""
    several = any(len(row.results) > 1 for row in report.rows)
    headers = ("attack", "network", "mean" if several else "end", "seeds" if several else "best", "recovered")
    rows = table(*headers, "seconds", "", left=(0, 1, 6))

    def add(name: str, row: Row, style: str | None, colour: str) -> None:
        share = row.recovered if row.recovered is not None else row.accuracy
        spread = percent(row.best_accuracy)
        if several and not row.failed:
            spread = f"{100 * min(row.accuracies):.0f}-{100 * max(row.accuracies):.0f} %"
        rows.add_row(
            name, row.result.arch, "failed" if row.failed else percent(row.accuracy), spread, percent(row.recovered),
            f"{row.seconds:.0f}", f"[{colour}]{'#' * round(BAR * (share or 0.0))}[/{colour}]", style=style,
        )  # fmt: skip

    for row in report.rows:
        add(row.result.attack, row, "bold" if row is report.worst else None, "red")
    for line in report.clean.values():
        add("clean originals", line, "dim", "green")
    rows.add_row("chance", "", percent(report.chance), "", "", "", "", style="dim")
    return rows


def _show_details(row: Row) -> None:
    """The networks that recovery compares, and what PST noticed."""
    details, name = row.result.details, f"[bold]{row.result.attack}[/bold] ({row.result.arch})"
    if len(points := details.get("points", {})) > 1:
        out.print(f"\n{name}, clean test accuracy")
        shown = table("network", "accuracy")
        for point, value in points.items():
            shown.add_row(escape(point), percent(value))
        out.print(shown)
    if details.get("alarms"):
        steps = [str(reading["step"]) for reading in details.get("trace", ()) if reading["alarm"]]
        out.print(f"\n{name}: alarm at step {', '.join(steps)} of {details['steps']}")
