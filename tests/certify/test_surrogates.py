from typing import Any

import pytest
import torch

from pueprotect.certify.draws import Workers
from pueprotect.certify.surrogates import (
    PROBE_DRAWS,
    PROBES,
    RECIPES,
    WORST,
    Best,
    candidates,
    choose_recipes,
    starts_from,
    train_surrogates,
)
from pueprotect.errors import InputError
from pueprotect.learning import training
from pueprotect.learning.data import ImageSet
from pueprotect.learning.models import build
from pueprotect.learning.training import Schedule, train
from pueprotect.learning.weights import weights_digest
from pueprotect.runtime import Silent

SELF_TRAINED = [name for name in RECIPES if name != "pst"]


def images() -> ImageSet:
    stream = torch.Generator().manual_seed(2)
    pixels = torch.randint(0, 256, (50, 3, 16, 16), generator=stream, dtype=torch.uint8)
    return ImageSet(pixels, torch.arange(50) % 3, 3)


class Steps(Silent):
    """Adds up the steps that were announced."""

    def __init__(self) -> None:
        self.total = 0

    def start(self, label: str, total: int) -> None:
        self.total += total


@pytest.mark.parametrize("recipe", SELF_TRAINED)
def test_recipes_repeat(recipe: str) -> None:
    first, second = (
        train_surrogates(recipe, "cnn", images(), images(), 0.05, Schedule(epochs=2), seed=0)[recipe] for _ in range(2)
    )
    assert weights_digest(first) == weights_digest(second)


def test_recipes_differ_in_steps_and_weights() -> None:
    spent, found = {}, {}
    for recipe in SELF_TRAINED:
        steps = Steps()
        found[recipe] = train_surrogates(
            recipe, "cnn", images(), images(), 0.05, Schedule(epochs=20), seed=0, progress=steps
        )[recipe]
        spent[recipe] = steps.total
    assert spent["plain"] == spent["weight-noise"] == spent["online"] == spent["weight-noise-early"] == 20
    assert spent["weight-noise-tuned"] == 25, "the plain training that it starts from, and a quarter"
    heads = [model.body.get_submodule("head").weight.detach() for model in found.values()]
    for number, head in enumerate(heads):
        assert not any(torch.equal(head, other) for other in heads[number + 1 :])


@pytest.mark.parametrize(("recipe", "matters"), [("plain", False), ("weight-noise", True), ("weight-noise-early", True),
                                                 ("weight-noise-tuned", True), ("online", True)])  # fmt: skip
def test_recipes_other_than_plain_depend_on_the_weight_noise(recipe: str, matters: bool) -> None:
    low, high = (
        train_surrogates(recipe, "cnn", images(), images(), sigma, Schedule(epochs=5), seed=0)[recipe]
        for sigma in (0.01, 0.1)
    )
    same = all(torch.equal(a, b) for a, b in zip(low.parameters(), high.parameters(), strict=True))
    assert same is not matters


def test_one_training_gives_both_weight_noise_surrogates_and_tuning_starts_from_plain() -> None:
    data = images()
    both = train_surrogates("weight-noise", "cnn", data, data, 0.05, Schedule(epochs=20), seed=0)
    assert set(both) == {"weight-noise", "weight-noise-early"}
    asked = train_surrogates("weight-noise-early", "cnn", data, data, 0.05, Schedule(epochs=20), seed=0)
    for name, model in both.items():
        assert weights_digest(model) == weights_digest(asked[name])

    assert starts_from("weight-noise-tuned") == "plain"
    plain = train_surrogates("plain", "cnn", data, data, 0.05, Schedule(epochs=4), seed=0)["plain"]
    before = weights_digest(plain)
    given, own = (
        train_surrogates("weight-noise-tuned", "cnn", data, data, 0.05, Schedule(epochs=4), seed=0, start=start)
        for start in (plain, None)
    )
    assert weights_digest(given["weight-noise-tuned"]) == weights_digest(own["weight-noise-tuned"]) != before
    assert weights_digest(plain) == before


def test_early_stopping_keeps_the_best_network_that_it_measured() -> None:
    """Of three networks, the second was trained on the images that all are measured on."""
    data = images()
    good = train(build("cnn", 3, 16, seed=1), data, Schedule(epochs=60), seed=0)
    weak, other = (build("cnn", 3, 16, seed=seed) for seed in (2, 3))
    best = Best(data, data, 0.001, 0, every=1)
    for model in (weak, good, other):
        best.look(model)
    assert best.score > 40
    assert all(torch.equal(best.state[name], value) for name, value in good.state_dict().items())
    seldom = Best(data, data, 0.001, 0, every=2)
    for model in (weak, other, good):
        seldom.look(model)
    assert not torch.equal(seldom.state["body.head.weight"], good.state_dict()["body.head.weight"])


def test_candidates_counts_every_network_that_was_compared() -> None:
    assert candidates(("plain",)) == 1
    assert candidates(WORST) == len(WORST) - 1 + PROBES + 1


@pytest.mark.parametrize("passes", [1, 7, 9.5, 20, 20.5, 25])
def test_early_stopping_looks_no_more_often_than_candidates_counts(
    passes: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    measured: list[int] = []
    monkeypatch.setattr(Workers, "counts", lambda *_: measured.append(1) or [[len(measured), 0]] * PROBE_DRAWS)
    data = images()
    train_surrogates("weight-noise-early", "cnn", data, data, 0.05, Schedule(epochs=passes), seed=0)
    assert 1 <= len(measured) <= candidates(("weight-noise-early",))
    if passes == 20:
        assert len(measured) == candidates(("weight-noise-early",))


def test_relative_noise_follows_the_size_of_each_tensor(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[Any] = []
    whole = training.noised

    def spy(parameters: Any, noise: Any, stream: Any) -> Any:
        seen.append(([float(p.detach().square().mean().sqrt()) for p in parameters], noise))
        return whole(parameters, noise, stream)

    monkeypatch.setattr(training, "noised", spy)
    data = images()
    for recipe in ("weight-noise", "weight-noise-tuned", "online"):
        train_surrogates(recipe, "cnn", data, data, 0.2, Schedule(epochs=8), seed=0, relative=True)
    assert len(seen) > 10
    for sizes, noise in seen:
        assert [float(deviation) for deviation in noise] == pytest.approx([0.2 * size for size in sizes])


def test_worst_means_every_recipe_except_pst() -> None:
    assert choose_recipes("worst", own=True) == WORST
    assert set(WORST) == set(SELF_TRAINED)
    assert choose_recipes("worst", own=False) == tuple(name for name in WORST if name != "online")
    assert choose_recipes("pst", own=False) == ("pst",)
    for wrong, own in (("best", True), ("online", False)):
        with pytest.raises(InputError, match=wrong):
            choose_recipes(wrong, own)
