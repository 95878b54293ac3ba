"""Runs attacks on the files of a released folder and reports what an attacker learns.

Every figure is clean test accuracy. `recovered` puts it between chance (0) and the clean line (1), which is the
accuracy of the same network trained in the same way on the clean originals. The images are decoded once for all
attacks, the cheapest attacks run first, and each result is stored as soon as it is known.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field, replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch

from pueprotect.audit.attacks import Target, find
from pueprotect.audit.attacks.base import CLEAN_SHARE, HELD_OUT, KNOWLEDGE, clean_share
from pueprotect.audit.findings import Gates, clean_row, in_order, judge, worst_of
from pueprotect.audit.flags import imbalanced, names_of
from pueprotect.audit.suites import TRANSFER, applicable, suite
from pueprotect.errors import InputError, StaleDataError
from pueprotect.learning.data import ImageSet
from pueprotect.learning.device import this_machine
from pueprotect.learning.models import ARCHITECTURES, architecture, build
from pueprotect.learning.training import Schedule, default_epochs, train
from pueprotect.protect.methods import base as methods
from pueprotect.release.audits import CLEAN_LINE, AttackResult, Audit, AuditRow
from pueprotect.release.opened import OpenedRelease, open_release
from pueprotect.runtime import VERSION

TIMED_STEPS = 5
MOST_SEEDS = 100


@dataclass(frozen=True, kw_only=True)
class AuditSettings:
    """What is attacked, and how; everything random is a function of `seed`.

    Attributes:
        attacks: registered names; empty for those of the suite.
        suite: name of the suite that they came from; without any attacks, `quick`.
        archs: the attackers' architectures; empty to choose, see `default_archs`.
        epochs: passes of each training; None chooses by the number of images.
        clean_fraction: share of the clean training images that some attacks get, in (0, 1).
        etas: radii of the recovery attack, ascending.
        seeds: every attack and clean line is run with `seed`, `seed` + 1, ... so many times.
        gates: limits that the spread over seeds is compared with.
    """

    attacks: tuple[str, ...] = ()
    suite: str | None = None
    archs: tuple[str, ...] = ()
    epochs: float | None = None
    clean_fraction: float = 0.2
    etas: tuple[float, ...] = (0.5, 1.0, 2.0)
    seed: int = 0
    seeds: int = 1
    gates: Gates = field(default_factory=Gates)

    def __post_init__(self) -> None:
        if not self.attacks:
            object.__setattr__(self, "suite", self.suite or "quick")
            object.__setattr__(self, "attacks", suite(self.suite or "quick"))
        for name in self.attacks:
            find(name)
        if self.epochs is not None and not 0 < self.epochs <= 10_000:
            raise InputError(f"--epochs {self.epochs:g} is outside (0, 10000].")
        if not 0 < self.clean_fraction < 1:
            raise InputError(f"--clean-fraction {self.clean_fraction:g} is not inside (0, 1).")
        if any(not 0 < eta < float("inf") for eta in self.etas):
            raise InputError("--eta for the recovery attack must be positive radii, such as 0.5,1,2.")
        if not 1 <= self.seeds <= MOST_SEEDS:
            raise InputError(f"--seeds {self.seeds} is outside [1, {MOST_SEEDS}].")


@dataclass(frozen=True)
class Job:
    """One training of an audit; `repeat` numbers the seeds from 0, `clean` is for the clean line, on the originals.

    With `held_out` it is on the held-out files, or on their originals, and measured on the originals of the others.
    """

    attack: str
    arch: str
    repeat: int = 0
    clean: bool = False
    held_out: bool = False

    @property
    def name(self) -> str:
        """The name of its result in the vault."""
        return CLEAN_LINE if self.clean else self.attack

    @property
    def place(self) -> str:
        """Its file in the vault."""
        name = f"holdout-{self.name}" if self.clean and self.held_out else self.name
        return f"audit/{f'seed-{self.repeat}/' if self.repeat else ''}{name}-{self.arch}.json"


def default_archs(suite: str | None, surrogate: str, size: int, device: str) -> tuple[str, ...]:
    """The surrogate's architecture; a standard suite adds others that fit the working size.

    Those are resnet8 and cnn (no BatchNorm) on a CPU, cnn and a transformer on a GPU.
    """
    archs = [surrogate]
    for name in TRANSFER.get(suite or "", {}).get(device.partition(":")[0], ()):
        if size >= ARCHITECTURES[name].min_size and size % ARCHITECTURES[name].multiple_of == 0:
            archs.append(name)
    return tuple(dict.fromkeys(archs))


def audit(release: OpenedRelease, settings: AuditSettings, *, resume: bool = False) -> Audit:
    """Run every attack with every architecture and seed; each result is stored in the vault as soon as it is known.

    The processes of the release's machine share the trainings: each of n runs every n-th one, and all get the result.
    With `resume`, results that the vault has for the same settings and the same bytes are kept.

    Raises:
        InputError: an architecture does not fit, an attack chosen by name lacks what it needs, or another run has the
            vault.
    """
    if not settings.archs:
        archs = default_archs(settings.suite, release.default_arch, release.size, release.device)
        settings = replace(settings, archs=archs)
    for arch in settings.archs:
        architecture(arch, release.size)  # refuses one that does not fit
    work, group = _Audit(release, settings), release.machine.group
    attacks, skipped = work.affordable()
    jobs = work.plan(attacks)
    done = {job: result for job in jobs if (result := work.kept(job)) is not None} if resume else {}
    done = group.from_leader(done)  # one answer, although a process may already write
    missing = [job for job in jobs if job not in done]
    with release.in_use() if missing else nullcontext():
        if missing:
            work.estimate(missing, group.size)
        done |= {job: work.run(job) for job in group.share(missing)}
        results = {job: result for part in group.gather(done) for job, result in part.items()}
    return work.report(attacks, skipped, results)


def audit_folder(out: Path, settings: AuditSettings) -> Audit:
    """Audit a release of this package."""
    return audit(open_release(out, machine=this_machine()), settings)


class _Audit:
    """What the trainings of one audit have in common."""

    def __init__(self, release: OpenedRelease, settings: AuditSettings) -> None:
        self.release, self.settings, self.progress = release, settings, release.machine.progress
        try:
            self.originals = release.originals
        except StaleDataError:  # the audit goes on without a clean line and raises a flag
            self.originals = None
        self.scheme = methods.scheme_of(release.run)

    def side(self, held_out: bool) -> OpenedRelease:
        """The release for an attacker on the usual files, or on the held-out files."""
        other = self.release.other_side if held_out and self.originals is not None else None
        return other or self.release

    def schedule(self, job: Job) -> Schedule:
        """The schedule of plain training."""
        return Schedule(epochs=self.settings.epochs or default_epochs(len(self.side(job.held_out).released)))

    def affordable(self) -> tuple[tuple[str, ...], tuple[str, ...]]:
        """Attacks that can be run, and those of a suite that lack clean images."""
        names = self.settings.attacks
        if self.settings.suite is not None:
            names = applicable(names, self.release.run.get("method"))
        known = self.originals is not None
        held = known, self.scheme is not None, known and self.release.has_held_out
        lacking = {name: why for name in names if (why := find(name).lacks(*held))}
        for name, why in lacking.items():
            if self.settings.suite is None or find(name).needs == KNOWLEDGE:
                raise InputError(why)
        return tuple(name for name in names if name not in lacking), tuple(lacking)

    def plan(self, attacks: Sequence[str]) -> list[Job]:
        """Clean lines first, then the attacks, cheapest first."""
        networks = [(arch, repeat) for repeat in range(self.settings.seeds) for arch in self.settings.archs]
        sides = sorted({of_held_out(name) for name in attacks} | {False})
        lines = [
            Job("standard", *network, clean=True, held_out=held_out)
            for network in networks if self.originals is not None for held_out in sides
        ]  # fmt: skip
        rest = [Job(name, *network, held_out=of_held_out(name)) for network in networks for name in attacks]
        return lines + sorted(rest, key=lambda job: (job.repeat, find(job.attack).cost))

    def estimate(self, jobs: Sequence[Job], processes: int) -> None:
        """Time a few steps of each network, and report how long all trainings will take."""
        archs = sorted({job.arch for job in jobs})
        self.progress.start("time a few steps", len(archs))
        speed = {}
        for arch in archs:
            speed[arch] = seconds_per_step(arch, self.release.released, Schedule())
            self.progress.advance()

        def seconds(job: Job) -> float:
            steps = self.schedule(job).steps(len(self.side(job.held_out).released))
            return find(job.attack).cost * speed[job.arch] * steps

        total = sum(map(seconds, jobs)) / min(processes, len(jobs))
        self.progress.finish(f"{len(jobs)} trainings, about {duration(total)}")

    def target(self, job: Job) -> Target:
        """What the attacker of this training has."""
        settings, seed, schedule = self.settings, self.settings.seed + job.repeat, self.schedule(job)
        side = self.side(job.held_out)
        originals = side.originals if self.originals is not None else None
        if job.clean:
            assert originals is not None
            return Target(originals, job.arch, schedule, seed)
        share = None
        if find(job.attack).needs == CLEAN_SHARE:
            share = clean_share(originals, settings.clean_fraction, seed)
        return Target(
            side.released, job.arch, schedule, seed, share, settings.etas, originals, self.scheme, side.places
        )  # fmt: skip

    def key(self, job: Job) -> dict[str, Any]:
        """Everything that a result depends on except the bytes."""
        return {
            "attack": job.name, "arch": job.arch, "epochs": self.schedule(job).epochs,
            "seed": self.settings.seed + job.repeat, "train": len(self.side(job.held_out).released),
            "device": self.release.device.partition(":")[0], "clean_fraction": self.settings.clean_fraction,
            "etas": list(self.settings.etas), "pueprotect": VERSION,
        }  # fmt: skip

    def kept(self, job: Job) -> AttackResult | None:
        """The stored result for the same settings and bytes; a failed one is tried again."""
        stored = self.side(job.held_out).results.kept(job.place, self.key(job))
        found = AttackResult.model_validate(stored) if stored else None
        return found if found and not found.failed else None

    def run(self, job: Job) -> AttackResult:
        """Train and measure; stored as soon as it is known. A numerical failure is a result too."""
        side, clean = self.side(job.held_out), "held-out" if job.held_out else "clean"
        label = f"train on the {clean} originals ({job.arch})" if job.clean else f"attack {job.attack} ({job.arch})"
        if job.repeat:
            label += f", seed {self.settings.seed + job.repeat}"
        began = time.perf_counter()
        try:
            result = find(job.attack).run(self.target(job), side.test, self.progress, label)
        except (ArithmeticError, torch.linalg.LinAlgError) as error:  # type: ignore[attr-defined]
            why = f"{type(error).__name__}: {' '.join(str(error).split())}"
            self.progress.finish(f"failed ({why})")
            result = AttackResult(
                attack=job.attack, arch=job.arch, accuracy=None, best_accuracy=None, epochs=self.schedule(job).epochs,
                seconds=time.perf_counter() - began, flags=("failed",), details={"failure": why},
            )  # fmt: skip
        side.results.keep(job.place, self.key(job), result.as_json())
        return result

    def report(self, attacks: Sequence[str], skipped: Sequence[str], results: dict[Job, AttackResult]) -> Audit:
        """All results in one record."""
        settings, release = self.settings, self.release

        def runs(name: str, arch: str, clean: bool, held_out: bool) -> list[AttackResult]:
            jobs = (Job(name, arch, repeat, clean, held_out) for repeat in range(settings.seeds))
            return [results[job] for job in jobs if job in results]

        def lines(held_out: bool) -> dict[str, AuditRow]:
            found = {arch: runs("standard", arch, True, held_out) for arch in settings.archs}
            chance = self.side(held_out).chance if any(found.values()) else 0.0
            return {arch: clean_row(made, chance) for arch, made in found.items() if made}

        def row(name: str, arch: str) -> AuditRow:
            held_out = of_held_out(name)
            line, chance = clean[held_out].get(arch), self.side(held_out).chance
            judged = judge(runs(name, arch, False, held_out), line, chance, settings.gates)
            if not held_out:
                return judged
            flags = dict.fromkeys((*judged.flags, *(line.flags if line else ())))
            return judged.model_copy(update={"held_out": True, "chance": chance, "flags": tuple(flags)})

        clean = {held_out: lines(held_out) for held_out in (False, True)}
        rows = in_order([row(name, arch) for arch in settings.archs for name in attacks])
        first = next(iter(clean[False].values()), None)
        everything = (*rows, *clean[False].values(), *clean[True].values())
        return Audit(
            suite=settings.suite, chance=release.chance, clean_accuracy=first.accuracy if first else None,
            clean_lines=clean[False], held_out_lines=clean[True], attacked_images=len(release.released),
            attacked_share=release.attacked_share, results=rows, worst=worst_of(rows),
            complete=not skipped and not any(found.failed for found in everything), skipped=list(skipped),
            flags=self.flags(clean[False], skipped), data_digest=release.digest, test_overlap=release.overlap,
        )  # fmt: skip

    def flags(self, clean: dict[str, AuditRow], skipped: Sequence[str]) -> list[str]:
        """Reasons to doubt the whole audit."""
        release, data = self.release, self.release.released
        own = names_of({
            "no-clean-line": not clean,
            "small-test": release.few_test_images,
            "test-overlap": release.overlap is not None,
            "class-imbalance": imbalanced(torch.bincount(data.labels, minlength=data.classes).tolist()),
            "coverage-unknown": not release.own,
            "partly-protected": release.own
            and any(row.linf == 0 or row.released_sha256 == row.source_sha256 for row in release.vault.read_manifest()),
            "suite-incomplete": bool(skipped),
        })  # fmt: skip
        return list(dict.fromkeys([*(flag for line in clean.values() for flag in line.flags), *own]))


def of_held_out(name: str) -> bool:
    """Whether an attack trains on the held-out files."""
    return find(name).needs == HELD_OUT


def seconds_per_step(arch: str, data: ImageSet, schedule: Schedule) -> float:
    """Wall time of one plain training step: the median of a few on full batches, the first one left out."""
    model = build(arch, data.classes, data.size, seed=0, purpose="timing", device=data.device)
    few = data.subset(slice(0, (1 + TIMED_STEPS) * schedule.batch_size))
    moments: list[float] = []

    def look() -> None:
        next(model.parameters()).sum().item()  # waits for the device
        moments.append(time.perf_counter())

    look()
    train(model, few, replace(schedule, epochs=1), seed=0, after_step=look)
    steps = [after - before for before, after in pairwise(moments)]
    return statistics.median(steps[1:] or steps)


def duration(seconds: float) -> str:
    """`40 s`, `12 min` or `3.2 h`."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
