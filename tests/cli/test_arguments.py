import shutil
from pathlib import Path

import pytest
from helpers import AUDIT, CERTIFY, TINY, Command, Release, refused, tree, write_photos


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
    ("protect", ["--size", "7"], "--size"),
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
def test_options_out_of_range_are_refused(
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
def test_options_that_need_a_release_are_refused_on_a_foreign_folder(
    name: str, options: list[str], part: str, tmp_path: Path, command: Command
) -> None:
    foreign, test = write_photos(tmp_path / "foreign", 3), write_photos(tmp_path / "test", 3, seed=1)
    before = tree(tmp_path)
    done = command(name, foreign, "--test", test, "--device", "cpu", *options)
    assert done.code == 2
    assert part in done.stderr
    assert done.stderr.count("error: ") == 1
    assert tree(tmp_path) == before, "refused input must leave no vault"
