import numpy as np
import torch
from helpers import random_images

from pueprotect.learning.data import Part, image_set, to_float


def test_an_image_set_keeps_pixels_and_labels() -> None:
    pixels = np.arange(2 * 4 * 4 * 3, dtype=np.uint8).reshape(2, 4, 4, 3)
    made = image_set(pixels, np.array([1, 0]), 2, "cpu")
    assert made.images.shape == (2, 3, 4, 4)
    assert np.array_equal(made.images.permute(0, 2, 3, 1).numpy(), pixels)
    assert made.labels.tolist() == [1, 0]


def test_a_part_is_the_subset_without_a_copy_of_the_images() -> None:
    whole, members = random_images(20), torch.tensor([7, 0, 13, 2])
    part, subset = Part(whole, members), whole.subset(members)
    assert (len(part), part.classes, part.size, part.device) == (4, 3, 16, "cpu")
    assert torch.equal(part.labels, subset.labels)
    for index in (torch.tensor([3, 1]), torch.arange(4)):
        assert torch.equal(part.frames(index), subset.frames(index))
        assert torch.equal(part.frames(index), whole.images[members[index]].permute(0, 2, 3, 1))
    part.frames(torch.tensor([0])).fill_(0)
    assert torch.equal(whole.images, random_images(20).images), "frames are a copy"


def test_images_are_drawn_from_all_of_a_sorted_set() -> None:
    data = random_images(90)
    ordered = data.subset(data.labels.argsort())
    drawn = ordered.drawn(30, 0, "here")
    assert len(drawn) == 30
    assert int(torch.bincount(drawn.labels, minlength=3).min()) >= 4
    assert torch.equal(drawn.images, ordered.drawn(30, 0, "here").images)
    assert not torch.equal(drawn.images, ordered.drawn(30, 0, "there").images)
    everything = ordered.drawn(1000, 0, "here")
    assert torch.equal(torch.bincount(everything.labels), torch.bincount(data.labels))


def test_floats_keep_every_level() -> None:
    levels = torch.arange(256, dtype=torch.uint8)
    shown = to_float(levels)
    assert (float(shown[0]), float(shown[255])) == (0.0, 1.0)
    assert torch.equal((shown * 255).round().to(torch.uint8), levels)
