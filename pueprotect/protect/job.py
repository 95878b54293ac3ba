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
import torch

from pueprotect.errors import UnusableImages
from pueprotect.images.encode import Encoder, released_names
from pueprotect.images.folders import ImageEntry, ImageFolder, scan
from pueprotect.images.holdout import stratified_holdout
from pueprotect.images.jpeg_quality import QualityChoice
from pueprotect.images.working_copies import compacted, read_folder, twins, working_size
from pueprotect.learning.data import ImageSet, image_set
from pueprotect.learning.device import Machine
from pueprotect.learning.models import architecture, choose_surrogate
from pueprotect.protect.left_out import breakdown, refuse_empty
from pueprotect.protect.methods.base import Labels, Mask, Noise, NoiseSettings, find
from pueprotect.protect.methods.laying import Laying, Originals
from pueprotect.protect.options import Options
from pueprotect.protect.preflight import check_space
from pueprotect.protect.presets import PRESETS, Preset
from pueprotect.protect.writer import Writer
from pueprotect.release.digests import data_digest
from pueprotect.release.records import LeftOut, NoiseFacts, Protect
from pueprotect.release.vault import json_line
from pueprotect.runtime import Progress

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
    originals: Originals
    converted: dict[str, list[str]]
    twins: list[tuple[ImageEntry, ...]]
    lost: tuple[str, ...]
    explained: dict[str, str]
    ranks: int

    @property
    def images(self) -> ImageSet:
        """Working copies of all images."""
        return self.originals.images

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

    def writer(self, noise: Noise, rows: Labels, quality: QualityChoice | None = None) -> Writer:
        """The writer of the protected files; without `quality`, JPEG files get the encoder's default.

        `noise` (K, S, S, 3) are signed integer levels, and `rows` (N,) the row of each image.
        """
        settings, options = self.settings, self.options
        encoder = Encoder(
            epsilon=settings.epsilon, file_format=options.file_format, metadata=options.metadata, limit=options.max_linf
        )
        if quality is not None:
            encoder = replace(encoder, quality=quality.quality)
        return Writer(
            folder=self.folder, names=self.names, held=self.held, sources=self.sources, noise=noise,
            rows=rows, encoder=encoder, seed=settings.seed, workers=options.workers,
        )  # fmt: skip

    def read_back(self, written: Path, progress: Progress) -> ImageSet:
        """The working copies of the protected training images below `written`."""
        shown = [number for number, held in enumerate(self.held) if not held]
        entries = tuple(ImageEntry(self.names[number], self.folder.entries[number].label) for number in shown)
        folder = ImageFolder(written, self.folder.classes, entries)
        size, workers = self.images.size, self.options.workers
        loaded = read_folder(folder, size, workers=workers, progress=progress, label="read back", cache=written)
        if loaded.unusable:
            raise UnusableImages(loaded.unusable, len(entries))
        return image_set(loaded.pixels, folder.labels, len(folder.classes), self.images.device)

    def kept(self, refused: Sequence[tuple[str, str]]) -> Mask:
        """(N,) bool, false for images that are refused (path and reason)."""
        return _kept(self.folder, refused)

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
        """The result without what is measured on released files, after a check."""
        assert facts.surrogate is not None
        folder, settings, held = self.folder, self.settings, int(self.held.sum())
        return Protect(
            images=len(folder.entries), classes=len(folder.classes), train_images=len(self.held) - held,
            holdout_images=held, method=settings.method, mode=settings.mode, epsilon=settings.epsilon / 255,
            rounds=facts.rounds, surrogate=facts.surrogate, self_check=facts.checks[-1], seconds=seconds,
            vault=str(vault), class_counts=folder.counts,
            skipped=[LeftOut(path=path, reason=reason) for path, reason in folder.unsupported],
        )  # fmt: skip


def _kept(folder: ImageFolder, refused: Sequence[tuple[str, str]]) -> Mask:
    lost = {path for path, _ in refused}
    return np.array([entry.path not in lost for entry in folder.entries])


def read_job(src: Path, options: Options, machine: Machine, partial: Path) -> Job:
    """Read and check the folder; everything about it that can be refused is refused here.

    Raises:
        InputError: folder, options or images that cannot be used.
    """
    folder = scan(src, options.labels, depth=options.label_depth, follow=options.follow_symlinks)
    if not (options.skip_unsupported or folder.unsupported):
        refuse_empty(folder)
    size, why_size = working_size(folder) if options.size is None else (options.size, f"size {options.size}: as asked")
    surrogate, why_surrogate = choose_surrogate(options.surrogate, machine.device)
    architecture(surrogate, size)
    stratified_holdout(folder.labels, options.holdout, options.seed, folder.classes)
    released_names(folder, options.file_format)
    find(options.method).check(folder, options.settings(surrogate, len(folder.entries), size))
    loaded = read_folder(
        folder, size, workers=options.workers, progress=machine.progress, label="read originals", cache=partial,
        encoder=Encoder(epsilon=options.epsilon, file_format=options.file_format, metadata=options.metadata),
    )  # fmt: skip
    pixels, grey, sides, unusable = loaded.pixels, loaded.grey, loaded.sides, (*folder.unsupported, *loaded.unusable)
    if unusable and not options.skip_unsupported:
        which = breakdown((path for path, _ in unusable), options.class_depth)
        remedy = f"All of them: {which}. {SKIP}" if len(unusable) > 1 else SKIP
        raise UnusableImages(unusable, len(folder.entries) + len(folder.unsupported), remedy)
    classes = {*folder.classes, *folder.empty}
    if loaded.unusable:
        usable, folder = _kept(folder, loaded.unusable), folder.without(loaded.unusable)
        pixels, grey, sides = compacted(pixels, usable.tolist()), grey[usable], sides[usable]
    held = stratified_holdout(folder.labels, options.holdout, options.seed, folder.classes)
    images, device = image_set(pixels, folder.labels, len(folder.classes), machine.device.name), machine.device.name
    laying = Laying.of(grey, sides, size, device)
    originals = Originals(images, torch.from_numpy(held).to(device), laying)
    job = Job(
        options=options,
        settings=options.settings(surrogate, int((~held).sum()), size),
        folder=folder,
        names=released_names(folder, options.file_format),
        held=held,
        originals=originals,
        sources=loaded.digests,
        converted=loaded.converted,
        twins=twins(folder, pixels),
        lost=tuple(sorted(classes - set(folder.classes))),
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
    which = np.zeros(len(job.folder.entries), dtype=np.int64)
    writer = job.writer(noise, which, job.writer(noise, which).choose_quality())
    there = sum(path.stat().st_size for path in partial.rglob("*") if path.is_file())
    check_space(partial, writer.estimate() + noise.size * rows, there)
