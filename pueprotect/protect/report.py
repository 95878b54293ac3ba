"""What `protect` reports: result, record and warnings."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from pueprotect.learning.device import Device, environment
from pueprotect.protect.job import Job
from pueprotect.protect.methods import texture
from pueprotect.protect.preflight import exposed
from pueprotect.release.records import ManifestRow

# What `run.json` holds beyond the result.
PRIVATE = ("settings", "seed", "environment", "split", "timings", "source", "size", "key", "manifest_sha256")


@dataclass(frozen=True)
class Report:
    """The result of `protect_folder`.

    Attributes:
        released: false when the self-check failed and nothing was released.
        result: the JSON object of the contract.
        explained: what `auto` chose, and why.
        warnings: what the user should know.
    """

    released: bool
    result: dict[str, Any]
    explained: dict[str, str]
    warnings: tuple[str, ...] = ()


def run_record(job: Job, result: dict[str, Any], src: Path, device: Device) -> dict[str, Any]:
    """`run.json`: the result, and all that is needed to repeat it."""
    options = {name: str(value) if isinstance(value, Path) else value for name, value in asdict(job.options).items()}
    return result | {
        "settings": options | asdict(job.settings) | {"size": job.images.size},
        "seed": job.settings.seed,
        "environment": environment(device),
        "classes": list(job.folder.classes),
        "split": {
            "holdout": job.options.holdout,
            "train": result["train_images"],
            "held_out": result["holdout_images"],
        },
        "timings": result["seconds"],
        "source": str(src.resolve()),
        "size": job.images.size,
        "key": job.key(),
    }


def warnings_about(
    job: Job, result: dict[str, Any], vault: Path, rows: list[ManifestRow] | None = None
) -> tuple[str, ...]:
    """What the user should know about this release, one sentence each."""
    found = [exposed(vault)]
    if ignored := job.folder.ignored:
        found.append(f"{len(ignored)} files are not images and are not released, such as {ignored[0]}.")
    if skipped := job.folder.unsupported:
        found.append(f"Pictures left out: {len(skipped)}, such as {skipped[0][0]}: {skipped[0][1]}")
    for how, paths in sorted(job.converted.items()):
        what = f"Images in {how} mode that become RGB{'(A)' * (how == 'palette')}"
        if how == "HEIC":
            what = f"HEIC images that are released as {'PNG' if job.options.file_format == 'png' else 'JPEG'}"
        found.append(f"{what}: {len(paths)}, such as {paths[0]}.")
    if job.twins:
        one, other = job.twins[0]
        found.append(
            f"Pictures in two classes: {len(job.twins)}, such as {one} and {other}; each copy gets other noise, and "
            "the copies together help to remove it; keep one."
        )
    if job.options.method == "hardened" and (budget := job.settings.epsilon) < (advised := texture.ADVISED_LEVELS):
        found.append(
            f"At {budget}/255 some attackers get past the textures that do not at {advised}/255 "
            f"(--epsilon {advised}/255; it shows more)."
        )
    if rows is not None and (linf := result["realised"]["linf_max"]) > job.settings.epsilon:
        found.append(
            f"JPEG's own rounding adds to the noise: up to {linf} levels instead of {job.settings.epsilon}; "
            "--format png keeps to the budget."
        )
    return tuple(sentence for sentence in found if sentence)
