"""From a folder of photographs to a protected folder and its vault.

`places` refuses before anything is read and `publish` writes at the end. In between everything new lies in the vault's
`draft` folder and in a locked folder under a temporary name (module `draft`), so that an earlier release and its vault
stay whole, and an interrupted run can go on.
"""

from __future__ import annotations

import hashlib
import time
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import PIL

from pueprotect.errors import UnusableImages
from pueprotect.images import folders as image_files
from pueprotect.images.encode import Encoder, QualityChoice, released_names
from pueprotect.images.folders import ImageFolder
from pueprotect.learning.distributed import ALONE, Group
from pueprotect.learning.models import architecture, choose_surrogate
from pueprotect.learning.training import ImageSet
from pueprotect.protect import noise as noises
from pueprotect.protect.draft import Journal, building, locked
from pueprotect.protect.methods import error_minimising as protect
from pueprotect.protect.methods import texture
from pueprotect.protect.noise import Noise
from pueprotect.protect.options import PRESETS, Options, Preset
from pueprotect.protect.preflight import check_places, check_space, exposed, refuse_released
from pueprotect.protect.publish import Writer, clean_up, publish, realised, worst
from pueprotect.release.digests import data_digest, verify
from pueprotect.release.opened import image_set
from pueprotect.release.vault import SCHEMA_VERSION, ManifestRow, Vault, default_vault, json_line
from pueprotect.runtime import SILENT, Device, Progress, environment

# What `run.json` holds beyond the result.
PRIVATE = ("settings", "seed", "environment", "split", "timings", "source", "size", "key", "manifest_sha256")
SKIP = "Or add --skip-unsupported to leave them out of the release."


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
    converted: dict[str, list[str]]
    twins: list[tuple[str, str]]
    explained: dict[str, str]
    ranks: int

    @property
    def preset(self) -> Preset:
        return PRESETS[self.options.preset].for_images(int((~self.held).sum()), self.images.size)

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
        } | ({"ranks": self.ranks} if self.ranks > 1 else {})

    def key(self) -> str:
        """All that the released bytes depend on, as one digest."""
        written = [self.options.file_format, self.options.metadata, PIL.__version__, *self.names]
        return hashlib.sha256(json_line(self.plan() | {"written": written})).hexdigest()

    def writer(self, noise: Noise, quality: QualityChoice | None = None) -> Writer:
        """What writes the protected files, given the noise."""
        encoder = Encoder(
            epsilon=self.settings.epsilon, file_format=self.options.file_format, metadata=self.options.metadata
        )
        return Writer(
            folder=self.folder,
            names=self.names,
            held=self.held,
            sources=self.sources,
            noise=noise,
            mode=self.settings.mode,
            encoder=encoder if quality is None else replace(encoder, quality=quality.quality),
            seed=self.settings.seed,
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
            "skipped": [{"path": path, "reason": reason} for path, reason in self.folder.unsupported],
        }


def protect_folder(
    src: Path,
    out: Path,
    *,
    vault: Path | None = None,
    options: Options,
    device: Device,
    group: Group = ALONE,
    progress: Progress = SILENT,
) -> Report:
    """Protect a folder of labelled images.

    Args:
        src: the originals.
        out: the released folder; must not exist or be empty unless `options.overwrite`.
        vault: private folder of the release; None takes `OUT.vault`.
        options: what to do.
        device: from `runtime.choose_device`.
        group: ranks that share the optimisation; this is rank 0, the others are in `noise.assist`.
        progress: told of each part.

    Returns:
        The report; `released` is false when the self-check failed, and then only the vault's draft was written.

    Raises:
        InputError: folders or options that cannot be used, or in use by another run; nothing was written.
        ImageError: images that cannot be read; all are checked before the work starts.
    """
    place = vault or default_vault(out)
    check = partial(check_places, src, out, place, overwrite=options.overwrite, workers=options.workers)
    check(resume=options.resume, finished=options.resume)
    timer = _Timer()
    with building(out) as site:
        job = _read(src, options, device, group.size, progress, site)
        refuse_released(src, job.sources, (place, default_vault(src), *src.resolve().parent.glob("*.vault")))
        timer.lap("read")
        store, key = Vault(place), job.key()
        if options.resume and (rows := _finished(store, out, key, options.workers)) is not None:
            noises.dismiss(group)
            clean_up(store, out.resolve())
            result = {name: value for name, value in store.run().items() if name not in PRIVATE}
            result["classes"] = len(job.folder.classes)
            return Report(True, result, job.explained, _warnings(job, result, place, rows))
        known = noises.kept(store, job.plan()) if options.resume else None
        check(resume=known is not None)
        Vault.create(place)
        place.chmod(0o700)
        with locked(place, f"--vault {place}"):
            store.sweep()
            if known is None:
                made = noises.make(store, job.plan(), job.images, job.held, job.settings, job.preset, progress, group)
            else:
                noises.dismiss(group)
                made = known
            timer.lap("optimise")
            return _release(job, store, made, site, out, src, device, timer, progress)


def _read(src: Path, options: Options, device: Device, ranks: int, progress: Progress, cache: Path) -> _Job:
    """Everything that can be refused is refused here."""
    folder = image_files.scan(src, options.labels, depth=options.label_depth)
    if options.size is None:
        size, why_size = image_files.working_size(folder)
    else:
        size, why_size = options.size, f"size {options.size}: as asked"
    surrogate, why_surrogate = choose_surrogate(options.surrogate, device)
    architecture(surrogate, size)
    image_files.stratified_holdout(folder.labels, options.holdout, options.seed, folder.classes)
    released_names(folder, options.file_format)
    if options.method == "hardened":
        texture.refuse(folder, options.epsilon, options.seed)
    loaded = image_files.read_folder(
        folder, size, workers=options.workers, progress=progress, label="read originals", cache=cache
    )
    pixels = loaded.pixels
    unusable = (*folder.unsupported, *loaded.unusable)
    if unusable and not options.skip_unsupported:
        raise UnusableImages(unusable, len(folder.entries) + len(folder.unsupported), SKIP)
    if loaded.unusable:
        usable = folder.without(loaded.unusable)
        remaining = {entry.path for entry in usable.entries}
        pixels = image_files.compacted(pixels, [entry.path in remaining for entry in folder.entries])
        folder = usable
    held = image_files.stratified_holdout(folder.labels, options.holdout, options.seed, folder.classes)
    job = _Job(
        options=options,
        settings=options.settings(surrogate, int((~held).sum()), size),
        folder=folder,
        names=released_names(folder, options.file_format),
        held=held,
        images=image_set(pixels, folder.labels, len(folder.classes), device.name),
        sources=loaded.digests,
        converted=loaded.converted,
        twins=image_files.twins(folder, pixels),
        explained={"device": device.reason, "size": why_size, "surrogate": f"{surrogate}: {why_surrogate}"},
        ranks=ranks,
    )
    _check_space(job, cache)
    return job


def _check_space(job: _Job, partial: Path) -> None:
    """Estimate the release from a few files with random noise of the same budget."""
    levels = job.settings.epsilon
    shape = (len(job.folder.entries) if job.settings.mode == "sample-wise" else len(job.folder.classes),)
    rng = np.random.default_rng(0)
    noise = rng.integers(-levels, levels + 1, (1, job.images.size, job.images.size, 3)).astype(np.int8)
    writer = job.writer(np.broadcast_to(noise, shape + noise.shape[1:]))
    there = sum(path.stat().st_size for path in partial.rglob("*") if path.is_file())
    check_space(partial, writer.estimate() + noise[0].size * shape[0], there)


def _finished(store: Vault, out: Path, key: str, workers: int) -> list[ManifestRow] | None:
    """The manifest, when `out` is what this run would make: it was interrupted at its very end, or repeated."""
    if not (store.is_sealed and out.is_dir()) or store.run().get("key") != key:
        return None
    rows = store.read_manifest()
    return rows if verify(out, rows, workers).ok else None


def _release(
    job: _Job,
    store: Vault,
    made: tuple[Noise, dict[str, Any]],
    partial: Path,
    out: Path,
    src: Path,
    device: Device,
    timer: _Timer,
    progress: Progress,
) -> Report:
    """Write and publish, unless the self-check found the noise too weak."""
    noise, facts = made
    result = job.described(facts, store.path)
    if not facts["self_check"]["passed"] and not job.options.release_anyway:
        return Report(False, result | {"seconds": timer.rounded()}, job.explained, _warnings(job, result, store.path))
    quality = job.writer(noise).choose_quality()
    journal = Journal(store, f"{job.key()}/{quality}", goes_on=job.options.resume)
    try:
        journal.tidy(partial)
        rows, growth = job.writer(noise, quality).write(partial, journal, progress)
    finally:
        journal.close()
    timer.lap("write")
    result |= {
        "realised": realised(rows),
        "file_growth": growth,
        "jpeg": None if quality is None else asdict(quality),
        "worst": worst(rows),
        "seconds": timer.rounded(),
        "data_digest": data_digest({row.path: row.released_sha256 for row in rows}),
    }
    publish(store, partial, out.resolve(), rows, _record(job, result, src, device))
    return Report(True, result, job.explained, _warnings(job, result, store.path, rows))


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
        "key": job.key(),
    }


def _warnings(job: _Job, result: dict[str, Any], vault: Path, rows: list[ManifestRow] | None = None) -> tuple[str, ...]:
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
