"""Turns a folder of photographs into a protected folder and its vault.

`preflight` refuses before anything is read, and `publish` writes at the end. In between everything new is in the
vault's draft and in a locked partial folder (module `draft`): an earlier release and its vault stay whole, and an
interrupted run can be resumed.
"""

from __future__ import annotations

import time
from dataclasses import asdict, dataclass, field
from pathlib import Path

from pueprotect.learning.device import HERE, Machine
from pueprotect.protect import noise as noises
from pueprotect.protect.draft import Journal, locked, partial_folder
from pueprotect.protect.job import Job, read_job
from pueprotect.protect.methods.base import Noise
from pueprotect.protect.options import Options
from pueprotect.protect.preflight import check_contents, check_places, refuse_released
from pueprotect.protect.publish import clean_up, publish
from pueprotect.protect.report import Report, recorded_result, report, run_record
from pueprotect.protect.writer import growth, realised, rounding, worst
from pueprotect.release.digests import data_digest, verify
from pueprotect.release.records import NoiseFacts
from pueprotect.release.vault import Vault, default_vault


@dataclass
class _Timer:
    """Wall seconds of the named parts."""

    parts: dict[str, float] = field(default_factory=lambda: {"read": 0.0, "optimise": 0.0, "write": 0.0})
    began: float = field(default_factory=time.perf_counter)

    def lap(self, name: str) -> None:
        self.parts[name] = time.perf_counter() - self.began - sum(self.parts.values())

    def rounded(self) -> dict[str, float]:
        parts = self.parts | {"total": time.perf_counter() - self.began}
        return {name: round(value, 2) for name, value in parts.items()}


def protect_folder(
    src: Path, out: Path, *, vault: Path | None = None, options: Options, machine: Machine = HERE
) -> Report:
    """Protect a folder of labelled images.

    Args:
        src: the originals.
        out: the released folder; must not exist or be empty unless `options.overwrite`.
        vault: private folder of the release; None takes `OUT.vault`.
        options: see `Options`.
        machine: does the work as rank 0 of its group; the other ranks call `noise.assist`.

    Returns:
        The report; `released` is false when the self-check failed, and then only the vault's draft was written.

    Raises:
        InputError: folders or options that cannot be used, or in use by another run; nothing was written.
        ImageError: images that cannot be read; all are checked before the work starts.
    """
    place, overwrite, workers = vault or default_vault(out), options.overwrite, options.workers
    store = Vault(place)
    check_places(src, out, place)
    # With --resume the folder and the vault may be the finished release itself, which `_is_finished` checks later.
    replace_out, replace_vault = overwrite or (options.resume and store.is_sealed), overwrite or options.resume
    check_contents(out, place, replace_out=replace_out, replace_vault=replace_vault, workers=workers)
    timer = _Timer()
    with partial_folder(out) as partial:
        job = read_job(src, options, machine, partial)
        refuse_released(src, job.sources, (place, default_vault(src), *src.resolve().parent.glob("*.vault")))
        timer.lap("read")
        if options.resume and _is_finished(store, out, job.key(), workers):
            machine.group.dismiss()
            clean_up(store, out.resolve())
            return report(job, recorded_result(store.run()), released=True)
        known = noises.kept(store, job.plan()) if options.resume else None
        # An interrupted --overwrite has left its draft in the vault of the release that it replaces.
        replace_vault = overwrite or known is not None
        check_contents(out, place, replace_out=overwrite, replace_vault=replace_vault, workers=workers)
        Vault.create(place)
        place.chmod(0o700)
        with locked(place, f"--vault {place}"):
            store.sweep()
            if known is None:
                known = noises.make(store, job.plan(), job.images, job.held, job.settings, job.preset, machine)
            else:
                machine.group.dismiss()
            timer.lap("optimise")
            return _release(job, store, known, partial, out, machine, timer)


def _is_finished(store: Vault, out: Path, key: str, workers: int) -> bool:
    """Whether `out` is already what this run would make: an earlier run was interrupted at its end, or finished."""
    if not (store.is_sealed and out.is_dir()) or store.run().get("key") != key:
        return False
    return verify(out, store.read_manifest(), workers).ok


def _release(
    job: Job, store: Vault, made: tuple[Noise, NoiseFacts], partial: Path, out: Path, machine: Machine, timer: _Timer
) -> Report:
    """Write and publish, unless the self-check found the noise too weak."""
    noise, facts = made
    if not facts.self_check.passed and not job.options.release_anyway:
        return report(job, job.result(facts, store.path, timer.rounded()), released=False)
    quality = job.writer(noise).choose_quality()
    journal = Journal(store, f"{job.key()}/{quality}", goes_on=job.options.resume)
    try:
        journal.tidy(partial)
        written, refused = job.writer(noise, quality).write(partial, journal, machine.progress)
    finally:
        journal.close()
    timer.lap("write")
    released = job.without(refused) if refused else job
    rows = [each.row for each in written]
    result = released.result(facts, store.path, timer.rounded()).model_copy(
        update={
            "realised": realised(rows),
            "file_growth": growth(written),
            "jpeg": None if quality is None else asdict(quality) | rounding(written),
            "worst": worst(rows),
            "data_digest": data_digest({row.path: row.released_sha256 for row in rows}),
        }
    )
    delta = noise[job.kept(refused)] if refused and job.settings.mode == "sample-wise" else None
    record = run_record(job, result, machine.device)
    publish(store, partial, out.resolve(), rows, record, delta, job.options.workers)
    return report(released, result, released=True)
