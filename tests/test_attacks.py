from dataclasses import replace

import pytest
import torch
from toy import shades, stripes, target

from pueprotect.audit.attacks import REGISTRY, Target, find
from pueprotect.audit.attacks.base import KNOWLEDGE, Attack, Run, register
from pueprotect.audit.attacks.filtered import Filtered
from pueprotect.audit.attacks.known import KnownCode
from pueprotect.audit.attacks.recovery import ALONE, SEARCH, project
from pueprotect.errors import InputError
from pueprotect.learning.models import Classifier, build
from pueprotect.learning.training import Schedule, accuracy
from pueprotect.learning.weights import distance, trainable
from pueprotect.protect.methods.texture import Scheme, code_book


@pytest.mark.parametrize("name", sorted(REGISTRY))
def test_every_attack(name: str) -> None:
    """Learns what is learnable, is graded by the base class, repeats with its seed, and describes itself."""
    attack = REGISTRY[name]
    known = Scheme(code_book(2, 0), 8) if attack.needs == KNOWLEDGE else None
    drawn = shades if isinstance(attack, Filtered | KnownCode) else stripes  # filters may take stripes away, and should
    test, epochs = drawn(40, seed=1), 12 if name == "weight-noise-short" else 5
    here = replace(target(epochs=epochs, drawn=drawn), known=known)
    result = attack.run(here, test)
    assert result.attack == name
    assert result.accuracy >= 0.8
    assert result.best_accuracy >= result.accuracy
    assert result.flags == ()
    assert attack.run(here, test).accuracy == result.accuracy
    assert attack.about.split()[0].endswith("s"), "an attacker who ..."
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

    attack.run(replace(target(epochs=1, drawn=drawn, known=True), known=known), test, Count())
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


def test_knowing_the_code_needs_a_code() -> None:
    with pytest.raises(InputError, match="--method hardened"):
        find("known-code").run(target(), stripes(8))


def test_recovery_needs_clean_images_and_shows_what_they_give_alone() -> None:
    with pytest.raises(InputError, match="recovery needs clean training images"):
        find("recovery").run(Target(stripes(), "resnet8", Schedule(epochs=1), 0), stripes(8))
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
