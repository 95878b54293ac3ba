import json
import re
from pathlib import Path

import pytest
from helpers import CERTIFY, Command, Release

from pueprotect.certify import pipeline, surrogates
from pueprotect.learning.draw_engine import DrawEngine


def test_certify_prints_the_documented_json_and_applies_the_gate(
    release: Release, tmp_path: Path, command: Command
) -> None:
    mine = release.copy(tmp_path)
    done = command("certify", mine.out, *CERTIFY, "--baseline", "--json")
    assert done.code == 0, done.stderr
    data = done.data
    shared = {"recipe", "surrogate_clean_accuracy", "noisy_accuracy", "curve"}
    assert set(data) >= shared | {
        "schema_version", "q", "sigma", "draws", "alpha", "joint", "holdout_images", "classes", "chance", "max_eta",
        "recipes", "baseline", "flags", "seconds", "data_digest",
    }  # fmt: skip
    assert set(data["noisy_accuracy"]) == {"mean", "median", "max", "quantile", "histogram"}
    assert sum(data["noisy_accuracy"]["histogram"]["draws"]) == 60
    assert [point["eta"] for point in data["curve"]] == [0, 0.003]
    assert set(data["curve"][0]) >= {"eta", "q_shifted", "rank", "certified_learnability", "draws_needed", "population"}
    assert set(data["recipes"]) == {"plain"}
    assert set(data["recipes"]["plain"]) >= shared
    assert set(data["baseline"]) >= shared
    assert set(data) >= {"parameters", "weights_norm", "draw_distance", "relative", "recovery_distance"}
    assert data["draw_distance"] == pytest.approx(0.05 * data["parameters"] ** 0.5)
    assert (data["alpha"], data["alpha_each"], data["alpha_spent"]) == (0.01, 0.005, 0.005)
    assert (data["look"], data["looks"], data["surrogate_recipe"], data["epochs"]) == (1, 1, "plain", 1)
    assert data["data_digest"] == release.outcome.data["data_digest"]
    assert json.loads((mine.vault / "certificate.json").read_text()) == data

    assert command("certify", mine.out, *CERTIFY, "--resume", "--max-learnability", 1).code == 0
    bound = data["curve"][-1]["certified_learnability"]
    failed = command("certify", mine.out, *CERTIFY, "--resume", "--max-learnability", bound - 0.01)
    assert failed.code == 1
    assert "gate: certified learnability at eta 0.003" in failed.stderr
    words = " ".join(failed.stdout.split())
    assert "Certification 1 of 1 of these files: its alpha is 0.005. All together have spent 0.005." in words
    assert f"How far it speaks: a typical draw lies {data['draw_distance']:.3g} (L2) from the surrogate" in words
    assert max(map(len, failed.stdout.splitlines())) <= 80


def test_certify_that_abstains_is_inconclusive(release: Release, tmp_path: Path, command: Command) -> None:
    mine = release.copy(tmp_path)
    done = command("certify", mine.out, *CERTIFY[:-4], "--surrogate-recipe", "plain", "--eta", "0,0.5", "--json")
    assert done.code == 3
    fine, abstained = done.data["curve"]
    assert fine["certified_learnability"] is not None
    assert abstained["certified_learnability"] is None
    told = re.search(r"eta 0\.5 needs (\d+) draws", done.stderr)
    assert told is not None
    assert abstained["draws_needed"] > int(told[1]) > 60, "more draws are another look, which needs more still"


def test_certify_goes_on_with_finished_draws(
    release: Release, tmp_path: Path, command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    mine = release.copy(tmp_path)
    first = command("certify", mine.out, *CERTIFY, "--json")
    monkeypatch.setattr(surrogates, "train", lambda *_, **__: pytest.fail("trained again"))
    more = [90 if word == 60 else word for word in CERTIFY]
    raised = command("certify", mine.out, *more, "--json", "--resume")
    assert raised.code == 0, raised.stderr
    log = (mine.vault / "certify" / "plain.draws").read_text().splitlines()
    assert [int(line.split()[0]) for line in log[1:]] == list(range(90))

    monkeypatch.setattr(DrawEngine, "draw", lambda *_: pytest.fail("drew again"))
    again = command("certify", mine.out, *CERTIFY, "--json", "--resume")
    told = {"seconds": 0, "looks": 2, "alpha_spent": 0.01 / 2 + 0.01 / 6}
    assert again.data | {"seconds": 0} == first.data | told
    assert (raised.data["look"], raised.data["alpha_each"]) == (2, 0.01 / 6)
    other = command("certify", mine.out, *CERTIFY, "--sigma", 0.01, "--resume")
    assert other.code == 2
    assert re.search(r"error: .*plain\.draws .*sigma 0\.05 instead of 0\.01.*--resume", other.stderr)
    assert (mine.vault / "certify" / "plain.draws").read_text().splitlines() == log


def test_certify_screens_recipes_and_certifies_the_most_learnable(
    release: Release, tmp_path: Path, command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pipeline, "SCREENING_DRAWS", 8)
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


def test_sigma_auto_keeps_most_of_the_accuracy_of_the_clean_baseline(
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


def test_an_unknown_precision_is_a_usage_error(release: Release, command: Command) -> None:
    done = command("certify", release.out, "--precision", "fp8")
    assert done.code == 2
    assert "--precision" in done.stderr
    assert "bf16" in done.stderr


def test_a_relative_sigma_is_told_from_an_absolute_one(release: Release, tmp_path: Path, command: Command) -> None:
    mine = release.copy(tmp_path)
    words = [word for word in CERTIFY if word not in ("--eta", "0,0.003")]
    found = command("certify", mine.out, *words, "--relative-sigma", 0.1, "--eta", "0,0.005", "--stress", "--json")
    assert found.code == 0, found.stderr
    assert (found.data["sigma"], found.data["relative"]) == (0.1, True)
    assert found.data["draw_distance"] == pytest.approx(0.1 * found.data["weights_norm"])
    assert set(found.data["stress"]["above"]) == {f"random {number}" for number in (1, 2, 3, 4)}
    shown = command("certify", mine.out, *words, "--relative-sigma", 0.1, "--eta", "0,0.005", "--resume")
    assert "Here eta and sigma are in root mean squares of each weight tensor." in " ".join(shown.stdout.split())
    found = command("certify", mine.out, *words, "--relative-sigma", "auto", "--eta", "0", "--draws", 90, "--json")
    assert found.code == 0, found.stderr
    assert found.data["relative"]
    assert 0.001 < found.data["sigma"] < 1
    assert "relative sigma" in found.stderr


@pytest.mark.parametrize(
    ("words", "why"),
    [(("--sigma", 0.1, "--relative-sigma", 0.1), "exclude each other"),
     (("--relative-sigma", "much"), "--relative-sigma 'much' is not a number"),
     (("--relative-sigma", -1), "sigma -1 is not a positive number")],
)  # fmt: skip
def test_a_sigma_that_cannot_be_is_refused(
    words: tuple[object, ...], why: str, release: Release, command: Command
) -> None:
    done = command("certify", release.out, *words)
    assert done.code == 2
    assert why in " ".join(done.stderr.split())
