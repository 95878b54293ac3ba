import pytest
import torch
from helpers import stream, target
from torch.nn import functional

from pueprotect.learning import training
from pueprotect.learning.data import ImageSet
from pueprotect.learning.models import build
from pueprotect.learning.training import Schedule, Trainer, accuracy, batches, count_correct, default_epochs, train
from pueprotect.learning.weights import clone


def test_small_sets_are_trained_longer_up_to_a_limit() -> None:
    assert [default_epochs(images) for images in (100, 2500, 5000, 50_000)] == [60, 30, 15, 15]


def test_mixed_labels_train_a_network_between_the_classes() -> None:
    """A step on mixed labels must not pull towards one class, as a loss on the argmax would."""
    model = build("resnet8", 2, 16, seed=0)
    trainer = Trainer(model, Schedule(lr=0.1, weight_decay=0), 200)
    inputs = torch.rand((8, 3, 16, 16), generator=stream())
    for _ in range(60):
        right = trainer.step(inputs, torch.tensor([[0.3, 0.7]]).expand(8, -1))
    model.train()
    with torch.no_grad():
        shares = model(inputs).softmax(1).mean(0)
    torch.testing.assert_close(shares, torch.tensor([0.3, 0.7]), atol=0.1, rtol=0)
    assert int(right) == 8  # the larger share counts as right


def test_a_hook_that_changes_nothing_changes_no_result() -> None:
    here = target(epochs=2)
    plain = train(here.fresh(), here.released, here.schedule, seed=0).state_dict()
    hooked = train(
        here.fresh(), here.released, here.schedule, seed=0, prepare=lambda inputs, labels, _: (inputs, labels)
    ).state_dict()
    assert all(torch.equal(plain[key], hooked[key]) for key in plain)


def stripes(count: int = 96, size: int = 16, seed: int = 0) -> ImageSet:
    """Two classes that any network tells apart: horizontal and vertical stripes, plus noise."""
    stream = torch.Generator().manual_seed(seed)
    labels = torch.arange(count) % 2
    wave = (torch.arange(size) // 2 % 2 * 160.0).expand(size, size)
    pictures = torch.where(labels.view(-1, 1, 1) == 0, wave, wave.T) + 60 * torch.rand(
        (count, size, size), generator=stream
    )
    return ImageSet(pictures.to(torch.uint8)[:, None].expand(-1, 3, -1, -1).contiguous(), labels, 2)


@pytest.mark.parametrize("arch", ["resnet8", "cnn"])
def test_learns_classes_that_differ(arch: str) -> None:
    model = build(arch, 2, 16, seed=0)
    train(model, stripes(), Schedule(epochs=8, batch_size=32), seed=1)
    assert accuracy(model, stripes(seed=1)) > 0.95


def test_learns_in_bfloat16_and_keeps_its_weights_in_float32(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(training, "native_bf16", lambda device: True)
    model = train(build("resnet8", 2, 16, seed=0), stripes(), Schedule(epochs=8, batch_size=32), seed=1)
    assert {parameter.dtype for parameter in model.parameters()} == {torch.float32}
    assert accuracy(model, stripes(seed=1)) > 0.95


def test_same_seed_same_weights_and_another_seed_others() -> None:
    def weights(seed: int) -> torch.Tensor:
        model = train(build("resnet8", 2, 16, seed=0), stripes(32), Schedule(epochs=1, batch_size=16), seed=seed)
        return torch.cat([parameter.detach().flatten() for parameter in model.parameters()])

    assert torch.equal(weights(3), weights(3))
    assert not torch.equal(weights(3), weights(4))


def test_large_images_are_evaluated_in_small_batches() -> None:
    passed: list[int] = []
    model = torch.nn.Sequential(torch.nn.AdaptiveAvgPool2d(1), torch.nn.Flatten(), torch.nn.Linear(3, 2))
    model.register_forward_pre_hook(lambda _, inputs: passed.append(len(inputs[0])))
    count_correct(model, stripes(40, 224))
    assert passed == [8] * 5


def test_accuracy_counts_every_image_whatever_the_batch() -> None:
    data = stripes(61)
    model = build("resnet8", 2, 16, seed=0)
    train(model, data, Schedule(epochs=1), seed=0)
    model.eval()
    plain = sum(
        int(model(image[None] / 255).argmax()) == int(label)
        for image, label in zip(data.images, data.labels, strict=True)
    )
    assert {int(count_correct(model, data, batch_size)) for batch_size in (7, 60, 500)} == {plain}
    assert accuracy(model, data) == plain / 61


def test_accuracy_is_that_of_the_network_in_evaluation_mode() -> None:
    """After a training step a network is in training mode, where BatchNorm mixes the images of a batch."""
    data = stripes(61)
    model = build("resnet8", 2, 16, seed=0)
    train(model, data, Schedule(epochs=1), seed=0)
    wanted, state = int(count_correct(model.eval(), data)), clone(model)
    with torch.no_grad():
        model.train()
        mixed = int((model(data.images.float().div(255)).argmax(1) == data.labels).sum())
    assert mixed != wanted, "the mode matters here"
    model.load_state_dict(state)
    assert int(count_correct(model.train(), data)) == wanted
    assert accuracy(model.train(), data) == wanted / 61
    assert all(torch.equal(value, state[name]) for name, value in model.state_dict().items())


def test_every_pass_shows_every_image_once() -> None:
    plan = batches(10, 16, torch.Generator().manual_seed(0), "cpu", batch_size=4)
    for _ in range(3):
        seen = torch.cat([next(plan)[0] for _ in range(3)])
        assert sorted(seen.tolist()) == list(range(10))


def test_a_step_without_noise_equals_torch() -> None:
    """One step of the trainer against the same step written out with torch's own optimiser."""
    images, labels = torch.rand(8, 3, 16, 16), torch.arange(8) % 2
    model, reference = build("cnn", 2, 16, seed=0), build("cnn", 2, 16, seed=0)
    schedule = Schedule(lr=0.1, warmup=0.0, clip=1e9)
    Trainer(model, schedule, 10).step(images, labels)
    optimizer = torch.optim.SGD(reference.parameters(), lr=0.1, momentum=0.9, weight_decay=1e-3, nesterov=True)
    functional.cross_entropy(reference(images), labels).backward()
    optimizer.step()
    for mine, theirs in zip(model.parameters(), reference.parameters(), strict=True):
        torch.testing.assert_close(mine, theirs)


@pytest.mark.parametrize("second", [0.02, -0.02])
def test_noisy_gradients_are_averaged_and_applied_to_clean_weights(second: float) -> None:
    """Two draws, or one and its mirror image: a negative deviation repeats the draw before it."""
    images, labels = torch.rand(8, 3, 16, 16), torch.arange(8) % 2
    model, reference = build("cnn", 2, 16, seed=0), build("cnn", 2, 16, seed=0)
    before = [parameter.detach().clone() for parameter in reference.parameters()]
    schedule = Schedule(lr=0.1, warmup=0.0, clip=1e9, weight_decay=0.0)
    Trainer(model, schedule, 10).step(
        images, labels, deviations=[0.02, second], stream=torch.Generator().manual_seed(5)
    )
    stream = torch.Generator().manual_seed(5)
    total = [torch.zeros_like(parameter) for parameter in before]
    for deviation in (0.02, second):
        if deviation < 0:
            stream.manual_seed(5)
        flat = torch.randn(sum(p.numel() for p in before), generator=stream).split([p.numel() for p in before])
        with torch.no_grad():
            for parameter, start, noise in zip(reference.parameters(), before, flat, strict=True):
                parameter.copy_(start + deviation * noise.view(start.shape))
        reference.zero_grad()
        functional.cross_entropy(reference(images), labels).backward()
        total = [a + p.grad / 2 for a, p in zip(total, reference.parameters(), strict=True)]
    for mine, start, gradient in zip(model.parameters(), before, total, strict=True):
        # Nesterov's first step moves by lr x gradient x (1 + momentum).
        torch.testing.assert_close(mine.detach(), start - 0.19 * gradient, rtol=1e-4, atol=1e-6)


def test_each_negative_deviation_mirrors_the_draw_before_it() -> None:
    model = build("cnn", 2, 16, seed=0)
    before = [parameter.detach().clone() for parameter in model.parameters()]
    seen: list[torch.Tensor] = []

    def look(*_: object) -> None:
        steps = [a.detach() - b for a, b in zip(model.parameters(), before, strict=True)]
        seen.append(torch.cat([step.flatten() for step in steps]))

    model.register_forward_pre_hook(look)
    Trainer(model, Schedule(), 10).step(
        torch.rand(4, 3, 16, 16), torch.arange(4) % 2, deviations=[0.02, -0.02, 0.03, -0.03], stream=stream(5)
    )
    first, mirrored, second, again = seen
    torch.testing.assert_close(mirrored, -first, atol=1e-6, rtol=1e-4)
    torch.testing.assert_close(again, -second, atol=1e-6, rtol=1e-4)
    assert float(first.std()) == pytest.approx(0.02, rel=0.02)
    assert float(second.std()) == pytest.approx(0.03, rel=0.02)
    assert abs(float(torch.corrcoef(torch.stack([first, second]))[0, 1])) < 0.05, "a draw of its own"


def test_learning_rate_rises_and_falls_to_zero() -> None:
    trainer = Trainer(build("cnn", 2, 16, seed=0), Schedule(lr=1.0, warmup=0.2), 100)
    rates = []
    for trainer.position in range(101):
        rates.append(trainer.rate())
    assert max(rates) == pytest.approx(1.0)
    assert rates[20] == max(rates)
    assert rates == sorted(rates[:21]) + sorted(rates[21:], reverse=True)
    assert rates[100] == pytest.approx(0.0)
