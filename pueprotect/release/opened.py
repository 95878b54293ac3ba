"""Opens a released folder for `certify` and `audit`: the pixels on disk, and clean test images.

A release made by pueprotect has a vault, whose digests are checked first. The test images are the originals of the
holdout, and the attacker trains on the files of the training split. With `--test`, the test images are those given and
the attacker trains on all files. Any other folder of labelled images can be opened with `--test`. Test images that the
attacker trains on are refused when they were given, and counted when they only come near.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from pueprotect.errors import InputError, StaleDataError, VaultError
from pueprotect.images.folders import ImageEntry, ImageFolder, scan
from pueprotect.images.working_copies import load, working_size
from pueprotect.learning.data import ImageSet, image_set
from pueprotect.learning.device import HERE, Machine
from pueprotect.learning.models import Classifier, build
from pueprotect.release.digests import NAMED, data_digest, describe, digest_files, first_of, verify
from pueprotect.release.overlap import differences, near_pairs
from pueprotect.release.records import ManifestRow, TestOverlap
from pueprotect.release.results import Results, tensors
from pueprotect.release.vault import SURROGATE, Vault, default_vault, locked

USUAL_LEVELS = 8  # the budget of other tools
ROUNDING_LEVELS = 1  # what rounding and lossy files add to the budget


@dataclass(frozen=True)
class Reader:
    """Reads images to the device of `machine`, with so many decoding threads; 0 chooses."""

    machine: Machine = HERE
    workers: int = 0

    def read(self, folder: ImageFolder, size: int, label: str) -> ImageSet:
        """Decode every image of `folder` at `size` x `size` pixels.

        Raises:
            ImageError: some files cannot be decoded.
        """
        pixels = load(folder, size, workers=self.workers, progress=self.machine.progress, label=label)
        return image_set(pixels, folder.labels, len(folder.classes), self.machine.device.name)

    def originals(self, run: dict[str, Any], rows: Sequence[ManifestRow], remedy: str) -> ImageSet:
        """The clean originals of manifest rows, their digests checked first.

        Args:
            run: `run.json` of the vault.
            rows: the wanted rows.
            remedy: what to do when originals are missing, for the message.

        Raises:
            StaleDataError: an original is missing or changed.
        """
        source = Path(run["source"])
        lost = [row.source_path for row in rows if not (source / row.source_path).is_file()]
        if not lost:
            digests = digest_files(source, [row.source_path for row in rows], self.workers)
            lost = [row.source_path for row in rows if digests[row.source_path] != row.source_sha256]
        if lost:
            raise StaleDataError(
                f"{len(lost)} originals in {source} are missing or have changed since protection ({first_of(lost)}); "
                f"{remedy}."
            )
        return self.read(_folder_of(source, rows, run, released=False), int(run["size"]), "read originals")


@dataclass
class OpenedRelease:
    """An opened release.

    Attributes:
        vault: where results are kept.
        own: whether pueprotect made the release, so that originals and settings are known.
        run: `run.json`, empty for a foreign folder.
        classes: class names; labels are indices into them.
        size: working size in pixels.
        digest: of the released files.
        released: what the attacker trains on, as decoded from disk.
        test: clean test images that no training sees.
        published: number of released files; `released` may leave out the holdout.
        overlap: test images that nearly equal a training image; None where there are none.
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
    published: int
    reader: Reader = field(repr=False)
    overlap: TestOverlap | None = None
    _train_rows: tuple[ManifestRow, ...] = field(repr=False, default=())
    _held_rows: tuple[ManifestRow, ...] = field(repr=False, default=())

    @property
    def machine(self) -> Machine:
        """Where the work on this release is done."""
        return self.reader.machine

    @property
    def device(self) -> str:
        """The device of the images and of the work."""
        return self.machine.device.name

    @property
    def chance(self) -> float:
        """Accuracy of always answering the most frequent test class."""
        return int(torch.bincount(self.test.labels, minlength=len(self.classes)).max()) / len(self.test)

    @property
    def few_test_images(self) -> bool:
        """Whether figures measured on `test` are coarse: under 500 images, or under 20 of a class."""
        smallest = int(torch.bincount(self.test.labels, minlength=len(self.classes)).min())
        return len(self.test) < 500 or smallest < 20

    @property
    def default_arch(self) -> str:
        """The surrogate's architecture, or the device's usual one."""
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
        return self.reader.originals(self.run, self._train_rows, "put them back: clean training images are needed here")

    @cached_property
    def places(self) -> tuple[int, ...] | None:
        """Place of each image of `released` among all released files; None for a foreign folder, which has no split."""
        if not self.own:
            return None
        number = {row.path: place for place, row in enumerate(self.vault.read_manifest())}
        return tuple(number[row.path] for row in self._train_rows)

    @property
    def attacked_share(self) -> float:
        """The share of the released files that the attacker trains on."""
        return len(self.released) / self.published

    @property
    def has_held_out(self) -> bool:
        """Whether there are released files that the attacker does not train on."""
        return bool(self._held_rows)

    @cached_property
    def other_side(self) -> OpenedRelease | None:
        """The same release for an attacker with the held-out files, measured on the originals of the others.

        None where the attacker has all files already.

        Raises:
            StaleDataError: an original is missing or changed.
        """
        if not self._held_rows or self.originals is None:
            return None
        files = _folder_of(self.out, self._held_rows, self.run, released=True)
        released = self.reader.read(files, self.size, "read held-out files")
        return replace(
            self, released=released, test=self.originals, _train_rows=self._held_rows, _held_rows=self._train_rows
        )

    def online_surrogate(self) -> Classifier | None:
        """The surrogate at the end of the optimisation; None for a foreign folder.

        Raises:
            VaultError: its weights are missing, damaged or of another network.
        """
        if not self.own:
            return None
        model = build(self.default_arch, len(self.classes), self.size, seed=0, device=self.device)
        try:
            model.load_state_dict(tensors(self.vault, SURROGATE))
        except RuntimeError as error:
            raise VaultError(
                f"{self.vault.path / SURROGATE} does not hold a {self.default_arch}; restore the vault from a copy."
            ) from error
        return model

    @cached_property
    def digests(self) -> dict[str, str]:
        """What every result depends on: digests of the released bytes and of the test images."""
        test = hashlib.sha256(self.test.images.cpu().numpy().tobytes())
        test.update(self.test.labels.cpu().numpy().tobytes())
        return {"data_digest": self.digest, "test_digest": f"sha256:{test.hexdigest()}"}

    @contextmanager
    def in_use(self) -> Iterator[None]:
        """Hold the vault against other runs, whose results would mix with these; the processes of one run share it.

        Raises:
            InputError: another run holds the vault.
            VaultError: it cannot be made.
        """
        if not self.machine.group.leads:
            yield
            return
        place = Vault.create(self.vault.path).path
        with locked(place, f"--vault {place}"):
            yield

    @cached_property
    def results(self) -> Results:
        """What commands keep in the vault."""
        flags = () if self.overlap is None else ("test-overlap",)
        return Results(self.vault, self.digests, self.chance, len(self.test), flags)


def open_release(
    out: Path,
    *,
    vault: Path | None = None,
    test: Path | None = None,
    machine: Machine = HERE,
    size: int | None = None,
    workers: int = 0,
) -> OpenedRelease:
    """Check digests and decode a released folder and its clean test images; writes nothing.

    Args:
        out: the released folder.
        vault: its vault; None takes `OUT.vault`.
        test: clean labelled images; needed when pueprotect did not make the release.
        machine: receives the images and does the work on them.
        size: working size of a foreign folder in pixels; None chooses.
        workers: decoding threads; 0 chooses.

    Raises:
        InputError: no such folder, or neither vault nor test images, or classes differ.
        VaultError: the vault is damaged.
        StaleDataError: files are missing, added or changed since protection, or originals are.
    """
    reader = Reader(machine, workers)
    place = vault or default_vault(out)
    if not out.is_dir():
        raise InputError(f"{out} is not a folder; name the released folder.")
    if vault is not None and not vault.is_dir():
        raise InputError(f"--vault {vault} is not a folder; leave it out to use {default_vault(out)}.")
    if place.exists() and not place.is_dir():
        raise InputError(f"{place} is a file, but it is the vault's place; name another place with --vault.")
    if Vault(place).is_sealed:
        return _open_own(out, Vault.open(place), test, reader)
    if test is None:
        raise InputError(
            f"{out} has no finished vault at {place}; name it with --vault, or give clean labelled images with "
            "--test DIR."
        )
    folder = scan(out)
    working = size or working_size(folder)[0]
    digests = digest_files(out, [entry.path for entry in folder.entries], workers)
    released = reader.read(folder, working, "read released files")
    given = _test_folder(test, folder.classes)
    _refuse_equal_files(given, {digest: name for name, digest in digests.items()}, workers)
    clean = reader.read(given, working, "read test images")
    names = [entry.path for entry in given.entries], [entry.path for entry in folder.entries]
    pairs = near_pairs(clean.images, released.images, USUAL_LEVELS + ROUNDING_LEVELS)
    _refuse_equal(test, pairs[differences(clean.images, released.images, pairs) == 0], *names)
    return OpenedRelease(
        out=out, vault=Vault(place), own=False, run={}, classes=folder.classes, size=working,
        digest=data_digest(digests), released=released, test=clean, published=len(folder.entries),
        reader=reader, overlap=_overlap(pairs, *names),
    )  # fmt: skip


def _open_own(out: Path, vault: Vault, test: Path | None, reader: Reader) -> OpenedRelease:
    run, rows = vault.run(), vault.read_manifest()
    difference = verify(out, rows, reader.workers)
    if not difference.ok:
        raise StaleDataError(
            f"{describe(difference, out)} Restore the files (pueprotect verify lists all), or protect again."
        )
    size, classes = int(run["size"]), tuple(run["classes"])
    if test is not None:
        train_rows, held_rows, given = tuple(rows), [], _test_folder(test, classes)
        known = {sha256: row.path for row in rows for sha256 in (row.source_sha256, row.released_sha256)}
        _refuse_equal_files(given, known, reader.workers)
        clean = reader.read(given, size, "read test images")
        tested = [entry.path for entry in given.entries]
    else:
        train_rows = tuple(row for row in rows if row.split == "train")
        held_rows = [row for row in rows if row.split == "holdout"]
        clean = reader.originals(run, held_rows, "put them back, or give clean images with --test DIR")
        tested = [row.source_path for row in held_rows]
    digest = data_digest({row.path: row.released_sha256 for row in rows})
    released = reader.read(_folder_of(out, train_rows, run, released=True), size, "read released files")
    names = tested, [row.path for row in train_rows]
    pairs = near_pairs(clean.images, released.images, round(255 * run["epsilon"]) + ROUNDING_LEVELS)
    if test is not None:
        equal = differences(clean.images, released.images, pairs) == 0
        _refuse_equal(test, pairs[equal | _equal_originals(clean, pairs, run, train_rows, reader)], *names)
    return OpenedRelease(
        out=out, vault=vault, own=True, run=run, classes=classes, size=size, digest=digest, released=released,
        test=clean, published=len(rows), reader=reader, overlap=_overlap(pairs, *names), _train_rows=train_rows,
        _held_rows=tuple(held_rows),
    )  # fmt: skip


def _equal_originals(
    clean: ImageSet, pairs: Tensor, run: dict[str, Any], rows: Sequence[ManifestRow], reader: Reader
) -> Tensor:
    """Which pairs are a test image and the original of a released file, pixel for pixel: (K,) bool."""
    used, number = pairs[:, 1].unique(return_inverse=True)
    if not len(used):
        return pairs[:, 0] < 0
    try:
        found = reader.originals(run, [rows[index] for index in used.tolist()], "put them back")
    except StaleDataError:  # without its originals a pair is near, which is told as well
        return pairs[:, 0] < 0
    return differences(clean.images, found.images, torch.stack((pairs[:, 0], number), 1)) == 0


def _refuse_equal_files(given: ImageFolder, known: dict[str, str], workers: int) -> None:
    """Refuse test files with the bytes of a training file; `known` are paths by digest."""
    names = [entry.path for entry in given.entries]
    equal = [(name, known[sha256]) for name, sha256 in digest_files(given.root, names, workers).items()
             if sha256 in known]  # fmt: skip
    _refuse(given.root, equal)


def _refuse_equal(test: Path, pairs: Tensor, tested: Sequence[str], trained: Sequence[str]) -> None:
    """Refuse test images that the pairs find in the training set."""
    _refuse(test, [(tested[left], trained[right]) for left, right in pairs.tolist()])


def _refuse(test: Path, equal: Sequence[tuple[str, str]]) -> None:
    if equal:
        count = len({name for name, _ in equal})
        raise InputError(
            f"--test {test}: {count} {'images are' if count > 1 else 'image is'} in the training set too "
            f"({equal[0][0]} equals {equal[0][1]}). Give images that were never protected or released."
        )


def _overlap(pairs: Tensor, tested: Sequence[str], trained: Sequence[str]) -> TestOverlap | None:
    """How many test images come near a training image, and the first of them."""
    if not len(pairs):
        return None
    first = [(tested[left], trained[right]) for left, right in pairs[:NAMED].tolist()]
    return TestOverlap(images=len(pairs[:, 0].unique()), first=first)


def _folder_of(root: Path, rows: Sequence[ManifestRow], run: dict[str, Any], *, released: bool) -> ImageFolder:
    """Manifest rows as an image folder, of released files or of originals."""
    number = {name: index for index, name in enumerate(run["classes"])}
    entries = (ImageEntry(row.path if released else row.source_path, number[row.class_name]) for row in rows)
    return ImageFolder(root, tuple(number), tuple(entries))


def _test_folder(test: Path, classes: tuple[str, ...]) -> ImageFolder:
    """The test images with the labels of the released folder."""
    folder = scan(test)
    if unknown := sorted(set(folder.classes) - set(classes)):
        raise InputError(
            f"--test {test} has classes that the released folder lacks ({first_of(unknown)}); use the same class "
            "folders in both."
        )
    entries = (ImageEntry(entry.path, classes.index(folder.classes[entry.label])) for entry in folder.entries)
    return ImageFolder(folder.root, classes, tuple(entries))
