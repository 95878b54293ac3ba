import copy
from dataclasses import replace

import pytest
import torch
from helpers import stripes, target
from torch.nn import functional

from pueprotect.audit.attacks import adversarial, find
from pueprotect.audit.attacks.adversarial import CANDIDATES, fast_perturbed, hardest, strong_augmentation
from pueprotect.learning import training
from pueprotect.learning.data import to_float
from pueprotect.learning.models import Classifier, build
from pueprotect.learning.training import train


@pytest.fixture(scope="module")
def trained() -> Classifier:
    here = target()
    return train(here.fresh(), here.released, here.schedule, seed=0)


def batch(count: int = 32) -> tuple[torch.Tensor, torch.Tensor]:
    data = stripes(count, seed=4)
    return to_float(data.images), data.labels


def loss(model: Classifier, inputs: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    with torch.no_grad(), adversarial.batch_statistics(model):
        return functional.cross_entropy(model(inputs), labels, reduction="none")


@pytest.mark.parametrize("levels", [4, 8])
def test_the_perturbation_stays_within_its_budget_and_raises_the_loss(levels: int, trained: Classifier) -> None:
    inputs, labels = batch()
    epsilon = levels / 255
    moved = fast_perturbed(trained, inputs, labels, epsilon, torch.Generator().manual_seed(0))
    change = moved - inputs
    assert float(change.abs().max()) <= epsilon + 1e-6
    assert float(change.abs().mean()) > epsilon / 2  # and it uses the budget
    assert float(moved.min()) >= 0
    assert float(moved.max()) <= 1
    assert not moved.requires_grad
    random = inputs + epsilon * (2 * torch.rand(inputs.shape, generator=torch.Generator().manual_seed(1)) - 1)
    assert float(loss(trained, moved, labels).mean()) > float(loss(trained, random.clamp(0, 1), labels).mean())


def test_the_perturbation_leaves_weights_gradients_and_statistics_alone(trained: Classifier) -> None:
    trained.zero_grad(set_to_none=True)
    before = {name: value.clone() for name, value in trained.state_dict().items()}
    fast_perturbed(trained, *batch(), 8 / 255, torch.Generator().manual_seed(0))
    assert all(torch.equal(value, before[name]) for name, value in trained.state_dict().items())
    assert all(parameter.grad is None for parameter in trained.parameters())


@pytest.mark.parametrize(("name", "levels"), [("at-4", 4), ("at-8", 8)])
def test_adversarial_training_trains_on_perturbed_batches(
    name: str, levels: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    budgets = []

    def spy(model: Classifier, inputs: torch.Tensor, labels: torch.Tensor, epsilon: float, stream: object) -> object:
        budgets.append(epsilon)
        return torch.zeros_like(inputs)

    monkeypatch.setattr(adversarial, "fast_perturbed", spy)
    result = find(name).run(target(), stripes(40, seed=1))
    assert budgets == [levels / 255] * 20  # every step
    assert result.accuracy == 0.5, "black images teach nothing, so they were what was trained on"


def test_the_hardest_candidate_wins_for_each_image(trained: Classifier) -> None:
    inputs, labels = batch()
    other, _ = batch()
    other = other.flip(2).mT.contiguous()  # the other class's stripes
    first, second = inputs.clone(), other.clone()
    first[::2], second[::2] = other[::2], inputs[::2]
    chosen = hardest(trained, inputs, labels, [first, second, inputs])
    losses = torch.stack([loss(trained, seen, labels) for seen in (first, second, inputs)])
    winners = losses.argmax(0).tolist()
    assert len(set(winners)) > 1
    for number, winner in enumerate(winners):
        assert torch.equal(chosen[number], (first, second, inputs)[winner][number])


def test_ueraser_takes_the_hardest_of_five_augmentations_for_three_steps_of_twenty(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    counts, original = [], adversarial.hardest

    def spy(model: Classifier, inputs: torch.Tensor, labels: torch.Tensor, candidates: list[torch.Tensor]) -> object:
        counts.append(len(candidates))
        assert not any(torch.equal(seen, inputs) for seen in candidates)
        return original(model, inputs, labels, candidates)

    monkeypatch.setattr(adversarial, "hardest", spy)
    result = find("ueraser").run(target(epochs=2.5), stripes(8, seed=1))
    assert counts == [CANDIDATES] * 3
    assert result.epochs * 4 == 20, "twice the passes, in batches of 16 out of 64 images"


def test_strong_augmentation_changes_colour_and_light_and_repeats() -> None:
    images = torch.rand((64, 3, 16, 16), generator=torch.Generator().manual_seed(0))
    first = strong_augmentation(3)(images, torch.Generator().manual_seed(1))
    assert torch.equal(first, strong_augmentation(3)(images, torch.Generator().manual_seed(1)))
    assert not torch.equal(first, strong_augmentation(4)(images, torch.Generator().manual_seed(1)))
    assert first.shape == images.shape
    assert float(first.min()) >= 0
    assert float(first.max()) <= 1
    gray = images[:, :1].expand(-1, 3, -1, -1)
    lit = strong_augmentation(3)(gray, torch.Generator().manual_seed(1))
    assert float((lit - gray).abs().mean((1, 2, 3)).median()) > 0.05


def test_at_and_ueraser_give_other_networks_than_plain_training() -> None:
    here = replace(target(epochs=1))
    plain = find("standard").train(_run(here)).state_dict()
    for name in ("at-4", "at-8", "ueraser"):
        state = find(name).train(_run(here)).state_dict()
        assert any(not torch.equal(state[key], plain[key]) for key in plain)


def _run(here: object) -> object:
    from pueprotect.audit.attacks.base import Run

    return Run(here, stripes(8, seed=1))  # type: ignore[arg-type]


def test_batch_statistics_use_the_batch_and_are_undone() -> None:
    model = build("resnet8", 2, 16, seed=0)
    inputs, _ = batch(16)
    model.train()
    with torch.no_grad():
        wanted = model(inputs)
    model = build("resnet8", 2, 16, seed=0)
    with torch.no_grad(), adversarial.batch_statistics(model):
        seen = model(inputs)
    assert torch.equal(seen, wanted)
    assert all(norm.track_running_stats for norm in model.modules() if hasattr(norm, "track_running_stats"))


def test_the_inner_steps_run_in_the_precision_of_training(trained: Classifier, monkeypatch: pytest.MonkeyPatch) -> None:
    inputs, labels = batch()
    seen: list[torch.dtype] = []
    model = copy.deepcopy(trained)
    for layer in model.modules():
        if isinstance(layer, torch.nn.Conv2d):
            layer.register_forward_hook(lambda _module, _inputs, output: seen.append(output.dtype))
    exact = fast_perturbed(model, inputs, labels, 4 / 255, torch.Generator().manual_seed(0))
    assert set(seen) == {torch.float32}
    monkeypatch.setattr(training, "native_bf16", lambda device: True)
    seen.clear()
    rounded = fast_perturbed(model, inputs, labels, 4 / 255, torch.Generator().manual_seed(0))
    assert rounded.dtype == torch.float32
    assert float(((exact - rounded).abs() < 1e-6).float().mean()) > 0.8, "nearly the same signs"
    assert hardest(model, inputs, labels, [inputs, rounded]).dtype == torch.float32
    assert set(seen) == {torch.bfloat16}
