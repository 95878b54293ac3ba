"""`pueprotect certify`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from pueprotect.cli.console import bars, gate, hint, note, numbers, out, percent, print_json, reported, table, warn
from pueprotect.errors import InputError

if TYPE_CHECKING:
    from pueprotect.certify import CertificateReport, Settings

DEFAULT_RADII = (0.2, 0.4, 0.6, 0.8, 1.0, 1.2)


def add_to(app: typer.Typer) -> None:
    """Register the command."""
    app.command("certify")(reported(certify))


def certify(
    folder: Annotated[Path, typer.Argument(metavar="OUT", help="The released folder.", show_default=False)],
    vault: Annotated[Path | None, typer.Option(help="Its vault.", show_default="OUT.vault")] = None,
    test: Annotated[
        Path | None, typer.Option(help="Clean labelled images to measure on.", show_default="holdout")
    ] = None,
    q: Annotated[float, typer.Option(help="Share of classifiers that the bound covers.")] = 0.9,
    sigma: Annotated[float, typer.Option(help="Standard deviation of the weight noise.")] = 0.05,
    eta: Annotated[str | None, typer.Option(help="L2 radii, comma-separated.", show_default="0.2 .. 1.2 sigma")] = None,
    draws: Annotated[int, typer.Option(help="Classifiers drawn around each surrogate.")] = 1000,
    alpha: Annotated[float, typer.Option(help="Failure probability of the bound.")] = 0.01,
    joint: Annotated[bool, typer.Option("--joint", help="All radii hold together at alpha, not each alone.")] = False,
    recipe: Annotated[
        str, typer.Option("--surrogate-recipe", help="worst, online, plain, weight-noise or pst.")
    ] = "worst",
    baseline: Annotated[
        bool, typer.Option("--baseline", help="The same bound for the clean originals beside it.")
    ] = False,
    max_learnability: Annotated[
        float | None, typer.Option(help="Gate: fail when the bound at the largest eta is above.", show_default=False)
    ] = None,
    epochs: Annotated[
        float | None, typer.Option(help="Passes of each surrogate's training.", show_default="by size")
    ] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Keep the recipes that are finished.")] = False,
    device: Annotated[str, typer.Option(help="auto, cpu or cuda[:i].")] = "auto",
    seed: Annotated[int, typer.Option(help="Everything random is a function of it.")] = 0,
    as_json: Annotated[bool, typer.Option("--json", help="Write the result as JSON to stdout.")] = False,
) -> int:
    """Bound the clean accuracy of classifiers around surrogates trained on the released files.

    Exit codes: 0 pass; 1 the gate failed; 2 unusable input; 3 abstained, or files changed since protection.
    """
    gate(max_learnability, "--max-learnability")
    etas = numbers(eta, "--eta") if eta is not None else tuple(round(sigma * r, 12) for r in DEFAULT_RADII)
    _check(q=q, sigma=sigma, alpha=alpha, draws=draws, etas=etas, epochs=epochs)

    from pueprotect.runtime import choose_device

    chosen = choose_device(device)
    from pueprotect.certify import Settings, certify_release, choose_recipes
    from pueprotect.cli.training import surrogate_trainer
    from pueprotect.evidence import open_release

    settings = Settings(q=q, sigma=sigma, etas=etas, draws=draws, alpha=alpha, joint=joint, seed=seed)
    choose_recipes(recipe, own=True)  # an unknown name is refused before anything is read
    with bars() as progress:
        evidence = open_release(folder, vault=vault, test=test, device=chosen.name, progress=progress)
        _announce(settings)
        report = certify_release(
            evidence, settings, choose_recipes(recipe, evidence.own), surrogate_trainer(evidence, sigma, seed, epochs),
            training={"epochs": epochs}, baseline=baseline, resume=resume, progress=progress,
        )  # fmt: skip
    data = report.as_json()
    evidence.store("certificate.json", data)
    if as_json:
        print_json(data)
    else:
        _show(report)
        hint(f"pueprotect audit {folder}")
    return _outcome(report, max_learnability, asked=eta is not None)


def _check(*, q: float, sigma: float, alpha: float, draws: int, etas: tuple[float, ...], epochs: float | None) -> None:
    from pueprotect import bounds

    for radius in etas:
        bounds.check(q=q, sigma=sigma, alpha=alpha, draws=draws, eta=radius)
    if epochs is not None and not 0 < epochs <= 10_000:
        raise InputError(f"--epochs {epochs:g} is outside (0, 10000].")


def _outcome(report: CertificateReport, limit: float | None, *, asked: bool) -> int:
    """The exit code: a radius asked for by name must be certified, of the usual ones at least one."""
    from pueprotect.artefacts import Certificate
    from pueprotect.policy import INCONCLUSIVE, PASS, certificate_verdict, exit_code
    from pueprotect.rules import CertifyRules

    verdicts = []
    if limit is not None:
        found = Certificate.model_validate(report.as_json())
        verdicts.append(certificate_verdict(CertifyRules(max_learnability=limit), found))
        note(f"gate: {verdicts[0].reason}")
    abstained = [point.certified_learnability is None for point in report.worst.curve]
    inconclusive = any(abstained) if asked else all(abstained)
    return exit_code(verdicts) or (INCONCLUSIVE if inconclusive else PASS)


def _announce(settings: Settings) -> None:
    """Before any work: what these draws can reach."""
    from pueprotect.certify import plan

    reach = settings.max_eta
    note(
        f"{settings.draws} draws at sigma {settings.sigma:g}, q {settings.q:g}, alpha {settings.alpha_each:g} reach "
        + (f"eta {reach:.4g} at most." if reach is not None else "no radius: every bound will abstain.")
    )
    for point in plan(settings):
        if point.rank is None:
            note(f"eta {point.eta:g} needs {point.draws_needed} draws: it will abstain.")


def _show(report: CertificateReport) -> None:
    from pueprotect.certify import FLAGS

    worst, settings = report.worst, report.settings
    rows = table("eta", "q shifted", "protected", *(["clean baseline"] if report.baseline else []), "chance")
    for number, point in enumerate(worst.curve):
        shown = [f"{point.eta:g}", f"{point.q_shifted:.5f}"]
        bound = point.certified_learnability
        shown.append(percent(bound) if bound is not None else f"abstains: {point.draws_needed} draws")
        if report.baseline:
            shown.append(percent(report.baseline.curve[number].certified_learnability))
        rows.add_row(*shown, percent(report.chance))
    out.print("[bold]Certified learnability[/bold] (upper bound on clean accuracy)")
    out.print(rows)
    by_recipe = table("surrogate", "own accuracy", "noisy median", "noisy max", "bound")
    for found in (*report.certificates, *([report.baseline] if report.baseline else [])):
        clean = found is report.baseline
        by_recipe.add_row(
            ("clean baseline, " if clean else "") + found.recipe, percent(found.surrogate_clean_accuracy),
            percent(found.noisy_median), percent(found.noisy_max), percent(found.curve[0].certified_learnability),
        )  # fmt: skip
    out.print()
    out.print(by_recipe)
    level = "all radii together" if settings.joint else "each radius alone"
    out.print(
        f"\nWith {1 - settings.alpha:.0%} confidence ({level}): around any weights within eta of the {worst.recipe} "
        f"surrogate, at least {settings.q:.0%} of the classifiers drawn with sigma {settings.sigma:g} have at most "
        f"this accuracy on these {report.holdout_images} clean images. It is a quantile over random draws near this "
        "surrogate, not a maximum over attackers: the audit speaks of those. BatchNorm statistics are re-estimated "
        "for every draw and lie outside the ball."
    )
    for flag in report.flags:
        warn(flag, FLAGS[flag])
