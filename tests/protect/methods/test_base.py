import itertools

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from pueprotect.errors import InputError
from pueprotect.learning.data import apply
from pueprotect.protect.methods.base import NoiseSettings


@given(st.integers(1, 30), st.integers(0, 2**31))
@settings(max_examples=30, deadline=None)
def test_noise_is_signed_within_budget_and_clipped(epsilon: int, seed: int) -> None:
    stream = torch.Generator().manual_seed(seed)
    images = torch.randint(0, 256, (5, 3, 4, 4), generator=stream, dtype=torch.uint8)
    delta = torch.randint(-epsilon, epsilon + 1, (2, 4, 4, 3), generator=stream).to(torch.int8)
    index = torch.tensor([0, 1, 1, 0, 1])
    shown = apply(images.permute(0, 2, 3, 1), delta[index]).permute(0, 3, 1, 2)
    for number in range(5):
        for y, x, c in itertools.product(range(4), range(4), range(3)):
            expected = min(255, max(0, int(images[number, c, y, x]) + int(delta[index[number], y, x, c])))
            assert int(shown[number, c, y, x]) == expected


@pytest.mark.parametrize(
    "wrong", [{"epsilon": 0}, {"epsilon": 256}, {"sigma": -0.1}, {"sigma": float("nan")}, {"rounds": 0}, {"draws": 0}]
)
def test_out_of_range(wrong: dict[str, float]) -> None:
    with pytest.raises(InputError):
        NoiseSettings(**wrong)  # type: ignore[arg-type]
