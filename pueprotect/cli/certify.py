"""Defines the command `pueprotect certify`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Literal

import typer

from pueprotect.cli.arguments import AsJson, Device, Released, Seed, TestImages, VaultPath
from pueprotect.cli.console import hint, note, out, percent, print_json, table, warn
from pueprotect.cli.parsing import gate, numbers
from pueprotect.cli.progress import at_work
from pueprotect.errors import ExitCode, InputError

if TYPE_CHECKING:
    from rich.table import Table

    from pueprotect.certify.certificate import CertificateSettings
    from pueprotect.release.certificates import Certificate, RecipeFigures


def certify(
    folder: Released,
    vault: VaultPath = None,
    test: TestImages = None,
    q: Annotated[float, typer.Option(help="Share of classifiers that the bound covers.")] = 0.9,
    sigma: Annotated[
        str | None,
        typer.Option(
            help="Standard deviation of the weight noise; auto: the largest that informs.", show_default="0.05"
        ),
    ] = None,
    relative_sigma: Annotated[
        str | None,
        typer.Option(
            help="Instead of --sigma: in root mean squares of each weight tensor, as is then --eta; auto likewise.",
            show_default=False,
        ),
    ] = None,
    eta: Annotated[str | None, typer.Option(help="L2 radii, comma-separated.", show_default="0.2 .. 1.2 sigma")] = None,
    draws: Annotated[int, typer.Option(help="Classifiers drawn around each surrogate.")] = 1000,
    alpha: Annotated[
        float, typer.Option(help="Failure probability, shared by all certifications of these files.")
    ] = 0.01,
    joint: Annotated[bool, typer.Option("--joint", help="All radii together hold at alpha, not each alone.")] = False,
    recipe: Annotated[
        str,
        typer.Option(
            "--surrogate-recipe",
            help="online, plain, weight-noise, weight-noise-early, weight-noise-tuned, pst, or worst: the most "
            "learnable of all but pst.",
        ),
    ] = "worst",
    baseline: Annotated[
        bool, typer.Option("--baseline", help="Also bound the clean originals, to compare with.")
    ] = False,
    max_learnability: Annotated[
        float | None, typer.Option(help="Gate: fail when the bound at the largest eta is above.")
    ] = None,
    epochs: Annotated[
        float | None, typer.Option(help="Passes of each surrogate's training.", show_default="by size")
    ] = None,
    stress: Annotated[
        bool, typer.Option("--stress", help="Cross-check the bound: draw around centres on the sphere of radius eta.")
    ] = False,
    precision: Annotated[
        Literal["auto", "fp32", "bf16"],
        typer.Option(help="What the certified classifier computes in.", show_default="bf16 where the hardware has it"),
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
    etas = None if eta is None else numbers(eta, "--eta")
    relative = relative_sigma is not None
    wanted = _checked_sigma(sigma, relative_sigma, q=q, alpha=alpha, draws=draws, etas=etas or (0.0,))
    if epochs is not None and not 0 < epochs <= 10_000:
        raise InputError(f"--epochs {epochs:g} is outside (0, 10000].")
    with at_work(device) as machine:
        from pueprotect.certify.certificate import CertificateSettings, precision_on, usual_radii
        from pueprotect.certify.pipeline import Certification, certify_release, informative_sigma
        from pueprotect.certify.surrogates import choose_recipes
        from pueprotect.release.opened import open_release

        choose_recipes(recipe, own=True)  # an unknown name is refused before anything is read
        release = open_release(folder, vault=vault, test=test, machine=machine)
        certification = Certification(release, seed, epochs, resume)
        recipes = choose_recipes(recipe, release.own)
        used = informative_sigma(certification, relative=relative) if wanted is None else wanted
        settings = CertificateSettings(
            q=q, sigma=used, relative=relative, etas=etas or usual_radii(used), draws=draws, alpha=alpha, joint=joint,
            seed=seed, precision=precision_on(machine.device.name) if precision == "auto" else precision,
        )  # fmt: skip
        settings, _ = certification.look(settings, recipes)
        if machine.group.leads:
            _announce(settings, automatic=wanted is None)
        found = certify_release(certification, settings, recipes, baseline=baseline, stress=stress)
    if machine.group.leads:
        if as_json:
            print_json(found.as_json())
        else:
            _show(found)
            hint("audit", folder, vault=vault, test=test)
    return _outcome(found, max_learnability, asked=eta is not None, speak=machine.group.leads)


def _checked_sigma(
    absolute: str | None, relative: str | None, *, q: float, alpha: float, draws: int, etas: tuple[float, ...]
) -> float | None:
    """The value of --sigma or --relative-sigma, None for auto, after a check of all figures of the bound."""
    from pueprotect.certify import bounds

    if absolute is not None and relative is not None:
        raise InputError("--sigma and --relative-sigma exclude each other; give one of them.")
    option, text = ("--sigma", absolute or "0.05") if relative is None else ("--relative-sigma", relative)
    try:
        sigma = None if text == "auto" else float(text)
    except ValueError as error:
        raise InputError(f"{option} {text!r} is not a number; give one such as 0.05, or auto.") from error
    for eta in etas:
        bounds.check(q=q, sigma=1.0 if sigma is None else sigma, alpha=alpha, draws=draws, eta=eta)
    return sigma


def _outcome(found: Certificate, limit: float | None, *, asked: bool, speak: bool) -> ExitCode:
    """The exit code: every radius of --eta must be certified, but only one of the default radii."""
    from pueprotect.check.policy import CertifyRules
    from pueprotect.check.verdicts import certificate_verdict, exit_code

    verdicts = []
    if limit is not None:
        verdicts.append(certificate_verdict(CertifyRules(max_learnability=limit), found))
        if speak:
            note(f"gate: {verdicts[0].reason}")
    abstained = [point.certified_learnability is None for point in found.curve]
    inconclusive = any(abstained) if asked else all(abstained)
    return exit_code(verdicts) or (ExitCode.INCONCLUSIVE if inconclusive else ExitCode.PASS)


def _announce(settings: CertificateSettings, *, automatic: bool) -> None:
    """Write which radii these draws can reach, before any work."""
    from pueprotect.certify.certificate import plan
    from pueprotect.certify.pipeline import SIGMA_KEEPS

    kind = "relative sigma" if settings.relative else "sigma"
    if automatic:
        note(
            f"{kind} {settings.sigma:g}: the largest at which the clean baseline keeps {SIGMA_KEEPS:.0%} of its "
            "accuracy above chance."
        )
    if settings.look > 1:
        note(
            f"This is certification {settings.look} of these files: they share alpha {settings.alpha:g}, so this one "
            f"gets {settings.alpha_each:.3g}{' for each radius' if settings.joint else ''}."
        )
    reach = settings.max_eta
    note(
        f"{settings.draws} draws at {kind} {settings.sigma:g}, q {settings.q:g}, alpha {settings.alpha_each:.3g} reach "
        + (f"eta {reach:.4g} at most." if reach is not None else "no radius; every bound will abstain.")
    )
    for point in plan(settings):
        if point.rank is None:
            note(f"eta {point.eta:g} needs {point.draws_needed} draws now; its bound will abstain.")


def _show(found: Certificate) -> None:
    from pueprotect.certify.flags import FLAGS

    baseline = found.baseline
    rows = table("eta", "protected", "population", *(["clean baseline"] if baseline else []), "chance")
    for number, point in enumerate(found.curve):
        bound = point.certified_learnability
        rows.add_row(
            f"{point.eta:g}",
            percent(bound) if bound is not None else f"abstains: next time {point.draws_needed} draws",
            percent(point.population),
            *([percent(baseline.curve[number].certified_learnability)] if baseline else []),
            percent(found.chance),
        )
    out.print("[bold]Certified learnability[/bold] (upper bound on clean accuracy)")
    out.print(rows)
    out.print()
    out.print(_surrogates(found))
    out.print(f"\n{_meaning(found)}\n{_reach(found)}\n{_level(found)}\n[dim]{found.data_digest}[/dim]")
    if stress := found.stress:
        out.print(
            f"Cross-check: of {stress.draws} draws around each of {len(stress.above)} centres at eta {stress.eta:g}, "
            f"at most {max(stress.above.values())} are above the bound; more than {stress.limit} would contradict it."
        )
    for flag in found.flags:
        warn(flag, str(FLAGS[flag]))


def _meaning(found: Certificate) -> str:
    """What the bounds say, and what they do not."""
    if all(point.certified_learnability is None for point in found.curve):
        return f"Every bound abstains: {found.draws} draws are too few. Use more --draws, or a smaller --eta."
    level = f"{100 * (1 - found.alpha):.4g}% confidence for {'all radii together' if found.joint else 'each radius'}"
    unit = " Here eta and sigma are in root mean squares of each weight tensor." if found.relative else ""
    return (
        f"With {level}: around any weights within eta of the {found.recipe} surrogate, at least {found.q:.0%} of "
        f"the classifiers drawn with sigma {found.sigma:g} have at most this accuracy on these {found.holdout_images} "
        f"clean images (population: on their distribution). It is a quantile over {found.draws} random draws near "
        "this surrogate, not a maximum over attackers, which the audit measures. BatchNorm statistics are "
        f"re-estimated for every draw and are not part of the ball.{unit}"
    )


def _reach(found: Certificate) -> str:
    """How far the certificate speaks."""
    told = (
        f"How far it speaks: a typical draw lies {found.draw_distance:.3g} (L2) from the surrogate, whose "
        f"{found.parameters:,} weights have norm {found.weights_norm:.3g}."
    )
    if found.recovery_distance is not None:
        told += f" The recovery attack moved weights by {found.recovery_distance:.3g}."
    return told


def _level(found: Certificate) -> str:
    """How alpha was shared among the looks."""
    each = " for each radius" if found.joint else ""
    return (
        f"Certification {found.look} of {found.looks} of these files: its alpha is {found.alpha_each:.3g}{each}. All "
        f"together have spent {found.alpha_spent:.3g}."
    )


def _surrogates(found: Certificate) -> Table:
    rows = table("surrogate", "own accuracy", "noisy median", "noisy max", "draws")
    for seen in found.recipes.values():
        if seen.screened and seen.recipe != found.recipe:
            rows.add_row(f"{seen.recipe} (screened)", *_figures(seen))
    rows.add_row(found.recipe, *_figures(found))
    if found.baseline is not None:
        rows.add_row(f"clean baseline, {found.recipe}", *_figures(found.baseline))
    return rows


def _figures(found: RecipeFigures) -> tuple[str, ...]:
    noisy = found.noisy_accuracy
    return (*map(percent, (found.surrogate_clean_accuracy, noisy.median, noisy.max)), str(found.draws))
