"""Writes all protected files in parallel and measures them.

A file that cannot be protected stops the release; it is never copied.
"""

from __future__ import annotations

import threading
from concurrent.futures import CancelledError, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from pueprotect.errors import InputError
from pueprotect.images.buffers import kept_blocks
from pueprotect.images.decode import decode
from pueprotect.images.encode import Encoder
from pueprotect.images.folders import ImageFolder
from pueprotect.images.jpeg_quality import QualityChoice, choose_quality
from pueprotect.images.metadata import Descriptions
from pueprotect.protect.draft import Journal, Written
from pueprotect.protect.methods.base import Labels, Mask, Noise
from pueprotect.release.digests import sha256_of
from pueprotect.release.records import Changed, ManifestRow, Realised
from pueprotect.runtime import Progress, child_seed

# How many files are measured for SSIM, tried for the quality of JPEG, and encoded to estimate the space.
SSIM_SAMPLE = 200
QUALITY_SAMPLE = 8
SPACE_SAMPLE = 4
LOSSLESS = frozenset({".png", ".apng", ".webp", ".bmp", ".tif", ".tiff"})  # suffixes that JPEG files do not have


@dataclass(frozen=True, kw_only=True)
class Writer:
    """Writes the protected files of one folder, and measures them.

    Attributes:
        folder: the originals.
        names: released path of each entry, relative and POSIX.
        held: (N,) bool, true where held out.
        sources: SHA-256 of each original by its path.
        noise: (K, S, S, 3) signed integer levels of 0..255.
        rows: (N,) int64, the row of `noise` for each entry.
        encoder: how files are written.
        seed: decides which files are sampled.
        workers: threads; 0 chooses.
    """

    folder: ImageFolder
    names: list[str]
    held: Mask
    sources: dict[str, str]
    noise: Noise
    rows: Labels
    encoder: Encoder
    seed: int
    workers: int

    def choose_quality(self) -> QualityChoice | None:
        """The quality of JPEG for this noise, tried on a few files; None where no JPEG is written.

        Raises:
            ImageError: one of them cannot be read.
        """
        if self.encoder.file_format == "png":
            return None
        jpegs = [number for number, name in enumerate(self.names) if Path(name).suffix.lower() not in LOSSLESS]
        rng = np.random.default_rng(child_seed(self.seed, "quality"))
        picked = sorted(rng.permutation(jpegs)[:QUALITY_SAMPLE].tolist()) if jpegs else []
        pictures = ((self.folder.path_of(self.folder.entries[number]), self._noise(number)) for number in picked)
        return choose_quality(pictures, self.encoder.epsilon, self.encoder.limit)

    def estimate(self) -> float:
        """About how many bytes the released files will take, extrapolated from a few that are encoded in memory.

        Raises:
            ImageError: one of them cannot be read or encoded.
        """
        paths = [self.folder.path_of(entry) for entry in self.folder.entries]
        rng = np.random.default_rng(child_seed(self.seed, "space"))
        before, after = 1, 1
        for number in rng.permutation(len(paths))[:SPACE_SAMPLE].tolist():
            picture = decode(paths[number])
            before += paths[number].stat().st_size
            after += len(self.encoder.encoded(picture, self._noise(number), Descriptions(), paths[number]))
        return sum(path.stat().st_size for path in paths) * after / before

    def write(self, target: Path, journal: Journal, progress: Progress) -> tuple[list[Written], list[tuple[str, str]]]:
        """Write every protected file below `target`, read it back and measure it.

        A file that `journal` lists and `target` holds whole is not written again. A file beyond the limit of the
        encoder is removed again.

        Returns:
            The finished files, and the images whose file was beyond the limit: path and one sentence of why.

        Raises:
            ImageError: a file cannot be read, written or faithfully stored; all threads have stopped writing.
        """
        count = len(self.folder.entries)
        rng = np.random.default_rng(child_seed(self.seed, "ssim"))
        sampled = set(rng.permutation(count)[:SSIM_SAMPLE].tolist())
        gate = _Gate()

        def write(number: int) -> Written | str:
            with gate:
                known = journal.finished.get(self.names[number])
                if known is not None and _is_whole(target, known.row):
                    return known
                written = self._write_one(target, number, number in sampled)
                if isinstance(written, Written):
                    journal.add(written)
                return written

        finished, refused = list[Written](), list[tuple[str, str]]()
        progress.start("write", count)
        with kept_blocks(), ThreadPoolExecutor(self.workers or None) as pool:
            try:
                for entry, written in zip(self.folder.entries, pool.map(write, range(count)), strict=True):
                    if isinstance(written, Written):
                        finished.append(written)
                    else:
                        refused.append((entry.path, written))
                    progress.advance()
            finally:
                gate.close()
        progress.finish()
        return finished, refused

    def _noise(self, number: int) -> Noise:
        return np.asarray(self.noise[self.rows[number]])

    def _write_one(self, target: Path, number: int, sampled: bool) -> Written | str:
        """The finished file, or why it is refused."""
        entry, name = self.folder.entries[number], self.names[number]
        source = self.folder.path_of(entry)
        done = self.encoder.write(
            source, target / name, self._noise(number), similarity=sampled, source_sha256=self.sources[entry.path]
        )
        limit = self.encoder.limit
        if limit is not None and done.linf > limit:
            (target / name).unlink()
            return f"{source} would change by {done.linf} levels as JPEG, --max-linf is {limit}; use --format png."
        row = ManifestRow(
            path=name, class_name=self.folder.classes[entry.label], split="holdout" if self.held[number] else "train",
            source_path=entry.path, source_sha256=self.sources[entry.path], released_sha256=done.released_sha256,
            linf=done.linf, psnr=done.psnr, ssim=done.ssim,
        )  # fmt: skip
        return Written(row=row, before=done.bytes_before, after=done.bytes_after, rounding=done.rounding)


def _is_whole(target: Path, row: ManifestRow) -> bool:
    try:
        return sha256_of(target / row.path) == row.released_sha256
    except InputError:
        return False


class _Gate:
    """Lets threads in until it is closed; closing waits for those inside.

    An interrupted ThreadPoolExecutor can lose track of a thread that it was starting; this gate keeps that thread from
    writing on.
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


def growth(written: list[Written]) -> float:
    """The released bytes relative to the original ones."""
    return round(sum(each.after for each in written) / max(1, sum(each.before for each in written)), 3)


def rounding(written: list[Written]) -> dict[str, int | float]:
    """What JPEG did to the release, as keys of `Protect.jpeg`; empty where no file is a JPEG.

    `written` counts the JPEG files, and `beyond` those with a value outside the limit; `outside` is the share of such
    values, each file counting the same. `kept` is the mean of `Rounding.kept`, `kept_min` the smallest.
    """
    files = [(each.rounding, each.row) for each in written if each.rounding is not None]
    if not files:
        return {}
    found, kept = [each for each, _ in files], [each.kept for each, _ in files]
    return {
        "written": len(found),
        "quality_max": max(each.quality for each in found),
        "largest": max(row.linf or 0 for _, row in files),
        "outside": round(float(np.mean([each.outside for each in found])), 6),
        "beyond": sum(each.outside > 0 for each in found),
        "kept": round(float(np.mean(kept)), 4),
        "kept_min": round(min(kept), 4),
    }


def realised(rows: list[ManifestRow]) -> Realised:
    """How far the whole release is from the originals."""
    psnr = np.mean([row.psnr for row in rows if row.psnr is not None])
    ssim = np.mean([row.ssim for row in rows if row.ssim is not None])
    largest = max(row.linf or 0 for row in rows)
    return Realised(linf_max=largest, psnr_mean=round(float(psnr), 3), ssim_mean=round(float(ssim), 4))


def worst(rows: list[ManifestRow], count: int = 5) -> list[Changed]:
    """The most changed files: the lowest SSIM first where it was measured, then the lowest PSNR."""
    measured = sorted((row for row in rows if row.ssim is not None), key=lambda row: row.ssim or 0.0)[:count]
    others = sorted((row for row in rows if row not in measured and row.psnr is not None), key=lambda r: r.psnr or 0.0)
    listed = [*measured, *others[:count]]
    return [Changed(path=row.path, linf=row.linf, psnr=row.psnr, ssim=row.ssim) for row in listed]
