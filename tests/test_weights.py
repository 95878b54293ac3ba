import copy

import pytest
import torch

from pueprotect.learning.draw_engine import DrawEngine
from pueprotect.learning.models import build
from pueprotect.learning.weights import gaussian, noised, reestimate_batch_norm, trainable, weights_digest
from pueprotect.runtime import generator


def data(count: int = 60, size: int = 16) -> tuple[torch.Tensor, torch.Tensor]:
    stream = torch.Generator().manual_seed(1)
    images = torch.randint(0, 256, (count, 3, size, size), generator=stream, dtype=torch.uint8)
    return images, torch.randint(0, 4, (count,), generator=stream)


def slow_count(model: torch.nn.Module, images: torch.Tensor, labels: torch.Tensor, calibration: torch.Tensor,
               sigma: float, seed: int, index: int) -> int:  # fmt: skip
    """Plain reference: copy the model, add noise to one parameter after the other, count one image at a time."""
    drawn = copy.deepcopy(model)
    flat = torch.randn(sum(p.numel() for p in drawn.parameters()), generator=generator(seed, "weight-draw", index))
    position = 0
    with torch.no_grad():
        for parameter in drawn.parameters():
            count = parameter.numel()
            parameter.copy_(flat[position : position + count].view(parameter.shape) * sigma + parameter)
            position += count
        for module in drawn.modules():
            if isinstance(module, torch.nn.BatchNorm2d):
                module.momentum = None
                module.reset_running_stats()
        drawn.train()
        drawn(calibration / 255)
        drawn.eval()
        return sum(
            int(drawn(image[None] / 255).argmax()) == int(label) for image, label in zip(images, labels, strict=True)
        )


@pytest.mark.parametrize("arch", ["resnet8", "cnn"])
@pytest.mark.parametrize("sigma", [0.02, 0.2])
def test_counts_equal_a_slow_plain_reference(arch: str, sigma: float) -> None:
    images, labels = data()
    model = build(arch, 4, 16, seed=3).eval()
    engine = DrawEngine(model, images, labels, images[:40], sigma=sigma, seed=9, batch_size=32)
    for index in (0, 1, 17):
        assert int(engine.draw(index)[0]) == slow_count(model, images, labels, images[:40], sigma, 9, index)


def test_model_is_bit_equal_after_draws_and_draws_ignore_order() -> None:
    images, labels = data()
    model = build("resnet8", 4, 16, seed=3)
    before = copy.deepcopy(model.state_dict())
    engine = DrawEngine(model, images, labels, images[:32], sigma=0.1, seed=0)
    forwards = [int(engine.draw(index)[0]) for index in range(6)]
    other = DrawEngine(model, images, labels, images[:32], sigma=0.1, seed=0, batch_size=7)
    assert [int(other.draw(index)[0]) for index in reversed(range(6))] == forwards[::-1]
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())
    assert len(set(forwards)) > 1


def test_bf16_draws_the_same_classifiers_up_to_rounding() -> None:
    images, labels = data(200)
    model = build("resnet8", 4, 16, seed=3)
    exact, rounded = (
        DrawEngine(model, images, labels, images[:32], sigma=0.05, seed=0, bf16=bf16) for bf16 in (False, True)
    )
    kinds = []
    for engine in (exact, rounded):
        engine.scratch.register_forward_hook(lambda _module, _inputs, logits: kinds.append(logits.dtype))
    pairs = [(int(exact.draw(index)[0]), int(rounded.draw(index)[0])) for index in range(6)]
    assert set(kinds) == {torch.float32, torch.bfloat16}
    assert all(abs(a - b) <= 10 for a, b in pairs)


def test_digest_names_the_weights_alone() -> None:
    model = build("resnet8", 4, 16, seed=3)
    before = weights_digest(model)
    reestimate_batch_norm(model, data()[0])
    assert weights_digest(model) == before
    with torch.no_grad():
        next(model.parameters())[0, 0, 0, 0] += 1e-3
    assert weights_digest(model) != before


def test_batch_size_changes_at_most_a_near_tie_in_ten_thousand_answers() -> None:
    images, labels = data(200)
    model = build("cnn", 4, 16, seed=3)
    counts = []
    for batch_size in (200, 64, 9):
        engine = DrawEngine(model, images, labels, None, sigma=0.1, seed=0, batch_size=batch_size)
        counts.append(torch.stack([engine.draw(index)[0] for index in range(50)]))
    assert all(int((counts[0] - other).abs().sum()) <= 1 for other in counts[1:])


def test_non_finite_logits_count_as_wrong() -> None:
    images, labels = data()
    model = build("cnn", 4, 16, seed=3)
    with torch.no_grad():
        model.body.get_submodule("head").bias[0] = float("nan")
    assert DrawEngine(model, images, labels * 0, images[:8], sigma=0.01, seed=0).draw(0).tolist() == [0, len(images)]


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
    images, _ = data(96)
    model = build("resnet8", 4, 16, seed=0)
    norm = model.body.get_submodule("stem")[1]  # type: ignore[index]
    momentum = norm.momentum
    reestimate_batch_norm(model, images)
    first = model.body.get_submodule("stem")[0](((images.float() / 255) - 0.5) * 4)  # type: ignore[index]
    torch.testing.assert_close(norm.running_mean, first.mean((0, 2, 3)), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(norm.running_var, first.var((0, 2, 3)), rtol=1e-3, atol=1e-5)
    assert norm.momentum == momentum
    assert not model.training


def test_trainable_leaves_frozen_parameters_out() -> None:
    model = build("cnn", 4, 16, seed=0)
    first = next(model.parameters())
    first.requires_grad_(False)
    assert all(parameter is not first for parameter in trainable(model))
