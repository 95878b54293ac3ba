"""Measures lengths in weight space, so that a reader sees how far a certificate speaks."""

from __future__ import annotations

import math
from typing import Any

import torch

from pueprotect.errors import VaultError
from pueprotect.learning.models import Classifier, parameter_count
from pueprotect.learning.weights import trainable
from pueprotect.release.results import Results


@torch.no_grad()
def lengths(model: Classifier, sigma: float, relative: bool) -> dict[str, Any]:
    """`parameters`, `weights_norm` and `draw_distance` of `records.RecipeFigures`, the last two plain L2 lengths.

    With a relative sigma a draw lies sigma times the norm of the weights away: the noise of tensor l, with d_l weights
    w_l, has the expected square length d_l (sigma ||w_l|| / sqrt(d_l))^2.
    """
    count = parameter_count(model)
    norm = float(torch.stack([parameter.double().square().sum() for parameter in trainable(model)]).sum().sqrt())
    distance = sigma * (norm if relative else math.sqrt(count))
    return {"parameters": count, "weights_norm": norm, "draw_distance": distance}


def recovery_distance(results: Results) -> float | None:
    """How far the recovery attack of the audit moved weights of a network, at most, in L2.

    None where the vault has no result for these files and test images.
    """
    moved: list[float] = []
    for path in sorted(results.vault.path.glob("audit/recovery-*.json")):
        try:
            found = results.vault.read_json(f"audit/{path.name}")
            key, distances = found["key"], found["result"]["details"].get("distance", {})
            if all(key.get(name) == digest for name, digest in results.digests.items()):
                moved += map(float, distances.values())
        except (VaultError, KeyError, TypeError, AttributeError, ValueError):
            continue  # `check` reports damaged records
    return max(moved, default=None)
