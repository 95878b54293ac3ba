"""Reads the source folder and decides everything that the release depends on."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import PIL

from pueprotect.errors import UnusableImages
from pueprotect.images.encode import Encoder, released_names
from pueprotect.images.folders import ImageFolder, scan
from pueprotect.images.holdout import stratified_holdout
from pueprotect.images.jpeg_quality import QualityChoice
from pueprotect.images.working_copies import compacted, read_folder, twins, working_size
from pueprotect.learning.data import ImageSet, image_set
from pueprotect.learning.device import Machine
from pueprotect.learning.models import architecture, choose_surrogate
from pueprotect.protect.methods.base import Mask, Noise, NoiseSettings, find
from pueprotect.protect.options import Options
from pueprotect.protect.preflight import check_space
from pueprotect.protect.presets import PRESETS, Preset
from pueprotect.protect.writer import Writer
from pueprotect.release.digests import data_digest
from pueprotect.release.records import LeftOut, NoiseFacts, Protect
from pueprotect.release.vault import json_line

SKIP = "Or add --skip-unsupported to leave them out of the release."


@dataclass(frozen=True)
class Job:
    """The folder that was read, and all decisions about its release."""

    options: Options
    settings: NoiseSettings
    folder: ImageFolder
    names: list[str]
    held: Mask
    sources: dict[str, str]
    images: ImageSet
    converted: dict[str, list[str]]
    twins: list[tuple[str, str]]
    explained: dict[str, str]
    ranks: int

    @property
    def preset(self) -> Preset:
        """The effort for this many images of this size."""
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
        options, codecs = self.options, (PIL.__version__, cv2.__version__)
        written = [options.file_format, options.metadata, options.max_linf, *codecs, *self.names]
        return hashlib.sha256(json_line(self.plan() | {"written": written})).hexdigest()

    def writer(self, noise: Noise, quality: QualityChoice | None = None) -> Writer:
        """The writer of the protected files; without `quality`, JPEG files get the encoder's default."""
        settings, options = self.settings, self.options
        encoder = Encoder(
            epsilon=settings.epsilon, file_format=options.file_format, metadata=options.metadata, limit=options.max_linf
        )
        if quality is not None:
            encoder = replace(encoder, quality=quality.quality)
        return Writer(
            folder=self.folder, names=self.names, held=self.held, sources=self.sources, noise=noise,
            mode=settings.mode, encoder=encoder, seed=settings.seed, workers=options.workers,
        )  # fmt: skip

    def kept(self, refused: Sequence[tuple[str, str]]) -> Mask:
        """(N,) bool, false for images that are refused (path and reason)."""
        lost = {path for path, _ in refused}
        return np.array([entry.path not in lost for entry in self.folder.entries])

    def without(self, refused: Sequence[tuple[str, str]]) -> Job:
        """The job of a release without some images (path and reason).

        Raises:
            UnusableImages: they may not be left out, or a class has no training or no held-out images without them.
        """
        count, keep = len(self.folder.entries), self.kept(refused)
        if not self.options.skip_unsupported:
            raise UnusableImages(refused, count, SKIP)
        parts = {(entry.label, bool(held)) for entry, held in zip(self.folder.entries, self.held, strict=True)}
        left = {(self.folder.entries[at].label, bool(self.held[at])) for at in np.flatnonzero(keep)}
        if left != parts:
            raise UnusableImages(refused, count, "Without them a class would lack training or held-out images.")
        names = [name for name, kept in zip(self.names, keep, strict=True) if kept]
        return replace(self, folder=self.folder.without(refused), names=names, held=self.held[keep])

    def result(self, facts: NoiseFacts, vault: Path, seconds: dict[str, float]) -> Protect:
        """The result before anything is written."""
        folder, settings, held = self.folder, self.settings, int(self.held.sum())
        return Protect(
            images=len(folder.entries), classes=len(folder.classes), train_images=len(self.held) - held,
            holdout_images=held, method=settings.method, mode=settings.mode, epsilon=settings.epsilon / 255,
            rounds=facts.rounds, surrogate=facts.surrogate, self_check=facts.self_check, seconds=seconds,
            vault=str(vault), skipped=[LeftOut(path=path, reason=reason) for path, reason in folder.unsupported],
        )  # fmt: skip


def read_job(src: Path, options: Options, machine: Machine, partial: Path) -> Job:
    """Read and check the folder; everything about it that can be refused is refused here.

    Raises:
        InputError: folder, options or images that cannot be used.
    """
    folder = scan(src, options.labels, depth=options.label_depth)
    size, why_size = working_size(folder) if options.size is None else (options.size, f"size {options.size}: as asked")
    surrogate, why_surrogate = choose_surrogate(options.surrogate, machine.device)
    architecture(surrogate, size)
    stratified_holdout(folder.labels, options.holdout, options.seed, folder.classes)
    released_names(folder, options.file_format)
    find(options.method).check(folder, options.settings(surrogate, len(folder.entries), size))
    loaded = read_folder(
        folder, size, workers=options.workers, progress=machine.progress, label="read originals", cache=partial
    )
    pixels, unusable = loaded.pixels, (*folder.unsupported, *loaded.unusable)
    if unusable and not options.skip_unsupported:
        raise UnusableImages(unusable, len(folder.entries) + len(folder.unsupported), SKIP)
    if loaded.unusable:
        entries, folder = folder.entries, folder.without(loaded.unusable)
        lost = {path for path, _ in loaded.unusable}
        pixels = compacted(pixels, [entry.path not in lost for entry in entries])
    held = stratified_holdout(folder.labels, options.holdout, options.seed, folder.classes)
    job = Job(
        options=options,
        settings=options.settings(surrogate, int((~held).sum()), size),
        folder=folder,
        names=released_names(folder, options.file_format),
        held=held,
        images=image_set(pixels, folder.labels, len(folder.classes), machine.device.name),
        sources=loaded.digests,
        converted=loaded.converted,
        twins=twins(folder, pixels),
        explained={"device": machine.device.reason, "size": why_size, "surrogate": f"{surrogate}: {why_surrogate}"},
        ranks=machine.group.size,
    )
    _check_space(job, partial)
    return job


def _check_space(job: Job, partial: Path) -> None:
    """Estimate the release from a few files with random noise of the same budget."""
    levels, size = job.settings.epsilon, job.images.size
    rows = len(job.folder.entries if job.settings.mode == "sample-wise" else job.folder.classes)
    noise = np.random.default_rng(0).integers(-levels, levels + 1, (1, size, size, 3)).astype(np.int16)
    laid = np.broadcast_to(noise, (rows, *noise.shape[1:]))
    writer = job.writer(laid, job.writer(laid).choose_quality())
    there = sum(path.stat().st_size for path in partial.rglob("*") if path.is_file())
    check_space(partial, writer.estimate() + noise.size * rows, there)
