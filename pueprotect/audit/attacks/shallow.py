"""Gaussian weight noise that falls from the stem to the last stage: shallow filters are what reads fine noise."""

from __future__ import annotations

import torch
from torch import Tensor

from pueprotect.learning.models import Classifier

SHALLOW_TO_DEEP = (0.5, 0.4, 0.2, 0.0)


def noise_shares(model: Classifier) -> list[float]:
    """For each trainable parameter, how much of the level its stage gets: 0.5 at the stem, 0 in the last stage."""
    last = len(model.stages) - 1
    shares = []
    stage = 0
    for name, parameter in model.body.named_parameters():
        inside = [number for number, prefix in enumerate(model.stages) if name.startswith(prefix + ".")]
        stage = inside[0] if inside else stage
        past = not inside and name.split(".")[0] in ("head", "fc", "classifier", "heads")
        depth = 1.0 if past else stage / last
        position = depth * (len(SHALLOW_TO_DEEP) - 1)
        low = min(int(position), len(SHALLOW_TO_DEEP) - 2)
        share = SHALLOW_TO_DEEP[low] + (position - low) * (SHALLOW_TO_DEEP[low + 1] - SHALLOW_TO_DEEP[low])
        shares.append(share if parameter.dim() > 1 else 0.0)
    return shares


@torch.no_grad()
def relative_deviations(parameters: list[Tensor], shares: list[float], level: float) -> list[Tensor]:
    """Standard deviation of each weight: share x level x root mean square of its filter."""
    return [
        level * share * parameter.flatten(1).pow(2).mean(1).sqrt().view(-1, *[1] * (parameter.dim() - 1))
        if share
        else parameter.new_zeros(())
        for parameter, share in zip(parameters, shares, strict=True)
    ]
