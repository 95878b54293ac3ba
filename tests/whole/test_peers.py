"""Protections by other hands: the fixtures are what their papers describe, and class means betray both."""

import pytest
import torch
from helpers import lsp, noise, one_pixel_shortcut

from pueprotect.audit.attacks.linear import WholeClassMean, class_means


def test_lsp_is_blocks_of_six_levels_that_separate_the_classes() -> None:
    clean = noise(400, 32, classes=4)
    change = lsp(clean).images.float() - clean.images.float()
    assert float(change.pow(2).mean().sqrt()) == pytest.approx(6, abs=0.2)
    blocks = change.view(400, 3, 4, 8, 4, 8)
    assert float(blocks.std((3, 5)).mean()) < 0.6, "one level in a block, up to rounding"
    codes = blocks.mean((3, 5)).flatten(1)
    centres = torch.stack([codes[clean.labels == label].mean(0) for label in range(4)])
    assert torch.equal(torch.cdist(codes, centres).argmin(1), clean.labels)


def test_one_pixel_shortcut_is_one_pixel_of_one_colour_for_each_class() -> None:
    clean = noise(80, 16, classes=4)
    coded = one_pixel_shortcut(clean)
    changed = (coded.images != clean.images).any(1)
    assert int(changed.flatten(1).sum(1).max()) == 1
    places = set()
    for label in range(4):
        mine = changed[clean.labels == label]
        (place,) = torch.nonzero(mine.any(0)).tolist()
        colours = coded.images[clean.labels == label][:, :, place[0], place[1]].unique(dim=0)
        assert len(colours) == 1
        assert set(colours.flatten().tolist()) <= {0, 255}
        places.add((*place, *colours.flatten().tolist()))
    assert len(places) == 4


@pytest.mark.parametrize("protect", [lsp, one_pixel_shortcut])
def test_subtracting_whole_class_means_takes_both_codes_out(protect: object) -> None:
    coded = protect(noise(400, 32, classes=4))  # type: ignore[operator]
    left = class_means(WholeClassMean().cleaned(coded, 0))
    before = class_means(coded)
    assert float((before - before.mean(0)).abs().amax((1, 2, 3)).min()) > 5
    assert float((left - left.mean(0)).abs().max()) < 1
