from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers import KEY, OTHER_KEY, random_images

from pueprotect.learning.device import HERE
from pueprotect.protect import noise
from pueprotect.protect.methods.base import NoiseSettings
from pueprotect.protect.presets import Preset
from pueprotect.release.vault import SCHEMA_VERSION, Vault

PLAN: dict[str, Any] = {"seed": 0}
EFFORT = Preset(rounds=1, draws=1, check_epochs=1, extra_rounds=1)


def made(place: Path, **wanted: Any) -> tuple[Vault, np.ndarray, Any]:
    store = Vault.create(place)
    held = np.arange(48) % 4 == 0
    settings = NoiseSettings(rounds=1, **wanted)
    found, facts = noise.make(store, PLAN, random_images(), held, settings, EFFORT, HERE)
    return store, found, facts


def test_finished_noise_is_reused_for_the_same_plan_only(tmp_path: Path) -> None:
    store, found, facts = made(tmp_path / "vault")
    assert noise.kept(store, {"seed": 1}) is None
    kept = noise.kept(store, PLAN)
    assert kept is not None
    assert np.array_equal(kept[0], found)
    assert kept[1] == facts
    assert noise.kept(Vault(tmp_path / "none"), PLAN) is None


@pytest.mark.parametrize("damage", [
    {"plan": PLAN},
    {"plan": PLAN, "facts": None},
    {"plan": PLAN, "facts": {"rounds": "many"}},
    {"plan": PLAN, "facts": [1]},
    {},
], ids=str)  # fmt: skip
def test_a_damaged_draft_is_not_used(damage: dict[str, Any], tmp_path: Path) -> None:
    store, _, _ = made(tmp_path / "vault")
    store.write_json(noise.PLAN, {"schema_version": SCHEMA_VERSION} | damage)
    assert noise.kept(store, PLAN) is None
    assert noise.kept_key(store) is None


def test_a_draft_whose_noise_is_missing_is_not_used(tmp_path: Path) -> None:
    store, _, _ = made(tmp_path / "vault")
    store.write_tensors("draft/delta.safetensors", {"other": np.zeros(2)})
    assert noise.kept(store, PLAN) is None
    (store.path / "draft/plan.json").write_bytes(b"\xff{")
    assert noise.kept(store, PLAN) is None


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
        _, found, facts = made(tmp_path / name, method=name, mode=mode)
        assert found.shape == (rows, 16, 16, 3)
        assert 0 < int(np.abs(found).max()) <= 8
        assert (facts.rounds == 0) == (name == "lsp")
        assert len(facts.self_check.attempts) == (1 if facts.self_check.passed or name == "lsp" else 2)
