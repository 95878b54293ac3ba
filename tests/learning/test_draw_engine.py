import copy

import pytest
import torch
from helpers import random_batch

from pueprotect.certify.draws import Workers
from pueprotect.learning.draw_engine import DrawEngine, deviations
from pueprotect.learning.models import build
from pueprotect.learning.weights import trainable
from pueprotect.runtime import generator


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
    images, labels = random_batch()
    model = build(arch, 4, 16, seed=3).eval()
    engine = DrawEngine(model, images, labels, images[:40], sigma=sigma, seed=9, batch_size=32)
    for index in (0, 1, 17):
        assert int(engine.draw(index)[0]) == slow_count(model, images, labels, images[:40], sigma, 9, index)


def test_model_is_bit_equal_after_draws_and_draws_ignore_order() -> None:
    images, labels = random_batch()
    model = build("resnet8", 4, 16, seed=3)
    before = copy.deepcopy(model.state_dict())
    engine = DrawEngine(model, images, labels, images[:32], sigma=0.1, seed=0)
    forwards = [int(engine.draw(index)[0]) for index in range(6)]
    other = DrawEngine(model, images, labels, images[:32], sigma=0.1, seed=0, batch_size=7)
    assert [int(other.draw(index)[0]) for index in reversed(range(6))] == forwards[::-1]
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())
    assert len(set(forwards)) > 1


def test_bf16_draws_the_same_classifiers_up_to_rounding() -> None:
    images, labels = random_batch(200)
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


def test_batch_size_changes_at_most_one_prediction_in_ten_thousand() -> None:
    images, labels = random_batch(200)
    model = build("cnn", 4, 16, seed=3)
    counts = []
    for batch_size in (200, 64, 9):
        engine = DrawEngine(model, images, labels, None, sigma=0.1, seed=0, batch_size=batch_size)
        counts.append(torch.stack([engine.draw(index)[0] for index in range(50)]))
    assert all(int((counts[0] - other).abs().sum()) <= 1 for other in counts[1:])


def test_each_tensor_can_have_a_deviation_of_its_own() -> None:
    images, labels = random_batch()
    model = build("cnn", 4, 16, seed=3)
    parameters = trainable(model)
    unit = deviations(parameters, 0.1, relative=True)
    assert isinstance(unit, list)
    engine = DrawEngine(model, images, labels, None, sigma=unit, seed=2)
    one = DrawEngine(model, images, labels, None, sigma=1.0, seed=2)
    network = engine.network(4)
    for drawn, direction, centre in zip(
        trainable(network),
        trainable(one.network(4)),
        parameters,
        strict=True,  # type: ignore[arg-type]
    ):
        noise = direction - centre
        torch.testing.assert_close(
            drawn - centre, noise * 0.1 * centre.norm() / centre.numel() ** 0.5, atol=1e-6, rtol=1e-4
        )
        if float(centre.detach().norm()) == 0:
            assert torch.equal(drawn, centre)
    assert deviations(parameters, 0.1, relative=False) == 0.1


def test_draws_are_not_rounded_to_tf32_and_the_settings_come_back() -> None:
    """Read inside a draw, while BatchNorm is re-estimated and while images are answered."""
    images, labels = random_batch()
    model = build("resnet8", 4, 16, seed=3)
    seen: list[tuple[bool, ...]] = []

    class Spy(torch.nn.Module):
        def forward(self, inputs: torch.Tensor) -> torch.Tensor:
            seen.append(flags())
            return inputs

    def flags() -> tuple[bool, ...]:
        cudnn = torch.backends.cudnn
        return torch.backends.cuda.matmul.allow_tf32, cudnn.allow_tf32, cudnn.benchmark, not cudnn.deterministic

    model.prefilter = Spy()
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.benchmark = True
    before = flags()
    try:
        assert before == (True,) * 4
        for threads in (1, 3):
            torch.set_num_threads(threads)
            engine = DrawEngine(model, images, labels, images[:8], sigma=0.1, seed=0)
            workers = Workers(engine, 6)
            seen.clear()
            engine.network(0)
            engine.draw(0)
            workers.counts(list(range(6)))
            assert len(seen) >= 1 + 2 * 7
            assert set(seen) == {(False,) * 4}
            assert flags() == before
    finally:
        torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.benchmark = False
        torch.set_num_threads(1)


def test_non_finite_logits_count_as_wrong() -> None:
    images, labels = random_batch()
    model = build("cnn", 4, 16, seed=3)
    with torch.no_grad():
        model.body.get_submodule("head").bias[0] = float("nan")
    assert DrawEngine(model, images, labels * 0, images[:8], sigma=0.01, seed=0).draw(0).tolist() == [0, len(images)]
