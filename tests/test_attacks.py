import math

import pytest
import torch
from toy import stripes, target

from pueprotect.attacks import REGISTRY, Target, find, pst
from pueprotect.attacks.base import Attack, Run, distance, register
from pueprotect.attacks.recovery import ALONE, SEARCH, project
from pueprotect.errors import InputError
from pueprotect.models import ARCHITECTURES, Classifier, build
from pueprotect.training import ImageSet, Recipe, accuracy
from pueprotect.weights import trainable


@pytest.mark.parametrize("name", sorted(REGISTRY))
def test_every_attack(name: str) -> None:
    """Learns what is learnable, is graded by the base class, repeats with its seed, and describes itself."""
    attack, test = REGISTRY[name], stripes(40, seed=1)
    result = attack.run(target(), test)
    assert result.attack == name
    assert result.accuracy >= 0.8
    assert result.best_accuracy >= result.accuracy
    assert result.flags == ()
    assert attack.run(target(), test).accuracy == result.accuracy
    assert attack.about
    assert attack.source
    assert attack.needs in ("nothing", "a clean share", "knowledge of the protection")
    assert 0 < attack.cost < 10
    steps: list[int] = []

    class Count:
        def start(self, label: str, total: int) -> None:
            steps.append(-total)

        def advance(self, parts: int = 1, note: str = "") -> None:
            steps.append(parts)

        def finish(self, note: str = "") -> None: ...

    attack.run(target(epochs=1), test, Count())
    assert 0 < sum(steps[1:]) <= -steps[0]


def test_registry_refuses_duplicates_and_offers_near_names() -> None:
    with pytest.raises(ValueError, match="standard"):
        register(type("Again", (type(REGISTRY["standard"]),), {"name": "standard"}))
    with pytest.raises(InputError, match="pst-colour"):
        find("pst-color")


def test_attacks_do_not_grade_themselves() -> None:
    class Liar(Attack):
        name = "liar"
        about = source = "-"

        def train(self, run: Run) -> Classifier:
            run.details["accuracy"] = 1.0
            assert run.epoch(run.target.fresh()) is None  # type: ignore[func-returns-value]
            return run.target.fresh()

    test = stripes(40, seed=1)
    result = Liar().run(target(), test)
    assert result.accuracy == accuracy(target().fresh(), test)


def test_recovery_needs_clean_images_and_shows_what_they_give_alone() -> None:
    with pytest.raises(InputError, match="recovery needs clean training images"):
        find("recovery").run(Target(stripes(), "resnet8", Recipe(epochs=1), 0), stripes(8))
    result = find("recovery").run(target(epochs=2), stripes(40, seed=1))
    assert set(result.details["points"]) == {"before", "eta 0", "eta 0.1", "eta 0.5", ALONE, SEARCH}
    for eta in (0.1, 0.5):
        assert result.details["distance"][f"eta {eta:g}"] <= eta * (1 + 1e-6)
    own = {name: value for name, value in result.details["points"].items() if name != ALONE}
    assert result.best_accuracy == max([*own.values(), *result.details["epoch_accuracy"]])


@pytest.mark.parametrize("eta", [1e-3, 0.5, 4.0])
def test_projection_is_exact_and_only_from_outside(eta: float) -> None:
    centre = [parameter.detach().clone() for parameter in trainable(build("resnet8", 2, 16, seed=0))]
    stream = torch.Generator().manual_seed(1)
    outside = [middle + torch.randn(middle.shape, generator=stream) for middle in centre]
    direction = torch.cat([(a - b).flatten() for a, b in zip(outside, centre, strict=True)]).double()
    project(outside, centre, eta)
    assert distance(outside, centre) == pytest.approx(eta, rel=1e-6 if eta > 0.01 else 1e-4)
    pulled = torch.cat([(a - b).flatten() for a, b in zip(outside, centre, strict=True)]).double()
    assert float(torch.cosine_similarity(direction, pulled, dim=0)) > 1 - 1e-6
    inside = [middle + 1e-6 for middle in centre]
    before = [value.clone() for value in inside]
    project(inside, centre, eta)
    assert all(torch.equal(a, b) for a, b in zip(inside, before, strict=True))


def test_acm_equals_a_plain_loop_and_is_unbiased_for_equal_classes() -> None:
    stream = torch.Generator().manual_seed(3)
    features, labels = torch.randn(90, 5, generator=stream), torch.arange(90) % 3
    features[labels == 2] += 1.0
    means = [features[labels == c].double().mean(0) for c in range(3)]
    within = sum(float(((features[i].double() - means[labels[i]]) ** 2).sum()) for i in range(90)) / 87
    centre = sum(means) / 3
    between = sum(float(((m - centre) ** 2).sum()) for m in means) / 2
    assert float(pst.acm(features, labels, 3)) == pytest.approx((between - within / 30) / within, rel=1e-9)
    same = torch.stack([
        pst.acm(torch.randn(60, 40, generator=stream), torch.arange(60) % 3, 3) for _ in range(200)
    ])  # fmt: skip
    assert float(same.mean()) < 0.005  # clipped at 0, so slightly above


def test_alarm_rules() -> None:
    calm = pst.Alarm()
    assert not any(calm.update(1.0 + 0.01 * (number % 5)) for number in range(50))
    assert calm.update(1.51)
    rising = pst.Alarm()
    for _ in range(10):
        rising.update(1.0)
    assert not rising.update(1.3)  # once above 1.25 x the median is a warning
    assert not rising.calm
    assert rising.update(1.3)  # twice is an alarm
    relieved = pst.Alarm()
    for q in (1.0, 1.0, 1.0, 1.3, 1.0):
        assert not relieved.update(q)
    assert relieved.calm
    assert not relieved.update(1.3)


@pytest.mark.parametrize("arch", sorted(ARCHITECTURES))
def test_noise_shares_fall_from_stem_to_head(arch: str) -> None:
    model = build(arch, 3, 32, seed=0)
    shares = pst.noise_shares(model)
    matrices = [share for share, p in zip(shares, trainable(model), strict=True) if p.dim() > 1]
    assert matrices[0] == 0.5
    assert matrices[-1] == 0.0
    weights = [share for share in matrices if share]
    assert weights == sorted(weights, reverse=True)
    assert all(share == 0 for share, p in zip(shares, trainable(model), strict=True) if p.dim() <= 1)


def test_relative_deviations_scale_with_each_filter() -> None:
    weight = torch.stack([torch.full((3, 3), 2.0), torch.full((3, 3), 0.5)])
    noise, none = pst.relative_deviations([weight, torch.ones(4)], [0.5, 0.0], 1.2)
    assert noise.flatten().tolist() == pytest.approx([1.2, 0.3])
    assert float(none) == 0


def test_probe_sees_through_blur_and_leaves_the_model_alone() -> None:
    """A class code in the finest pattern: raw ACM of a matched filter is large, blurred ACM small."""
    size, labels = 16, torch.arange(80) % 2
    board = (torch.arange(size)[:, None] + torch.arange(size)) % 2 * 2.0 - 1
    stream = torch.Generator().manual_seed(0)
    images = 128 + 10 * torch.randn((80, 3, size, size), generator=stream) + 12 * board * labels.view(-1, 1, 1, 1)
    data = ImageSet(images.clamp(0, 255).to(torch.uint8), labels, 2)
    model = build("resnet8", 2, size, seed=0)
    state = {name: value.clone() for name, value in model.state_dict().items()}
    raw, blurred = pst.Probe(model, data, seed=0).measure()
    assert len(raw) == len(blurred) == 4
    assert pst.trap_quotient(raw, blurred) > 1.5
    assert all(torch.equal(state[name], value) for name, value in model.state_dict().items())
    plain = ImageSet(
        (128 + 10 * torch.randn((80, 3, size, size), generator=stream)).clamp(0, 255).to(torch.uint8), labels, 2
    )
    assert pst.trap_quotient(*pst.Probe(model, plain, seed=0).measure()) < 1.5


def test_pst_stays_within_its_budget_and_leaves_clean_data_alone() -> None:
    result = find("pst").run(target(epochs=6), stripes(40, seed=1))
    plain = find("standard").run(target(epochs=6), stripes(40, seed=1))
    assert result.details["steps"] <= 2 * target(epochs=6).recipe.steps(64)
    if result.details["alarms"] == 0:
        assert result.details["steps"] == target(epochs=6).recipe.steps(64)
        assert result.accuracy == plain.accuracy
    assert all(math.isfinite(entry["q"]) for entry in result.details["acm"])
