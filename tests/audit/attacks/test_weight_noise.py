import copy

import pytest
import torch
from helpers import stripes, target

from pueprotect.audit.attacks import find, weight_noise
from pueprotect.audit.attacks.base import Run
from pueprotect.audit.attacks.weight_noise import CALIBRATION, noise_shares, relative_deviations, settled
from pueprotect.learning.data import ImageSet
from pueprotect.learning.models import ARCHITECTURES, build
from pueprotect.learning.weights import batch_norms, reestimate_batch_norm, trainable


@pytest.mark.parametrize("arch", sorted(ARCHITECTURES))
def test_noise_shares_fall_from_stem_to_head(arch: str) -> None:
    model = build(arch, 3, 32, seed=0)
    shares = noise_shares(model)
    matrices = [share for share, p in zip(shares, trainable(model), strict=True) if p.dim() > 1]
    assert matrices[0] == 0.5
    assert matrices[-1] == 0.0
    weights = [share for share in matrices if share]
    assert weights == sorted(weights, reverse=True)
    assert all(share == 0 for share, p in zip(shares, trainable(model), strict=True) if p.dim() <= 1)


def test_relative_deviations_scale_with_each_filter() -> None:
    weight = torch.stack([torch.full((3, 3), 2.0), torch.full((3, 3), 0.5)])
    noise, none = relative_deviations([weight, torch.ones(4)], [0.5, 0.0], 1.2)
    assert noise.flatten().tolist() == pytest.approx([1.2, 0.3])
    assert float(none) == 0


def test_the_short_schedule_is_two_fifths_of_the_long_one() -> None:
    here = target(epochs=10)
    short, long = find("weight-noise-short"), find("weight-noise")
    assert short.schedule(here).epochs == 4
    assert short.steps(here) == 16
    assert long.steps(here) == 40
    assert short.run(here, stripes(8, seed=1)).epochs == 4
    assert len(short.run(here, stripes(8, seed=1)).details["epoch_accuracy"]) == 4


@pytest.mark.parametrize(
    ("name", "stem", "last", "later"),
    [("weight-noise", 1.0, 1.0, 0.25), ("weight-noise-short", 1.0, 1.0, 1.0), ("shallow-noise", 0.6, 0.0, 1.0)],
)
def test_the_noise_reaches_the_training(
    name: str, stem: float, last: float, later: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The level of the first and last filters at the start, and what is left of it after three quarters."""
    seen: list[list[torch.Tensor]] = []
    original = weight_noise.train

    def spy(*arguments: object, deviations: object, **options: object) -> object:
        seen.extend((deviations(0.0), deviations(0.75)))  # type: ignore[operator]
        return original(*arguments, deviations=deviations, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(weight_noise, "train", spy)
    find(name).run(target(epochs=1), stripes(8, seed=1))
    first, then = seen
    filters = [number for number, weight in enumerate(trainable(target().fresh())) if weight.dim() > 1]
    for number, level in ((filters[0], stem), (filters[-1], last)):
        weight = trainable(target().fresh())[number]
        rms = weight.detach().flatten(1).pow(2).mean(1).sqrt()
        found = first[number].flatten().expand(len(rms))
        torch.testing.assert_close(found, level * rms)
        torch.testing.assert_close(then[number], later * first[number])
    assert all(float(noise.max()) == 0 for number, noise in enumerate(first) if number not in filters)


@pytest.mark.parametrize("name", ["weight-noise", "shallow-noise"])
def test_networks_are_measured_with_the_statistics_of_their_own_weights(name: str) -> None:
    here = target(epochs=2)
    shown: list[torch.nn.Module] = []
    run = Run(here, stripes(8, seed=1))
    run.epoch = lambda model: shown.append(copy.deepcopy(model))  # type: ignore[method-assign]
    result = find(name).train(run)
    assert len(shown) == 2
    for network in (*shown, result):
        again = copy.deepcopy(network)
        reestimate_batch_norm(again, here.released.images)
        for kept, fresh in zip(batch_norms(network), batch_norms(again), strict=True):
            torch.testing.assert_close(kept.running_mean, fresh.running_mean)
            torch.testing.assert_close(kept.running_var, fresh.running_var)
    assert all(torch.equal(a, b) for a, b in zip(trainable(shown[-1]), trainable(result), strict=True))


@pytest.mark.parametrize("count", [513, 1023])
def test_every_class_of_a_sorted_folder_counts_in_the_statistics_as_often_as_it_is_there(
    count: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Class 0 is dark and the last, a thirtieth of the images, bright; the batch that is passed has both, mixed."""
    labels = (torch.arange(count) >= count - count // 30).long()
    images = (20 + 200 * labels).to(torch.uint8).view(-1, 1, 1, 1).expand(-1, 3, 16, 16)
    passed: list[torch.Tensor] = []
    original = weight_noise.reestimate_batch_norm

    def spy(model: torch.nn.Module, batch: torch.Tensor) -> None:
        passed.append(batch)
        original(model, batch)

    monkeypatch.setattr(weight_noise, "reestimate_batch_norm", spy)
    model = build("resnet8", 2, 16, seed=0)
    quiet = settled(model, ImageSet(images, labels, 2), 0)
    assert len(passed[0]) == CALIBRATION
    bright = (passed[0][:, 0, 0, 0] > 100).float()
    assert abs(float(bright.mean()) - 1 / 30) < 0.02
    assert not torch.equal(bright, bright.sort().values)
    once = build("resnet8", 2, 16, seed=0)
    reestimate_batch_norm(once, passed[0], batch_size=count)
    for kept, fresh in zip(batch_norms(quiet), batch_norms(once), strict=True):
        torch.testing.assert_close(kept.running_mean, fresh.running_mean)
