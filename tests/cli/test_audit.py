import json
from pathlib import Path

import pytest
from helpers import AUDIT, Command, Release, refused, write_photos


def test_audit_prints_the_documented_json_and_applies_gates(release: Release, tmp_path: Path, command: Command) -> None:
    mine = release.copy(tmp_path)
    attacks = ("standard", "weight-noise", "pst", "recovery")
    chosen = [word for name in attacks for word in ("--attack", name)]
    done = command("audit", mine.out, *chosen, "--arch", "resnet8", "--eta", "0.5,1", *AUDIT, "--json")
    assert done.code == 0, done.stderr
    data = done.data
    assert set(data) >= {
        "schema_version",
        "suite",
        "chance",
        "clean_accuracy",
        "results",
        "worst",
        "flags",
        "data_digest",
    }
    assert {row["attack"] for row in data["results"]} == set(attacks)
    for row in data["results"]:
        assert set(row) >= {"attack", "arch", "accuracy", "best_accuracy", "recovered", "epochs", "seconds", "flags"}
        assert json.loads((mine.vault / "audit" / f"{row['attack']}-resnet8.json").read_text())["result"]
    assert set(data["worst"]) == {"attack", "arch", "accuracy", "recovered"}
    assert data["worst"]["accuracy"] == max(row["accuracy"] for row in data["results"])
    assert data["data_digest"] == release.outcome.data["data_digest"]

    again = ("audit", mine.out, *chosen, "--arch", "resnet8", "--eta", "0.5,1", *AUDIT, "--resume")
    passed = command(*again, "--max-accuracy", 1, "--max-recovered", 1)
    assert passed.code == (0 if all(row["recovered"] is not None for row in data["results"]) else 3)
    assert max(map(len, passed.stdout.splitlines())) <= 80
    assert "clean share alone" in passed.stdout
    limit = data["worst"]["accuracy"] - 0.01
    failed = command(*again, "--max-accuracy", limit)
    assert failed.code == 1
    assert f"gate audit.{data['worst']['attack']}.max_accuracy" in failed.stderr


def test_audit_with_seeds_shows_mean_and_spread_within_80_columns(
    release: Release, tmp_path: Path, command: Command
) -> None:
    mine = release.copy(tmp_path)
    words = ("audit", mine.out, "--attack", "weight-noise-short", "--attack", "denoise", "--seeds", 2, *AUDIT)
    done = command(*words)
    assert done.code == 0, done.stderr
    assert "denoise (resnet8, first seed)" in " ".join(done.stdout.split())
    assert max(map(len, done.stdout.splitlines())) <= 80
    assert "seeds" in done.stdout
    assert "mean of 2 seeds" in " ".join(done.stdout.split())
    assert "trainings, about" in done.stderr
    assert done.stderr.splitlines()[-1] == f"Next: pueprotect report {mine.out}"
    data = command(*words, "--resume", "--json").data
    highest = max(row["seeds"]["highest"] for row in data["results"])
    gated = command(*words, "--resume", "--max-accuracy", highest - 1e-6)
    assert gated.code == 1, "the largest seed decides, not the mean"
    assert f"{highest:.1%}" in gated.stderr
    for row in data["results"]:
        low, high = row["seeds"]["lowest"], row["seeds"]["highest"]
        assert low <= row["accuracy"] <= high
        assert row["accuracy"] == pytest.approx(sum(row["seeds"]["accuracies"]) / 2)


def test_audit_sorts_by_recovered_share_and_ends_with_a_conclusion(
    release: Release, tmp_path: Path, command: Command
) -> None:
    mine = release.copy(tmp_path)
    done = command("audit", mine.out, *AUDIT, "--arch", "resnet8", "--epochs", 3)
    assert done.code == 0, done.stderr
    lines = done.stdout.splitlines()
    assert "suite quick" in " ".join(lines[:2])
    assert "48 released images (80.0 % of all)" in " ".join(lines[:2])
    rows = [line.split() for line in lines if " resnet8 " in line and not line.startswith(("clean", "Worst"))]
    assert {row[0] for row in rows} == {"standard", "colour", "jpeg-10", "class-mean", "weight-noise", "pst"}
    shares = [float(row[6]) for row in rows if row[6] != "-"]
    assert shares == sorted(shares, reverse=True)
    said = " ".join(done.stdout.split())
    assert "Worst case: " in said
    assert "clean originals" in said
    assert "may do better." in said


def test_a_failed_attack_makes_the_audit_inconclusive(
    release: Release, tmp_path: Path, command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    from pueprotect.audit.attacks import REGISTRY

    def fail(*_: object) -> object:
        raise FloatingPointError("loss is not finite")

    monkeypatch.setattr(REGISTRY["cutout"], "train", fail)
    mine = release.copy(tmp_path)
    words = ("audit", mine.out, "--attack", "cutout", "--attack", "standard", *AUDIT)
    done = command(*words, "--json")
    assert done.code == 3
    assert [row["accuracy"] is None for row in done.data["results"]] == [False, True]
    assert done.data["complete"] is False
    shown = command(*words, "--resume")
    assert shown.code == 3
    assert "failed" in shown.stdout
    assert "failed: The attack broke off" in shown.stderr
    assert command(*words, "--resume", "--max-accuracy", 0).code == 1, "a failed gate comes before an incomplete audit"
    assert command(*words, "--resume", "--max-accuracy", 1).code == 3
    alone = command("audit", mine.out, "--attack", "cutout", *AUDIT)
    assert alone.code == 3
    assert "shows nothing" in alone.stdout


def test_a_suite_on_a_foreign_folder_is_incomplete(
    tmp_path: Path, command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    from pueprotect.audit import suites

    monkeypatch.setitem(suites.SUITES, "standard-v1", ("standard", "recovery"))
    foreign, test = write_photos(tmp_path / "foreign", 3), write_photos(tmp_path / "test", 3, seed=1)
    done = command(
        "audit", foreign, "--test", test, "--suite", "standard-v1", "--arch", "resnet8", "--arch", "cnn", *AUDIT,
        "--json",
    )  # fmt: skip
    assert done.code == 3
    assert done.data["skipped"] == ["recovery"]
    assert {(row["attack"], row["arch"]) for row in done.data["results"]} == {
        ("standard", "resnet8"), ("standard", "cnn"),
    }  # fmt: skip
    assert "suite-incomplete" in done.data["flags"]


def test_test_images_of_other_classes_are_refused(release: Release, tmp_path: Path, command: Command) -> None:
    test = write_photos(tmp_path / "test", 3)
    (test / "owl").rename(test / "eagle")
    refused(command("audit", release.out, "--test", test, "--device", "cpu"), 2, "--test", "eagle")
