"""From a folder of photographs to a protected folder and its vault.

`places` refuses before anything is read and `publish` writes at the end. In between everything new lies in the
vault's `draft` folder, so that an earlier release and its vault stay whole, and an interrupted run can go on.
"""

from __future__ import annotations

import shutil
import time
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from pueprotect import images as image_files
from pueprotect import protect
from pueprotect.encode import FileFormat, Metadata, released_names
from pueprotect.errors import InputError, VaultError
from pueprotect.evidence import SURROGATE, Reader
from pueprotect.images import ImageFolder
from pueprotect.models import architecture, choose_surrogate, parameter_count, state_of
from pueprotect.places import check_places, refuse_released
from pueprotect.publish import Noise, Writer, partial_folder, publish, realised
from pueprotect.runtime import SILENT, Device, Progress, environment
from pueprotect.training import ImageSet, Recipe, accuracy
from pueprotect.vault import (
    DELTA,
    DRAFT,
    SCHEMA_VERSION,
    Vault,
    data_digest,
    default_vault,
    digest_files,
)

PLAN = f"{DRAFT}/plan.json"


@dataclass(frozen=True)
class Preset:
    """One dial for the effort; passes are those over `FULL_SIZE` training images or more.

    Attributes:
        rounds: passes of the optimisation.
        draws: weight draws averaged within one step.
        check_epochs: passes of the self-check.
        extra_rounds: further passes when the self-check learnt too much.
    """

    rounds: int
    draws: int
    check_epochs: int
    extra_rounds: int

    def for_images(self, images: int) -> Preset:
        """The same number of steps for a smaller set, within `MOST_REPEATS` times the passes."""
        repeats = min(MOST_REPEATS, max(1.0, FULL_SIZE / images))
        rounds, checks, extra = (round(repeats * n) for n in (self.rounds, self.check_epochs, self.extra_rounds))
        return Preset(rounds=rounds, draws=self.draws, check_epochs=checks, extra_rounds=extra)


FULL_SIZE = 4000
MOST_REPEATS = 10.0
PRESETS = {
    "quick": Preset(rounds=4, draws=1, check_epochs=3, extra_rounds=4),
    "standard": Preset(rounds=6, draws=1, check_epochs=5, extra_rounds=4),
    "strong": Preset(rounds=12, draws=2, check_epochs=10, extra_rounds=8),
}


@dataclass(frozen=True, kw_only=True)
class Options:
    """What the user asked for; `None` and `auto` are resolved by `protect_folder` and recorded.

    Attributes:
        method: see `protect.Settings`, likewise `mode`, `epsilon` (levels of 0..255), `sigma` and `seed`.
        mode: one pattern for each class or for each image.
        epsilon: L-infinity budget in levels of 0..255.
        preset: a key of `PRESETS`.
        surrogate: architecture or `auto`.
        size: working size in pixels; None chooses.
        sigma: standard deviation of the weight noise.
        rounds: passes of the optimisation; None takes the preset's.
        seed: everything random is a function of it.
        holdout: share of each class kept out of training, in (0, 1).
        labels: CSV with the columns path,label instead of class folders.
        file_format: keep each container, or write PNG.
        metadata: what is kept beside the pixels.
        overwrite: replace an earlier release and its vault.
        resume: take finished noise from the vault's draft.
        release_anyway: release even when the self-check fails.
        workers: threads that decode and encode; 0 chooses.

    Raises:
        InputError: a value is out of range.
    """

    method: protect.Method = "pue"
    mode: protect.Mode = "class-wise"
    epsilon: int = 8
    preset: str = "standard"
    surrogate: str = "auto"
    size: int | None = None
    sigma: float = 0.05
    rounds: int | None = None
    seed: int = 0
    holdout: float = 0.2
    labels: Path | None = None
    file_format: FileFormat = "keep"
    metadata: Metadata = "minimal"
    overwrite: bool = False
    resume: bool = False
    release_anyway: bool = False
    workers: int = 0

    def __post_init__(self) -> None:
        if self.preset not in PRESETS:
            raise InputError(f"--preset {self.preset!r} is not one of {', '.join(PRESETS)}.")
        if self.size is not None and not 16 <= self.size <= 512:
            raise InputError(f"--size {self.size} is outside 16 .. 512 pixels.")
        if not 0 < self.holdout < 1:
            raise InputError(f"--holdout {self.holdout:g} is not inside (0, 1): it is the share kept to measure with.")
        if self.workers < 0:
            raise InputError(f"--workers {self.workers} is below 0; 0 chooses.")

    def settings(self, surrogate: str, images: int) -> protect.Settings:
        """What the optimisation needs, with the preset for this many training images filled in."""
        preset = PRESETS[self.preset].for_images(images)
        return protect.Settings(
            method=self.method,
            mode=self.mode,
            epsilon=self.epsilon,
            sigma=self.sigma,
            rounds=preset.rounds if self.rounds is None else self.rounds,
            draws=preset.draws,
            surrogate=surrogate,
            seed=self.seed,
        )


@dataclass(frozen=True)
class Report:
    """The result of `protect_folder`.

    Attributes:
        released: false when the self-check failed and nothing was released.
        result: the JSON object of the contract.
        explained: what `auto` chose, and why.
        worst_files: path, L-infinity in levels and PSNR of the most changed files.
        warnings: what the user should know.
    """

    released: bool
    result: dict[str, Any]
    explained: dict[str, str]
    worst_files: tuple[tuple[str, int, float], ...] = ()
    warnings: tuple[str, ...] = ()


@dataclass
class _Timer:
    """Wall seconds of the named parts."""

    parts: dict[str, float] = field(default_factory=dict)
    began: float = field(default_factory=time.perf_counter)
    last: float = field(default_factory=time.perf_counter)

    def lap(self, name: str) -> None:
        now = time.perf_counter()
        self.parts[name] = self.parts.get(name, 0.0) + now - self.last
        self.last = now

    def rounded(self) -> dict[str, float]:
        parts = {name: self.parts.get(name, 0.0) for name in ("read", "optimise", "write")}
        parts["total"] = time.perf_counter() - self.began
        return {name: round(value, 2) for name, value in parts.items()}


@dataclass(frozen=True)
class _Job:
    """A folder as it was read, and everything that was decided about it."""

    options: Options
    settings: protect.Settings
    folder: ImageFolder
    names: list[str]
    held: npt.NDArray[np.bool_]
    sources: dict[str, str]
    images: ImageSet
    explained: dict[str, str]

    @property
    def preset(self) -> Preset:
        return PRESETS[self.options.preset].for_images(int((~self.held).sum()))

    def plan(self) -> dict[str, Any]:
        """All that the noise depends on: a draft with the same plan holds the same noise."""
        classes = {entry.path: self.folder.classes[entry.label] for entry in self.folder.entries}
        return {
            "settings": asdict(self.settings),
            "preset": self.options.preset,
            "size": self.images.size,
            "holdout": self.options.holdout,
            "device": self.images.device,
            "sources": data_digest(self.sources),
            "labels": data_digest(classes),
        }

    def writer(self, noise: Noise) -> Writer:
        """What writes the protected files, given the noise."""
        return Writer(
            folder=self.folder,
            names=self.names,
            held=self.held,
            sources=self.sources,
            noise=noise,
            mode=self.settings.mode,
            epsilon=self.settings.epsilon,
            seed=self.settings.seed,
            file_format=self.options.file_format,
            metadata=self.options.metadata,
            workers=self.options.workers,
        )

    def described(self, facts: dict[str, Any], vault: Path) -> dict[str, Any]:
        """The part of the result that is known before anything is written."""
        return {
            "schema_version": SCHEMA_VERSION,
            "images": len(self.folder.entries),
            "classes": len(self.folder.classes),
            "train_images": int((~self.held).sum()),
            "holdout_images": int(self.held.sum()),
            "method": self.settings.method,
            "mode": self.settings.mode,
            "epsilon": self.settings.epsilon / 255,
            "rounds": facts["rounds"],
            "realised": None,
            "surrogate": facts["surrogate"],
            "self_check": facts["self_check"],
            "seconds": None,
            "vault": str(vault),
            "data_digest": None,
        }


def protect_folder(
    src: Path,
    out: Path,
    *,
    vault: Path | None = None,
    options: Options,
    device: Device,
    progress: Progress = SILENT,
) -> Report:
    """Protect a folder of labelled images.

    Args:
        src: the originals.
        out: the released folder; must not exist or be empty unless `options.overwrite`.
        vault: private folder of the release; None takes `OUT.vault`.
        options: what to do.
        device: from `runtime.choose_device`.
        progress: told of each part.

    Returns:
        The report; `released` is false when the self-check failed, and then only the vault's draft was written.

    Raises:
        InputError: folders or options that cannot be used; nothing was written.
        ImageError: images that cannot be read; all are checked before the work starts.
    """
    place = vault or default_vault(out)
    check_places(src, out, place, overwrite=options.overwrite, resume=options.resume, workers=options.workers)
    timer = _Timer()
    job = _read(src, options, device, progress)
    refuse_released(src, job.sources, (place, default_vault(src), *src.resolve().parent.glob("*.vault")))
    timer.lap("read")
    store = Vault.create(place)
    place.chmod(0o700)
    noise, facts = _noise(store, job, progress)
    timer.lap("optimise")
    result = job.described(facts, place)
    if not facts["self_check"]["passed"] and not options.release_anyway:
        return Report(False, result | {"seconds": timer.rounded()}, job.explained)
    with partial_folder(out.resolve()) as partial:
        rows, growth = job.writer(noise).write(partial, progress)
        timer.lap("write")
        result |= {
            "realised": realised(rows),
            "file_growth": growth,
            "seconds": timer.rounded(),
            "data_digest": data_digest({row.path: row.released_sha256 for row in rows}),
        }
        publish(store, partial, out.resolve(), rows, _record(job, result, src, device))
    worst = sorted((row for row in rows if row.psnr is not None), key=lambda row: row.psnr or 0.0)[:5]
    files = tuple((row.path, row.linf or 0, row.psnr or 0.0) for row in worst)
    return Report(True, result, job.explained, files, _warnings(job, result))


def _read(src: Path, options: Options, device: Device, progress: Progress) -> _Job:
    """Everything that can be refused is refused here."""
    folder = image_files.scan(src, options.labels)
    names = released_names(folder, options.file_format)
    held = image_files.stratified_holdout(folder.labels, options.holdout, options.seed, folder.classes)
    surrogate, why_surrogate = choose_surrogate(options.surrogate, device)
    settings = options.settings(surrogate, int((~held).sum()))
    if options.size is None:
        size, why_size = image_files.working_size(folder)
    else:
        size, why_size = options.size, f"size {options.size}: as asked"
    architecture(surrogate, size)
    reader = Reader(device.name, options.workers, progress)
    return _Job(
        options=options,
        settings=settings,
        folder=folder,
        names=names,
        held=held,
        images=reader.read(folder, size, "read originals"),
        sources=digest_files(src, [entry.path for entry in folder.entries], options.workers),
        explained={"device": device.reason, "size": why_size, "surrogate": f"{surrogate}: {why_surrogate}"},
    )


def _noise(store: Vault, job: _Job, progress: Progress) -> tuple[Noise, dict[str, Any]]:
    """Noise rows for every image's class or index; from the draft when `resume` finds the same plan there."""
    plan = job.plan()
    if job.options.resume:
        try:
            found = store.read_json(PLAN)
            if found.get("plan") == plan:
                return store.read_tensors(f"{DRAFT}/{DELTA}")["delta"], found["facts"]
        except VaultError:
            pass
    shutil.rmtree(store.path / DRAFT, ignore_errors=True)
    mask = torch.from_numpy(job.held).to(job.images.images.device)
    holdout = job.images.subset(mask)
    optimizer = protect.Optimizer(job.images.subset(~mask), job.settings)
    checks = _optimise(optimizer, holdout, job.preset, progress)
    noise = optimizer.levels()
    if job.settings.mode == "sample-wise":
        whole = torch.empty((len(job.images), *noise.shape[1:]), dtype=torch.int8, device=noise.device)
        whole[~mask], whole[mask] = noise, optimizer.noise_for(holdout)
        noise = whole
    facts = _facts(optimizer, checks)
    array: Noise = noise.cpu().numpy()
    state = {name: value.numpy() for name, value in state_of(optimizer.surrogate).items()}
    store.write_tensors(f"{DRAFT}/{DELTA}", {"delta": array})
    store.write_tensors(f"{DRAFT}/{SURROGATE}", state)
    store.write_json(PLAN, {"schema_version": SCHEMA_VERSION, "plan": plan, "facts": facts})
    return array, facts


def _optimise(
    optimizer: protect.Optimizer, holdout: ImageSet, preset: Preset, progress: Progress
) -> list[protect.SelfCheck]:
    """Optimise and look; when a fresh network learns too much, go on from what it learnt and look again."""
    rounds = optimizer.settings.rounds
    progress.start("optimise noise", rounds)
    optimizer.run(rounds, progress=progress)
    progress.finish()
    checks = [_check(optimizer, holdout, preset, progress)]
    if not checks[0].passed:
        progress.start("optimise further", preset.extra_rounds)
        optimizer.run(preset.extra_rounds, teacher=checks[0].model, progress=progress)
        progress.finish()
        checks.append(_check(optimizer, holdout, preset, progress))
    return checks


def _check(optimizer: protect.Optimizer, holdout: ImageSet, preset: Preset, progress: Progress) -> protect.SelfCheck:
    protected = optimizer.protected()
    progress.start("self-check", Recipe(epochs=preset.check_epochs).steps(len(protected)))
    check = protect.self_check(
        protected,
        holdout,
        optimizer.settings.surrogate,
        epochs=preset.check_epochs,
        seed=optimizer.settings.seed + optimizer.rounds,
        progress=progress,
    )
    progress.finish(f"{check.accuracy:.1%} on the clean holdout, limit {check.limit:.1%}")
    return check


def _facts(optimizer: protect.Optimizer, checks: list[protect.SelfCheck]) -> dict[str, Any]:
    last = checks[-1]
    return {
        "rounds": optimizer.rounds,
        "surrogate": {
            "name": optimizer.settings.surrogate,
            "size": optimizer.data.size,
            "parameters": parameter_count(optimizer.surrogate),
            "train_accuracy_protected": accuracy(optimizer.surrogate, optimizer.protected()),
        },
        "self_check": {
            "arch": last.arch,
            "epochs": last.epochs,
            "accuracy": last.accuracy,
            "chance": last.chance,
            "limit": last.limit,
            "passed": last.passed,
            "attempts": [check.accuracy for check in checks],
        },
    }


def _record(job: _Job, result: dict[str, Any], src: Path, device: Device) -> dict[str, Any]:
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
    }


def _warnings(job: _Job, result: dict[str, Any]) -> tuple[str, ...]:
    found = []
    if ignored := job.folder.ignored:
        found.append(f"{len(ignored)} files are not images and are not released, such as {ignored[0]}.")
    linf = result["realised"]["linf_max"]
    if linf > job.settings.epsilon:
        found.append(
            f"JPEG's own rounding adds to the noise: up to {linf} levels instead of {job.settings.epsilon}; "
            "--format png keeps to the budget."
        )
    return tuple(found)
