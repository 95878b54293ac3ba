"""Writes the protected files and gives the finished folder its name.

The folder is built under a temporary sibling name and renamed last, after the vault is sealed: a folder with the
wanted name is complete. A file that could not be protected stops the release; it is never copied.
"""

from __future__ import annotations

import shutil
import threading
import uuid
from collections.abc import Iterator
from concurrent.futures import CancelledError, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from pueprotect import encode
from pueprotect.encode import FileFormat, Metadata
from pueprotect.evidence import SURROGATE
from pueprotect.images import ImageFolder, decode_rgb
from pueprotect.protect import Mode
from pueprotect.runtime import Progress, child_seed
from pueprotect.vault import DELTA, DRAFT, EVIDENCE, ManifestRow, Vault, sha256_of

SSIM_SAMPLE = 200

Noise = npt.NDArray[np.int8]


@contextmanager
def partial_folder(out: Path) -> Iterator[Path]:
    """A folder beside `out` that is gone afterwards, unless it was renamed."""
    partial = out.with_name(f".{out.name}.{uuid.uuid4().hex[:8]}.partial")
    partial.mkdir(parents=True)
    try:
        yield partial
    finally:
        shutil.rmtree(partial, ignore_errors=True)


@dataclass(frozen=True, kw_only=True)
class Writer:
    """Writes the protected files of one folder, and measures them.

    Attributes:
        folder: the originals.
        names: released path of each entry, relative and POSIX.
        held: (N,) bool, true where held out.
        sources: SHA-256 of each original by its path.
        noise: (classes or N, S, S, 3) int8 in levels of 0..255.
        mode: whether a row of `noise` belongs to a class or to an image.
        epsilon: L-infinity budget in levels of 0..255.
        seed: decides whose similarity is measured.
        file_format: keep each container, or write PNG.
        metadata: what is kept beside the pixels.
        workers: threads; 0 chooses.
    """

    folder: ImageFolder
    names: list[str]
    held: npt.NDArray[np.bool_]
    sources: dict[str, str]
    noise: Noise
    mode: Mode
    epsilon: int
    seed: int
    file_format: FileFormat
    metadata: Metadata
    workers: int

    def write(self, target: Path, progress: Progress) -> tuple[list[ManifestRow], float]:
        """Write every protected file below `target`, read it back and measure it; also the growth of the bytes.

        Raises:
            ImageError: a file cannot be read, written or faithfully stored; no thread writes any longer.
        """
        count = len(self.folder.entries)
        rng = np.random.default_rng(child_seed(self.seed, "ssim"))
        sampled = set(rng.permutation(count)[:SSIM_SAMPLE].tolist())
        gate = _Gate()

        def write(number: int) -> tuple[ManifestRow, int, int]:
            with gate:
                return self._write_one(target, number, number in sampled)

        rows, before, after = [], 0, 0
        progress.start("write", count)
        with ThreadPoolExecutor(self.workers or None) as pool:
            try:
                for row, old, new in pool.map(write, range(count)):
                    rows.append(row)
                    before, after = before + old, after + new
                    progress.advance()
            finally:
                gate.close()
        progress.finish()
        return rows, round(after / max(1, before), 3)

    def _write_one(self, target: Path, number: int, sampled: bool) -> tuple[ManifestRow, int, int]:
        """The row of one file, with its bytes before and after."""
        entry, name = self.folder.entries[number], self.names[number]
        source, path = self.folder.path_of(entry), target / name
        done = encode.protect_file(
            source,
            path,
            self.noise[entry.label if self.mode == "class-wise" else number],
            file_format=self.file_format,
            metadata=self.metadata,
            epsilon_levels=self.epsilon,
        )
        row = ManifestRow(
            path=name,
            class_name=self.folder.classes[entry.label],
            split="holdout" if self.held[number] else "train",
            source_path=entry.path,
            source_sha256=self.sources[entry.path],
            released_sha256=sha256_of(path),
            linf=done.linf,
            psnr=done.psnr,
            ssim=encode.ssim(decode_rgb(source), decode_rgb(path)) if sampled else None,
        )
        return row, done.bytes_before, done.bytes_after


class _Gate:
    """Lets threads in until it is closed; closing waits for those inside.

    A pool alone does not do: interrupted while it starts a thread it forgets that one, which then goes on writing.
    """

    def __init__(self) -> None:
        self.changed = threading.Condition()
        self.inside = 0
        self.closed = False

    def __enter__(self) -> None:
        with self.changed:
            if self.closed:
                raise CancelledError
            self.inside += 1

    def __exit__(self, *_: object) -> None:
        with self.changed:
            self.inside -= 1
            self.changed.notify_all()

    def close(self) -> None:
        with self.changed:
            self.closed = True
            self.changed.wait_for(lambda: self.inside == 0)


def realised(rows: list[ManifestRow]) -> dict[str, Any]:
    """What the release differs by as a whole: the largest L-infinity in levels, mean PSNR in dB and mean SSIM."""
    return {
        "linf_max": max(row.linf or 0 for row in rows),
        "psnr_mean": round(float(np.mean([row.psnr for row in rows if row.psnr is not None])), 3),
        "ssim_mean": round(float(np.mean([row.ssim for row in rows if row.ssim is not None])), 4),
    }


def publish(store: Vault, partial: Path, out: Path, rows: list[ManifestRow], record: dict[str, Any]) -> None:
    """Turn the draft into the vault of the finished folder, and give that folder its name.

    When that fails, the vault is left unsealed, with its draft, and `out` as it was.

    Args:
        store: the vault, whose draft holds the noise and the surrogate.
        partial: the finished folder under its temporary name.
        out: the wanted name, resolved; an older release of that name is replaced.
        rows: the manifest.
        record: `run.json`.

    Raises:
        VaultError: the vault cannot be written.
        OSError: the folder cannot be renamed.
    """
    store.unseal()
    try:
        for name in EVIDENCE:
            stale = store.path / name
            shutil.rmtree(stale) if stale.is_dir() else stale.unlink(missing_ok=True)
        for name in (DELTA, SURROGATE):
            store.write_tensors(name, store.read_tensors(f"{DRAFT}/{name}"))
        store.write_manifest(rows)
        store.seal(record)
        _replace(partial, out)
    except BaseException:
        store.unseal()
        raise
    shutil.rmtree(store.path / DRAFT)


def _replace(partial: Path, out: Path) -> None:
    """Give the finished folder its name; an older release of that name goes only once the new one stands."""
    if not out.exists():
        partial.rename(out)
        return
    old = out.with_name(f".{out.name}.{uuid.uuid4().hex[:8]}.old")
    out.rename(old)
    try:
        partial.rename(out)
    except BaseException:
        old.rename(out)
        raise
    shutil.rmtree(old)
