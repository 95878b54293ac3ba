import json
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from helpers import Release, unix, write_photos

from pueprotect.audit.attacks.pst import LowPass
from pueprotect.certify import certificate, pipeline
from pueprotect.certify.certificate import CertificateSettings
from pueprotect.certify.looks import LOOKS
from pueprotect.certify.pipeline import Certification, certify_release, informative_sigma
from pueprotect.certify.surrogates import choose_recipes
from pueprotect.errors import InputError, VaultError
from pueprotect.learning.data import ImageSet
from pueprotect.learning.device import Machine, versions
from pueprotect.learning.models import build, state_of
from pueprotect.learning.training import Schedule, train
from pueprotect.learning.weights import weights_digest
from pueprotect.release.certificates import Certificate
from pueprotect.release.opened import OpenedRelease, open_release
from pueprotect.release.records import TestOverlap
from pueprotect.release.vault import CERTIFICATE, locked
from pueprotect.runtime import Silent

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


def test_every_certification_of_the_same_bytes_is_a_look(certification: Certification, trainer: Trainer) -> None:
    def certified(**wanted: Any) -> Certificate:
        again = Certification(certification.release, seed=wanted.get("seed", 0), resume=wanted.pop("resume", False))
        return certify_release(again, replace(SETTINGS, draws=80, **wanted), ("good",))

    first = certified()
    assert (first.look, first.looks, first.alpha_each, first.alpha_spent) == (1, 1, 0.005, 0.005)
    assert first.max_eta == replace(SETTINGS, draws=80, look=1).max_eta
    assert (first.surrogate_recipe, first.epochs) == ("good", certification.passes())
    assert first.recovery_distance is None
    results = certification.release.results
    moved = {"key": results.digests, "result": {"details": {"distance": {"eta 5": 1.5}}}}
    results.write("audit/recovery-cnn.json", moved)
    other = certified(q=0.8)
    assert other.recovery_distance == 1.5
    assert (other.look, other.looks, other.alpha_each) == (2, 2, 0.01 / 6)
    repeat = certified()
    assert (repeat.look, repeat.looks) == (1, 2), "without --resume too: the same result, and the count stays"
    assert repeat.curve == first.curve
    assert certified(seed=1).look == 3
    assert certified(seed=1, resume=True, q=0.7).look == 4
    expected, _ = certification.look(replace(SETTINGS, draws=80), ("good",))
    assert expected.look == 1
    expected, _ = certification.look(replace(SETTINGS, draws=90), ("good",))
    assert expected.look == 5
    rows = (certification.release.results.vault.path / LOOKS).read_text().splitlines()
    assert len(rows) == 4
    assert {json.loads(row)["data_digest"] for row in rows} == {certification.release.digest}


def test_another_surrogate_under_the_same_settings_is_another_look(
    certification: Certification, trainer: Trainer
) -> None:
    """Training need not repeat bit by bit on a GPU."""
    assert certify_release(certification, SETTINGS, ("good",)).look == 1
    changed = Certification(certification.release)
    model = changed.surrogate("good", SETTINGS.sigma)
    with torch.no_grad():
        next(model.parameters()).add_(1e-4)
    assert certify_release(changed, SETTINGS, ("good",)).look == 2


def test_a_run_killed_before_its_draws_are_finished_is_no_look(
    certification: Certification, trainer: Trainer, monkeypatch: pytest.MonkeyPatch
) -> None:
    def killed(*_: Any, **__: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(pipeline, "certify", killed)
        with pytest.raises(KeyboardInterrupt):
            certify_release(certification, SETTINGS, ("good",))
    assert certify_release(certification, SETTINGS, ("good",)).look == 1


def test_all_that_was_chosen_on_the_clean_images_is_counted(
    certification: Certification, trainer: Trainer, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = certification.release.run["self_check"]
    for attempts, factor in ((0, 1), (1, 2), (3, 12)):
        run["attempts"] = [0.3] * attempts
        assert certification.candidates(("good", "weak")) == 2 * factor
    run["attempts"] = [0.3]
    monkeypatch.setattr(pipeline, "SIGMA_HALVINGS", 3)
    monkeypatch.setattr(certification, "surrogate", lambda *_, **__: build("resnet8", 3, 16, seed=0))
    informative_sigma(certification, relative=True)
    assert certification.candidates(("good",)) == 2 * 2**3
    seen: list[int] = []

    def counted(*_: Any, candidates: int, **__: Any) -> None:
        seen.append(candidates)
        raise KeyboardInterrupt

    monkeypatch.setattr(pipeline, "certify", counted)
    with pytest.raises(KeyboardInterrupt):
        certify_release(certification, SETTINGS, ("good",))
    assert seen == [16]


def test_a_training_gets_all_that_its_recipe_asks_for(
    certification: Certification, monkeypatch: pytest.MonkeyPatch
) -> None:
    release, asked = certification.release, dict[str, Any]()
    certification.seed, certification.epochs = 6, 3.0

    def recorded(recipe: str, *given: Any, start: Any, **named: Any) -> dict[str, Any]:
        asked[recipe] = given, None if start is None else next(start.parameters()).detach().clone(), named
        return {recipe: build(release.default_arch, 3, release.size, seed=len(asked))}

    monkeypatch.setattr(pipeline, "train_surrogates", recorded)
    tuned = certification.surrogate("weight-noise-tuned", 0.02, relative=True)
    plain = certification.surrogate("plain", 0.02, relative=True)
    assert certification.surrogate("weight-noise-tuned", 0.02, relative=True) is tuned
    given = release.default_arch, release.released, release.test, 0.02, Schedule(epochs=3)
    named = {"seed": 6, "relative": True, "progress": certification.machine.progress}
    assert list(asked) == ["plain", "weight-noise-tuned"], "the network to start from comes first"
    assert asked["plain"] == (given, None, named)
    assert asked["weight-noise-tuned"][::2] == (given, named)
    assert torch.equal(asked["weight-noise-tuned"][1], next(plain.parameters()))
    certification.surrogate("plain", 0.02, clean=True)
    assert asked["plain"][0][1] is release.originals
    keys = {
        name: release.results.vault.read_json(f"certify/{name}.json")
        for name in ("plain", "plain-baseline", "weight-noise-tuned")
    }
    common = {"epochs": 3.0, "seed": 6, "arch": release.default_arch} | versions(release.device)
    for name, key in keys.items():
        noise = {"sigma": 0.02, "relative": True} if "noise" in name else {}
        wanted = common | {"recipe": name.removesuffix("-baseline")} | noise
        assert wanted.items() <= key.items()
        assert ("sigma" in key, "relative" in key) == ("noise" in name, "noise" in name)


def test_a_look_is_known_by_everything_that_its_result_depends_on(certification: Certification) -> None:
    release, settings = certification.release, replace(SETTINGS, joint=True, seed=3, relative=True)
    certification.epochs, certification.sigmas = 4.0, 8
    found, key = certification.look(settings, ("good", "weak"))
    assert found == replace(settings, look=1)
    assert key == {
        "sigma": 0.005, "relative": True, "seed": 3, "precision": "fp32", "device": "cpu", **versions("cpu"),
        **release.digests, "q": 0.9, "etas": [0.0], "draws": 50, "alpha": 0.01, "joint": True, "epochs": 4.0,
        "surrogate_recipe": "worst", "candidates": certification.candidates(("good", "weak")),
    }  # fmt: skip
    assert certification.look(settings, ("good",))[1]["surrogate_recipe"] == "good"


class Reports:
    """Keeps what was reported."""

    def __init__(self) -> None:
        self.said, self.notes = list[Any](), list[str]()

    def start(self, label: str, total: int) -> None:
        self.said.append((label, total))

    def advance(self, parts: int = 1, note: str = "") -> None:
        self.notes.append(note)

    def finish(self, note: str = "") -> None:
        self.said.append(note)


@pytest.mark.parametrize(
    ("named", "log", "label"),
    [
        ({}, "good.draws", "draw around the good surrogate"),
        ({"purpose": "screen"}, "good-screen.draws", "screen the good surrogate"),
        ({"clean": True, "candidates": 4}, "good-baseline.draws", "draw around the clean baseline surrogate"),
    ],
)
def test_draws_have_a_log_and_a_label_for_each_purpose(
    named: dict[str, Any], log: str, label: str, certification: Certification, monkeypatch: pytest.MonkeyPatch
) -> None:
    release, shown, calls = certification.release, Reports(), list[Any]()
    assert release.originals is not None, "they are read once"
    release.reader = replace(release.reader, machine=replace(release.machine, progress=shown))
    model, wanted = build("cnn", 3, 16, seed=0), list[Any]()

    def surrogate(*given: Any, **more: Any) -> Any:
        wanted.append((given, more))
        return model

    def recorded(*given: Any, **more: Any) -> Any:
        calls.append((given, more))
        return SimpleNamespace(noisy_accuracy=SimpleNamespace(median=0.25))

    monkeypatch.setattr(certification, "surrogate", surrogate)
    monkeypatch.setattr(pipeline, "certify", recorded)
    settings = replace(SETTINGS, relative=True)
    certification.certify("good", settings, **named)
    clean = named.get("clean", False)
    assert wanted == [(("good", 0.005), {"relative": True, "clean": clean})]
    ((given, more),) = calls
    assert given == (model, "good", release.originals if clean else release.released, release.test, settings)
    made = more.pop("log")
    about = certification.draws_key(settings) | {"surrogate": weights_digest(model), "lowpass": 0}
    assert (made.path, made.images) == (release.results.path(f"certify/{log}"), len(release.test))
    assert json.loads(made.path.read_text()) == json.loads(json.dumps(about))
    purpose = named.get("purpose", "certify")
    assert more == {"candidates": named.get("candidates", 1), "purpose": purpose, "machine": release.machine}
    assert shown.said == [(label, 50), "median 25.0%"]
    assert not (release.results.vault.path / LOOKS).exists(), "no look without its key"


def test_a_certificate_states_its_settings_and_is_stored_as_it_is_returned(
    certification: Certification, trainer: Trainer, monkeypatch: pytest.MonkeyPatch
) -> None:
    release, flagged, stressed = certification.release, list[Any](), list[Any]()
    monkeypatch.setattr(pipeline, "raised", lambda *given, **named: flagged.append((given, named)) or ["small-test"])
    monkeypatch.setattr(pipeline, "stress_test", lambda *given: stressed.append(given))
    settings = replace(SETTINGS, q=0.8, alpha=0.02, joint=True, seed=2, relative=True, precision="bf16", draws=24)
    certification.epochs = 2.0
    whole = certify_release(certification, settings, ("good",), baseline=True, stress=True)
    settings = replace(settings, look=1)
    stated = {
        "q": 0.8, "sigma": 0.005, "relative": True, "joint": True, "seed": 2, "alpha": 0.02, "alpha_each": 0.01,
        "alpha_spent": 0.01, "look": 1, "looks": 1, "precision": "bf16", "max_eta": settings.max_eta,
        "surrogate_recipe": "good", "epochs": 2.0, "holdout_images": len(release.test), "classes": 3,
        "chance": release.chance, "stress": None, "recovery_distance": None, "flags": ["small-test"],
        "batch_norm": "re-estimated for every draw from 128 protected training images",
        "data_digest": release.digest, "test_overlap": None,
    }  # fmt: skip
    assert {name: getattr(whole, name) for name in stated} == stated
    assert 0 < whole.seconds < 60
    assert release.results.vault.read_json(CERTIFICATE) == json.loads(json.dumps(whole.as_json()))
    ((given, named),) = flagged
    assert [one.recipe for one in given] == ["good", "good"]
    assert given[1] == whole.baseline
    assert named == {
        "chance": release.chance, "images": len(release.test), "few_images": release.few_test_images, "own": True,
        "overlap": False,
    }  # fmt: skip
    ((model, found, *rest),) = stressed
    assert model is certification.surrogate("good", 0.005)
    assert found == given[0]
    assert rest == [settings, release, 2.0]


def test_a_folder_is_certified_with_all_recipes_next_to_its_baseline(
    certification: Certification, monkeypatch: pytest.MonkeyPatch
) -> None:
    machine, settings = Machine(progress=Silent()), replace(SETTINGS, seed=7)
    monkeypatch.setattr(pipeline, "certify_release", lambda *args, **named: (*args, named))
    monkeypatch.setattr(pipeline, "this_machine", lambda: machine)
    opened, *asked = pipeline.certify_folder(certification.release.out, settings)  # type: ignore[misc]
    assert (opened.seed, opened.release.machine) == (7, machine)
    assert asked == [settings, choose_recipes("worst", own=True), {"baseline": True}]


@pytest.mark.parametrize("limit", [0.0123, 0.098, 0.4, 2.0])
def test_sigma_is_the_largest_that_keeps_enough_accuracy(
    limit: float, certification: Certification, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Seven halvings of a logarithmic scale from 0.001 to 1; the median decides, and two digits are kept."""
    release, asked, shown = certification.release, list[Any](), Reports()
    certification.seed, images = 5, 1000
    assert release.originals is not None, "they are read once"
    release.reader = replace(release.reader, machine=replace(release.machine, progress=shown))
    monkeypatch.setattr(OpenedRelease, "chance", 0.2)
    monkeypatch.setattr(pipeline, "accuracy", lambda *_: 0.6)
    monkeypatch.setattr(certification, "surrogate", lambda *wanted, **named: (wanted, *named.items()))
    monkeypatch.setattr(release, "test", range(images))

    def engine(model: Any, data: Any, test: Any, settings: CertificateSettings, *, purpose: str) -> CertificateSettings:
        wanted = settings.relative, settings.seed, settings.draws
        asked.append((model, data is release.originals, test, wanted, purpose))
        return settings

    def draw(settings: Any, log: Any, draws: int, machine: Machine) -> None:
        """The median is 480 where sigma is small enough, just what is needed, and 479 above."""
        middle = 480 if settings.sigma <= limit else 479
        counts = [0] * 7 + [middle] * 2 + [middle + 20] * 7
        log.add([(index, count, 0) for index, count in enumerate(counts)])

    monkeypatch.setattr(pipeline, "draw_engine", engine)
    monkeypatch.setattr(pipeline, "draw", draw)
    monkeypatch.setattr(pipeline, "SIGMA_KEEPS", (0.48 - 0.2) / (0.6 - 0.2))
    grid = [0.001 * 1000 ** (step / 128) for step in range(128)]
    largest = max(sigma for sigma in grid if sigma <= limit)
    found = informative_sigma(certification, relative=True)
    digits = 10 ** (int(f"{largest:e}".split("e")[1]) - 1)
    assert 0 <= largest - found < digits
    assert found / digits == pytest.approx(round(found / digits))
    assert set(asked) == {((("plain", 0.0), ("clean", True)), True, range(images), (True, 5, 16), "sigma")}
    assert certification.sigmas == 128
    assert shown.said[0] == ("find sigma", 7)
    assert shown.notes[-1] == f"{largest:.2g}"
    assert len(shown.notes) == 7


def test_screening_draws_are_none_of_those_that_certify(
    certification: Certification, trainer: Trainer, monkeypatch: pytest.MonkeyPatch
) -> None:
    seeds: dict[str, set[int]] = {}
    whole = certificate.DrawEngine

    def spy(*args: Any, seed: int, **more: Any) -> Any:
        seeds.setdefault("screen" if "screening" in state else "certify", set()).add(seed)
        return whole(*args, seed=seed, **more)

    state: set[str] = set()
    screen = Certification.screen

    def screening(self: Certification, *args: Any) -> Any:
        state.add("screening")
        try:
            return screen(self, *args)
        finally:
            state.clear()

    monkeypatch.setattr(certificate, "DrawEngine", spy)
    monkeypatch.setattr(Certification, "screen", screening)
    certify_release(certification, SETTINGS, ("weak", "good"))
    assert len(seeds["screen"]) == len(seeds["certify"]) == 1
    assert seeds["screen"] != seeds["certify"]
