import pytest
import torch
from helpers import random_images, stream

from pueprotect.release.overlap import differences, near_pairs


def blocks(count: int, size: int, seed: int) -> torch.Tensor:
    """Coarse random pictures, many of them close: (N, 3, S, S) uint8."""
    coarse = 100 + 30 * torch.rand((count, 3, 3, 3), generator=stream(seed))
    return torch.nn.functional.interpolate(coarse, size=size).to(torch.uint8)


@pytest.mark.parametrize("size", [4, 8, 16, 28, 33])
def test_exactly_the_pairs_within_the_distance_are_found(size: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pueprotect.release.overlap.TEST_ROWS", 7)
    monkeypatch.setattr("pueprotect.release.overlap.TRAIN_ROWS", 11)
    monkeypatch.setattr("pueprotect.release.overlap.PAIRS", 13)
    test, train = blocks(20, size, 0), blocks(30, size, 1)
    everything = torch.cartesian_prod(torch.arange(20), torch.arange(30))
    apart = differences(test, train, everything)
    levels = float(apart.quantile(0.2))
    expected = everything[apart <= levels]
    assert 100 < len(expected) < 200
    assert torch.equal(near_pairs(test, train, levels), expected)


def test_the_noise_of_a_budget_is_near_and_other_pictures_are_not() -> None:
    train, test = random_images(60).images, random_images(40, seed=1).images
    assert near_pairs(test, train, 9).tolist() == []
    signs = 16 * torch.randint(0, 2, test.shape, generator=stream()) - 8
    train = train.clone()
    train[10:20] = (test[5:15].short() + signs[5:15]).clamp(0, 255).to(torch.uint8)
    assert near_pairs(test, train, 9).tolist() == [[5 + index, 10 + index] for index in range(10)]
    assert near_pairs(test, train, 2).tolist() == []
