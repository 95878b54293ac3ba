import pytest
import torch
from torch.nn import functional

from pueprotect.augment import CropFlip, blur3, colour, crop_padding, pad


@pytest.fixture
def frames() -> torch.Tensor:
    return torch.randint(0, 256, (6, 16, 16, 3), generator=torch.Generator().manual_seed(1), dtype=torch.uint8)


def test_crop_flip_equals_a_plain_loop(frames: torch.Tensor) -> None:
    padding = crop_padding(16)
    padded = pad(frames, padding)
    index = torch.tensor([3, 0, 5])
    crop = CropFlip.draw(3, 16, torch.Generator().manual_seed(2), "cpu")
    batch = crop.apply(padded, index)
    for number, image in enumerate(index.tolist()):
        top = int(crop.rows[number, 0, 0])
        columns = crop.columns[number, 0].tolist()
        window = padded[image, top : top + 16, min(columns) : max(columns) + 1]
        if columns[0] > columns[-1]:
            window = window.flip(1)
        assert torch.equal(batch[number], window.permute(2, 0, 1))


def test_some_flip_and_offsets_cover_the_range() -> None:
    crop = CropFlip.draw(2000, 32, torch.Generator().manual_seed(0), "cpu")
    tops = crop.rows[:, 0, 0]
    assert set(tops.tolist()) == set(range(9))
    flipped = (crop.columns[:, 0, 0] > crop.columns[:, 0, -1]).float().mean()
    assert 0.45 < float(flipped) < 0.55


def test_without_augmentation_the_image_is_shown_as_it_is(frames: torch.Tensor) -> None:
    crop = CropFlip.draw(6, 16, torch.Generator(), "cpu", augment=False)
    shown = crop.apply(pad(frames, crop_padding(16)), torch.arange(6))
    assert torch.equal(shown, frames.permute(0, 3, 1, 2))


def test_adjoint_is_the_transpose(frames: torch.Tensor) -> None:
    """<crop(x), g> = <x, adjoint(g)> for every image."""
    x = frames.double()
    crop = CropFlip.draw(6, 16, torch.Generator().manual_seed(3), "cpu")
    g = torch.randn(6, 3, 16, 16, generator=torch.Generator().manual_seed(4), dtype=torch.float64)
    shown = crop.apply(pad(x, crop_padding(16)), torch.arange(6))
    back = crop.adjoint(g)
    assert back.shape == x.shape
    torch.testing.assert_close((shown * g).sum((1, 2, 3)), (x * back).sum((1, 2, 3)), rtol=1e-12, atol=1e-8)


def test_colour_stays_in_range_and_keeps_structure() -> None:
    images = torch.rand(64, 3, 8, 8, generator=torch.Generator().manual_seed(5))
    changed = colour(images, torch.Generator().manual_seed(6), gray=0.5)
    assert changed.shape == images.shape
    assert float(changed.min()) >= 0
    assert float(changed.max()) <= 1
    gray = (changed == changed[:, :1]).flatten(1).all(1).float().mean()
    assert 0.3 < float(gray) < 0.7
    assert torch.equal(changed, colour(images, torch.Generator().manual_seed(6), gray=0.5))


def test_blur3_is_the_mean_of_nine() -> None:
    images = torch.rand(2, 3, 7, 7, generator=torch.Generator().manual_seed(7))
    kernel = torch.full((3, 1, 3, 3), 1 / 9)
    expected = functional.conv2d(images, kernel, groups=3)
    torch.testing.assert_close(blur3(images)[:, :, 1:-1, 1:-1], expected)
