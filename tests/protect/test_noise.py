import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from helpers import KEY, OTHER_KEY, image_set, originals, random_images, shades

from pueprotect.errors import InputError
from pueprotect.learning.data import ImageSet
from pueprotect.learning.device import HERE
from pueprotect.learning.models import build
from pueprotect.protect import noise
from pueprotect.protect.methods import self_check
from pueprotect.protect.methods.base import NoiseSettings
from pueprotect.protect.methods.error_minimising import PUE
from pueprotect.protect.methods.laying import Originals
from pueprotect.protect.methods.self_check import Learnt
from pueprotect.protect.noise import PLAN, NoiseDraft
from pueprotect.protect.presets import Preset
from pueprotect.release.vault import Vault

EFFORT = Preset(rounds=1, draws=1, check_epochs=4, extra_rounds=3)


def draft(place: Path, plan: int = 0, data: ImageSet | None = None, **wanted: Any) -> NoiseDraft:
    given = originals(random_images()) if data is None else originals(data, every=5)
    settings = NoiseSettings(**{"rounds": 2, "surrogate": "cnn", "key": KEY} | wanted)
    return NoiseDraft(Vault.create(place), {"seed": plan}, given, settings, EFFORT, HERE)


def made(place: Path, **wanted: Any) -> NoiseDraft:
    found = draft(place, **wanted)
    found.look(anyway=True)
    found.make()
    return found


def released(found: NoiseDraft) -> ImageSet:
    """The training images as they would be read back."""
    levels, rows = found.arrays
    images, shown = found.originals.images, ~found.originals.held
    with_noise = images.images.float() + torch.from_numpy(levels[rows]).permute(0, 3, 1, 2)
    return image_set(with_noise[shown], images.labels[shown], images.classes)


def test_finished_noise_is_used_again_for_the_same_plan_only(tmp_path: Path) -> None:
    first = made(tmp_path)
    assert not draft(tmp_path, plan=1).load()
    again = draft(tmp_path)
    assert again.load()
    assert all(np.array_equal(*both) for both in zip(first.arrays, again.arrays, strict=True))
    assert again.facts == first.facts
    assert not draft(tmp_path / "none").load()


@pytest.mark.parametrize(
    "content", ["{}", "[]", "no JSON", '{"plan": {"seed": 0}}', '{"plan": {"seed": 0}, "facts": 3}']
)
def test_a_damaged_draft_is_made_again(tmp_path: Path, content: str) -> None:
    made(tmp_path)
    (tmp_path / PLAN).write_text(content)
    assert not draft(tmp_path).load()


def test_a_draft_whose_noise_is_missing_is_made_again(tmp_path: Path) -> None:
    store = made(tmp_path).store
    store.write_tensors("draft/delta.safetensors", {"other": np.zeros(2)})
    assert not draft(tmp_path).load()
    (store.path / PLAN).write_bytes(b"\xff{")
    assert not draft(tmp_path).load()
    assert noise.kept_key(store) is None


def test_the_key_is_that_of_the_draft_or_else_of_the_finished_release(tmp_path: Path) -> None:
    store = Vault.create(tmp_path / "vault")
    assert noise.kept_key(store) is None
    store.write_json("run.json", {"settings": {"key": KEY}})
    assert noise.kept_key(store) == KEY
    store.write_json(noise.PLAN, {"plan": {"settings": {"key": OTHER_KEY}}})
    assert noise.kept_key(store) == OTHER_KEY
    for damage in (
        {"plan": None},
        {"plan": []},
        {"plan": {"settings": {"key": 7}}},
        {"plan": {"settings": {"key": "7"}}},
    ):
        store.write_json(noise.PLAN, damage)
        assert noise.kept_key(store) == KEY


def test_each_method_makes_noise_of_its_own_shape(tmp_path: Path) -> None:
    for name, mode, rows in (("pue", "class-wise", 3), ("emn", "sample-wise", 48), ("lsp", "class-wise", 48)):
        found = made(tmp_path / name, method=name, mode=mode)
        levels, which = found.arrays
        assert levels.shape == (rows, 16, 16, 3)
        assert which.shape == (48,)
        assert 0 < int(np.abs(levels).max()) <= 8
        assert (found.facts.rounds == 0) == (name == "lsp")


def test_labels_from_which_nothing_can_be_learnt_are_refused_before_any_work(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"Nothing can be learnt from these labels: .* 12 held-out images"):
        draft(tmp_path).look()
    draft(tmp_path, data=shades(160), surrogate="resnet8").look()


def test_the_check_judges_the_released_files_and_not_the_noise_in_memory(tmp_path: Path) -> None:
    """Files without the noise: the self-check must see that they can be learnt."""
    found = made(tmp_path, data=shades(160), surrogate="resnet8", epsilon=40)
    shown = ~found.originals.held
    check = found.check("key", lambda: found.originals.images.subset(shown))
    assert not check.passed
    assert check.accuracy > 0.9
    assert found.facts.checks == [check]
    assert found.facts.clean_accuracy == check.clean_accuracy


@pytest.mark.parametrize("method", ["pue", "lsp"])
def test_noise_that_fails_is_improved_if_its_method_can(
    method: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(self_check, "SELF_CHECK_MARGIN", -0.45)
    found, times = made(tmp_path, method=method), noise.ATTEMPTS - 1 if method == "pue" else 0
    assert not found.improve(), "nothing was checked yet"
    checks, last = list[float](), None
    for number in range(times + 1):
        before = found.arrays[0]
        last = found.check("key", lambda: released(found))
        checks.append(last.accuracy)
        assert last.attempts == checks
        assert found.refused("key")
        assert not found.refused("another")
        assert found.improve() == (number < times)
        assert np.array_equal(before, found.arrays[0]) == (number == times)
    assert found.facts.rounds == (2 + 3 * times if times else 0)
    again = draft(tmp_path, method=method)
    assert again.load()
    assert again.refused("key")
    assert again.check("key", lambda: pytest.fail("read again")) == last
    assert (tmp_path / "draft/surrogate.safetensors").is_file()
    surrogate = found.facts.surrogate
    assert surrogate is not None
    assert (surrogate.name, surrogate.size) == ("cnn", 16)


def test_noise_is_improved_on_images_as_the_files_show_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What JPEG does to the pixels must be in the images that the improved noise is made with."""
    monkeypatch.setattr(self_check, "SELF_CHECK_MARGIN", -0.45)
    found, seen = made(tmp_path), list[Originals]()
    improve = PUE.improve
    monkeypatch.setattr(
        PUE, "improve", lambda self, noise, given, *rest: seen.append(given) or improve(self, noise, given, *rest)
    )
    exact = released(found)
    rounded = replace(exact, images=exact.images // 4 * 4)
    found.check("key", lambda: rounded)
    assert found.improve()
    (given,), held = seen, found.originals.held
    levels, rows = made(tmp_path / "again").arrays
    noise_of = torch.from_numpy(levels[rows]).permute(0, 3, 1, 2)[~held]
    expected = (rounded.images.short() - noise_of).clamp(0, 255)
    assert torch.equal(given.images.images[~held].short(), expected)
    assert torch.equal(given.images.images[held], found.originals.images.images[held])
    assert not torch.equal(given.images.images, found.originals.images.images)


def test_a_network_that_learns_nothing_is_followed_by_another(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = made(tmp_path)
    answers = [Learnt(accuracy, 0.3, build("cnn", 3, 16, seed=0)) for accuracy in (0.3, 0.9)]
    seeds = []

    def learnt(*_: Any, seed: int, **__: Any) -> Learnt:
        seeds.append(seed)
        return answers[len(seeds) - 1]

    monkeypatch.setattr(noise, "learnt", learnt)
    found.facts = found.facts.model_copy(update={"clean_accuracy": 0.95})
    check = found.check("key", lambda: released(found))
    assert (check.passed, check.accuracy, check.networks) == (False, 0.9, [0.3, 0.9])
    assert len(set(seeds)) == 2


@pytest.mark.parametrize("steps", range(2 * noise.ATTEMPTS - 1))
def test_a_run_that_was_stopped_goes_on_to_the_same_noise(
    steps: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Stopped after so many checks and improvements in turn."""
    monkeypatch.setattr(self_check, "SELF_CHECK_MARGIN", -0.45)
    whole = made(tmp_path / "whole")
    while whole.check("key", lambda: released(whole)) and whole.improve():
        pass

    stopped = made(tmp_path / "stopped")
    for number in range(steps):
        stopped.improve() if number % 2 else stopped.check("key", lambda: released(stopped))
    again = draft(tmp_path / "stopped")
    assert again.load()
    assert not again.refused("key")
    while again.check("key", lambda: released(again)) and again.improve():
        pass
    assert np.array_equal(again.arrays[0], whole.arrays[0])
    assert again.facts == whole.facts
    assert json.loads((tmp_path / "stopped" / PLAN).read_text())["facts"] == whole.facts.as_json()
