"""Builds the result, the record and the warnings of `protect`."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from pueprotect.images.jpeg_quality import LEAST_GAIN
from pueprotect.learning.device import Device, environment
from pueprotect.protect.job import Job
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
    folder, settings = job.folder, job.settings
    found = [exposed(Path(result.vault))]
    if folder.ignored:
        found.append(f"{len(folder.ignored)} files are not images and are not released, such as {folder.ignored[0]}.")
    if folder.unsupported:
        path, reason = folder.unsupported[0]
        found.append(f"Pictures left out: {len(folder.unsupported)}, such as {path}: {reason}")
    for how, paths in sorted(job.converted.items()):
        what = f"Images in {how} mode that become {'RGB(A)' if how == 'palette' else 'RGB'}"
        if how == "HEIC":
            what = f"HEIC images that are released as {'PNG' if job.options.file_format == 'png' else 'JPEG'}"
        found.append(f"{what}: {len(paths)}, such as {paths[0]}.")
    if job.twins:
        pictures = "1 picture is" if len(job.twins) == 1 else f"{len(job.twins)} pictures are"
        found.append(
            f"{pictures} in two classes, such as {' and '.join(job.twins[0])}. Each copy gets different noise, and "
            "comparing them helps to remove it. Keep one."
        )
    found += find(settings.method).advice(settings)
    found += _of_jpeg(result.jpeg or {}, settings.epsilon, job.options.max_linf)
    return Report(released, result, job.explained, tuple(filter(None, found)))


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
