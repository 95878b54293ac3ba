"""From a folder of photographs to a protected folder and its vault.

`preflight` refuses before anything is read, and `publish` writes at the end. In between everything new lies in the
vault's `draft` folder and in a locked folder under a temporary name (module `draft`): an earlier release and its vault
stay whole, and an interrupted run can go on.
"""

from __future__ import annotations

import time
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path

from pueprotect.learning.device import HERE, Machine
from pueprotect.protect import noise as noises
from pueprotect.protect.draft import Journal, building, locked
from pueprotect.protect.job import Job, read_job
from pueprotect.protect.methods.base import Noise
from pueprotect.protect.options import Options
from pueprotect.protect.preflight import check_places, refuse_released
from pueprotect.protect.publish import clean_up, publish
from pueprotect.protect.report import Report, recorded_result, report, run_record
from pueprotect.protect.writer import realised, worst
from pueprotect.release.digests import data_digest, verify
from pueprotect.release.records import NoiseFacts
from pueprotect.release.vault import Vault, default_vault


@dataclass
class _Timer:
    """Wall seconds of the named parts."""

    parts: dict[str, float] = field(default_factory=dict)
    began: float = field(default_factory=time.perf_counter)
    last: float = field(default_factory=time.perf_counter)

    def lap(self, name: str) -> None:
        now = time.perf_counter()
        self.parts[name] = self.parts.get(name, 0.0) + now - self.last
        self.last = now

    def rounded(self) -> dict[str, float]:
        parts = {name: self.parts.get(name, 0.0) for name in ("read", "optimise", "write")}
        parts["total"] = time.perf_counter() - self.began
        return {name: round(value, 2) for name, value in parts.items()}


def protect_folder(
    src: Path,
    out: Path,
    *,
    vault: Path | None = None,
    options: Options,
    machine: Machine = HERE,
) -> Report:
    """Protect a folder of labelled images.

    Args:
        src: the originals.
        out: the released folder; must not exist or be empty unless `options.overwrite`.
        vault: private folder of the release; None takes `OUT.vault`.
        options: what to do.
        machine: where it is done. This is rank 0 of its group; the others are in `noise.assist`.

    Returns:
        The report; `released` is false when the self-check failed, and then only the vault's draft was written.

    Raises:
        InputError: folders or options that cannot be used, or in use by another run; nothing was written.
        ImageError: images that cannot be read; all are checked before the work starts.
    """
    place = vault or default_vault(out)
    check = partial(check_places, src, out, place, overwrite=options.overwrite, workers=options.workers)
    check(resume=options.resume, finished=options.resume)
    timer = _Timer()
    with building(out) as folder:
        job = read_job(src, options, machine, folder)
        refuse_released(src, job.sources, (place, default_vault(src), *src.resolve().parent.glob("*.vault")))
        timer.lap("read")
        store = Vault(place)
        if options.resume and _is_finished(store, out, job.key(), options.workers):
            machine.group.dismiss()
            clean_up(store, out.resolve())
            return report(job, recorded_result(store.run()), released=True)
        known = noises.kept(store, job.plan()) if options.resume else None
        check(resume=known is not None)
        Vault.create(place)
        place.chmod(0o700)
        with locked(place, f"--vault {place}"):
            store.sweep()
            if known is None:
                known = noises.make(store, job.plan(), job.images, job.held, job.settings, job.preset, machine)
            else:
                machine.group.dismiss()
            timer.lap("optimise")
            return _release(job, store, known, folder, out, machine, timer)


def _is_finished(store: Vault, out: Path, key: str, workers: int) -> bool:
    """Whether `out` is what this run would make: it was interrupted at its very end, or repeated."""
    if not (store.is_sealed and out.is_dir()) or store.run().get("key") != key:
        return False
    return verify(out, store.read_manifest(), workers).ok


def _release(
    job: Job,
    store: Vault,
    made: tuple[Noise, NoiseFacts],
    folder: Path,
    out: Path,
    machine: Machine,
    timer: _Timer,
) -> Report:
    """Write and publish, unless the self-check found the noise too weak."""
    noise, facts = made
    if not facts.self_check.passed and not job.options.release_anyway:
        return report(job, job.result(facts, store.path, timer.rounded()), released=False)
    quality = job.writer(noise).choose_quality()
    journal = Journal(store, f"{job.key()}/{quality}", goes_on=job.options.resume)
    try:
        journal.tidy(folder)
        rows, growth = job.writer(noise, quality).write(folder, journal, machine.progress)
    finally:
        journal.close()
    timer.lap("write")
    result = job.result(facts, store.path, timer.rounded()).model_copy(
        update={
            "realised": realised(rows),
            "file_growth": growth,
            "jpeg": None if quality is None else asdict(quality),
            "worst": worst(rows),
            "data_digest": data_digest({row.path: row.released_sha256 for row in rows}),
        }
    )
    publish(store, folder, out.resolve(), rows, run_record(job, result, machine.device))
    return report(job, result, released=True)
