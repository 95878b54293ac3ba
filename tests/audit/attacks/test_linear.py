import pytest
import torch
from helpers import image_set, noise

from pueprotect.audit.attacks import find, linear
from pueprotect.audit.attacks.linear import (
    ClassMean,
    Projection,
    WholeClassMean,
    class_means,
    linear_directions,
    project_out,
    without,
)
from pueprotect.learning.data import ImageSet
from pueprotect.learning.training import Schedule


def patterned(count: int = 300, size: int = 8, seed: int = 0, shift: float = 6.0) -> tuple[ImageSet, torch.Tensor]:
    """Classless pictures with a pattern of `shift` levels for each of three classes, and the patterns."""
    clean = noise(count, size, classes=3, seed=seed)
    patterns = shift * torch.randn((3, 3, size, size), generator=torch.Generator().manual_seed(9)).sign()
    return image_set(clean.images.float() + patterns[clean.labels], clean.labels, 3), patterns


def test_class_means_equal_a_plain_loop() -> None:
    data, _ = patterned()
    found = class_means(data)
    for label in range(3):
        torch.testing.assert_close(found[label], data.images[data.labels == label].float().mean(0))


def test_class_means_are_sums_in_a_fixed_order(monkeypatch: pytest.MonkeyPatch) -> None:
    """The same bits as sums by index, which a GPU adds up in any order; also over several parts and empty classes."""
    data, _ = patterned()
    data = ImageSet(data.images, data.labels * 2, 6)
    expected = torch.zeros(6, 3, 8, 8).index_add_(0, data.labels, data.images.float())
    expected /= torch.bincount(data.labels, minlength=6).clamp_min(1).view(-1, 1, 1, 1)
    monkeypatch.setattr(torch.Tensor, "index_add_", lambda *_: pytest.fail("in any order"))
    assert torch.equal(class_means(data), expected)
    monkeypatch.setattr(linear, "CHUNK", 2)
    assert torch.equal(class_means(data), expected)


def test_whole_class_mean_makes_class_averages_equal_and_keeps_the_common_one() -> None:
    data, patterns = patterned()
    before, after = class_means(data), class_means(WholeClassMean().cleaned(data, 0))
    assert float((before - before.mean(0)).abs().mean()) > 3
    # What is left is rounding, drawn for each pixel: half a level over ten, not the same in all images of a class.
    assert float((after - before.mean(0)).abs().mean()) < 0.06
    left = WholeClassMean().cleaned(data, 0).images.float() - (data.images.float() - patterns[data.labels])
    assert float(left.mean().abs()) < 1  # brightness stays


def test_class_mean_removes_fine_patterns_and_keeps_smooth_ones() -> None:
    ramp = torch.linspace(-20, 20, 16).expand(3, 16, 16)
    smooth = torch.stack([ramp, -ramp, 0 * ramp])
    clean, patterns = patterned(size=16)
    data = image_set(clean.images.float() + smooth[clean.labels], clean.labels, 3)
    left = class_means(ClassMean().cleaned(data, 0))
    left -= left.mean(0)
    fine, kept = patterns - patterns.mean(0), smooth - smooth.mean(0)
    inside = (..., slice(3, -3), slice(3, -3))  # borders are reflected, and the ramps with them
    assert float(((left - kept) * fine)[inside].mean() / fine[inside].square().mean()) < 0.15
    assert float((left * kept)[inside].mean() / kept[inside].square().mean()) > 0.9
    untouched = ClassMean().cleaned(image_set(clean.images.float() * 0 + 90, clean.labels, 3), 0)
    assert torch.equal(untouched.images, torch.full_like(clean.images, 90))


def test_a_class_without_images_does_not_change_the_common_average() -> None:
    data, _ = patterned()
    wider = ImageSet(data.images, data.labels, 5)
    assert torch.equal(WholeClassMean().cleaned(wider, 0).images, WholeClassMean().cleaned(data, 0).images)


def test_subtraction_stays_on_the_8_bit_grid_and_in_range() -> None:
    data = image_set(torch.tensor([0.0, 255.0, 100.0]).view(3, 1, 1, 1).expand(3, 3, 2, 2), torch.arange(3), 3)
    patterns = torch.tensor([10.0, -10.0, 2.6]).view(3, 1, 1, 1).expand(3, 3, 2, 2)
    first, second, third = without(data, patterns, 0).images[:, 0].flatten(1).tolist()
    assert set(first) == {0}
    assert set(second) == {255}
    assert set(third) <= {97, 98}
    assert not torch.equal(without(data, patterns, 0).images, without(data, patterns, 1).images)
    assert torch.equal(without(data, patterns, 0).images, without(data, patterns, 0).images)


def separable(data: ImageSet) -> float:
    """Training accuracy of least squares on the pixels, which shows how linearly separable the classes are."""
    pixels = torch.cat([data.images.flatten(1).double() / 255, torch.ones(len(data), 1)], dim=1)
    wanted = torch.nn.functional.one_hot(data.labels, data.classes).double()
    gram = pixels.T @ pixels + 10 * torch.eye(pixels.shape[1])
    weights = torch.linalg.solve(gram, pixels.T @ wanted)
    return float(((pixels @ weights).argmax(1) == data.labels).double().mean())


def test_projection_removes_the_directions_exactly_and_no_others() -> None:
    data, _ = patterned()
    basis, mean = linear_directions(data, 0)
    assert basis.shape == (3 * 8 * 8, 3)
    torch.testing.assert_close(basis.T @ basis, torch.eye(3), atol=1e-5, rtol=0)
    assert torch.equal(basis, linear_directions(data, 0)[0])
    centred = project_out(data.images, basis, mean).flatten(1).float() - mean
    assert float((centred @ basis).abs().mean()) < 1  # rounding to the grid
    assert float(((data.images.flatten(1).float() - mean) @ basis).abs().mean()) > 20
    before = data.images.flatten(1).float() - mean
    rest = before - (before @ basis) @ basis.T
    assert float((rest - (centred - (centred @ basis) @ basis.T)).abs().max()) < 2


def test_the_directions_are_those_of_the_noise() -> None:
    data, patterns = patterned(600)
    basis, _ = linear_directions(data, 0)
    spread = (patterns - patterns.mean(0)).flatten(1)
    share = (spread @ basis).norm(dim=1) / spread.norm(dim=1)
    assert float(share.min()) > 0.8
    assert separable(data) > 0.95
    assert separable(Projection().cleaned(data, 0)) < 0.75


def test_subtracting_the_whole_average_removes_a_tint() -> None:
    """Noise alone: nothing else can be learnt, so an attack that leaves it in fits its training images."""
    from pueprotect.audit.attacks import Target

    clean = noise(96, 16, 3)
    tint = torch.eye(3).view(3, 3, 1, 1) * 40
    data = image_set(clean.images.float() + tint[clean.labels], clean.labels, 3)
    test = noise(30, 16, 3, seed=5)
    schedule = Schedule(epochs=6, batch_size=16)
    fitted = {
        name: find(name).run(Target(data, "resnet8", schedule, 0), test).details["train_accuracy"]
        for name in ("standard", "whole-class-mean")
    }
    assert fitted["standard"] > 0.9
    assert fitted["whole-class-mean"] < 0.7
