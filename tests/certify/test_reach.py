import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers import Release, random_batch

from pueprotect.certify.reach import lengths, recovery_distance
from pueprotect.learning.draw_engine import DrawEngine, deviations
from pueprotect.learning.models import build
from pueprotect.learning.weights import distance, trainable
from pueprotect.release.opened import open_release


@pytest.mark.parametrize("relative", [False, True])
def test_the_draw_distance_is_that_of_the_draws(relative: bool) -> None:
    images, labels = random_batch()
    model = build("cnn", 4, 16, seed=3)
    told = lengths(model, 0.05, relative)
    assert told["parameters"] == sum(parameter.numel() for parameter in model.parameters())
    norm = torch.cat([parameter.detach().flatten() for parameter in model.parameters()]).double().norm()
    assert told["weights_norm"] == pytest.approx(float(norm))
    sigma = deviations(trainable(model), 0.05, relative)
    engine = DrawEngine(model, images, labels, None, sigma=sigma, seed=0)
    far = [distance(trainable(engine.network(index)), trainable(model)) ** 2 for index in range(20)]  # type: ignore[arg-type]
    assert math.sqrt(sum(far) / len(far)) == pytest.approx(told["draw_distance"], rel=0.02)


def test_the_audit_tells_how_far_the_recovery_attack_went(release: Release, tmp_path: Path) -> None:
    results = open_release(release.copy(tmp_path).out).results
    assert recovery_distance(results) is None

    def record(arch: str, key: dict[str, Any], distances: Any) -> None:
        results.write(f"audit/recovery-{arch}.json", {"key": key, "result": {"details": {"distance": distances}}})

    record("resnet8", results.digests, {"eta 0.1": 0.1, "eta 5": 1.5})
    record("cnn", results.digests, {"eta 5": 2.5})
    record("other-files", results.digests | {"data_digest": "sha256:x"}, {"eta 5": 9.0})
    record("odd", results.digests, "far")
    results.path("audit/recovery-broken.json").write_text(json.dumps([1])[:2])
    assert recovery_distance(results) == 2.5
