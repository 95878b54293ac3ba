"""Stores draws around a surrogate as they are made: killed runs continue, draws can be added, processes share them.

A log is a text file: a JSON line with everything that the draws depend on, then `index correct unanswered` for each
draw. It is only appended to, and flushed to disk after each chunk. A line that a killed process left unfinished is
dropped.
"""

from __future__ import annotations

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
from pueprotect.learning.draw_engine import DrawEngine
from pueprotect.release.vault import refuse_other
from pueprotect.runtime import child_seed

CALIBRATION_IMAGES = 128
CHUNK = 10

Count = tuple[int, int]


class DrawLog:
    """The finished draws of one surrogate.

    They are in the file `path`, or only in memory without one. `key` is everything that a draw depends on except its
    index, as plain JSON values. With `resume` an existing file is continued, otherwise it is replaced.

    Raises:
        InputError: the file holds draws of other settings or data; the message names the differences.
        VaultError: the file is damaged or cannot be written.
    """

    def __init__(self, path: Path | None, key: dict[str, Any], *, resume: bool = False) -> None:
        self.path = path
        self.counts: dict[int, Count] = {}
        if path is None:
            return
        if resume and path.exists():
            self._read(path, key)
        else:
            self._write(path, "w", json.dumps(key) + "\n")

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
            try:
                index, correct, unanswered = map(int, line.split())
            except ValueError as error:
                raise VaultError(f"{path}: {line!r} is not a draw. Remove the file and draw again.") from error
            self.counts[index] = correct, unanswered
        if whole != text or not header:
            kept = "".join(f"{index} {a} {b}\n" for index, (a, b) in self.counts.items())
            self._write(path, "w", json.dumps(key) + "\n" + kept)

    def missing(self, draws: int) -> list[int]:
        """Indices below `draws` without a draw."""
        return [index for index in range(draws) if index not in self.counts]

    def add(self, rows: Sequence[tuple[int, int, int]]) -> None:
        """Append (index, correct, unanswered) and flush them to disk."""
        self.counts.update((index, (correct, unanswered)) for index, correct, unanswered in rows)
        if self.path is not None:
            self._write(self.path, "a", "".join(f"{index} {a} {b}\n" for index, a, b in rows))

    def first(self, draws: int) -> list[Count]:
        """The draws 0 .. draws - 1 in order."""
        return [self.counts[index] for index in range(draws)]

    @staticmethod
    def _write(path: Path, mode: str, text: str) -> None:
        flags = os.O_WRONLY | os.O_CREAT | (os.O_APPEND if mode == "a" else os.O_TRUNC)
        try:
            path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            with os.fdopen(os.open(path, flags, 0o600), mode, encoding="utf-8") as file:
                file.write(text)
                file.flush()
                os.fsync(file.fileno())
        except OSError as error:
            raise VaultError(f"{path} cannot be written ({error.strerror}). Check the space on its disk.") from error


def calibration_images(data: ImageSet, seed: int) -> torch.Tensor:
    """The fixed batch from which BatchNorm statistics are re-estimated: (M, 3, H, W) uint8."""
    order = torch.randperm(len(data), generator=torch.Generator().manual_seed(child_seed(seed, "calibration")))
    return data.images[order[:CALIBRATION_IMAGES].to(data.images.device)]


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
            with ThreadPoolExecutor(len(self.engines), initializer=torch.set_num_threads, initargs=(1,)) as pool:
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
