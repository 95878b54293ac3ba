"""Stores draws around a surrogate as they are made: killed runs continue, draws can be added, processes share them.

A log is a text file: a JSON line with everything that the draws depend on, then `index correct unanswered digest` for
each draw; the digest is that of the first line, so that draws of two runs cannot mix. A log is only appended to, and
flushed to disk after each chunk. A line that a killed process left unfinished is dropped. A log that is replaced stays
under another name.
"""

from __future__ import annotations

import hashlib
import itertools
import json
import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import torch

from pueprotect.errors import VaultError
from pueprotect.learning.data import ImageSet
from pueprotect.learning.device import HERE, Machine
from pueprotect.learning.draw_engine import DrawEngine, repeatable
from pueprotect.release.vault import json_line, refuse_other

CALIBRATION_IMAGES = 128
CHUNK = 10
DIGITS = 12

Count = tuple[int, int]


class DrawLog:
    """The finished draws of one surrogate.

    They are in the file `path`, or only in memory without one. `key` is everything that a draw depends on except its
    index, as plain JSON values, and `images` the number of images that each draw answers. With `resume` an existing
    file is continued. Otherwise a new one is begun, and the old one is renamed to `PATH.1`, or the next free number.

    Raises:
        InputError: the file holds draws of other settings or data; the message names the differences.
        VaultError: the file is damaged, holds impossible draws or draws of another run, or cannot be written.
    """

    def __init__(self, path: Path | None, key: dict[str, Any], *, images: int = 0, resume: bool = False) -> None:
        self.path, self.images = path, images
        self.counts: dict[int, Count] = {}
        self.digest = hashlib.sha256(json_line(dict(sorted(key.items())))).hexdigest()[:DIGITS]
        if path is None:
            return
        if resume and path.exists():
            self._read(path, key)
        else:
            _set_aside(path)
            append_text(path, json.dumps(key) + "\n")

    def _read(self, path: Path, key: dict[str, Any]) -> None:
        try:
            text = path.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise VaultError(f"{path} cannot be read ({error}). Remove it and draw again.") from error
        whole = text[: text.rfind("\n") + 1]
        header, *lines = whole.splitlines() or [""]
        if header:
            try:
                found = json.loads(header)
            except ValueError as error:
                raise VaultError(f"{path}: the first line is not JSON. Remove the file and draw again.") from error
            refuse_other(path, found if isinstance(found, dict) else {}, key)
        for line in lines:
            index, count = self._parsed(path, line)
            if self.counts.setdefault(index, count) != count:
                raise VaultError(f"{path} has two results of draw {index}. Remove the file and draw again.")
        if whole != text:
            append_text(path, "", keep=len(whole.encode()))
        if not header:
            append_text(path, json.dumps(key) + "\n")

    def _parsed(self, path: Path, line: str) -> tuple[int, Count]:
        """The index and the count of one line."""
        try:
            *numbers, digest = line.split()
            index, correct, unanswered = map(int, numbers)
        except ValueError as error:
            raise VaultError(f"{path}: {line!r} is not a draw. Remove the file and draw again.") from error
        if digest != self.digest:
            raise VaultError(f"{path}: {line!r} is from a run with other settings. Remove the file and draw again.")
        if min(index, correct, unanswered) < 0 or correct + unanswered > self.images:
            raise VaultError(f"{path}: {line!r} is impossible for {self.images} images. Remove it and draw again.")
        return index, (correct, unanswered)

    def missing(self, draws: int) -> list[int]:
        """Indices below `draws` without a draw."""
        return [index for index in range(draws) if index not in self.counts]

    def add(self, rows: Sequence[tuple[int, int, int]]) -> None:
        """Append (index, correct, unanswered) and flush them to disk."""
        self.counts.update((index, (correct, unanswered)) for index, correct, unanswered in rows)
        if self.path is not None:
            append_text(self.path, "".join(f"{index} {a} {b} {self.digest}\n" for index, a, b in rows))

    def first(self, draws: int) -> list[Count]:
        """The draws 0 .. draws - 1 in order."""
        return [self.counts[index] for index in range(draws)]


def _set_aside(path: Path) -> None:
    """Rename an older log with finished draws; remove one without."""
    try:
        if path.exists() and path.read_bytes().count(b"\n") > 1:
            names = (path.with_name(f"{path.name}.{number}") for number in itertools.count(1))
            path.rename(next(name for name in names if not name.exists()))
        path.unlink(missing_ok=True)
    except OSError as error:
        raise VaultError(f"{path} cannot be renamed ({error.strerror}). Check its folder.") from error


def append_text(path: Path, text: str, keep: int | None = None) -> None:
    """Append to a file of mode 0600, made with its folder if needed, and flush it to disk.

    `keep` first cuts the file to so many bytes, after a line that a killed process did not finish.

    Raises:
        VaultError: it cannot be written.
    """
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600), "a", encoding="utf-8") as file:
            if keep is not None:
                file.truncate(keep)
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        raise VaultError(f"{path} cannot be written ({error.strerror}). Check the space on its disk.") from error


def calibration_images(data: ImageSet, seed: int) -> torch.Tensor:
    """The fixed batch from which BatchNorm statistics are re-estimated: (M, 3, H, W) uint8."""
    return data.drawn(CALIBRATION_IMAGES, seed, "calibration").images


class Workers:
    """Evaluates draws, on a CPU as many at once as it has threads, but at most `most`.

    Small networks leave cores idle when the cores share one forward pass; with one draw for each core they do not.
    """

    def __init__(self, engine: DrawEngine, most: int) -> None:
        threads = 1 if engine.device.type == "cuda" else torch.get_num_threads()
        self.engines = [engine, *(engine.sibling() for _ in range(min(threads, most) - 1))]

    def counts(self, indices: list[int]) -> list[list[int]]:
        """(correct, unanswered) of each draw; a GPU synchronises once."""
        if not indices:
            return []
        if len(self.engines) == 1:
            return torch.stack([self.engines[0].draw(index) for index in indices]).tolist()
        threads = torch.get_num_threads()
        try:
            pool = ThreadPoolExecutor(len(self.engines), initializer=torch.set_num_threads, initargs=(1,))
            with repeatable(), pool:
                parts = [indices[start :: len(self.engines)] for start in range(len(self.engines))]
                found = {index: count for part in pool.map(_one_by_one, self.engines, parts) for index, count in part}
        finally:
            torch.set_num_threads(threads)
        return [found[index] for index in indices]


def _one_by_one(engine: DrawEngine, indices: list[int]) -> list[tuple[int, list[int]]]:
    return [(index, engine.draw(index).tolist()) for index in indices]


def draw(engine: DrawEngine, log: DrawLog, draws: int, machine: Machine = HERE) -> None:
    """Complete `log` to `draws` draws; the processes of `machine` share the missing ones.

    Rank 0's log decides what is missing; afterwards every rank's is complete. The counts do not depend on the number of
    processes. Progress gets one part for each draw, old ones included.
    """
    group, progress = machine.group, machine.progress
    log.counts = group.from_leader(log.counts)
    missing = log.missing(draws)
    progress.advance(draws - len(missing))
    workers = Workers(engine, CHUNK)
    stride = CHUNK * group.size
    for start in range(0, len(missing), stride):
        mine = group.share(missing[start : start + stride])
        rows = [(index, *count) for index, count in zip(mine, workers.counts(mine), strict=True)]
        everyone = sorted(row for part in group.gather(rows) for row in part)
        log.add(everyone)
        progress.advance(len(everyone))
