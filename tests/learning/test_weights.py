import pytest
import torch
from helpers import random_batch, stream

from pueprotect.learning.models import build
from pueprotect.learning.weights import gaussian, noised, reestimate_batch_norm, trainable, weights_digest


def test_digest_depends_on_the_weights_alone() -> None:
    model = build("resnet8", 4, 16, seed=3)
    before = weights_digest(model)
    reestimate_batch_norm(model, random_batch()[0])
    assert weights_digest(model) == before
    with torch.no_grad():
        next(model.parameters())[0, 0, 0, 0] += 1e-3
    assert weights_digest(model) != before


def test_noised_restores_bit_for_bit_even_on_error() -> None:
    parameters = [torch.randn(50, 3), torch.randn(7)]
    before = [parameter.clone() for parameter in parameters]

    def fail_inside() -> None:
        with noised(parameters, 0.3, torch.Generator().manual_seed(0)):
            moved = torch.cat([(now - then).flatten() for now, then in zip(parameters, before, strict=True)])
            assert 0.2 < float(moved.std()) < 0.4
            raise RuntimeError("inside")

    with pytest.raises(RuntimeError, match="inside"):
        fail_inside()
    assert all(torch.equal(now, then) for now, then in zip(parameters, before, strict=True))


def test_gaussian_has_the_right_moments_and_is_one_stream() -> None:
    shapes = [torch.empty(40, 50), torch.empty(3000)]
    pieces = gaussian(shapes, torch.Generator().manual_seed(4))
    flat = torch.cat([piece.flatten() for piece in pieces])
    assert torch.equal(flat, torch.randn(5000, generator=torch.Generator().manual_seed(4)))
    assert abs(float(flat.mean())) < 0.05
    assert abs(float(flat.std()) - 1) < 0.05


def test_batch_norm_reestimation_gives_the_batch_statistics() -> None:
    images, _ = random_batch(96)
    model = build("resnet8", 4, 16, seed=0)
    norm = model.body.get_submodule("stem")[1]  # type: ignore[index]
    momentum = norm.momentum
    reestimate_batch_norm(model, images)
    first = model.body.get_submodule("stem")[0](((images.float() / 255) - 0.5) * 4)  # type: ignore[index]
    torch.testing.assert_close(norm.running_mean, first.mean((0, 2, 3)), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(norm.running_var, first.var((0, 2, 3)), rtol=1e-3, atol=1e-5)
    assert norm.momentum == momentum
    assert not model.training


@pytest.mark.parametrize("count", [513, 1024, 1025])
def test_statistics_of_several_batches_are_those_of_one(count: int) -> None:
    """Dark images come first and bright ones last: each counts as much as every other."""
    images = random_batch(count)[0]
    images[: 2 * count // 3] //= 4
    pooled, whole = build("resnet8", 4, 16, seed=0), build("resnet8", 4, 16, seed=0)
    reestimate_batch_norm(pooled, images)
    reestimate_batch_norm(whole, images, batch_size=count)
    stems = [model.body.get_submodule("stem")[1] for model in (pooled, whole)]  # type: ignore[index]
    torch.testing.assert_close(stems[0].running_mean, stems[1].running_mean, rtol=1e-3, atol=1e-4)
    torch.testing.assert_close(stems[0].running_var, stems[1].running_var, rtol=1e-3, atol=1e-4)
    assert not pooled.training
    assert stems[0].momentum == build("resnet8", 4, 16, seed=0).body.get_submodule("stem")[1].momentum  # type: ignore[index]
    assert not stems[0]._forward_hooks


@pytest.mark.parametrize(("size", "count", "most"), [(32, 600, 512), (64, 520, 512), (224, 130, 64)])
def test_batches_of_large_images_are_small(size: int, count: int, most: int) -> None:
    passed: list[int] = []
    model = torch.nn.Sequential(torch.nn.AvgPool2d(8), torch.nn.BatchNorm2d(3))
    model.register_forward_pre_hook(lambda _, inputs: passed.append(len(inputs[0])))
    images = torch.randint(0, 256, (count, 3, size, size), generator=stream(), dtype=torch.uint8)
    reestimate_batch_norm(model, images)
    assert sum(passed) == count
    assert most / 3 < max(passed) <= most
    pooled = torch.nn.functional.avg_pool2d(images.float() / 255, 8)
    torch.testing.assert_close(model[1].running_mean, pooled.mean((0, 2, 3)), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(model[1].running_var, pooled.var((0, 2, 3)), rtol=1e-3, atol=1e-6)


def test_trainable_leaves_frozen_parameters_out() -> None:
    model = build("cnn", 4, 16, seed=0)
    first = next(model.parameters())
    first.requires_grad_(False)
    assert all(parameter is not first for parameter in trainable(model))
