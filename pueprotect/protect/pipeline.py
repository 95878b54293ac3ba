"""Turns a folder of photographs into a protected folder and its vault.

`preflight` refuses before anything is read, and `publish` writes at the end. In between everything new is in the
vault's draft and in a locked partial folder (module `draft`): an earlier release and its vault stay whole, and an
interrupted run can be resumed.
"""

from __future__ import annotations

import time
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, NamedTuple

from pueprotect.learning.device import HERE, Machine
from pueprotect.protect.draft import JOURNAL, Journal, emptied, partial_folder
from pueprotect.protect.job import Job, read_job
from pueprotect.protect.methods.base import Labels, Noise
from pueprotect.protect.noise import NoiseDraft, kept_key
from pueprotect.protect.options import Options
from pueprotect.protect.preflight import check_contents, check_places, refuse_released
from pueprotect.protect.publish import clean_up, publish
from pueprotect.protect.report import Report, recorded_result, report, run_record
from pueprotect.protect.writer import growth, realised, rounding, worst
from pueprotect.release.digests import data_digest, verify
from pueprotect.release.records import ManifestRow
from pueprotect.release.vault import Vault, default_vault, locked


class _Written(NamedTuple):
    """The files in the partial folder.

    Attributes:
        job: without the images whose files are refused.
        rows: the manifest.
        figures: for the result.
        part: noise and rows of these images, where they are not all.
    """

    job: Job
    rows: list[ManifestRow]
    figures: dict[str, Any]
    part: tuple[Noise, Labels] | None


@dataclass
class _Timer:
    """Wall seconds of the named parts."""

    parts: dict[str, float] = field(default_factory=lambda: {"read": 0.0, "optimise": 0.0, "write": 0.0, "check": 0.0})
    began: float = field(default_factory=time.perf_counter)

    def lap(self, name: str) -> None:
        since = time.perf_counter() - self.began - sum(self.parts.values())
        self.parts[name] = self.parts.get(name, 0.0) + since

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
    if options.resume and options.key is None:
        options = replace(options, key=kept_key(store))
    timer = _Timer()
    with partial_folder(out) as partial:
        job = read_job(src, options, machine, partial)
        refuse_released(src, job.sources, (place, default_vault(src), *src.resolve().parent.glob("*.vault")))
        timer.lap("read")
        if options.resume and _is_finished(store, out, job.key(), workers):
            machine.group.dismiss()
            clean_up(store, out.resolve())
            return report(job, recorded_result(store.run()), released=True)
        draft = NoiseDraft(store, job.plan(), job.originals, job.settings, job.preset, machine)
        known = options.resume and draft.load()
        # An interrupted --overwrite has left its draft in the vault of the release that it replaces.
        replace_vault = overwrite or known
        check_contents(out, place, replace_out=overwrite, replace_vault=replace_vault, workers=workers)
        if not known:
            draft.look(anyway=options.release_anyway)
        Vault.create(place)
        place.chmod(0o700)
        with locked(place, f"--vault {place}"):
            store.sweep()
            if not known:
                draft.make()
            timer.lap("optimise")
            return _release(job, draft, partial, out, timer)


def _is_finished(store: Vault, out: Path, key: str, workers: int) -> bool:
    """Whether `out` is already what this run would make: an earlier run was interrupted at its end, or finished."""
    if not (store.is_sealed and out.is_dir()) or store.run().get("key") != key:
        return False
    return verify(out, store.read_manifest(), workers).ok


def _release(job: Job, draft: NoiseDraft, partial: Path, out: Path, timer: _Timer) -> Report:
    """Write, check what was written, and publish it unless the noise is too weak even after an improvement."""
    if draft.refused(job.key()) and not job.options.release_anyway:
        draft.machine.group.dismiss()
        return report(job, job.result(draft.facts, draft.store.path, timer.rounded()), released=False)
    written = _written(job, draft, partial, timer)
    while not _checked(written.job, draft, job.key(), partial, timer) and draft.improve():
        timer.lap("optimise")
        written = _written(job, draft, partial, timer)
    draft.machine.group.dismiss()
    facts, store = draft.facts, draft.store
    if not facts.checks[-1].passed and not job.options.release_anyway:
        emptied(partial)
        (store.path / JOURNAL).unlink(missing_ok=True)
        return report(job, job.result(facts, store.path, timer.rounded()), released=False)
    result = written.job.result(facts, store.path, timer.rounded()).model_copy(update=written.figures)
    record = run_record(job, result, draft.machine.device)
    publish(store, partial, out.resolve(), written.rows, record, written.part, job.options.workers)
    return report(written.job, result, released=True)


def _written(job: Job, draft: NoiseDraft, partial: Path, timer: _Timer) -> _Written:
    """Write every file with the noise of the draft."""
    noise, rows = draft.arrays
    quality = job.writer(noise, rows).choose_quality()
    key = f"{job.key()}/{draft.facts.rounds}/{quality}"
    journal = Journal(draft.store, key, goes_on=job.options.resume)
    try:
        journal.tidy(partial)
        finished, refused = job.writer(noise, rows, quality).write(partial, journal, draft.machine.progress)
        released = job.without(refused) if refused else job
    except BaseException:
        draft.machine.group.dismiss()
        raise
    finally:
        journal.close()
    timer.lap("write")
    manifest = [each.row for each in finished]
    figures = {
        "realised": realised(manifest), "file_growth": growth(finished),
        "jpeg": None if quality is None else asdict(quality) | rounding(finished),
        "worst": worst(manifest), "data_digest": data_digest({row.path: row.released_sha256 for row in manifest}),
    }  # fmt: skip
    return _Written(released, manifest, figures, draft.part(job.kept(refused)) if refused else None)


def _checked(job: Job, draft: NoiseDraft, key: str, partial: Path, timer: _Timer) -> bool:
    """Whether a fresh network learns nearly nothing from the files as they are on disk."""
    check = draft.check(key, lambda: job.read_back(partial, draft.machine.progress))
    timer.lap("check")
    return check.passed
