"""From a folder of photographs to a protected folder and its vault.

The released folder is built under a temporary sibling name and renamed last, after the vault is sealed: a folder
with the wanted name is complete. A file that could not be protected stops the release; it is never copied.
"""

from __future__ import annotations

import shutil
import time
import uuid
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch

from pueprotect import images as image_files
from pueprotect import protect
from pueprotect.errors import InputError, VaultError
from pueprotect.evidence import SURROGATE, image_set
from pueprotect.images import FileFormat, ImageFolder, Metadata
from pueprotect.models import choose_surrogate, parameter_count, state_of
from pueprotect.runtime import SILENT, Device, Progress, child_seed, environment
from pueprotect.training import ImageSet, Recipe, accuracy
from pueprotect.vault import SCHEMA_VERSION, ManifestRow, Vault, data_digest, default_vault, digest_files, sha256_of

DELTA = "delta.safetensors"
DRAFT = "draft.json"
SSIM_SAMPLE = 200


@dataclass(frozen=True)
class Preset:
    """One dial. Rounds are passes of the optimisation, `check_epochs` those of the self-check."""

    rounds: int
    draws: int
    check_epochs: int
    extra_rounds: int


PRESETS = {
    "quick": Preset(rounds=6, draws=1, check_epochs=3, extra_rounds=6),
    "standard": Preset(rounds=10, draws=1, check_epochs=5, extra_rounds=6),
    "strong": Preset(rounds=16, draws=2, check_epochs=8, extra_rounds=8),
}


@dataclass(frozen=True, kw_only=True)
class Options:
    """What the user asked for; `None` and `auto` are resolved by `protect_folder` and recorded."""

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


@dataclass(frozen=True)
class Report:
    """The result of `protect_folder`: `released` is false when the self-check failed."""

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
        return {name: round(value, 2) for name, value in self.parts.items()} | {
            "total": round(time.perf_counter() - self.began, 2)
        }


def check_places(src: Path, out: Path, vault: Path, options: Options) -> None:
    """Refuse folders that would overwrite or nest into each other, before anything is read.

    Raises:
        InputError: names the folder and the mend.
    """
    if not src.is_dir():
        raise InputError(f"{src} is not a folder; name the folder that holds one sub-folder of images for each class.")
    inside, outside = src.resolve(), out.resolve()
    if inside == outside or inside in outside.parents or outside in inside.parents:
        raise InputError(f"--out {out} and {src} lie inside each other; choose a folder elsewhere.")
    hidden = vault.resolve()
    if hidden == outside or outside in hidden.parents:
        raise InputError(f"--vault {vault} lies inside --out {out} and would be released with it; choose another place.")
    if hidden == inside or inside in hidden.parents or hidden in inside.parents:
        raise InputError(f"--vault {vault} and {src} lie inside each other; choose another place.")
    if Vault(default_vault(src)).is_sealed:
        raise InputError(f"{src} is itself a release ({default_vault(src)} is its vault); protect the originals instead.")
    if out.exists() and not out.is_dir():
        raise InputError(f"--out {out} is a file; name a folder.")
    if out.is_dir() and any(out.iterdir()) and not options.overwrite:
        raise InputError(f"--out {out} is not empty; choose another folder or add --overwrite.")
    if Vault(vault).is_sealed and not options.overwrite and not options.resume:
        raise InputError(f"The vault {vault} belongs to an earlier release; choose another --vault or add --overwrite.")


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

    Raises:
        InputError: folders or options that cannot be used.
        ImageError: images that cannot be read; all are checked before the work starts.
    """
    place = vault or default_vault(out)
    check_places(src, out, place, options)
    timer = _Timer()
    folder = image_files.scan(src, options.labels)
    names = image_files.released_names(folder, options.file_format)
    held = image_files.stratified_holdout(folder.labels, options.holdout, options.seed, folder.classes)
    size, why_size = (options.size, "as asked") if options.size else image_files.working_size(folder)
    surrogate, why_surrogate = choose_surrogate(options.surrogate, device)
    preset = PRESETS[options.preset]
    settings = protect.Settings(
        method=options.method, mode=options.mode, epsilon=options.epsilon, sigma=options.sigma,
        rounds=options.rounds or preset.rounds, draws=preset.draws, surrogate=surrogate, seed=options.seed,
    )  # fmt: skip
    pixels = image_files.load(folder, size, workers=options.workers, progress=progress)
    sources = digest_files(src, [entry.path for entry in folder.entries], options.workers)
    everything = image_set(pixels, folder.labels, len(folder.classes), device.name)
    timer.lap("read")

    plan = {"settings": asdict(settings), "preset": options.preset, "size": size, "holdout": options.holdout,
            "device": device.name, "sources": data_digest(sources)}  # fmt: skip
    store = Vault.create(place)
    noise, facts = _optimised(store, plan, everything, held, settings, preset, options, progress)
    timer.lap("optimise")
    warnings = tuple(
        f"{len(folder.ignored)} files are not images and are not released, such as {name}."
        for name in folder.ignored[:1]
    )
    explained = {"device": device.reason, "size": f"{size} pixels: {why_size}", "surrogate": f"{surrogate}: {why_surrogate}"}
    draft = _result(folder, held, settings, facts, place)
    if not facts["self_check"]["passed"] and not options.release_anyway:
        return Report(False, draft | {"realised": None, "seconds": timer.rounded(), "data_digest": None}, explained)

    partial = out.with_name(f".{out.name}.{uuid.uuid4().hex[:8]}.partial")
    try:
        rows, growth = _write(partial, folder, names, held, noise, settings, options, sources, progress)
        timer.lap("write")
        digest = data_digest({row.path: row.released_sha256 for row in rows})
        result = draft | {
            "realised": _realised(rows),
            "file_growth": growth,
            "seconds": timer.rounded(),
            "data_digest": digest,
        }
        store.unseal()
        store.write_manifest(rows)
        store.seal(plan | result | {"source": str(src.resolve()), "classes": list(folder.classes), "size": size,
                                    "environment": environment(device)})  # fmt: skip
        _replace(partial, out)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    worst = sorted((row for row in rows if row.psnr is not None), key=lambda row: row.psnr or 0.0)[:5]
    return Report(True, result, explained, tuple((row.path, row.linf or 0, row.psnr or 0.0) for row in worst), warnings)


def _result(
    folder: ImageFolder, held: np.ndarray, settings: protect.Settings, facts: dict[str, Any], vault: Path
) -> dict[str, Any]:
    return {
        "schema_version": SCHEMA_VERSION,
        "images": len(folder.entries),
        "classes": len(folder.classes),
        "train_images": int((~held).sum()),
        "holdout_images": int(held.sum()),
        "method": settings.method,
        "mode": settings.mode,
        "epsilon": settings.epsilon / 255,
        "rounds": facts["rounds"],
        "surrogate": facts["surrogate"],
        "self_check": facts["self_check"],
        "vault": str(vault),
    }


def _realised(rows: list[ManifestRow]) -> dict[str, Any]:
    ssims = [row.ssim for row in rows if row.ssim is not None]
    return {
        "linf_max": max(row.linf or 0 for row in rows),
        "psnr_mean": round(float(np.mean([row.psnr for row in rows])), 3),
        "ssim_mean": round(float(np.mean(ssims)), 4),
    }


def _write(
    target: Path,
    folder: ImageFolder,
    names: list[str],
    held: np.ndarray,
    noise: np.ndarray,
    settings: protect.Settings,
    options: Options,
    sources: dict[str, str],
    progress: Progress,
) -> tuple[list[ManifestRow], float]:
    """Write every protected file below `target`, read it back and measure it; also the growth of the bytes."""
    rng = np.random.default_rng(child_seed(settings.seed, "ssim"))
    count = len(folder.entries)
    sampled = set(rng.permutation(count)[:SSIM_SAMPLE].tolist())

    def write(number: int) -> tuple[ManifestRow, int, int]:
        entry, name = folder.entries[number], names[number]
        source, path = folder.path_of(entry), target / name
        row = entry.label if settings.mode == "class-wise" else number
        done = image_files.protect_file(
            source, path, noise[row], file_format=options.file_format, metadata=options.metadata,
            epsilon_levels=settings.epsilon,
        )  # fmt: skip
        similarity = None
        if number in sampled:
            similarity = image_files.ssim(image_files.decode_rgb(source), image_files.decode_rgb(path))
        return (
            ManifestRow(
                path=name, class_name=folder.classes[entry.label], split="holdout" if held[number] else "train",
                source_path=entry.path, source_sha256=sources[entry.path], released_sha256=sha256_of(path),
                linf=done.linf, psnr=done.psnr, ssim=similarity,
            ),
            done.bytes_before,
            done.bytes_after,
        )  # fmt: skip

    target.mkdir(parents=True)
    rows, before, after = [], 0, 0
    progress.start("write", count)
    with ThreadPoolExecutor(options.workers or None) as pool:
        for row, old, new in pool.map(write, range(count)):
            rows.append(row)
            before, after = before + old, after + new
            progress.advance()
    progress.finish()
    return rows, round(after / max(1, before), 3)


def _replace(partial: Path, out: Path) -> None:
    """Give the finished folder its name; an older release of that name goes only once the new one stands."""
    if not out.exists():
        partial.rename(out)
        return
    old = out.with_name(f".{out.name}.{uuid.uuid4().hex[:8]}.old")
    out.rename(old)
    partial.rename(out)
    shutil.rmtree(old)


def _optimised(
    store: Vault,
    plan: dict[str, Any],
    everything: ImageSet,
    held: np.ndarray,
    settings: protect.Settings,
    preset: Preset,
    options: Options,
    progress: Progress,
) -> tuple[np.ndarray, dict[str, Any]]:
    """Noise rows for every image's class or index, from the vault when `--resume` finds the same plan there."""
    if options.resume:
        try:
            found = store.read_json(DRAFT)
            if found["plan"] == plan:
                return store.read_tensors(DELTA)["delta"], found["facts"]
        except VaultError:
            pass
    mask = torch.from_numpy(held).to(everything.images.device)
    training, holdout = everything.subset(~mask), everything.subset(mask)
    optimizer = protect.Optimizer(training, settings)
    progress.start("optimise noise", settings.rounds)
    optimizer.run(settings.rounds, progress=progress)
    progress.finish()
    check = _check(optimizer, holdout, preset, progress)
    attempts = [check.accuracy]
    if not check.passed:
        progress.start("optimise further, against what the check learnt", preset.extra_rounds)
        optimizer.run(preset.extra_rounds, teacher=check.model, progress=progress)
        progress.finish()
        check = _check(optimizer, holdout, preset, progress)
        attempts.append(check.accuracy)
    noise = optimizer.levels()
    if settings.mode == "sample-wise":
        whole = torch.empty((len(everything), *noise.shape[1:]), dtype=torch.int8, device=noise.device)
        whole[~mask], whole[mask] = noise, optimizer.noise_for(holdout)
        noise = whole
    facts = {
        "rounds": optimizer.rounds,
        "surrogate": {
            "name": settings.surrogate,
            "size": everything.size,
            "parameters": parameter_count(optimizer.surrogate),
            "train_accuracy_protected": accuracy(optimizer.surrogate, optimizer.protected()),
        },
        "self_check": {
            "arch": check.arch, "epochs": check.epochs, "accuracy": check.accuracy, "chance": check.chance,
            "limit": check.limit, "passed": check.passed, "attempts": attempts,
        },
    }  # fmt: skip
    array = noise.cpu().numpy()
    store.write_tensors(DELTA, {"delta": array})
    store.write_tensors(SURROGATE, {name: value.numpy() for name, value in state_of(optimizer.surrogate).items()})
    store.write_json(DRAFT, {"schema_version": SCHEMA_VERSION, "plan": plan, "facts": facts})
    return array, facts


def _check(
    optimizer: protect.Optimizer, holdout: ImageSet, preset: Preset, progress: Progress
) -> protect.SelfCheck:
    protected = optimizer.protected()
    progress.start("self-check: train on protected pixels", Recipe(epochs=preset.check_epochs).steps(len(protected)))
    check = protect.self_check(
        protected, holdout, optimizer.settings.surrogate, epochs=preset.check_epochs,
        seed=optimizer.settings.seed + optimizer.rounds, progress=progress,
    )  # fmt: skip
    progress.finish(f"{check.accuracy:.1%} on clean holdout, limit {check.limit:.1%}")
    return check
