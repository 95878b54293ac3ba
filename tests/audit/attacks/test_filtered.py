import pytest
import torch
from helpers import grained, shades, target

from pueprotect.audit.attacks import find
from pueprotect.audit.attacks.base import CLEAN_BEHIND_IT


def test_half_size_holds_what_half_the_pixels_hold() -> None:
    images = grained(4, 20).images
    done = find("half-size").squeeze(images)
    assert done.shape == images.shape
    flat = torch.full((1, 3, 21, 21), 77, dtype=torch.uint8)
    assert torch.equal(find("half-size").squeeze(flat), flat)
    checker = (torch.arange(16)[:, None] + torch.arange(16)) % 2 * 200
    board = checker.to(torch.uint8).expand(1, 3, 16, 16)
    assert set(find("half-size").squeeze(board).unique().tolist()) == {100}


def test_blue_goes_and_nothing_else() -> None:
    images = grained(4).images
    done = find("blue-drop").squeeze(images)
    assert torch.equal(done[:, :2], images[:, :2])
    assert int(done[:, 2].max()) == 0
    assert int(images[:, 2].max()) > 0


@pytest.mark.parametrize("name", ["notch", "blur-2"])
def test_clean_images_behind_the_same_filter_stand_beside(name: str) -> None:
    result = find(name).run(target(drawn=shades, known=True), shades(40, seed=1))
    assert result.details["points"][CLEAN_BEHIND_IT] >= 0.8
    assert result.best_accuracy == max([result.accuracy, *result.details["epoch_accuracy"]])
    alone = find(name).run(target(drawn=shades), shades(40, seed=1))
    assert CLEAN_BEHIND_IT not in alone.details["points"]
    assert alone.accuracy == result.accuracy
