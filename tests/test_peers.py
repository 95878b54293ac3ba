"""Protections by other hands: the fixtures are what their papers describe, and the suite gets through them."""

import os
import tarfile
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from toy import image_set, lsp, noise, one_pixel_shortcut

from pueprotect.attacks import Target, find
from pueprotect.attacks.linear import ClassMean, class_means
from pueprotect.models import build
from pueprotect.training import ImageSet, Recipe, accuracy, train

ARCHIVE = os.environ.get("PUEPROTECT_CIFAR10", "")
TAKEN = {"train": 300, "test": 60}


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
def test_subtracting_class_means_takes_both_codes_out(protect: object) -> None:
    coded = protect(noise(400, 32, classes=4))  # type: ignore[operator]
    left = class_means(ClassMean().cleaned(coded, 0))
    before = class_means(coded)
    assert float((before - before.mean(0)).abs().amax((1, 2, 3)).min()) > 5
    assert float((left - left.mean(0)).abs().max()) < 1


@pytest.fixture(scope="module")
def photographs() -> tuple[ImageSet, ImageSet]:
    """300 training and 60 test photographs of each class of CIFAR-10."""
    if not Path(ARCHIVE).is_file():
        pytest.skip("PUEPROTECT_CIFAR10 names no archive")
    pixels: dict[str, list[np.ndarray]] = {"train": [], "test": []}
    labels: dict[str, list[int]] = {"train": [], "test": []}
    taken: Counter[tuple[str, str]] = Counter()
    names: list[str] = []
    with tarfile.open(ARCHIVE, "r:xz") as archive:
        for member in archive:
            split, _, rest = member.name.partition("/")
            name = rest.partition("/")[0]
            if not member.isfile() or split not in TAKEN or taken[split, name] == TAKEN[split]:
                continue
            taken[split, name] += 1
            if name not in names:
                names.append(name)
            file = archive.extractfile(member)
            assert file is not None
            pixels[split].append(np.asarray(Image.open(file).convert("RGB")))
            labels[split].append(names.index(name))
    train_set, test_set = (
        image_set(
            torch.from_numpy(np.stack(pixels[split])).permute(0, 3, 1, 2), torch.tensor(labels[split]), len(names)
        )
        for split in ("train", "test")
    )
    return train_set, test_set


@pytest.mark.slow
@pytest.mark.realdata
@pytest.mark.parametrize(
    ("protect", "attacks", "fallen"),
    [(lsp, ("class-mean", "jpeg-10", "colour"), 0.2), (one_pixel_shortcut, ("class-mean", "cutmix", "blur"), 0.35)],
)
def test_plain_training_falls_and_an_attack_of_the_suite_does_not(
    protect: object, attacks: tuple[str, ...], fallen: float, photographs: tuple[ImageSet, ImageSet]
) -> None:
    clean, test = photographs
    recipe = Recipe(epochs=20)
    line = accuracy(train(build("resnet8", 10, 32, seed=1), clean, recipe, seed=1), test)
    coded = Target(protect(clean), "resnet8", recipe, 1)  # type: ignore[operator]
    plain = find("standard").run(coded, test).accuracy
    worst = max(find(name).run(coded, test).accuracy for name in attacks)
    assert plain <= fallen
    assert worst > 0.6 * line
