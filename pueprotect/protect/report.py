"""Builds the result, the record and the warnings of `protect`."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from pueprotect.images.jpeg_quality import LEAST_GAIN
from pueprotect.learning.device import Device, environment
from pueprotect.protect.job import Job
from pueprotect.protect.key import guessable_keys
from pueprotect.protect.left_out import notes
from pueprotect.protect.methods.base import find
from pueprotect.protect.preflight import exposed
from pueprotect.release.records import Protect


@dataclass(frozen=True)
class Report:
    """The result of `protect_folder`.

    Attributes:
        released: false when the self-check failed and nothing was released.
        explained: what `auto` chose, and why.
        warnings: one sentence or two for each thing that the user should know.
    """

    released: bool
    result: Protect
    explained: dict[str, str]
    warnings: tuple[str, ...] = ()


def run_record(job: Job, result: Protect, device: Device) -> dict[str, Any]:
    """`run.json`: the result, and all that is needed to repeat it."""
    options = {name: str(value) if isinstance(value, Path) else value for name, value in asdict(job.options).items()}
    return result.as_json() | {
        "settings": options | asdict(job.settings) | {"size": job.images.size},
        "seed": job.settings.seed,
        "environment": environment(device),
        "classes": list(job.folder.classes),
        "split": {"holdout": job.options.holdout, "train": result.train_images, "held_out": result.holdout_images},
        "timings": result.seconds,
        "source": str(job.folder.root.resolve()),
        "size": job.images.size,
        "key": job.key(),
    }


def recorded_result(run: dict[str, Any]) -> Protect:
    """The result in `run.json` of an earlier run."""
    known = {name: run[name] for name in Protect.model_fields if name in run}
    return Protect.model_validate(known | {"classes": len(run["classes"])})


def report(job: Job, result: Protect, *, released: bool) -> Report:
    """The report of a run with its warnings."""
    settings = job.settings
    found = [exposed(Path(result.vault)), *notes(job.folder, job.lost, job.options.class_depth)]
    if settings.key in guessable_keys():
        found.append("This --key is one that attackers try. Leave it out to have a random one drawn.")
    for how, paths in sorted(job.converted.items()):
        what = f"Images in {how} mode that become {'RGB(A)' if how == 'palette' else 'RGB'}"
        if how == "HEIC":
            what = f"HEIC images that are released as {'PNG' if job.options.file_format == 'png' else 'JPEG'}"
        found.append(f"{what}: {len(paths)}, such as {paths[0]}.")
    found += _copies(job)
    found += find(settings.method).advice(settings)
    found += _of_jpeg(result.jpeg or {}, settings.epsilon, job.options.max_linf)
    return Report(released, result, job.explained, tuple(filter(None, found)))


def _copies(job: Job) -> list[str]:
    """Warnings about pictures that are in two classes, and about those that are in one class more than once."""
    across, within, copies = list[tuple[str, str]](), list[tuple[str, str]](), 0
    for same in job.twins:
        classes = dict[int, list[str]]()
        for entry in same:
            classes.setdefault(entry.label, []).append(entry.path)
        if len(classes) > 1:
            one, other, *_ = classes.values()
            across.append((one[0], other[0]))
        if again := [paths for paths in classes.values() if len(paths) > 1]:
            within.append((again[0][0], again[0][1]))
            copies += sum(len(paths) - 1 for paths in again)
    found = []
    if across:
        pictures = "1 picture is" if len(across) == 1 else f"{len(across)} pictures are"
        found.append(
            f"{pictures} in two classes, such as {' and '.join(across[0])}. Each copy gets different noise, and "
            "comparing them helps to remove it. Keep one."
        )
    if within:
        pictures = "1 picture is" if len(within) == 1 else f"{len(within)} pictures are"
        gets = "Each copy gets" if job.settings.mode == "sample-wise" else "With --mode sample-wise each copy would get"
        found.append(
            f"{pictures} more than once in a class ({copies} copies beside the first), such as "
            f"{' and '.join(within[0])}. {gets} different noise, and comparing them "
            "helps to remove it. Keep one."
        )
    return found


def _of_jpeg(measured: dict[str, int | float], epsilon: int, limit: int | None) -> list[str]:
    """What JPEG rounding did to the budget and to the noise, see `writer.rounding`."""
    found = []
    if beyond := measured.get("beyond"):
        found.append(
            f"JPEG rounding raises the largest change from {epsilon} to {measured['largest']} levels: "
            f"{measured['outside']:.1%} of the values in {beyond} of {measured['written']} JPEG files are outside. "
            "Use --format png to stay within --epsilon."
        )
    if (kept := measured.get("kept", 1)) < LEAST_GAIN:
        within = epsilon if limit is None else limit
        found.append(
            f"JPEG keeps {kept:.0%} of the noise within {within} levels, {measured['kept_min']:.0%} in one file. "
            f"Use --format png to keep all of it, or --max-linf {within + 2} to keep more."
        )
    return found
