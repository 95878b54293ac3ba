from typing import Any

import pytest
import torch
from helpers import Release, unix, write_photos

from pueprotect.certify import pipeline
from pueprotect.certify.certificate import CertificateSettings
from pueprotect.certify.pipeline import Certification, certify_release, informative_sigma
from pueprotect.errors import InputError
from pueprotect.learning.data import ImageSet
from pueprotect.learning.models import build
from pueprotect.learning.training import Schedule, train
from pueprotect.release.opened import OpenedRelease, open_release
from pueprotect.release.records import TestOverlap
from pueprotect.release.vault import locked

SETTINGS = CertificateSettings(sigma=0.005, etas=(0.0,), draws=50)


class Trainer:
    """Trains the recipe `good`, leaves the others untrained, and records the calls."""

    def __init__(self, opened: OpenedRelease) -> None:
        self.opened, self.asked = opened, list[tuple[str, bool]]()

    def __call__(self, recipe: str, arch: str, data: ImageSet, *_: Any, **__: Any) -> dict[str, Any]:
        self.asked.append((recipe, data is self.opened.originals))
        model = build(arch, data.classes, data.size, seed=0)
        return {recipe: train(model, self.opened.test, Schedule(epochs=40), seed=0) if recipe == "good" else model}


@pytest.fixture
def certification(release: Release, tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> Certification:
    monkeypatch.setattr(pipeline, "SCREENING_DRAWS", 8)
    monkeypatch.setattr(pipeline, "candidates", len)  # which knows real recipes only
    return Certification(open_release(release.copy(tmp_path).out))


@pytest.fixture
def trainer(certification: Certification, monkeypatch: pytest.MonkeyPatch) -> Trainer:
    made = Trainer(certification.release)
    monkeypatch.setattr(pipeline, "train_surrogates", made)
    return made


def test_the_most_learnable_recipe_is_certified_by_draws_that_did_not_choose_it(
    certification: Certification, trainer: Trainer
) -> None:
    report = certify_release(certification, SETTINGS, ("weak", "good"), baseline=True)
    assert report.recipe == "good"
    assert report.noisy_accuracy.median > 0.8
    assert [(name, found.draws, found.screened) for name, found in report.recipes.items()] == [
        ("weak", 8, True), ("good", 50, False)
    ]  # fmt: skip
    assert report.draws == 50
    vault = certification.release.results.path("certify")
    logs = {path.name: path.read_text().splitlines() for path in vault.glob("*.draws")}
    assert set(logs) == {"good.draws", "good-screen.draws", "weak-screen.draws", "good-baseline.draws"}
    assert len(logs["good-screen.draws"]) == 1 + 8
    assert report.baseline is not None
    assert trainer.asked == [("weak", False), ("good", False), ("good", True)]


def test_one_recipe_needs_no_screening(certification: Certification, trainer: Trainer) -> None:
    report = certify_release(certification, SETTINGS, ("good",))
    assert list(report.recipes) == ["good"]
    assert not report.recipes["good"].screened
    assert report.baseline is None
    assert "informative-baseline-missing" in report.flags


def test_clean_images_that_come_near_training_images_are_flagged(
    certification: Certification, trainer: Trainer
) -> None:
    certification.release.overlap = TestOverlap(images=2, first=[("a.png", "b.png")])
    report = certify_release(certification, SETTINGS, ("good",))
    assert "test-overlap" in report.flags
    assert report.test_overlap == certification.release.overlap
    certification.release.overlap = None
    assert "test-overlap" not in certify_release(certification, SETTINGS, ("good",)).flags


@unix
def test_a_vault_in_use_by_another_run_is_refused_before_any_training(
    certification: Certification, trainer: Trainer
) -> None:
    with locked(certification.release.vault.path, "--vault"):
        with pytest.raises(InputError, match=r"--vault .* is in use by another run"):
            certify_release(certification, SETTINGS, ("good",))
        with pytest.raises(InputError, match=r"--vault .* is in use by another run"):
            informative_sigma(certification)
    assert trainer.asked == []
    assert certify_release(certification, SETTINGS, ("good",)).recipe == "good"


def test_screening_uses_other_draws_than_certifying(certification: Certification, trainer: Trainer) -> None:
    """Large noise, so that two sets of draws differ in their counts."""
    loud = CertificateSettings(sigma=0.2, etas=(0.0,), draws=8)
    assert certification.screen("good", loud).noisy_accuracy != certification.certify("good", loud).noisy_accuracy


def test_what_needs_clean_originals_is_refused_before_any_training(
    tmp_path: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    foreign, test = write_photos(tmp_path / "foreign", 3), write_photos(tmp_path / "test", 3, seed=1)
    opened = open_release(foreign, test=test)
    monkeypatch.setattr(pipeline, "train_surrogates", lambda *_, **__: pytest.fail("trained"))
    refusing = Certification(opened)
    with pytest.raises(InputError, match="--baseline"):
        certify_release(refusing, SETTINGS, ("plain",), baseline=True)
    with pytest.raises(InputError, match="--sigma auto"):
        informative_sigma(refusing)


def test_stored_weights_are_used_only_with_resume_and_for_the_same_settings(
    certification: Certification, trainer: Trainer
) -> None:
    first = certification.surrogate("weak", 0.01)
    for resume, count in ((False, 2), (True, 2)):
        again = Certification(certification.release, resume=resume).surrogate("weak", 0.01)
        assert len(trainer.asked) == count
        assert all(torch.equal(a, b) for a, b in zip(first.parameters(), again.parameters(), strict=True))
    with pytest.raises(InputError, match=r"weak\.json .*epochs None instead of 9.*--resume"):
        Certification(certification.release, epochs=9, resume=True).surrogate("weak", 0.01)
