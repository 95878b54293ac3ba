"""Draws around a surrogate, kept as they are made: killed runs go on, more draws can follow, processes can share.

A log is a text file: a JSON line that says what was drawn, then `index correct unanswered` for each draw. It is only
ever appended to and flushed to disk after each chunk; a line that a killed process left unfinished is dropped.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable
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

    Args:
        path: the file; None keeps them in memory.
        key: everything that a draw depends on besides its index, as plain JSON values.
        resume: go on with the file that is there; otherwise it is replaced.

    Raises:
        InputError: the file holds draws of other settings or data; the differences are named.
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
            raise VaultError(f"{path} cannot be read ({error}); remove it and draw again.") from error
        whole = text[: text.rfind("\n") + 1]
        header, *lines = whole.splitlines() or [""]
        if header:
            refuse_other(path, _parsed(path, header), key)
        for line in lines:
            try:
                index, correct, unanswered = map(int, line.split())
            except ValueError as error:
                raise VaultError(f"{path}: {line!r} is not a draw; remove the file and draw again.") from error
            self.counts[index] = correct, unanswered
        if whole != text or not header:
            kept = "".join(f"{index} {a} {b}\n" for index, (a, b) in self.counts.items())
            self._write(path, "w", json.dumps(key) + "\n" + kept)

    def missing(self, draws: int) -> list[int]:
        """Indices below `draws` that are not there yet."""
        return [index for index in range(draws) if index not in self.counts]

    def add(self, rows: Iterable[tuple[int, int, int]]) -> None:
        """Append (index, correct, unanswered) and flush them to disk."""
        rows = list(rows)
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
            raise VaultError(f"{path} cannot be written ({error.strerror}); check the space on its disk.") from error


def _parsed(path: Path, header: str) -> dict[str, Any]:
    try:
        found = json.loads(header)
    except ValueError as error:
        raise VaultError(f"{path} does not begin with what was drawn; remove it and draw again.") from error
    return found if isinstance(found, dict) else {}


def calibration_images(data: ImageSet, seed: int) -> torch.Tensor:
    """The fixed batch from which BatchNorm statistics are re-estimated: (M, 3, H, W) uint8."""
    order = torch.randperm(len(data), generator=torch.Generator().manual_seed(child_seed(seed, "calibration")))
    return data.images[order[:CALIBRATION_IMAGES].to(data.images.device)]


class Workers:
    """Evaluates draws, on a CPU as many at once as it has threads.

    Convolutions of small networks leave cores idle when they share one forward pass; a draw for each core does not.

    Args:
        engine: one worker's; the others get siblings of it.
        most: no more workers than this.
    """

    def __init__(self, engine: DrawEngine, most: int) -> None:
        threads = 1 if engine.device.type == "cuda" else torch.get_num_threads()
        self.engines = [engine, *(engine.sibling() for _ in range(min(threads, most) - 1))]

    def counts(self, indices: list[int]) -> list[list[int]]:
        """(correct, unanswered) of each draw; one synchronisation with a GPU."""
        if not indices:
            return []
        if len(self.engines) == 1:
            return torch.stack([self.engines[0].draw(index) for index in indices]).tolist()
        threads = torch.get_num_threads()
        try:
            with ThreadPoolExecutor(len(self.engines), initializer=torch.set_num_threads, initargs=(1,)) as pool:
                parts = [indices[start :: len(self.engines)] for start in range(len(self.engines))]
                jobs = [pool.submit(_one_by_one, *work) for work in zip(self.engines, parts, strict=True)]
                found = {index: count for job in jobs for index, count in job.result()}
        finally:
            torch.set_num_threads(threads)
        return [found[index] for index in indices]


def _one_by_one(engine: DrawEngine, indices: list[int]) -> list[tuple[int, list[int]]]:
    return [(index, engine.draw(index).tolist()) for index in indices]


def draw(engine: DrawEngine, log: DrawLog, draws: int, machine: Machine = HERE) -> None:
    """Complete `log` to `draws` draws; the processes of `machine` share the missing ones.

    Args:
        engine: evaluates draws on this process's device.
        log: rank 0's decides what is missing; afterwards every rank's is complete.
        draws: how many are wanted.
        machine: processes that share the work, the counts do not depend on how many there are; its progress gets one
            part for each draw, old ones included.
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
