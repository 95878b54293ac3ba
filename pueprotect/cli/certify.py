"""`pueprotect certify`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from pueprotect.cli.arguments import AsJson, Device, Released, Seed, TestImages, VaultPath
from pueprotect.cli.console import hint, note, out, percent, print_json, table, warn
from pueprotect.cli.parsing import gate, numbers
from pueprotect.cli.progress import bars
from pueprotect.errors import InputError

if TYPE_CHECKING:
    from rich.table import Table

    from pueprotect.certify.certificate import Certificate, CertificateSettings, Precision
    from pueprotect.certify.report import CertificateReport

DEFAULT_RADII = (0.2, 0.4, 0.6, 0.8, 1.0, 1.2)


def certify(
    folder: Released,
    vault: VaultPath = None,
    test: TestImages = None,
    q: Annotated[float, typer.Option(help="Share of classifiers that the bound covers.")] = 0.9,
    sigma: Annotated[
        str, typer.Option(help="Standard deviation of the weight noise; auto: the largest that informs.")
    ] = "0.05",
    eta: Annotated[str | None, typer.Option(help="L2 radii, comma-separated.", show_default="0.2 .. 1.2 sigma")] = None,
    draws: Annotated[int, typer.Option(help="Classifiers drawn around each surrogate.")] = 1000,
    alpha: Annotated[float, typer.Option(help="Failure probability of the bound.")] = 0.01,
    joint: Annotated[bool, typer.Option("--joint", help="All radii hold together at alpha, not each alone.")] = False,
    recipe: Annotated[
        str,
        typer.Option(
            "--surrogate-recipe",
            help="online, plain, weight-noise, weight-noise-early, weight-noise-tuned, pst, or worst: of all but pst, "
            "the most learnable.",
        ),
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
    stress: Annotated[
        bool, typer.Option("--stress", help="Cross-check the bound: draw around centres on the sphere of radius eta.")
    ] = False,
    precision: Annotated[
        str,
        typer.Option(
            help="fp32 or bf16: what the certified classifier computes in.",
            show_default="bf16 where the hardware has it",
        ),
    ] = "auto",
    resume: Annotated[
        bool, typer.Option("--resume", help="Keep finished surrogates and draws; --draws may have grown.")
    ] = False,
    device: Device = "auto",
    seed: Seed = 0,
    as_json: AsJson = False,
) -> int:
    """Bound what classifiers near a surrogate can still have learnt.

    The surrogates are trained on the released files; the bound is on clean accuracy.

    Exit codes: 0 pass; 1 the gate failed; 2 unusable input; 3 abstained, or files changed since protection.
    """
    gate(max_learnability, "--max-learnability")
    wanted = None if sigma == "auto" else _number(sigma, "--sigma")
    etas = None if eta is None else numbers(eta, "--eta")
    _check(q=q, sigma=1.0 if wanted is None else wanted, alpha=alpha, draws=draws, etas=etas or (0.0,), epochs=epochs)
    if precision not in ("auto", "fp32", "bf16"):
        raise InputError(f"--precision {precision!r} is not auto, fp32 or bf16.")

    from pueprotect.learning.device import choose_device
    from pueprotect.learning.distributed import joined, own_device

    chosen = choose_device(own_device(device))
    from pueprotect.certify.certificate import CertificateSettings
    from pueprotect.certify.pipeline import Certification, certify_release, informative_sigma
    from pueprotect.certify.stress import recovery
    from pueprotect.certify.surrogates import choose_recipes, surrogate_trainer
    from pueprotect.release.opened import open_release

    choose_recipes(recipe, own=True)  # an unknown name is refused before anything is read
    with joined(chosen.name) as group, bars(group.leads) as progress:
        release = open_release(folder, vault=vault, test=test, device=chosen.name, progress=progress)
        training = {"epochs": epochs, "seed": seed}
        certification = Certification(
            release, surrogate_trainer(release, seed, epochs), training, resume, group, progress
        )
        recipes = choose_recipes(recipe, release.own)
        used = informative_sigma(certification, seed) if wanted is None else wanted
        settings = CertificateSettings(
            q=q, sigma=used, etas=etas or tuple(round(used * ratio, 12) for ratio in DEFAULT_RADII), draws=draws,
            alpha=alpha, joint=joint, seed=seed, precision=_precision(precision, chosen.name),
        )  # fmt: skip
        if group.leads:
            _announce(settings, automatic=wanted is None)
        report = certify_release(
            certification, settings, recipes, baseline=baseline,
            stress=recovery(release, seed, epochs, progress) if stress else None,
        )  # fmt: skip
        data = report.as_json()
        if group.leads:
            release.store("certificate.json", data)
            if as_json:
                print_json(data)
            else:
                _show(report)
                hint("audit", folder, vault=vault, test=test)
        return _outcome(data, max_learnability, asked=eta is not None, speak=group.leads)


def _number(text: str, option: str) -> float:
    try:
        return float(text)
    except ValueError as error:
        raise InputError(f"{option} {text!r} is neither a number such as 0.05 nor auto.") from error


def _precision(wanted: str, device: str) -> Precision:
    from pueprotect.learning.device import native_bf16

    rounded = native_bf16(device) if wanted == "auto" else wanted == "bf16"
    return "bf16" if rounded else "fp32"


def _check(*, q: float, sigma: float, alpha: float, draws: int, etas: tuple[float, ...], epochs: float | None) -> None:
    from pueprotect.certify import bounds

    for radius in etas:
        bounds.check(q=q, sigma=sigma, alpha=alpha, draws=draws, eta=radius)
    if epochs is not None and not 0 < epochs <= 10_000:
        raise InputError(f"--epochs {epochs:g} is outside (0, 10000].")


def _outcome(data: dict[str, Any], limit: float | None, *, asked: bool, speak: bool) -> int:
    """The exit code: a radius asked for by name must be certified, of the usual ones at least one."""
    from pueprotect.check.policy import CertifyRules
    from pueprotect.check.verdicts import INCONCLUSIVE, PASS, certificate_verdict, exit_code
    from pueprotect.release.records import Certificate as Recorded

    verdicts = []
    found = Recorded.model_validate(data)
    if limit is not None:
        verdicts.append(certificate_verdict(CertifyRules(max_learnability=limit), found))
        if speak:
            note(f"gate: {verdicts[0].reason}")
    abstained = [point.certified_learnability is None for point in found.curve]
    inconclusive = any(abstained) if asked else all(abstained)
    return exit_code(verdicts) or (INCONCLUSIVE if inconclusive else PASS)


def _announce(settings: CertificateSettings, *, automatic: bool) -> None:
    """Before any work: what these draws can reach."""
    from pueprotect.certify.certificate import plan
    from pueprotect.certify.pipeline import SIGMA_KEEPS

    if automatic:
        note(
            f"sigma {settings.sigma:g}: the largest at which the clean baseline keeps {SIGMA_KEEPS:.0%} of its "
            "accuracy above chance."
        )
    reach = settings.max_eta
    note(
        f"{settings.draws} draws at sigma {settings.sigma:g}, q {settings.q:g}, alpha {settings.alpha_each:g} reach "
        + (f"eta {reach:.4g} at most." if reach is not None else "no radius: every bound will abstain.")
    )
    for point in plan(settings):
        if point.rank is None:
            note(f"eta {point.eta:g} needs {point.draws_needed} draws: it will abstain.")


def _show(report: CertificateReport) -> None:
    from pueprotect.certify.flags import CERTIFICATE_FLAGS

    found, settings, baseline = report.certificate, report.settings, report.baseline
    rows = table("eta", "protected", "population", *(["clean baseline"] if baseline else []), "chance")
    for number, point in enumerate(found.curve):
        bound = point.certified_learnability
        rows.add_row(
            f"{point.eta:g}",
            percent(bound) if bound is not None else f"abstains: {point.draws_needed} draws",
            percent(point.population),
            *([percent(baseline.curve[number].certified_learnability)] if baseline else []),
            percent(report.chance),
        )
    out.print("[bold]Certified learnability[/bold] (upper bound on clean accuracy)")
    out.print(rows)
    out.print()
    out.print(_surrogates(report))
    level = f"{1 - settings.alpha_each:.2%} confidence for each radius"
    level = f"{1 - settings.alpha:.0%} confidence for all radii together" if settings.joint else level
    out.print(
        f"\nWith {level}: around any weights within eta of the {found.recipe} surrogate, at least {settings.q:.0%} of "
        f"the classifiers drawn with sigma {settings.sigma:g} have at most this accuracy on these "
        f"{report.holdout_images} clean images (population: on the distribution they came from). "
        f"{settings.draws} draws. It is a quantile over random draws near this surrogate, not a maximum over "
        "attackers: the audit speaks of those. BatchNorm statistics are re-estimated for every draw and lie outside "
        f"the ball.\n[dim]{report.data_digest}[/dim]"
    )
    if report.stress is not None:
        worst = max(report.stress.above.values())
        out.print(
            f"Cross-check: of {report.stress.draws} draws around each of {len(report.stress.above)} centres at eta "
            f"{report.stress.eta:g} at most {worst} lie above the bound; more than {report.stress.limit} would "
            "contradict it."
        )
    for flag in report.flags:
        warn(flag, str(CERTIFICATE_FLAGS[flag]))


def _surrogates(report: CertificateReport) -> Table:
    rows = table("surrogate", "own accuracy", "noisy median", "noisy max", "draws")
    for seen in report.screenings:
        if seen.recipe != report.certificate.recipe:
            rows.add_row(f"{seen.recipe} (screened)", *_figures(seen))
    for name, found in (("", report.certificate), ("clean baseline, ", report.baseline)):
        if found is not None:
            rows.add_row(f"{name}{found.recipe}", *_figures(found))
    return rows


def _figures(found: Certificate) -> tuple[str, ...]:
    shares = (found.surrogate_clean_accuracy, found.noisy_median, found.noisy_max)
    return (*map(percent, shares), str(found.draws))
