from pathlib import Path
from typing import Any

import pytest
import torch
from helpers import Release, write_photos

from pueprotect.errors import InputError
from pueprotect.learning.models import build
from pueprotect.release.opened import open_release
from pueprotect.release.results import tensors
from pueprotect.release.vault import Vault


def test_results_are_read_back_for_the_same_key_and_images_only(release: Release, tmp_path: Path) -> None:
    mine = release.copy(tmp_path)
    results = open_release(mine.out).results
    results.keep("audit/x.json", {"seed": 0}, {"accuracy": 0.5})
    assert results.kept("audit/x.json", {"seed": 0}) == {"accuracy": 0.5}
    assert results.kept("audit/x.json", {"seed": 1}) is None
    assert results.kept("audit/y.json", {"seed": 0}) is None
    for seed in (2, 3):
        other = open_release(mine.out, test=write_photos(tmp_path / f"test{seed}", 2, seed=seed)).results
        assert other.kept("audit/x.json", {"seed": 0}) is None, "other test images"
        other.keep("audit/x.json", {"seed": 0}, {"accuracy": 0.6})
    Vault(mine.vault).write_json("audit/x.json", {"unrelated": True})
    assert results.kept("audit/x.json", {"seed": 0}) is None


def test_weights_are_kept_bit_by_bit_and_refused_for_other_settings(release: Release, tmp_path: Path) -> None:
    results = open_release(release.copy(tmp_path).out).results
    key: dict[str, Any] = {"recipe": "plain", "seed": 0}
    assert results.kept_weights("plain", key) is None
    model = build("cnn", 3, 16, seed=1)
    results.keep_weights("plain", key, model, {"correct": 3})
    found = results.kept_weights("plain", key)
    assert found is not None
    kept, about = found
    assert about == {"correct": 3}
    assert kept.keys() == model.state_dict().keys()
    assert all(torch.equal(value, kept[name]) for name, value in model.state_dict().items())
    assert tensors(results.vault, "certify/plain.safetensors").keys() == kept.keys()
    with pytest.raises(InputError, match=r"seed 0 instead of 1"):
        results.kept_weights("plain", key | {"seed": 1})
