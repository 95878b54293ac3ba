"""Defines the command `pueprotect protect`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from pueprotect.cli.arguments import AsJson, Device
from pueprotect.cli.console import complain, escape, hint, note, out, percent, print_json, printable, table
from pueprotect.cli.parsing import fraction
from pueprotect.cli.progress import at_work
from pueprotect.errors import LISTED, ExitCode, InputError, UnusableImages

if TYPE_CHECKING:
    from pueprotect.protect.report import Report

SHOWN = 3
LISTED_CLASSES = 10


def _methods(incomplete: str) -> list[str]:
    from pueprotect.protect.methods.base import method_names

    return [name for name in method_names() if name.startswith(incomplete)]


def protect(
    src: Annotated[Path, typer.Argument(help="Folder with one sub-folder of images for each class.")],
    out_dir: Annotated[Path, typer.Option("--out", help="The released folder to make.")],
    vault: Annotated[
        Path | None, typer.Option(help="Private folder of this release.", show_default="OUT.vault")
    ] = None,
    method: Annotated[
        str,
        typer.Option(
            help="pue: noise optimised under Gaussian weight noise; emn: without; hardened: textures along each "
            "image; lsp and ops: methods of others, for comparison.",
            autocompletion=_methods,
        ),
    ] = "pue",
    mode: Annotated[
        Literal["class-wise", "sample-wise"],
        typer.Option(help="One noise pattern for each class, or for each image (hardened, lsp and ops always)."),
    ] = "class-wise",
    epsilon: Annotated[str, typer.Option(help="L-infinity budget on [0, 1], a fraction or a decimal.")] = "8/255",
    preset: Annotated[
        Literal["quick", "standard", "strong"], typer.Option(help="Effort: rounds, draws and self-check.")
    ] = "standard",
    surrogate: Annotated[str, typer.Option(help="Network that the noise is optimised with, or auto.")] = "auto",
    size: Annotated[str, typer.Option(help="Working size in pixels, or auto.")] = "auto",
    sigma: Annotated[float, typer.Option(help="Standard deviation of the train-time weight noise (pue).")] = 0.05,
    rounds: Annotated[int | None, typer.Option(help="Passes over the images.", show_default="by preset")] = None,
    seed: Annotated[int, typer.Option(help="Seed of the holdout and of the self-check; the noise is by --key.")] = 0,
    key: Annotated[
        str | None,
        typer.Option(
            envvar="PUEPROTECT_KEY",
            help="Secret key of the noise to repeat a release: 32 hex digits, or @FILE that holds them.",
            show_default="random",
        ),
    ] = None,
    visibility: Annotated[
        Literal["subtle", "standard", "strong"], typer.Option(help="How much textures show in flat areas (hardened).")
    ] = "standard",
    holdout: Annotated[float, typer.Option(help="Share of each class kept out of training, to measure with.")] = 0.2,
    labels: Annotated[
        Path | None, typer.Option(help="CSV with the columns path,label instead of class folders.")
    ] = None,
    label_depth: Annotated[
        int, typer.Option(help="Which folder of an image's path names its class: 1 is the first.")
    ] = 1,
    follow_symlinks: Annotated[
        bool, typer.Option("--follow-symlinks", help="Follow linked folders and files that lead into one other folder.")
    ] = False,
    file_format: Annotated[
        Literal["keep", "png"], typer.Option("--format", help="Keep each file's format, or write PNG.")
    ] = "keep",
    metadata: Annotated[
        Literal["minimal", "keep"],
        typer.Option(help="minimal: colours and resolution only; keep: EXIF and XMP text, no GPS."),
    ] = "minimal",
    max_linf: Annotated[
        int | None,
        typer.Option(
            "--max-linf",
            help="Refuse files whose largest change is above so many levels of 255; JPEG is fitted to it.",
            show_default="fit to --epsilon, refuse none",
        ),
    ] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace an existing OUT and its vault.")] = False,
    skip_unsupported: Annotated[
        bool,
        typer.Option("--skip-unsupported", help="Leave out pictures that cannot be released, and empty classes."),
    ] = False,
    resume: Annotated[bool, typer.Option("--resume", help="Go on after an interruption.")] = False,
    release_anyway: Annotated[
        bool, typer.Option("--release-anyway", help="Release even when the self-check fails or cannot tell.")
    ] = False,
    device: Device = "auto",
    workers: Annotated[int, typer.Option(help="Threads that decode and encode; 0 chooses.")] = 0,
    as_json: AsJson = False,
) -> int:
    """Make a protected copy of a folder of labelled images.

    Exit codes: 0 released; 2 unusable input; 3 the self-check found the noise too weak and nothing was released;
    130 interrupted.
    """
    if size != "auto" and not size.isdecimal():
        raise InputError(f"--size {size!r} is not a number of pixels; give one, or auto.")
    levels = _levels(epsilon)
    with at_work(device) as machine:
        from pueprotect.protect.key import read_key
        from pueprotect.protect.noise import assist
        from pueprotect.protect.options import Options
        from pueprotect.protect.pipeline import protect_folder

        options = Options(
            method=method, mode=mode, epsilon=levels, preset=preset, surrogate=surrogate,
            size=None if size == "auto" else int(size), sigma=sigma, rounds=rounds, seed=seed,
            key=None if key is None else read_key(key), visibility=visibility, holdout=holdout, labels=labels,
            label_depth=label_depth, follow_symlinks=follow_symlinks, skip_unsupported=skip_unsupported,
            file_format=file_format, metadata=metadata, max_linf=max_linf, overwrite=overwrite, resume=resume,
            release_anyway=release_anyway, workers=workers,
        )  # fmt: skip
        if not machine.group.leads:
            assist(method, machine)
            return ExitCode.PASS
        try:
            report = protect_folder(src, out_dir, vault=vault, options=options, machine=machine)
        except UnusableImages as error:
            for _, reason in error.files[LISTED:]:
                note(reason)
            raise
    for warning in report.warnings:
        note(f"note: {warning}")
    for skipped in report.result.skipped[1:]:
        note(f"left out: {skipped.reason}")
    if as_json:
        print_json(report.result.as_json())
    else:
        _show(report)
    return _outcome(report, out_dir, vault)


def _outcome(report: Report, out_dir: Path, vault: Path | None) -> ExitCode:
    """Write the outcome of the self-check and the next command, and return the exit code."""
    check = report.result.self_check
    weak = f"The self-check learnt {check.accuracy:.1%} on the clean holdout (limit {check.limit:.1%})"
    if not report.released:
        complain(
            f"{weak}, so nothing was released; the noise is kept in {report.result.vault}. Use --preset strong or a "
            "larger --epsilon, or release it with --resume --release-anyway."
        )
        return ExitCode.INCONCLUSIVE
    if not check.passed:
        note(f"note: {weak}; released because of --release-anyway.")
    hint("certify", out_dir, "--baseline", vault=vault)
    return ExitCode.PASS


def _levels(epsilon: str) -> int:
    """The budget in whole levels of 0..255, rounded down."""
    from pueprotect.protect.methods.base import LARGEST_BUDGET

    budget = fraction(epsilon, "--epsilon")
    if not 1 / 255 - 1e-9 <= budget <= LARGEST_BUDGET / 255 + 1e-9:
        raise InputError(
            f"--epsilon {epsilon} is outside 1/255 .. {LARGEST_BUDGET}/255. It is a share of the 8-bit range (8 levels "
            "are 8/255), and more than half of that hides the picture."
        )
    return int(budget * 255 + 1e-6)


def _classes(counts: dict[str, int]) -> str:
    """Each class with its number of images or, if there are many, the first names and the extremes."""
    if len(counts) <= LISTED_CLASSES:
        return ", ".join(f"{name} {count}" for name, count in counts.items())
    smallest, largest = (pick(counts, key=counts.__getitem__) for pick in (min, max))
    first = ", ".join(list(counts)[:LISTED])
    return f"{first} ...; {counts[smallest]} ({smallest}) to {counts[largest]} ({largest}) images each"


def _show(report: Report) -> None:
    result, check = report.result, report.result.self_check
    rows = table("what", "value", left=(0, 1))
    for name, reason in report.explained.items():
        rows.add_row(name, escape(reason))
    rows.add_row("images", f"{result.images} in {result.classes} classes, {result.holdout_images} held out")
    rows.add_row("classes", escape(printable(_classes(result.class_counts))))
    made = f"{result.rounds} rounds" if result.rounds else "in closed form"
    rows.add_row("noise", f"{result.method.upper()}, {result.mode}, {made}")
    if realised := result.realised:
        rows.add_row(
            "as read back",
            f"L-inf {realised.linf_max} of 255 (budget {round(result.epsilon * 255)}), "
            f"PSNR {realised.psnr_mean:.1f} dB, SSIM {realised.ssim_mean:.3f}",
        )
        for number, worst in enumerate(result.worst[:SHOWN]):
            similar = "" if worst.ssim is None else f", SSIM {worst.ssim:.3f}"
            figures = f"(L-inf {worst.linf}, PSNR {worst.psnr:.1f} dB{similar})"
            rows.add_row("" if number else "most changed", escape(f"{printable(worst.path)} {figures}"))
        quality = ""
        if jpeg := result.jpeg:
            top = jpeg.get("quality_max", jpeg["quality"])
            quality = f", JPEG quality {jpeg['quality']}{f' to {top}' if top > jpeg['quality'] else ''}"
            if "kept" in jpeg:
                rows.add_row("noise left by JPEG", f"{jpeg['kept']:.1%}, {jpeg['kept_min']:.1%} in the weakest file")
        rows.add_row("file sizes", f"{result.file_growth:.2f} x the originals{quality}")
    rows.add_row(
        "self-check",
        f"{check.arch} learns {percent(check.accuracy)} of the clean holdout from the released files, "
        f"{percent(check.clean_accuracy)} from the originals (chance {percent(check.chance)}, limit "
        f"{percent(check.limit)})",
    )
    rows.add_row("seconds", ", ".join(f"{name} {value:g}" for name, value in result.seconds.items()))
    rows.add_row("vault", escape(f"{result.vault} (private: keep it, do not publish it)"))
    out.print(rows)
