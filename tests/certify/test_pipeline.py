from typing import Any

import pytest
import torch
from helpers import Release, write_photos

from pueprotect.audit.attacks.pst import LowPass
from pueprotect.certify import pipeline
from pueprotect.certify.certificate import CertificateSettings
from pueprotect.certify.pipeline import Certification, certify_release, informative_sigma
from pueprotect.errors import InputError, VaultError
from pueprotect.learning.data import ImageSet
from pueprotect.learning.models import build, state_of
from pueprotect.learning.training import Schedule, train
from pueprotect.release.opened import OpenedRelease, open_release

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


def test_the_low_pass_stage_of_pst_is_certified_with_its_weights(
    certification: Certification, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = build("cnn", 3, 16, seed=0)
    made.prefilter = LowPass(3)

    def trained(recipe: str, arch: str, data: ImageSet, *_: Any, **__: Any) -> Any:
        made.arch = arch
        return {recipe: made}

    certification.release.run["surrogate"]["name"] = "cnn"
    monkeypatch.setattr(pipeline, "train_surrogates", trained)
    images = certification.release.test.images.float() / 255
    first = certification.surrogate("pst", 0.01)
    again = Certification(certification.release, resume=True).surrogate("pst", 0.01)
    for model in (first, again):
        torch.testing.assert_close(model.eval()(images), made.eval()(images))
        assert not torch.allclose(model(images), model.body((images - 0.5) * 4)), "the stage matters"
    certification.certify("pst", SETTINGS)
    made.prefilter = LowPass(1)
    same_weights = Certification(certification.release, resume=True)
    same_weights._models["pst"] = made
    with pytest.raises(InputError, match=r"pst\.draws .*lowpass 3 instead of 1"):
        same_weights.certify("pst", SETTINGS)


def test_a_surrogate_that_answers_otherwise_than_stored_is_refused(
    certification: Certification, trainer: Trainer
) -> None:
    certification.surrogate("weak", 0.01)
    results = certification.release.results
    about = results.vault.read_json("certify/weak.json")
    about["network"]["lowpass"] = 2
    results.vault.write_json("certify/weak.json", about)
    with pytest.raises(VaultError, match=r"certify/weak\.safetensors .*--resume"):
        Certification(certification.release, resume=True).surrogate("weak", 0.01)


def test_the_network_of_the_optimisation_must_stay_the_one_first_certified(certification: Certification) -> None:
    release = certification.release
    first = certification.surrogate("online", 0.01)
    again = Certification(release).surrogate("online", 0.01)
    assert all(torch.equal(a, b) for a, b in zip(first.parameters(), again.parameters(), strict=True))
    other = build(first.arch, 3, release.size, seed=5)
    release.results.vault.write_tensors(
        "surrogate.safetensors", {name: value.numpy() for name, value in state_of(other).items()}
    )
    with pytest.raises(VaultError, match=r"surrogate\.safetensors has changed"):
        Certification(release).surrogate("online", 0.01)


def test_weights_and_draws_of_another_torch_are_not_used_again(
    certification: Certification, trainer: Trainer, monkeypatch: pytest.MonkeyPatch
) -> None:
    certification.certify("weak", SETTINGS)
    monkeypatch.setattr(torch, "__version__", "9.9")
    for again in (Certification(certification.release, resume=True), certification):
        again.resume = True
        with pytest.raises(InputError, match=r"weak\.(json|draws) .*torch .* instead of '9\.9'"):
            again.certify("weak", SETTINGS)
