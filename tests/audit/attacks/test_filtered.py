import io
from dataclasses import replace

import numpy as np
import pytest
import torch
from helpers import grained, image_set, shades, stripes, target
from PIL import Image

from pueprotect.audit.attacks import find
from pueprotect.audit.attacks.standard import Variation
from pueprotect.learning.data import ImageSet
from pueprotect.release.audits import AS_THEY_ARE, CLEAN_BEHIND_IT


def through(name: str, images: torch.Tensor) -> torch.Tensor:
    """Images behind the filter of an attack."""
    look = find(name).filter(target())
    assert look is not None
    return look(images)


SQUEEZES = ("blur", "grayscale", "bit-depth", "jpeg-10", "jpeg-30")


def pictures(count: int = 5, size: int = 32) -> torch.Tensor:
    """Smooth gradients with some grain."""
    stream = torch.Generator().manual_seed(3)
    ramp = torch.linspace(0, 160, size)
    smooth = torch.stack([ramp[:, None] + ramp / 3, ramp + 30 * ramp[:, None] / 160, 200 - ramp.expand(size, -1)])
    images = smooth + 25 * torch.randn((count, 3, size, size), generator=stream)
    return image_set(images, torch.arange(count), count).images


@pytest.mark.parametrize("name", SQUEEZES)
def test_each_image_is_filtered_alone_and_always_in_the_same_way(name: str) -> None:
    images = pictures()
    squeezed = through(name, images)
    assert squeezed.dtype == torch.uint8
    assert squeezed.shape == images.shape
    assert not torch.equal(squeezed, images)
    for number in range(len(images)):
        assert torch.equal(through(name, images[number : number + 1])[0], squeezed[number])


@pytest.mark.parametrize("quality", [10, 30])
def test_jpeg_is_what_a_decoder_reads_from_a_file(quality: int) -> None:
    images = pictures()
    squeezed = through(f"jpeg-{quality}", images)
    for before, after in zip(images, squeezed, strict=True):
        file = io.BytesIO()
        Image.fromarray(before.permute(1, 2, 0).numpy()).save(file, "JPEG", quality=quality)
        assert len(file.getvalue()) < before.numel() / 3
        assert np.array_equal(np.asarray(Image.open(file)), after.permute(1, 2, 0).numpy())


def test_lower_quality_loses_more() -> None:
    images = pictures()
    lost = [(through(f"jpeg-{q}", images).float() - images.float()).abs().mean() for q in (30, 10)]
    assert lost[0] < lost[1]


def test_grayscale_has_one_luma() -> None:
    images = pictures()
    gray = through("grayscale", images)
    weights = torch.tensor([0.299, 0.587, 0.114]).view(1, 3, 1, 1)
    luma = (images.float() * weights).sum(1)
    for channel in range(3):
        assert float((gray[:, channel].float() - luma).abs().max()) < 1.1  # torchvision truncates


def test_bit_depth_keeps_two_bits() -> None:
    images = pictures()
    assert torch.equal(through("bit-depth", images), images // 64 * 64)


def test_blur_spreads_one_point_as_a_gaussian() -> None:
    images = torch.zeros((1, 3, 15, 15), dtype=torch.uint8)
    images[:, :, 7, 7] = 255
    blurred = through("blur", images)[0, 0].float()
    line = torch.exp(-(torch.arange(-2.0, 3.0) ** 2) / 2)
    line = line / line.sum()
    assert float((blurred[5:10, 5:10] - 255 * torch.outer(line, line)).abs().max()) <= 1
    assert float(blurred.sum() - blurred[5:10, 5:10].sum()) == 0


def test_test_images_are_filtered_and_accuracy_without_the_filter_is_recorded_too() -> None:
    """A network trained on dim images only is at chance on bright ones; the filter makes all images dim."""

    dim = Variation("dim", "darkens all images", "-", look=lambda images: images // 4)
    result = dim.run(target(), stripes(40, seed=1))
    plain = find("standard").run(replace_images(), stripes(40, seed=1))
    assert result.accuracy >= 0.8
    assert result.details["points"][AS_THEY_ARE] == plain.accuracy
    assert AS_THEY_ARE not in plain.details.get("points", {})


def replace_images() -> object:
    here = target()
    data: ImageSet = replace(here.released, images=here.released.images // 4)
    return replace(here, released=data)


def test_training_images_are_filtered_too(monkeypatch: pytest.MonkeyPatch) -> None:
    from pueprotect.audit.attacks import standard

    seen: list[torch.Tensor] = []
    original = standard.train

    def spy(model: object, data: ImageSet, *rest: object, **options: object) -> object:
        seen.append(data.images)
        return original(model, data, *rest, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(standard, "train", spy)
    find("bit-depth").run(target(epochs=1), stripes(8, seed=1))
    assert seen[0].unique().tolist() == [0, 128, 192]


def test_half_size_keeps_flat_images_and_averages_fine_detail() -> None:
    images = grained(4, 20).images
    done = through("half-size", images)
    assert done.shape == images.shape
    flat = torch.full((1, 3, 21, 21), 77, dtype=torch.uint8)
    assert torch.equal(through("half-size", flat), flat)
    checker = (torch.arange(16)[:, None] + torch.arange(16)) % 2 * 200
    board = checker.to(torch.uint8).expand(1, 3, 16, 16)
    assert set(through("half-size", board).unique().tolist()) == {100}


def test_only_the_blue_channel_is_zeroed() -> None:
    images = grained(4).images
    done = through("blue-drop", images)
    assert torch.equal(done[:, :2], images[:, :2])
    assert int(done[:, 2].max()) == 0
    assert int(images[:, 2].max()) > 0


@pytest.mark.parametrize("name", ["notch", "blur-2"])
def test_clean_images_behind_the_same_filter_are_measured_too(name: str) -> None:
    result = find(name).run(target(drawn=shades, known=True), shades(40, seed=1))
    assert result.details["points"][CLEAN_BEHIND_IT] >= 0.8
    assert result.best_accuracy == max([result.accuracy, *result.details["epoch_accuracy"]])
    alone = find(name).run(target(drawn=shades), shades(40, seed=1))
    assert CLEAN_BEHIND_IT not in alone.details["points"]
    assert alone.accuracy == result.accuracy
