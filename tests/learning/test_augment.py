import pytest
import torch
from helpers import stream
from torch.nn import functional

from pueprotect.learning.augment import (
    Crop,
    CropFlip,
    Grouped,
    ResizedCrop,
    blur3,
    colour,
    crop_padding,
    cutout,
    draw_crops,
    lent_stream,
    plasma,
)


@pytest.fixture
def frames() -> torch.Tensor:
    return torch.randint(0, 256, (6, 16, 16, 3), generator=torch.Generator().manual_seed(1), dtype=torch.uint8)


def crops(size: int, count: int, seed: int) -> Crop:
    return draw_crops(count, size, torch.Generator().manual_seed(seed), "cpu")


def test_crop_flip_equals_a_plain_loop(frames: torch.Tensor) -> None:
    padding = crop_padding(16)
    padded = functional.pad(frames, (0, 0, padding, padding, padding, padding))
    crop = CropFlip.draw(6, 16, torch.Generator().manual_seed(2), "cpu")
    batch = crop.apply(frames)
    assert batch.dtype == torch.uint8
    for number in range(6):
        top = int(crop.rows[number, 0, 0]) + padding
        columns = [column + padding for column in crop.columns[number, 0].tolist()]
        window = padded[number, top : top + 16, min(columns) : max(columns) + 1]
        if columns[0] > columns[-1]:
            window = window.flip(1)
        assert torch.equal(batch[number], window.permute(2, 0, 1))


def test_some_flip_and_offsets_cover_the_range() -> None:
    crop = CropFlip.draw(2000, 32, torch.Generator().manual_seed(0), "cpu")
    tops = crop.rows[:, 0, 0]
    assert set(tops.tolist()) == set(range(-4, 5))
    flipped = (crop.columns[:, 0, 0] > crop.columns[:, 0, -1]).float().mean()
    assert 0.45 < float(flipped) < 0.55


@pytest.mark.parametrize("size", [16, 64])
def test_without_augmentation_the_image_is_shown_as_it_is(size: int) -> None:
    frames = torch.randint(0, 256, (3, size, size, 3), dtype=torch.uint8)
    crop = draw_crops(3, size, torch.Generator(), "cpu", augment=False)
    assert torch.equal(crop.apply(frames), frames.permute(0, 3, 1, 2))


@pytest.mark.parametrize("size", [16, 56])
def test_adjoint_is_the_transpose(size: int) -> None:
    """<crop(x), g> = <x, adjoint(g)> for every image."""
    stream = torch.Generator().manual_seed(4)
    x = torch.rand(6, size, size, 3, generator=stream)
    g = torch.randn(6, 3, size, size, generator=stream)
    crop = crops(size, 6, seed=3)
    back = crop.adjoint(g)
    assert back.shape == x.shape
    torch.testing.assert_close((crop.apply(x) * g).sum((1, 2, 3)), (x * back).sum((1, 2, 3)), rtol=1e-4, atol=1e-3)


def test_the_kind_of_crop_depends_on_the_size() -> None:
    assert isinstance(crops(48, 2, 0), CropFlip)
    assert isinstance(crops(49, 2, 0), ResizedCrop)


def test_a_resized_crop_equals_a_bilinear_sampler() -> None:
    """Against `grid_sample` at the centres of the weights."""
    frames = torch.randint(0, 256, (8, 64, 64, 3), generator=torch.Generator().manual_seed(1), dtype=torch.uint8)
    crop = ResizedCrop.draw(8, 64, torch.Generator().manual_seed(2), "cpu")
    steps = torch.arange(64.0)
    y, x = ((weights * steps).sum(2) for weights in (crop.rows, crop.columns))
    grid = torch.stack([x[:, None, :].expand(-1, 64, -1), y[:, :, None].expand(-1, -1, 64)], dim=3) / 63 * 2 - 1
    expected = functional.grid_sample(frames.permute(0, 3, 1, 2).float(), grid, align_corners=True)
    torch.testing.assert_close(crop.apply(frames), expected, rtol=1e-4, atol=0.05)


def test_resized_crops_have_the_area_and_aspect_of_photographs() -> None:
    crop = ResizedCrop.draw(3000, 64, torch.Generator().manual_seed(0), "cpu")
    steps = torch.arange(64.0)
    edges = []
    for weights in (crop.rows, crop.columns):
        torch.testing.assert_close(weights.sum(2), torch.ones(3000, 64))
        centres = (weights * steps).sum(2)
        inner = centres[:, 20:44]  # away from the edges, where centres stop
        edges.append((inner[:, -1] - inner[:, 0]) / 23)
    height, width = edges[0], edges[1].abs()
    area, ratio = height * width, width / height
    assert 0.34 < float(area.min()) < 0.36
    assert float(area.max()) > 0.97
    assert 0.62 < float(area.mean()) < 0.70
    assert float(ratio.min()) > 0.74
    assert float(ratio.max()) < 1.35
    assert 0.45 < float((edges[1] < 0).float().mean()) < 0.55


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


def test_cutout_masks_one_square_of_half_the_side_at_its_own_place() -> None:
    images = 0.5 + 0.5 * torch.rand((200, 3, 16, 16), generator=stream())
    cut = cutout(images, stream(1))
    black = cut == 0
    assert torch.equal(black[:, 0], black[:, 1])
    assert torch.equal(cut[~black], images[~black])
    areas, places = set(), set()
    for hole in black[:, 0]:
        rows, columns = hole.any(1), hole.any(0)
        assert torch.equal(hole, torch.outer(rows, columns))  # a rectangle
        height, width = int(rows.sum()), int(columns.sum())
        assert 4 <= height <= 8
        assert 4 <= width <= 8
        areas.add(height * width)
        places.add((int(rows.int().argmax()), int(columns.int().argmax())))
    assert max(areas) == 64
    assert len(places) > 50
    assert float(images.min()) >= 0.5, "the input does not change"


def test_groups_share_parameters_and_batches_do_not() -> None:
    """A transform that adds one random number: eight images share it, the next eight have their own."""
    shifted = Grouped(lambda images: images + torch.rand(()), stream(5))(torch.zeros(20, 3, 4, 4))
    values = shifted[:, 0, 0, 0]
    assert len(values.unique()) == 3
    assert len(values[:8].unique()) == len(values[8:16].unique()) == len(values[16:].unique()) == 1


def test_lent_stream_advances_and_the_global_one_does_not() -> None:
    torch.manual_seed(7)
    expected = torch.rand(3)
    torch.manual_seed(7)
    own, twin = stream(5), stream(5)
    with lent_stream(own):
        drawn = torch.rand(2)
    assert torch.equal(drawn, torch.rand(2, generator=twin))
    assert torch.equal(torch.rand(3), expected)
    assert torch.equal(torch.rand(2, generator=own), torch.rand(2, generator=twin))
    with pytest.raises(ValueError, match="stop"), lent_stream(own):
        raise ValueError("stop")
    assert torch.equal(torch.rand(1, generator=own), torch.rand(1, generator=twin))


def test_plasma_is_smooth_and_spans_the_range() -> None:
    fields = plasma(20, 32, stream(), "cpu")
    assert fields.shape == (20, 1, 32, 32)
    assert fields.amin((2, 3)).unique().tolist() == [0.0]
    torch.testing.assert_close(fields.amax((2, 3)), torch.ones(20, 1))
    neighbours = (fields[..., 1:] - fields[..., :-1]).abs().mean()
    assert float(neighbours) < 0.1
    assert len(fields.flatten(1).unique(dim=0)) == 20
