import dataclasses
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers import Release, stripes, tree, unix, write_photos

from pueprotect.audit.attacks import REGISTRY, Attack
from pueprotect.audit.findings import recovered_share
from pueprotect.audit.pipeline import AuditSettings, Job, _Audit, audit, default_archs, duration, seconds_per_step
from pueprotect.check.evidence import read_evidence
from pueprotect.errors import InputError
from pueprotect.images.folders import scan
from pueprotect.learning.device import Machine
from pueprotect.learning.distributed import Group
from pueprotect.learning.training import Schedule
from pueprotect.release.audits import AttackResult
from pueprotect.release.opened import OpenedRelease, Reader, open_release
from pueprotect.release.records import TestOverlap
from pueprotect.release.vault import Vault, locked


def on(opened: OpenedRelease, **machine: Any) -> OpenedRelease:
    """The same release with its work done on another machine."""
    opened.reader = Reader(Machine(**machine))
    return opened


QUICKLY = {"suite": None, "archs": ("resnet8",), "epochs": 1.0}


@pytest.mark.parametrize(
    "wrong",
    [
        {"attacks": ("nonsense",)},
        {"epochs": 0},
        {"clean_fraction": 1.0},
        {"clean_fraction": 0.0},
        {"etas": (0.0,)},
        {"etas": (float("inf"),)},
        {"seeds": 0},
        {"seeds": 101},
    ],
)
def test_settings_out_of_range_are_refused(wrong: dict[str, object]) -> None:
    good = AuditSettings(attacks=("standard",), suite=None, archs=("resnet8",))
    with pytest.raises(InputError):
        dataclasses.replace(good, **wrong)  # type: ignore[arg-type]


def test_the_standard_suite_transfers_to_networks_that_fit() -> None:
    assert default_archs("quick", "resnet8", 32, "cpu") == ("resnet8",)
    assert default_archs(None, "resnet8", 32, "cpu") == ("resnet8",)
    assert default_archs("standard-v1", "resnet8", 32, "cpu") == ("resnet8", "cnn")
    assert default_archs("standard-v1", "resnet18", 32, "cpu") == ("resnet18", "resnet8", "cnn")
    assert default_archs("standard-v1", "resnet18", 32, "cuda:0") == ("resnet18", "cnn", "vit_tiny")
    assert default_archs("standard-v1", "resnet18", 40, "cuda:1") == ("resnet18", "cnn"), "the transformer needs 16s"


def test_each_job_has_its_own_file() -> None:
    jobs = [
        Job("pst", arch, repeat, clean)
        for arch in ("resnet8", "cnn") for repeat in (0, 1) for clean in (False, True)
    ]  # fmt: skip
    jobs.append(Job("standard", "cnn", clean=True, held_out=True))
    assert len({job.place for job in jobs}) == 9
    assert Job("pst", "cnn").place == "audit/pst-cnn.json"
    assert Job("standard", "cnn", clean=True).place == "audit/clean-line-cnn.json"
    assert Job("pst", "cnn", 2).place == "audit/seed-2/pst-cnn.json"


class Recorder:
    def __init__(self) -> None:
        self.labels: list[str] = []
        self.notes: list[str] = []

    def start(self, label: str, total: int) -> None:
        self.labels.append(label)

    def advance(self, parts: int = 1, note: str = "") -> None: ...

    def finish(self, note: str = "") -> None:
        self.notes.append(note)


def test_cheap_attacks_come_first_after_the_clean_lines_and_the_time_is_estimated(
    release: Release, tmp_path: Path
) -> None:
    mine, shown = release.copy(tmp_path), Recorder()
    opened = open_release(mine.out)
    settings = AuditSettings(attacks=("cutout", "at-4", "weight-noise-short", "standard"), **QUICKLY)  # type: ignore[arg-type]
    audit(on(opened, progress=shown), settings)
    assert shown.labels == [
        "read originals", "time a few steps", "train on the clean originals (resnet8)",
        "attack weight-noise-short (resnet8)",
        "attack cutout (resnet8)", "attack standard (resnet8)", "attack at-4 (resnet8)",
    ]  # fmt: skip
    assert shown.notes[1].startswith("5 trainings, about ")
    again = Recorder()
    audit(on(opened, progress=again), settings, resume=True)
    assert again.labels == [], "nothing is left to train or to estimate"


def test_seeds_differ_and_each_is_stored(release: Release, tmp_path: Path) -> None:
    mine = release.copy(tmp_path)
    opened = open_release(mine.out)
    report = audit(opened, AuditSettings(attacks=("standard",), seeds=2, seed=5, **QUICKLY))  # type: ignore[arg-type]
    (row,) = report.results
    assert row.seeds is not None
    assert len(row.seeds.accuracies) == 2
    vault = Vault(mine.vault)
    seeds = [vault.read_json(place)["key"]["seed"] for place in (
        "audit/standard-resnet8.json", "audit/seed-1/standard-resnet8.json", "audit/clean-line-resnet8.json",
        "audit/seed-1/clean-line-resnet8.json",
    )]  # fmt: skip
    assert seeds == [5, 6, 5, 6]
    alone = audit(opened, AuditSettings(attacks=("standard",), seed=6, **QUICKLY))  # type: ignore[arg-type]
    assert alone.results[0].accuracy == row.seeds.accuracies[1]


@pytest.fixture
def broken(monkeypatch: pytest.MonkeyPatch) -> type[Any]:
    """cutout divides by zero; colour ends in weights that are not finite."""

    def divide(*_: object) -> object:
        raise FloatingPointError("loss is\nnot finite")

    def spoil(run: Any) -> object:
        model = run.target.fresh()
        next(model.parameters()).data.fill_(float("nan"))
        return model

    monkeypatch.setattr(REGISTRY["cutout"], "train", divide)
    monkeypatch.setattr(REGISTRY["colour"], "train", spoil)
    return FloatingPointError


def test_a_numerical_failure_is_reported_and_the_others_go_on(
    release: Release, tmp_path: Path, broken: type[Any]
) -> None:
    mine = release.copy(tmp_path)
    opened = open_release(mine.out)
    settings = AuditSettings(attacks=("cutout", "colour", "standard"), **QUICKLY)  # type: ignore[arg-type]
    report = audit(opened, settings)
    found = {row.attack: row for row in report.results}
    assert found["cutout"].flags == ("failed",)
    assert found["cutout"].details["failure"] == "FloatingPointError: loss is not finite"
    assert "diverged" in found["colour"].flags
    assert found["standard"].accuracy is not None
    assert not report.complete
    assert report.results[0].attack == "standard", "failed attacks come last"
    stored = Vault(mine.vault).read_json("audit/cutout-resnet8.json")
    assert stored["result"]["flags"] == ["failed"]
    assert stored["result"]["accuracy"] is stored["result"]["best_accuracy"] is None


def test_failed_attacks_are_tried_again(
    release: Release, tmp_path: Path, broken: type[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    mine = release.copy(tmp_path)
    opened = open_release(mine.out)
    settings = AuditSettings(attacks=("cutout", "standard"), **QUICKLY)  # type: ignore[arg-type]
    audit(opened, settings)
    monkeypatch.undo()
    shown = Recorder()
    assert audit(on(opened, progress=shown), settings, resume=True).complete
    assert shown.labels == ["time a few steps", "attack cutout (resnet8)"]


def test_other_errors_are_not_swallowed(release: Release, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def bug(*_: object) -> object:
        raise KeyError("bug")

    monkeypatch.setattr(REGISTRY["standard"], "train", bug)
    opened = open_release(release.copy(tmp_path).out)
    with pytest.raises(KeyError, match="bug"):
        audit(opened, AuditSettings(attacks=("standard",), **QUICKLY))  # type: ignore[arg-type]


def test_a_suite_leaves_out_what_needs_originals_and_an_attack_by_name_is_refused(
    release: Release, tmp_path: Path
) -> None:
    mine = release.copy(tmp_path)
    opened = open_release(mine.out)
    opened.own = False  # as a folder of another tool: no originals
    opened.__dict__.pop("originals", None)
    names = ("standard", "recovery", "early-stopping")
    with pytest.raises(InputError, match="recovery needs clean training images"):
        audit(opened, AuditSettings(attacks=names, **QUICKLY))  # type: ignore[arg-type]
    report = audit(opened, AuditSettings(attacks=names, **(QUICKLY | {"suite": "standard-v1"})))  # type: ignore[arg-type]
    assert report.skipped == ["recovery", "early-stopping"]
    assert [row.attack for row in report.results] == ["standard"]
    assert {"suite-incomplete", "no-clean-line", "coverage-unknown"} <= set(report.flags)
    assert not report.complete


def test_test_images_that_come_near_training_images_are_flagged(release: Release, tmp_path: Path) -> None:
    opened = open_release(release.copy(tmp_path).out)
    settings = AuditSettings(attacks=("standard",), **QUICKLY)  # type: ignore[arg-type]
    report = audit(opened, settings)
    assert "test-overlap" not in report.flags
    assert report.test_overlap is None
    opened = open_release(opened.out)
    opened.overlap = TestOverlap(images=1, first=[("a.png", "b.png")])
    report = audit(opened, settings)
    (record,) = (found for found in read_evidence(opened.out).audit if found.key.attack == "standard")
    assert record.as_json()["flags"] == ["test-overlap"], "check reads single records"
    assert "test-overlap" in report.flags
    assert report.as_json()["test_overlap"] == {"images": 1, "first": [["a.png", "b.png"]]}


def test_the_share_of_the_release_that_is_attacked_is_told(release: Release, tmp_path: Path) -> None:
    mine = release.copy(tmp_path)
    settings = AuditSettings(attacks=("standard",), **QUICKLY)  # type: ignore[arg-type]
    report = audit(open_release(mine.out), settings)
    assert (report.attacked_images, report.attacked_share) == (48, 0.8)
    given = open_release(mine.out, test=write_photos(tmp_path / "test", 3, seed=9))
    report = audit(given, settings)
    assert (report.attacked_images, report.attacked_share) == (60, 1.0)
    assert report.held_out_lines == {}


def test_the_held_out_files_are_attacked_and_compared_with_their_own_originals(
    release: Release, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mine = release.copy(tmp_path)
    seen: dict[str, tuple[Any, Any]] = {}
    original = REGISTRY["standard"].run.__func__  # type: ignore[attr-defined]

    def spy(attack: Any, target: Any, test: Any, progress: Any, label: str) -> AttackResult:
        seen[label] = target, test
        return original(attack, target, test, progress, label)  # type: ignore[no-any-return]

    monkeypatch.setattr(Attack, "run", spy)
    opened = open_release(mine.out)
    names = ("standard", "holdout-files")
    report = audit(opened, AuditSettings(attacks=names, suite=None, archs=("cnn",), epochs=2, seeds=2))
    target, test = seen["attack holdout-files (cnn)"]
    files = opened.reader.read(scan(mine.out), 16, "read")
    assert {bytes(image.numpy()) for image in (*target.released.images, *opened.released.images)} == {
        bytes(image.numpy()) for image in files.images
    }
    assert len(target.released) == 12
    assert opened.originals is not None
    assert torch.equal(test.images, opened.originals.images)
    line, test = seen["train on the held-out originals (cnn)"]
    assert torch.equal(line.released.images, opened.test.images)
    assert torch.equal(test.images, opened.originals.images)

    (row,) = (found for found in report.results if found.attack == "holdout-files")
    own = report.held_out_lines["cnn"]
    assert report.clean_line(row) is own
    assert row.held_out
    assert row.chance == 16 / 48
    assert own.accuracy != report.clean_lines["cnn"].accuracy
    assert row.recovered == recovered_share(row.accuracy, 16 / 48, own.accuracy)
    evidence = read_evidence(mine.out)
    record, _ = (found for found in evidence.fresh if found.key.attack == "holdout-files")
    assert evidence.clean_line(record).result.accuracy == own.seeds.accuracies[0]  # type: ignore[union-attr]
    shown = Recorder()
    again = audit(
        on(opened, progress=shown), AuditSettings(attacks=names, suite=None, archs=("cnn",), epochs=2, seeds=2),
        resume=True,
    )  # fmt: skip
    assert "time a few steps" not in shown.labels
    assert again.results == report.results


def test_the_held_out_files_are_known_only_for_own_releases_and_without_other_test_images(
    release: Release, tmp_path: Path
) -> None:
    test = write_photos(tmp_path / "test", 3, seed=9)
    mine = release.copy(tmp_path)
    for opened in (
        open_release(mine.out, test=test),
        open_release(write_photos(tmp_path / "other", 3, seed=8), test=test),
    ):
        with pytest.raises(InputError, match="holdout-files needs held-out files"):
            audit(opened, AuditSettings(attacks=("holdout-files",), **QUICKLY))  # type: ignore[arg-type]


@unix
def test_a_vault_in_use_by_another_run_is_refused_before_any_work(
    release: Release, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mine, settings = release.copy(tmp_path), AuditSettings(attacks=("standard",), **QUICKLY)  # type: ignore[arg-type]
    before = tree(mine.vault)
    opened = open_release(mine.out)
    with locked(mine.vault, "--vault"), monkeypatch.context() as patch:
        patch.setattr(Attack, "run", lambda *_, **__: pytest.fail("trained"))
        with pytest.raises(InputError, match=f"--vault {mine.vault} is in use by another run"):
            audit(opened, settings)
    assert tree(mine.vault) == before
    report = audit(opened, settings)
    with locked(mine.vault, "--vault"):
        assert audit(opened, settings, resume=True).results == report.results, "nothing is written"


def test_flags_of_the_data(release: Release, tmp_path: Path) -> None:
    mine = release.copy(tmp_path)
    opened = open_release(mine.out)
    settings = AuditSettings(attacks=("standard",), **QUICKLY)  # type: ignore[arg-type]
    assert not {"partly-protected", "class-imbalance", "coverage-unknown"} & set(audit(opened, settings).flags)
    manifest = mine.vault / "manifest.jsonl"
    lines = manifest.read_text().splitlines()
    import json

    first = json.loads(lines[0]) | {"linf": 0}
    manifest.write_text("\n".join([json.dumps(first), *lines[1:]]) + "\n")
    keep = torch.cat([torch.nonzero(opened.released.labels == c).flatten()[: 16 if c else 4] for c in range(3)])
    opened.released = opened.released.subset(keep)
    flags = _Audit(opened, settings).flags({}, ())
    assert {"partly-protected", "class-imbalance"} <= set(flags)


def test_processes_share_the_work_and_all_get_the_report(
    release: Release, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two ranks one after the other: the second's gather returns what both hold."""
    mine = release.copy(tmp_path)
    opened = open_release(mine.out)
    settings = AuditSettings(attacks=("standard", "cutout", "weight-noise"), **QUICKLY)  # type: ignore[arg-type]
    whole = audit(opened, settings)
    parts: list[dict[Job, AttackResult]] = []

    class Two(Group):
        def gather(self, mine: Any) -> list[Any]:
            parts.append(mine)
            return parts if self.rank == 1 else [*parts, dict.fromkeys(())]

        def from_leader(self, thing: Any) -> Any:
            return thing

    with pytest.raises(IndexError):  # rank 0 alone does not hold every result
        audit(on(opened, group=Two(0, 2)), settings)
    shared = audit(on(opened, group=Two(1, 2)), settings)
    first, second = (set(part) for part in parts)
    assert not first & second
    assert {len(first), len(second)} == {2}
    assert [(row.attack, row.accuracy) for row in shared.results] == [
        (row.attack, row.accuracy) for row in whole.results
    ]


def test_measuring_speed_does_not_change_the_random_state() -> None:
    state = torch.get_rng_state()
    assert 0 < seconds_per_step("resnet8", stripes(64), Schedule(batch_size=16)) < 60
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize(
    ("seconds", "shown"), [(0.2, "0 s"), (89, "89 s"), (720, "12 min"), (5399, "90 min"), (11520, "3.2 h")]
)
def test_durations(seconds: float, shown: str) -> None:
    assert duration(seconds) == shown
