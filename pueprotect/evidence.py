"""What `certify` and `audit` may look at: the bytes on disk of a released folder, and clean test images.

A release made by pueprotect has a vault: its digests are checked first, the clean measure is the originals of the
holdout (or `--test`), and the attacker trains on the files of the training split (with `--test`, on all). Any other folder
of labelled images can be opened too, when clean test images are given.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch

from pueprotect import images as image_files
from pueprotect.errors import InputError, StaleDataError, VaultError
from pueprotect.images import ImageEntry, ImageFolder
from pueprotect.models import Classifier, build
from pueprotect.runtime import SILENT, Progress
from pueprotect.training import ImageSet
from pueprotect.vault import ManifestRow, Vault, data_digest, default_vault, digest_files, sha256_of, verify

SURROGATE = "surrogate.safetensors"


def image_set(pixels: np.ndarray, labels: np.ndarray, classes: int, device: str) -> ImageSet:
    """Decoded images (N, S, S, 3) uint8 as a set resident on `device`."""
    tensor = torch.from_numpy(np.ascontiguousarray(pixels)).to(device).permute(0, 3, 1, 2)
    return ImageSet(tensor, torch.from_numpy(labels).to(device), classes)


@dataclass
class Evidence:
    """An opened release.

    Attributes:
        out: the released folder.
        vault: where results are kept.
        own: whether pueprotect made the release, so that originals and settings are known.
        run: `run.json`, empty for a foreign folder.
        classes: class names; labels are indices into them.
        size: working size in pixels.
        digest: of the released files.
        released: what the attacker trains on, as decoded from disk.
        test: clean test images that no training sees.
        holdout_images: number of images in `test`.
    """

    out: Path
    vault: Vault
    own: bool
    run: dict[str, Any]
    classes: tuple[str, ...]
    size: int
    digest: str
    released: ImageSet
    test: ImageSet
    device: str
    _train_rows: tuple[ManifestRow, ...] = field(repr=False, default=())
    _workers: int = 0
    _progress: Progress = SILENT

    @property
    def holdout_images(self) -> int:
        """How many clean images the figures are counted on."""
        return len(self.test)

    @property
    def chance(self) -> float:
        """Accuracy of always answering the most frequent test class."""
        return int(torch.bincount(self.test.labels, minlength=len(self.classes)).max()) / len(self.test)

    @property
    def default_arch(self) -> str:
        """The surrogate's architecture, or the smallest one."""
        name = self.run.get("surrogate", {}).get("name")
        return str(name) if name else ("resnet18" if self.device.startswith("cuda") else "resnet8")

    @cached_property
    def originals(self) -> ImageSet | None:
        """The clean originals of the images in `released`, in the same order; None for a foreign folder.

        Raises:
            StaleDataError: an original is missing or changed.
        """
        if not self.own:
            return None
        return _read_originals(
            self.run, self._train_rows, self.classes, self.size, self.device, self._workers, self._progress
        )

    def online_surrogate(self) -> Classifier | None:
        """The network left by the optimisation; None for a foreign folder."""
        if not self.own:
            return None
        model = build(self.default_arch, len(self.classes), self.size, seed=0, device=self.device)
        state = {name: torch.from_numpy(value) for name, value in self.vault.read_tensors(SURROGATE).items()}
        model.load_state_dict(state)
        return model

    def remembered(self, name: str, key: dict[str, Any]) -> dict[str, Any] | None:
        """An earlier result stored by `remember` for the same key and the same released bytes."""
        try:
            found = self.vault.read_json(name)
        except VaultError:
            return None
        return found["result"] if found.get("key") == key | {"data_digest": self.digest} else None

    def remember(self, name: str, key: dict[str, Any], result: dict[str, Any]) -> None:
        """Store a finished part of a command, so that `--resume` need not repeat it."""
        self.vault.write_json(name, {"key": key | {"data_digest": self.digest}, "result": result})


def open_release(
    out: Path,
    *,
    vault: Path | None = None,
    test: Path | None = None,
    device: str = "cpu",
    size: int | None = None,
    workers: int = 0,
    progress: Progress = SILENT,
) -> Evidence:
    """Check digests and decode a released folder and its clean test images.

    Args:
        out: the released folder.
        vault: its vault; None takes `OUT.vault`.
        test: clean labelled images; needed when pueprotect did not make the release.
        device: where the images go.
        size: working size of a foreign folder; None chooses.
        workers: decoding threads; 0 chooses.
        progress: told of the files read.

    Raises:
        InputError: no such folder, or neither vault nor test images, or classes differ.
        StaleDataError: files are missing, added or changed since protection, or originals are.
    """
    place = vault or default_vault(out)
    if not out.is_dir():
        raise InputError(f"{out} is not a folder; name the released folder.")
    sealed = Vault(place).is_sealed
    if not sealed and test is None:
        raise InputError(
            f"{out} has no finished vault at {place}: name it with --vault, or give clean labelled images with --test DIR."
        )
    if sealed:
        return _open_own(out, Vault.open(place), test, device, workers, progress)
    if vault is not None and not vault.is_dir():
        raise InputError(f"--vault {vault} does not exist; leave it out to use {default_vault(out)}.")
    assert test is not None
    folder = image_files.scan(out)
    working = size or image_files.working_size(folder)[0]
    released = _decode(folder, folder.classes, working, device, workers, progress, "read released files")
    names = [entry.path for entry in folder.entries]
    return Evidence(
        out=out,
        vault=Vault.create(place),
        own=False,
        run={},
        classes=folder.classes,
        size=working,
        digest=data_digest(digest_files(out, names, workers)),
        released=released,
        test=_read_test(test, folder.classes, working, device, workers, progress),
        device=device,
        _workers=workers,
        _progress=progress,
    )


def _open_own(
    out: Path, vault: Vault, test: Path | None, device: str, workers: int, progress: Progress
) -> Evidence:
    run = vault.run()
    rows = vault.read_manifest()
    difference = verify(out, rows, workers)
    if not difference.ok:
        raise StaleDataError(
            describe(difference, out) + " Protect again, or restore the files; pueprotect verify lists them all."
        )
    classes, size = tuple(run["classes"]), int(run["size"])
    train_rows = tuple(row for row in rows if test is not None or row.split == "train")
    released = _decode(
        folder_of(out, train_rows, classes, released=True), classes, size, device, workers, progress, "read released files"
    )
    if test is not None:
        clean = _read_test(test, classes, size, device, workers, progress)
    else:
        holdout = tuple(row for row in rows if row.split == "holdout")
        clean = _read_originals(run, holdout, classes, size, device, workers, progress)
    return Evidence(
        out=out,
        vault=vault,
        own=True,
        run=run,
        classes=classes,
        size=size,
        digest=data_digest({row.path: row.released_sha256 for row in rows}),
        released=released,
        test=clean,
        device=device,
        _train_rows=train_rows,
        _workers=workers,
        _progress=progress,
    )


def describe(difference: Any, out: Path) -> str:
    """A sentence on missing, extra and changed files, naming the first few."""
    parts = []
    for kind in ("missing", "extra", "changed"):
        names = getattr(difference, kind)
        if names:
            shown = ", ".join(names[:3]) + (" ..." if len(names) > 3 else "")
            parts.append(f"{len(names)} {kind} ({shown})")
    return f"Files in {out} differ from what was protected: {'; '.join(parts)}."


def folder_of(root: Path, rows: tuple[ManifestRow, ...], classes: tuple[str, ...], *, released: bool) -> ImageFolder:
    """Manifest rows as an image folder, of released files or of originals."""
    number = {name: index for index, name in enumerate(classes)}
    return ImageFolder(
        root,
        classes,
        tuple(ImageEntry(row.path if released else row.source_path, number[row.class_name]) for row in rows),
    )


def _decode(
    folder: ImageFolder, classes: tuple[str, ...], size: int, device: str, workers: int, progress: Progress, label: str
) -> ImageSet:
    pixels = image_files.load(folder, size, workers=workers, progress=progress, label=label)
    return image_set(pixels, folder.labels, len(classes), device)


def _read_originals(
    run: dict[str, Any],
    rows: tuple[ManifestRow, ...],
    classes: tuple[str, ...],
    size: int,
    device: str,
    workers: int,
    progress: Progress,
) -> ImageSet:
    source = Path(run["source"])
    folder = folder_of(source, rows, classes, released=False)
    for row in rows:
        path = source / row.source_path
        if not path.is_file() or sha256_of(path) != row.source_sha256:
            state = "has changed" if path.is_file() else "is gone"
            raise StaleDataError(
                f"The original {path} {state} since protection; put it back, or give clean test images with --test DIR."
            )
    return _decode(folder, classes, size, device, workers, progress, "read originals")


def _read_test(
    test: Path, classes: tuple[str, ...], size: int, device: str, workers: int, progress: Progress
) -> ImageSet:
    folder = image_files.scan(test)
    strangers = sorted(set(folder.classes) - set(classes))
    if strangers:
        raise InputError(
            f"--test {test} has classes that the released folder does not know ({', '.join(strangers[:3])}); "
            "both need the same class folders."
        )
    number: Callable[[int], int] = lambda label: classes.index(folder.classes[label])  # noqa: E731
    renamed = ImageFolder(
        folder.root, classes, tuple(ImageEntry(entry.path, number(entry.label)) for entry in folder.entries)
    )
    return _decode(renamed, classes, size, device, workers, progress, "read test images")
