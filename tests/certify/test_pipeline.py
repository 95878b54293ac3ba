from typing import Any

import pytest
import torch
from helpers import Release, write_photos

from pueprotect.certify import pipeline
from pueprotect.certify.certificate import CertificateSettings
from pueprotect.certify.pipeline import Certification, certify_release, informative_sigma
from pueprotect.errors import InputError
from pueprotect.learning.data import ImageSet
from pueprotect.learning.models import build
from pueprotect.learning.training import Schedule, train
from pueprotect.release.opened import OpenedRelease, open_release

SETTINGS = CertificateSettings(sigma=0.005, etas=(0.0,), draws=50)


class Trainer:
    """Trains the recipe `good` and only starts the others; notes what it was asked for."""

    def __init__(self, opened: OpenedRelease) -> None:
        self.opened, self.asked = opened, list[tuple[str, bool]]()

    def __call__(self, recipe: str, sigma: float, data: ImageSet, start: Any, progress: Any) -> dict[str, Any]:
        self.asked.append((recipe, data is self.opened.originals))
        model = build(self.opened.default_arch, data.classes, data.size, seed=0)
        return {recipe: train(model, self.opened.test, Schedule(epochs=40), seed=0) if recipe == "good" else model}


@pytest.fixture
def certification(release: Release, tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> Certification:
    monkeypatch.setattr(pipeline, "SCREENING_DRAWS", 8)
    monkeypatch.setattr(pipeline, "candidates", len)  # which knows real recipes only
    opened = open_release(release.copy(tmp_path).out, device="cpu")
    return Certification(opened, Trainer(opened), {})


def test_the_most_learnable_recipe_is_certified_by_draws_that_did_not_choose_it(certification: Certification) -> None:
    report = certify_release(certification, SETTINGS, ("weak", "good"), baseline=True)
    assert report.certificate.recipe == "good"
    assert report.certificate.noisy_median > 0.8
    assert [(found.recipe, found.draws) for found in report.screenings] == [("weak", 8), ("good", 8)]
    assert report.certificate.draws == 50
    vault = certification.release.private("certify")
    logs = {path.name: path.read_text().splitlines() for path in vault.glob("*.draws")}
    assert set(logs) == {"good.draws", "good-screen.draws", "weak-screen.draws", "good-baseline.draws"}
    assert len(logs["good-screen.draws"]) == 1 + 8
    assert report.baseline is not None
    assert certification.train.asked == [("weak", False), ("good", False), ("good", True)]  # type: ignore[attr-defined]


def test_one_recipe_needs_no_screening(certification: Certification) -> None:
    report = certify_release(certification, SETTINGS, ("good",))
    assert report.screenings == ()
    assert report.baseline is None
    assert "informative-baseline-missing" in report.flags


def test_the_screening_draws_other_noise(certification: Certification) -> None:
    """Large noise, so that two sets of draws differ in their counts."""
    loud = CertificateSettings(sigma=0.2, etas=(0.0,), draws=8)
    assert certification.screen("good", loud).counts != certification.certify("good", loud).counts


def test_what_needs_clean_originals_is_refused_before_any_training(tmp_path: Any) -> None:
    foreign, test = write_photos(tmp_path / "foreign", 3), write_photos(tmp_path / "test", 3, seed=1)
    opened = open_release(foreign, test=test, device="cpu")
    refusing = Certification(opened, lambda *_: pytest.fail("trained"), {})
    with pytest.raises(InputError, match="--baseline"):
        certify_release(refusing, SETTINGS, ("plain",), baseline=True)
    with pytest.raises(InputError, match="--sigma auto"):
        informative_sigma(refusing, 0)


def test_weights_are_taken_up_only_with_resume_and_for_the_same_settings(certification: Certification) -> None:
    first = certification.surrogate("weak", 0.01)
    trainer = certification.train
    for resume, count in ((False, 2), (True, 2)):
        again = Certification(certification.release, trainer, {}, resume=resume).surrogate("weak", 0.01)
        assert len(trainer.asked) == count  # type: ignore[attr-defined]
        assert all(torch.equal(a, b) for a, b in zip(first.parameters(), again.parameters(), strict=True))
    with pytest.raises(InputError, match=r"weak\.json .*epochs None instead of 9.*--resume"):
        Certification(certification.release, trainer, {"epochs": 9}, resume=True).surrogate("weak", 0.01)
