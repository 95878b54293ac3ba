from pathlib import Path
from typing import Any

import numpy as np
from helpers import random_images

from pueprotect.learning.device import HERE
from pueprotect.protect import noise
from pueprotect.protect.methods.base import NoiseSettings
from pueprotect.protect.presets import Preset
from pueprotect.release.vault import Vault

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


def test_each_method_makes_noise_of_its_own_shape(tmp_path: Path) -> None:
    for name, mode, rows in (("pue", "class-wise", 3), ("emn", "sample-wise", 48), ("lsp", "class-wise", 48)):
        _, found, facts = made(tmp_path / name, method=name, mode=mode)
        assert found.shape == (rows, 16, 16, 3)
        assert 0 < int(np.abs(found).max()) <= 8
        assert (facts.rounds == 0) == (name == "lsp")
        assert len(facts.self_check.attempts) == (1 if facts.self_check.passed or name == "lsp" else 2)
