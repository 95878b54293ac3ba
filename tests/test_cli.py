import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import TINY, Command, Release, run_command, tree, write_photos
from PIL import Image

from pueprotect.certify import pipeline as certification
from pueprotect.certify import stress, surrogates
from pueprotect.cli.progress import Bars
from pueprotect.errors import ImageError
from pueprotect.images import encode
from pueprotect.learning.draw_engine import DrawEngine
from pueprotect.protect import pipeline as release
from pueprotect.protect.methods import error_minimising as protect
from pueprotect.protect.methods import self_check as self_check_module
from pueprotect.protect.presets import PRESETS

CERTIFY = ("--device", "cpu", "--draws", 50, "--epochs", 1, "--eta", "0,0.003", "--surrogate-recipe", "plain")
AUDIT = ("--device", "cpu", "--epochs", 1)


def files_of(root: Path) -> dict[str, bytes]:
    return {name: content for name, content in tree(root).items() if content is not None}


def refused(outcome: Any, code: int, *parts: str) -> None:
    """One sentence on stderr that names what matters, nothing on stdout."""
    assert outcome.code == code, outcome.stderr
    assert outcome.stdout == ""
    assert outcome.stderr.count("\n") == 1
    assert outcome.stderr.startswith("error: ")
    for part in parts:
        assert part in outcome.stderr


# --- results -----------------------------------------------------------------------------------------------------


def test_protect_prints_the_contract(release: Release) -> None:
    data = release.outcome.data
    assert set(data) >= {
        "schema_version", "images", "classes", "train_images", "holdout_images", "method", "mode", "epsilon",
        "realised", "surrogate", "self_check", "seconds", "vault", "data_digest",
    }  # fmt: skip
    assert (data["images"], data["classes"], data["train_images"], data["holdout_images"]) == (60, 3, 48, 12)
    assert (data["method"], data["mode"], data["epsilon"]) == ("pue", "class-wise", pytest.approx(8 / 255))
    assert set(data["realised"]) == {"linf_max", "psnr_mean", "ssim_mean"}
    assert 0 < data["realised"]["linf_max"] <= 8
    assert set(data["surrogate"]) == {"name", "size", "parameters", "train_accuracy_protected"}
    assert set(data["self_check"]) >= {"arch", "epochs", "accuracy", "chance", "passed"}
    assert set(data["seconds"]) == {"read", "optimise", "write", "total"}
    assert data["vault"] == str(release.vault)
    assert data["data_digest"].startswith("sha256:")


def test_protect_shows_a_table_within_80_columns(photos: Path, tmp_path: Path, command: Command) -> None:
    done = command("protect", photos, "--out", tmp_path / "out", *TINY, "--release-anyway")
    assert done.code == 0
    assert max(map(len, done.stdout.splitlines())) <= 80
    for word in ("surrogate", "60 in 3 classes", "L-inf", "self-check", "vault"):
        assert word in done.stdout
    assert f"pueprotect certify {tmp_path / 'out'}" in done.stderr


def test_certify_prints_the_contract_and_gates(release: Release, tmp_path: Path, command: Command) -> None:
    mine = release.copy(tmp_path)
    done = command("certify", mine.out, *CERTIFY, "--baseline", "--json")
    assert done.code == 0, done.stderr
    data = done.data
    shared = {"recipe", "surrogate_clean_accuracy", "noisy_accuracy", "curve"}
    assert set(data) >= shared | {
        "schema_version", "q", "sigma", "draws", "alpha", "joint", "holdout_images", "classes", "chance", "max_eta",
        "recipes", "baseline", "flags", "seconds", "data_digest",
    }  # fmt: skip
    assert set(data["noisy_accuracy"]) == {"mean", "median", "max", "histogram"}
    assert sum(data["noisy_accuracy"]["histogram"]["draws"]) == 50
    assert [point["eta"] for point in data["curve"]] == [0, 0.003]
    assert set(data["curve"][0]) >= {"eta", "q_shifted", "rank", "certified_learnability", "draws_needed", "population"}
    assert set(data["recipes"]) == {"plain"}
    assert set(data["recipes"]["plain"]) >= shared
    assert set(data["baseline"]) >= shared
    assert data["data_digest"] == release.outcome.data["data_digest"]
    assert json.loads((mine.vault / "certificate.json").read_text()) == data

    assert command("certify", mine.out, *CERTIFY, "--resume", "--max-learnability", 1).code == 0
    bound = data["curve"][-1]["certified_learnability"]
    failed = command("certify", mine.out, *CERTIFY, "--resume", "--max-learnability", bound - 0.01)
    assert failed.code == 1
    assert "gate: certified learnability at eta 0.003" in failed.stderr
    assert max(map(len, failed.stdout.splitlines())) <= 80


def test_certify_that_abstains_is_inconclusive(release: Release, tmp_path: Path, command: Command) -> None:
    mine = release.copy(tmp_path)
    done = command("certify", mine.out, *CERTIFY[:-4], "--surrogate-recipe", "plain", "--eta", "0,0.5", "--json")
    assert done.code == 3
    fine, abstained = done.data["curve"]
    assert fine["certified_learnability"] is not None
    assert abstained["certified_learnability"] is None
    assert abstained["draws_needed"] > 50
    assert f"eta 0.5 needs {abstained['draws_needed']} draws" in done.stderr


def test_the_next_command_can_be_pasted(release: Release, tmp_path: Path, command: Command) -> None:
    mine = release.copy(tmp_path)
    vault = mine.vault.rename(tmp_path / "my vault")
    done = command("certify", mine.out, *CERTIFY[:-4], "--surrogate-recipe", "plain", "--eta", "0", "--vault", vault)
    assert done.code == 0, done.stderr
    assert done.stderr.splitlines()[-1] == f"Next: pueprotect audit {mine.out} --vault '{vault}'"
    heads = [line.split() for line in done.stdout.splitlines() if line.startswith("eta ")]
    assert heads == [["eta", "protected", "population", "chance"]]


@pytest.mark.parametrize(
    ("words", "position", "offered"),
    [("pueprotect ce", 1, ["certify"]), ("pueprotect certify --st", 2, ["--stress"]),
     ("pueprotect check --format ", 3, ["text", "json", "junit", "sarif", "github"])],
)  # fmt: skip
def test_the_shell_completes_commands_options_and_choices(words: str, position: int, offered: list[str]) -> None:
    environment = {"_PUEPROTECT_COMPLETE": "complete_bash", "COMP_WORDS": words, "COMP_CWORD": str(position)}
    program = "from pueprotect.cli import app; app(prog_name='pueprotect')"
    done = subprocess.run(
        [sys.executable, "-c", program], env=os.environ | environment, capture_output=True, text=True, check=True
    )
    assert done.stdout.split() == offered


def test_certify_goes_on_with_finished_draws(
    release: Release, tmp_path: Path, command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    mine = release.copy(tmp_path)
    first = command("certify", mine.out, *CERTIFY, "--json")
    monkeypatch.setattr(surrogates, "train", lambda *_, **__: pytest.fail("trained again"))
    more = [60 if word == 50 else word for word in CERTIFY]
    raised = command("certify", mine.out, *more, "--json", "--resume")
    assert raised.code == 0, raised.stderr
    log = (mine.vault / "certify" / "plain.draws").read_text().splitlines()
    assert [int(line.split()[0]) for line in log[1:]] == list(range(60))

    monkeypatch.setattr(DrawEngine, "draw", lambda *_: pytest.fail("drew again"))
    again = command("certify", mine.out, *CERTIFY, "--json", "--resume")
    assert again.data | {"seconds": 0} == first.data | {"seconds": 0}
    other = command("certify", mine.out, *CERTIFY, "--sigma", 0.01, "--resume")
    assert other.code == 2
    assert re.search(r"error: .*plain\.draws .*sigma 0\.05 instead of 0\.01.*--resume", other.stderr)
    assert (mine.vault / "certify" / "plain.draws").read_text().splitlines() == log


def test_certify_screens_recipes_and_certifies_the_most_learnable(
    release: Release, tmp_path: Path, command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(certification, "SCREENING_DRAWS", 8)
    monkeypatch.setattr(stress, "DRAWS", 20)
    mine = release.copy(tmp_path)
    done = command("certify", mine.out, *CERTIFY[:-2], "--baseline", "--stress", "--json")
    assert done.code == 0, done.stderr
    recipes = done.data["recipes"]
    assert set(recipes) == set(surrogates.WORST)
    assert [name for name, found in recipes.items() if not found["screened"]] == [done.data["recipe"]]
    assert {found["draws"] for name, found in recipes.items() if name != done.data["recipe"]} == {8}
    median = recipes[done.data["recipe"]]["noisy_accuracy"]["median"]
    assert all(median >= found["noisy_accuracy"]["median"] - 0.2 for found in recipes.values())
    assert done.data["baseline"]["recipe"] == done.data["recipe"]
    assert set(done.data["stress"]["above"]) == {"random 1", "random 2", "random 3", "random 4", "recovery"}
    shown = command("certify", mine.out, *CERTIFY[:-2], "--baseline", "--stress", "--resume")
    assert shown.code == 0
    assert max(map(len, shown.stdout.splitlines())) <= 80
    for word in ("clean baseline", "population", "(screened)", "Cross-check", "at least 90%", done.data["data_digest"]):
        assert word in shown.stdout


def test_sigma_is_found_where_the_clean_baseline_still_knows(
    release: Release, tmp_path: Path, command: Command
) -> None:
    mine = release.copy(tmp_path)
    words = ("--device", "cpu", "--draws", 50, "--epochs", 20, "--surrogate-recipe", "plain", "--baseline", "--json")
    done = command("certify", mine.out, *words, "--sigma", "auto")
    assert done.code == 3, "50 draws do not reach the usual radii"
    chance, own = done.data["chance"], done.data["baseline"]["surrogate_clean_accuracy"]
    assert own > 0.9
    assert 1e-3 < done.data["sigma"] < 1
    assert "keeps 70%" in done.stderr
    assert done.data["curve"][0]["eta"] == pytest.approx(0.2 * done.data["sigma"])
    kept = done.data["baseline"]["noisy_accuracy"]["median"]
    assert kept - chance >= 0.55 * (own - chance), "the rule asks for 0.7; twelve images are coarse"
    louder = command("certify", mine.out, *words, "--sigma", 4 * done.data["sigma"])
    assert louder.data["baseline"]["noisy_accuracy"]["median"] - chance < 0.7 * (own - chance)


def test_audit_prints_the_contract_and_gates(release: Release, tmp_path: Path, command: Command) -> None:
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
    words = ("audit", mine.out, "--attack", "weight-noise-short", "--attack", "jpeg-10", "--seeds", 2, *AUDIT)
    done = command(*words)
    assert done.code == 0, done.stderr
    assert max(map(len, done.stdout.splitlines())) <= 80
    assert "seeds" in done.stdout
    assert "mean of 2 seeds" in " ".join(done.stdout.split())
    assert "trainings, about" in done.stderr
    assert done.stderr.splitlines()[-1] == f"Next: pueprotect report {mine.out}"
    data = command(*words, "--resume", "--json").data
    for row in data["results"]:
        low, high = row["seeds"]["lowest"], row["seeds"]["highest"]
        assert low <= row["accuracy"] <= high
        assert row["accuracy"] == pytest.approx(sum(row["seeds"]["accuracies"]) / 2)


def test_audit_sorts_by_recovered_share_and_says_one_sentence(
    release: Release, tmp_path: Path, command: Command
) -> None:
    mine = release.copy(tmp_path)
    done = command("audit", mine.out, *AUDIT, "--arch", "resnet8", "--epochs", 3)
    assert done.code == 0, done.stderr
    lines = done.stdout.splitlines()
    assert "suite quick" in " ".join(lines[:2])
    rows = [line.split() for line in lines if " resnet8 " in line and not line.startswith(("clean", "The"))]
    assert {row[0] for row in rows} == {"standard", "colour", "jpeg-10", "class-mean", "weight-noise", "pst"}
    shares = [float(row[6]) for row in rows if row[6] != "-"]
    assert shares == sorted(shares, reverse=True)
    said = " ".join(done.stdout.split())
    assert "The worst case here is" in said
    assert "an attacker who" in said
    assert "may reach more." in said


def test_a_failed_attack_makes_the_audit_inconclusive(
    release: Release, tmp_path: Path, command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    from pueprotect.audit.attacks import REGISTRY

    def fail(*_: object) -> object:
        raise FloatingPointError("loss is not finite")

    monkeypatch.setattr(type(REGISTRY["cutout"]), "train", fail)
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
    assert command(*words, "--resume", "--max-accuracy", 0).code == 1, "a failed gate is said first"
    assert command(*words, "--resume", "--max-accuracy", 1).code == 3
    alone = command("audit", mine.out, "--attack", "cutout", *AUDIT)
    assert alone.code == 3
    assert "says nothing" in alone.stdout


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


def test_a_foreign_folder_is_certified_and_audited_with_test_images(
    photos: Path, tmp_path: Path, command: Command
) -> None:
    foreign = shutil.copytree(photos, tmp_path / "foreign")
    test = write_photos(tmp_path / "test", per_class=5, seed=1)
    done = command("certify", foreign, "--test", test, *CERTIFY, "--json")
    assert done.code == 0, done.stderr
    assert "online-unknown" in done.data["flags"]
    done = command("audit", foreign, "--test", test, "--attack", "standard", *AUDIT, "--max-recovered", "0.5", "--json")
    assert done.code == 3, "recovered is unknown, so its gate is inconclusive"
    assert done.data["clean_accuracy"] is None
    assert tree(foreign) == tree(photos)


def test_verify_lists_every_difference(release: Release, tmp_path: Path, command: Command) -> None:
    mine = release.copy(tmp_path)
    whole = command("verify", mine.out, "--json")
    assert (whole.code, whole.data["ok"], whole.data["files"]) == (0, True, 60)
    (mine.out / "cat/000.png").unlink()
    (mine.out / "dog/new.png").write_bytes(b"new")
    with (mine.out / "owl/001.png").open("ab") as file:
        file.write(b"x")
    found = command("verify", mine.out, "--json")
    assert found.code == 3
    assert (found.data["missing"], found.data["extra"], found.data["changed"]) == (
        ["cat/000.png"], ["dog/new.png"], ["owl/001.png"],
    )  # fmt: skip
    shown = command("verify", mine.out)
    assert shown.code == 3
    assert [line.split() for line in shown.stdout.splitlines()] == [
        ["missing", "cat/000.png"], ["extra", "dog/new.png"], ["changed", "owl/001.png"],
    ]  # fmt: skip


@pytest.mark.parametrize("name", ["certify", "audit"])
def test_changed_files_are_stale_and_listed(release: Release, tmp_path: Path, command: Command, name: str) -> None:
    mine = release.copy(tmp_path)
    (mine.out / "cat/000.png").unlink()
    (mine.out / "dog/001.png").write_bytes(b"changed")
    before = tree(tmp_path)
    refused(command(name, mine.out, "--device", "cpu"), 3, "1 missing (cat/000.png)", "1 changed (dog/001.png)")
    assert tree(tmp_path) == before


def test_attacks_lists_the_registry(command: Command) -> None:
    done = command("attacks", "--json")
    assert done.code == 0
    assert {"standard", "weight-noise", "pst", "recovery"} <= {attack["name"] for attack in done.data["attacks"]}
    assert all(attack["about"] and attack["needs"] and attack["source"] for attack in done.data["attacks"])
    shown = command("attacks").stdout
    assert max(map(len, shown.splitlines())) <= 80
    assert "recovery" in shown


def test_sample_writes_images_once(tmp_path: Path, command: Command) -> None:
    done = command("sample", tmp_path / "set", "--per-class", 1, "--size", 32)
    assert done.code == 0
    assert len(list((tmp_path / "set").glob("*/*.jpg"))) == 5
    assert f"Next: pueprotect protect {tmp_path / 'set'} --out {tmp_path / 'set'}-shared" in done.stderr
    refused(command("sample", tmp_path / "set"), 2, str(tmp_path / "set"))


def test_doctor_is_ready(command: Command) -> None:
    done = command("doctor", "--json")
    assert done.code == 0
    assert done.data["ready"] is True
    assert {"torch", "torchvision", "device", "memory", "auto_surrogate"} <= set(done.data)
    assert max(map(len, command("doctor").stdout.splitlines())) <= 80


def test_version(command: Command) -> None:
    from pueprotect import __version__

    assert command("--version").stdout == f"pueprotect {__version__}\n"


# --- bad input ---------------------------------------------------------------------------------------------------


def _missing(root: Path) -> tuple[list[object], tuple[str, ...]]:
    return [root / "none", "--out", root / "out"], ("none", "no such folder")


def _a_file(root: Path) -> tuple[list[object], tuple[str, ...]]:
    (root / "file").write_bytes(b"")
    return [root / "file", "--out", root / "out"], ("file", "is a file")


def _empty(root: Path) -> tuple[list[object], tuple[str, ...]]:
    (root / "src").mkdir()
    return [root / "src", "--out", root / "out"], (str(root / "src"), "no images")


def _no_classes(root: Path) -> tuple[list[object], tuple[str, ...]]:
    Image.new("RGB", (8, 8)).save(write_photos(root / "src", 3) / "loose.png")
    return [root / "src", "--out", root / "out"], ("loose.png", "--labels", "path,label")


def _one_class(root: Path) -> tuple[list[object], tuple[str, ...]]:
    src = write_photos(root / "src", 3)
    shutil.rmtree(src / "cat")
    shutil.rmtree(src / "dog")
    return [src, "--out", root / "out"], ("'owl'", "at least two")


def _small_class(root: Path) -> tuple[list[object], tuple[str, ...]]:
    src = write_photos(root / "src", 3)
    for name in ("000.png", "001.png"):
        (src / "dog" / name).unlink()
    return [src, "--out", root / "out"], ("'dog'", "at least two")


def _full_out(root: Path) -> tuple[list[object], tuple[str, ...]]:
    (root / "out").mkdir()
    (root / "out/mine.txt").write_text("precious")
    return [write_photos(root / "src", 3), "--out", root / "out"], ("--out", "not empty", "--overwrite")


def _strangers_out(root: Path) -> tuple[list[object], tuple[str, ...]]:
    write_photos(root / "out", 2, seed=5)
    return [write_photos(root / "src", 3), "--out", root / "out", "--overwrite"], ("--out", "--overwrite leaves it")


def _out_in_src(root: Path) -> tuple[list[object], tuple[str, ...]]:
    return [write_photos(root / "src", 3), "--out", root / "src/out"], ("--out", "inside each other")


def _src_in_out(root: Path) -> tuple[list[object], tuple[str, ...]]:
    return [write_photos(root / "out/src", 3), "--out", root / "out"], ("--out", "inside each other")


def _vault_in_out(root: Path) -> tuple[list[object], tuple[str, ...]]:
    return [write_photos(root / "src", 3), "--out", root / "out", "--vault", root / "out/v"], (
        "--vault",
        "released with",
    )


def _vault_file(root: Path) -> tuple[list[object], tuple[str, ...]]:
    (root / "v").write_bytes(b"")
    return [write_photos(root / "src", 3), "--out", root / "out", "--vault", root / "v"], ("--vault", "is a file")


def _strangers_vault(root: Path) -> tuple[list[object], tuple[str, ...]]:
    (root / "v").mkdir()
    (root / "v/letter.txt").write_text("private")
    return [write_photos(root / "src", 3), "--out", root / "out", "--vault", root / "v"], ("--vault", "letter.txt")


def _out_file(root: Path) -> tuple[list[object], tuple[str, ...]]:
    (root / "out").write_bytes(b"")
    return [write_photos(root / "src", 3), "--out", root / "out"], ("--out", "is a file")


def _out_below_a_file(root: Path) -> tuple[list[object], tuple[str, ...]]:
    (root / "file").write_bytes(b"")
    return [write_photos(root / "src", 3), "--out", root / "file/out"], ("--out", "file is a file")


def _unreadable(root: Path) -> tuple[list[object], tuple[str, ...]]:
    src = write_photos(root / "src", 3)
    whole = (src / "cat/001.png").read_bytes()
    (src / "cat/001.png").write_bytes(whole[: len(whole) // 2])
    return [src, "--out", root / "out"], ("cat/001.png",)


PROTECT_REFUSES = [
    _missing, _a_file, _empty, _no_classes, _one_class, _small_class, _full_out, _strangers_out, _out_in_src,
    _src_in_out, _vault_in_out, _vault_file, _strangers_vault, _out_file, _out_below_a_file, _unreadable,
]  # fmt: skip


@pytest.mark.parametrize("case", PROTECT_REFUSES, ids=lambda case: case.__name__.strip("_"))
def test_protect_refuses_folders(
    case: Callable[[Path], tuple[list[object], tuple[str, ...]]], tmp_path: Path, command: Command
) -> None:
    arguments, parts = case(tmp_path)
    before = tree(tmp_path)
    refused(command("protect", *arguments, *TINY), 2, *parts)
    assert tree(tmp_path) == before, "something was written"


OUT_OF_RANGE = [
    ("protect", ["--epsilon", "0"], "--epsilon"),
    ("protect", ["--epsilon", "2"], "--epsilon"),
    ("protect", ["--epsilon", "200/255"], "--epsilon"),
    ("protect", ["--epsilon", "nan"], "--epsilon"),
    ("protect", ["--epsilon", "8/0"], "--epsilon"),
    ("protect", ["--epsilon", "eight"], "--epsilon"),
    ("protect", ["--sigma", "-0.1"], "--sigma"),
    ("protect", ["--sigma", "nan"], "--sigma"),
    ("protect", ["--rounds", "0"], "--rounds"),
    ("protect", ["--holdout", "1"], "--holdout"),
    ("protect", ["--size", "8"], "--size"),
    ("protect", ["--size", "big"], "--size"),
    ("protect", ["--size", "20", "--surrogate", "vit_tiny"], "--size"),
    ("protect", ["--workers", "-1"], "--workers"),
    ("protect", ["--surrogate", "resnet9"], "resnet8"),
    ("protect", ["--labels", "no.csv"], "no.csv"),
    ("protect", ["--device", "cuda:99"], "--device cuda:99"),
    ("protect", ["--device", "gpu"], "--device"),
    ("certify", ["--q", "1"], "--q"),
    ("certify", ["--q", "nan"], "--q"),
    ("certify", ["--alpha", "0"], "--alpha"),
    ("certify", ["--sigma", "0"], "--sigma"),
    ("certify", ["--sigma", "much"], "--sigma"),
    ("certify", ["--precision", "fp8"], "--precision"),
    ("certify", ["--eta", "-1"], "--eta"),
    ("certify", ["--eta", "wide"], "--eta"),
    ("certify", ["--eta", ","], "--eta"),
    ("certify", ["--draws", "0"], "--draws"),
    ("certify", ["--epochs", "0"], "--epochs"),
    ("certify", ["--max-learnability", "1.5"], "--max-learnability"),
    ("certify", ["--surrogate-recipe", "best"], "--surrogate-recipe"),
    ("certify", ["--device", "cuda:99"], "--device cuda:99"),
    ("certify", ["--test", "nowhere"], "nowhere"),
    ("certify", ["--vault", "nowhere"], "--vault nowhere"),
    ("audit", ["--attack", "standart"], "standard"),
    ("audit", ["--suite", "full"], "quick"),
    ("audit", ["--suite", "standard-v9"], "standard-v1"),
    ("audit", ["--attack", "jpeg"], "jpeg-10"),
    ("audit", ["--seeds", "0"], "--seeds"),
    ("audit", ["--clean-fraction", "0"], "--clean-fraction"),
    ("audit", ["--max-accuracy", "-0.1"], "--max-accuracy"),
    ("audit", ["--arch", "resnet9"], "resnet8"),
    ("audit", ["--epochs", "-1"], "--epochs"),
    ("audit", ["--clean-fraction", "1"], "--clean-fraction"),
    ("audit", ["--eta", "0"], "--eta"),
    ("audit", ["--max-accuracy", "nan"], "--max-accuracy"),
    ("audit", ["--max-recovered", "2"], "--max-recovered"),
    ("audit", ["--device", "cuda:99"], "--device cuda:99"),
    ("audit", ["--vault", "nowhere"], "--vault nowhere"),
]


@pytest.mark.parametrize(("name", "options", "part"), OUT_OF_RANGE, ids=lambda value: " ".join(value) if value else "")
def test_options_out_of_range(
    name: str, options: list[str], part: str, release: Release, photos: Path, tmp_path: Path, command: Command
) -> None:
    place = [photos, "--out", tmp_path / "out", *TINY] if name == "protect" else [release.out, "--device", "cpu"]
    vault = tree(release.vault)
    refused(command(name, *place, *options), 2, part)
    assert tree(tmp_path) == {}
    assert tree(release.vault) == vault


@pytest.mark.parametrize("name", ["certify", "audit"])
def test_a_folder_without_vault_needs_test_images(name: str, tmp_path: Path, command: Command) -> None:
    foreign = write_photos(tmp_path / "foreign", 3)
    before = tree(tmp_path)
    refused(command(name, foreign, "--device", "cpu"), 2, str(foreign), "--vault", "--test")
    refused(command(name, tmp_path / "none", "--device", "cpu"), 2, "none")
    assert tree(tmp_path) == before


@pytest.mark.parametrize(
    ("name", "options", "part"),
    [
        ("certify", ["--baseline"], "--baseline"),
        ("certify", ["--sigma", "auto"], "--sigma auto"),
        ("certify", ["--surrogate-recipe", "online"], "online"),
        ("audit", ["--attack", "recovery"], "recovery"),
        ("audit", ["--arch", "resnet9"], "resnet8"),
    ],
)
def test_what_a_foreign_folder_cannot_have(
    name: str, options: list[str], part: str, tmp_path: Path, command: Command
) -> None:
    foreign, test = write_photos(tmp_path / "foreign", 3), write_photos(tmp_path / "test", 3, seed=1)
    before = tree(tmp_path)
    done = command(name, foreign, "--test", test, "--device", "cpu", *options)
    assert done.code == 2
    assert part in done.stderr
    assert done.stderr.count("error: ") == 1
    assert tree(tmp_path) == before, "refused input must leave no vault"


def test_test_images_of_other_classes_are_refused(release: Release, tmp_path: Path, command: Command) -> None:
    test = write_photos(tmp_path / "test", 3)
    (test / "owl").rename(test / "eagle")
    refused(command("audit", release.out, "--test", test, "--device", "cpu"), 2, "--test", "eagle")


def test_a_release_is_not_protected_again(release: Release, tmp_path: Path, command: Command) -> None:
    refused(command("protect", release.out, "--out", tmp_path / "out", *TINY), 2, "is itself a release")
    mine = release.copy(tmp_path)
    renamed = mine.out.rename(tmp_path / "renamed")
    before = tree(tmp_path)
    refused(command("protect", renamed, "--out", tmp_path / "new", *TINY), 2, str(renamed), "release already")
    assert tree(tmp_path) == before


def test_verify_without_vault(photos: Path, command: Command) -> None:
    refused(command("verify", photos), 2, f"{photos}.vault")


def test_unknown_choices_are_usage_errors(photos: Path, tmp_path: Path, command: Command) -> None:
    for wrong in (
        ["--method", "magic"],
        ["--mode", "pixel-wise"],
        ["--preset", "huge"],
        ["--format", "gif"],
        ["--nope"],
    ):
        done = command("protect", photos, "--out", tmp_path / "out", *wrong)
        assert done.code == 2
        assert wrong[0] in done.stderr
    assert tree(tmp_path) == {}


@pytest.mark.parametrize("name", ["protect", "certify", "audit", "attacks", "doctor"])
def test_a_torchvision_that_does_not_load(
    name: str, release: Release, tmp_path: Path, command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "torchvision", None)
    arguments = {"protect": [release.src, "--out", tmp_path / "out"], "certify": [release.out], "audit": [release.out]}
    refused(command(name, *arguments.get(name, [])), 2, "torchvision does not load", "pip install")
    assert tree(tmp_path) == {}


# --- failures on the way -----------------------------------------------------------------------------------------


def test_unexpected_failures_are_one_sentence(
    photos: Path, tmp_path: Path, command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise RuntimeError("boom\nwith details")

    monkeypatch.setattr(release, "protect_folder", fail)
    refused(
        command("protect", photos, "--out", tmp_path / "out"), 2, "RuntimeError: boom with details", "PUEPROTECT_DEBUG"
    )
    monkeypatch.setenv("PUEPROTECT_DEBUG", "1")
    debugged = command("protect", photos, "--out", tmp_path / "out")
    assert debugged.code == 2
    assert "Traceback" in debugged.stderr


@pytest.mark.parametrize("error", [MemoryError(), OSError(28, "No space left on device")])
def test_exhausted_machines_are_one_sentence(
    error: Exception, photos: Path, tmp_path: Path, command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise error

    monkeypatch.setattr(release, "protect_folder", fail)
    refused(command("protect", photos, "--out", tmp_path / "out"), 2, type(error).__name__)


@pytest.fixture
def interrupted_during(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[str], None]]:
    """Raises KeyboardInterrupt in the main thread at the first or third step of the named work, once."""
    advance = Bars.advance

    def install(label: str) -> None:
        steps = 0

        def stop(self: Bars, parts: int = 1, note: str = "") -> None:
            nonlocal steps
            steps += self.label == label
            if steps == (3 if label in ("read originals", "self-check", "write") else 1):
                monkeypatch.setattr(Bars, "advance", advance)
                raise KeyboardInterrupt
            advance(self, parts, note)

        monkeypatch.setattr(Bars, "advance", stop)

    return install


@pytest.mark.parametrize("label", ["read originals", "optimise noise", "self-check", "write"])
def test_an_interrupted_protect_leaves_nothing_and_resumes_to_the_same_bytes(
    label: str,
    release: Release,
    tmp_path: Path,
    command: Command,
    interrupted_during: Callable[[str], None],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    arguments = ("protect", release.src, "--out", tmp_path / "out", *TINY, "--release-anyway", "--json")
    interrupted_during(label)
    done = command(*arguments)
    assert done.code == 130
    assert done.stdout == ""
    assert "--resume" in done.stderr
    kept = {".out.pueprotect-partial"} if label == "write" else set()
    assert set(path.name for path in tmp_path.iterdir()) <= {"out.vault", *kept}
    assert not (tmp_path / "out.vault/run.json").exists()
    if label == "write":
        monkeypatch.setattr(protect.Optimizer, "run", lambda *_, **__: pytest.fail("optimised again"))
    resumed = command(*arguments, "--resume")
    assert resumed.code == 0, resumed.stderr
    assert files_of(tmp_path / "out") == files_of(release.out)
    assert {path.name for path in tmp_path.iterdir()} == {"out", "out.vault"}
    assert (tmp_path / "out.vault/delta.safetensors").read_bytes() == (release.vault / "delta.safetensors").read_bytes()
    assert resumed.data["data_digest"] == release.outcome.data["data_digest"]


def test_a_draft_of_another_plan_is_not_resumed(
    release: Release, tmp_path: Path, command: Command, interrupted_during: Callable[[str], None]
) -> None:
    arguments = ("protect", release.src, "--out", tmp_path / "out", *TINY, "--release-anyway")
    interrupted_during("write")
    assert command(*arguments, "--seed", 7).code == 130
    assert command(*arguments, "--resume").code == 0
    assert files_of(tmp_path / "out") == files_of(release.out)


@pytest.mark.parametrize("name", ["certify", "audit"])
def test_interrupted_evidence_keeps_what_is_finished(
    name: str, release: Release, tmp_path: Path, command: Command, interrupted_during: Callable[[str], None]
) -> None:
    mine = release.copy(tmp_path)
    if name == "certify":
        arguments: tuple[object, ...] = ("certify", mine.out, *CERTIFY[:-2], "--surrogate-recipe", "worst")
        interrupted_during("train the weight-noise surrogate")
    else:
        arguments = (
            "audit",
            mine.out,
            "--attack",
            "standard",
            "--attack",
            "weight-noise",
            "--epochs",
            4,
            "--device",
            "cpu",
        )
        interrupted_during("attack weight-noise (resnet8)")
    assert command(*arguments).code == 130
    kept = {"certify": "certify/plain.safetensors", "audit": "audit/standard-resnet8.json"}[name]
    stamp = (mine.vault / kept).stat().st_mtime_ns
    assert not (mine.vault / "certificate.json").exists()
    assert command(*arguments, "--resume").code == 0
    assert (mine.vault / kept).stat().st_mtime_ns == stamp


def test_a_failed_self_check_releases_nothing(
    photos: Path, tmp_path: Path, command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(self_check_module, "SELF_CHECK_MARGIN", -1.0)
    arguments = ("protect", photos, "--out", tmp_path / "out", *TINY, "--json")
    weak = command(*arguments)
    assert weak.code == 3
    check = weak.data["self_check"]
    assert check["passed"] is False
    assert len(check["attempts"]) == 2, "it must try further rounds first"
    assert weak.data["rounds"] == 1 + PRESETS["quick"].extra_rounds
    assert weak.data["realised"] is None
    assert weak.data["data_digest"] is None
    assert f"{check['accuracy']:.1%}" in weak.stderr
    assert "--release-anyway" in weak.stderr
    assert not (tmp_path / "out").exists()
    assert set(files_of(tmp_path)) == {
        f"out.vault/draft/{name}" for name in ("plan.json", "delta.safetensors", "surrogate.safetensors")
    }
    monkeypatch.setattr(protect.Optimizer, "run", lambda *_, **__: pytest.fail("optimised again"))
    assert command(*arguments, "--resume").code == 3
    forced = command(*arguments, "--resume", "--release-anyway")
    assert forced.code == 0
    assert forced.data["self_check"] == check
    assert len(list((tmp_path / "out").rglob("*.png"))) == 60
    assert not (tmp_path / "out.vault/draft").exists()


# --- overwriting -------------------------------------------------------------------------------------------------


def test_overwrite_replaces_a_release_and_its_evidence(release: Release, tmp_path: Path, command: Command) -> None:
    mine = release.copy(tmp_path)
    (mine.vault / "audit").mkdir()
    (mine.vault / "audit/standard-resnet8.json").write_text("{}")
    (mine.vault / "certificate.json").write_text("{}")
    arguments = ("protect", mine.src, "--out", mine.out, *TINY, "--release-anyway", "--seed", 3)
    refused(command(*arguments), 2, "--overwrite")
    refused(command(*arguments, "--resume"), 2, "--overwrite")
    assert command(*arguments, "--overwrite").code == 0
    assert files_of(mine.out).keys() == files_of(release.out).keys()
    assert files_of(mine.out) != files_of(release.out)
    assert command("verify", mine.out).code == 0
    assert set(files_of(mine.vault)) == {"run.json", "manifest.jsonl", "delta.safetensors", "surrogate.safetensors"}
    assert {path.name for path in tmp_path.iterdir()} == {"out", "out.vault"}


@pytest.mark.parametrize("failure", [ImageError("disk trouble"), KeyboardInterrupt()])
def test_the_old_release_stays_until_the_new_one_is_complete(
    failure: BaseException, release: Release, tmp_path: Path, command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    mine = release.copy(tmp_path)
    before, vault = files_of(mine.out), files_of(mine.vault)
    write = encode.Encoder.write

    def fail_late(self: encode.Encoder, source: Path, *rest: Any, **options: Any) -> Any:
        if source.name == "015.png":
            raise failure
        return write(self, source, *rest, **options)

    monkeypatch.setattr(encode.Encoder, "write", fail_late)
    done = command("protect", mine.src, "--out", mine.out, *TINY, "--release-anyway", "--seed", 3, "--overwrite")
    assert done.code == (130 if isinstance(failure, KeyboardInterrupt) else 2)
    assert files_of(mine.out) == before
    assert {name: data for name, data in files_of(mine.vault).items() if not name.startswith("draft/")} == vault
    assert {path.name for path in tmp_path.iterdir()} == {"out", "out.vault", ".out.pueprotect-partial"}
    assert command("verify", mine.out).code == 0


@pytest.mark.parametrize("change", ["extra", "changed"])
def test_overwrite_spares_files_that_it_did_not_release(
    change: str, release: Release, tmp_path: Path, command: Command
) -> None:
    mine = release.copy(tmp_path)
    path = mine.out / ("holiday.jpg" if change == "extra" else "cat/003.png")
    path.write_bytes(b"mine")
    before = tree(tmp_path)
    refused(command("protect", mine.src, "--out", mine.out, *TINY, "--overwrite"), 2, path.name, "leaves it alone")
    assert tree(tmp_path) == before


def test_another_releases_vault_is_no_licence_to_delete(release: Release, tmp_path: Path, command: Command) -> None:
    stranger = write_photos(tmp_path / "album", 2, seed=9)
    mine = release.copy(tmp_path)
    before = tree(tmp_path)
    done = command("protect", mine.src, "--out", stranger, "--vault", mine.vault, *TINY, "--overwrite")
    refused(done, 2, "album", "leaves it alone")
    assert tree(tmp_path) == before


def test_labels_come_from_a_table(tmp_path: Path, command: Command) -> None:
    rng = np.random.default_rng(0)
    src = tmp_path / "src"
    src.mkdir()
    lines = ["path,label"]
    for index in range(24):
        Image.fromarray(rng.integers(0, 256, (16, 16, 3)).astype(np.uint8)).save(src / f"{index}.png")
        lines.append(f"{index}.png,{'even' if index % 2 == 0 else 'odd'}")
    (tmp_path / "labels.csv").write_text("\n".join(lines))
    done = command(
        "protect",
        src,
        "--out",
        tmp_path / "out",
        "--labels",
        tmp_path / "labels.csv",
        *TINY,
        "--release-anyway",
        "--json",
    )
    assert done.code == 0, done.stderr
    assert done.data["classes"] == 2
    assert len(list((tmp_path / "out").glob("*.png"))) == 24
    assert run_command("audit", tmp_path / "out", "--attack", "standard", *AUDIT).code == 0
