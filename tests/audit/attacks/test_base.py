from dataclasses import replace

import pytest
import torch
from helpers import shades, stripes, target

from pueprotect.audit.attacks import REGISTRY, base, denoise, find, known_seed
from pueprotect.audit.attacks.base import KNOWLEDGE, Attack, Run, behind, clean_share, register
from pueprotect.errors import InputError
from pueprotect.learning.data import ImageSet
from pueprotect.learning.models import Classifier
from pueprotect.learning.training import accuracy
from pueprotect.protect.methods.texture import Scheme, code_book


@pytest.mark.parametrize("name", sorted(REGISTRY))
def test_every_attack(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Learns what is learnable, is graded by the base class, repeats with its seed, and describes itself."""
    monkeypatch.setattr(denoise, "STEPS", 30)  # test_denoise.py tests how well it denoises
    monkeypatch.setattr(known_seed, "FALSE_ALARM", 0.2)  # and how long that one looks for a key
    attack = REGISTRY[name]
    known = Scheme(code_book(2, 0), 8) if attack.needs == KNOWLEDGE else None
    adaptive = getattr(attack, "clean_line", False) or attack.needs == KNOWLEDGE
    drawn = shades if adaptive else stripes  # strong filters remove stripes, and should
    test, epochs = drawn(40, seed=1), 12 if name == "weight-noise-short" else 5
    here = replace(target(epochs=epochs, drawn=drawn), scheme=known)
    result = attack.run(here, test)
    assert result.attack == name
    assert result.accuracy >= 0.8
    assert result.best_accuracy >= result.accuracy
    assert result.flags == ()
    assert attack.run(here, test).accuracy == result.accuracy
    assert attack.about.split()[0].endswith("s"), "it continues a sentence that starts with the name"
    assert len(attack.about) < 100
    assert attack.source
    assert attack.needs in ("nothing", "a clean share", "the held-out files", "knowledge of the protection")
    assert 0 < attack.cost < 10
    steps: list[int] = []

    class Count:
        def start(self, label: str, total: int) -> None:
            steps.append(-total)

        def advance(self, parts: int = 1, note: str = "") -> None:
            steps.append(parts)

        def finish(self, note: str = "") -> None: ...

    attack.run(replace(target(epochs=1, drawn=drawn, known=True), scheme=known), test, Count())
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


def test_large_images_are_filtered_a_few_at_a_time() -> None:
    passed: list[int] = []

    def look(part: torch.Tensor) -> torch.Tensor:
        passed.append(len(part))
        return part

    data = ImageSet(torch.zeros((200, 3, 224, 224), dtype=torch.uint8), torch.zeros(200, dtype=torch.int64), 2)
    assert len(behind(look, data)) == 200
    assert max(passed) == 83


def test_clean_share_is_stratified_and_a_part_of_the_originals() -> None:
    labels = torch.tensor([0] * 50 + [1] * 10 + [2] * 3)
    images = torch.arange(63).view(-1, 1, 1, 1).expand(-1, 3, 4, 4).to(torch.uint8)
    share = clean_share(ImageSet(images, labels, 3), 0.2, 0)
    assert share is not None
    assert torch.bincount(share.labels).tolist() == [10, 2, 1]
    numbers = share.images[:, 0, 0, 0].long()  # each image holds its own index
    assert torch.equal(labels[numbers], share.labels)
    assert torch.equal(share.images, clean_share(ImageSet(images, labels, 3), 0.2, 0).images)  # type: ignore[union-attr]
    assert clean_share(None, 0.2, 0) is None


def test_any_part_of_the_clean_share_is_mixed() -> None:
    """Attacks calibrate on its first images, so it must not be sorted by class."""
    labels = torch.arange(1000) // 100
    share = clean_share(ImageSet(torch.zeros(1000, 3, 4, 4, dtype=torch.uint8), labels, 10), 0.4, 0)
    assert share is not None
    for start in range(0, 400, 100):
        assert int(torch.bincount(share.labels[start : start + 100], minlength=10).min()) >= 2


def test_the_training_accuracy_is_of_all_classes(monkeypatch: pytest.MonkeyPatch) -> None:
    """In a set whose classes alternate, every second image is of one class."""
    monkeypatch.setattr(base, "TRAINING_SAMPLE", 32)

    class Constant(Attack):
        name = "constant"
        about = source = "-"

        def train(self, run: Run) -> Classifier:
            model = run.target.fresh()
            with torch.no_grad():
                for parameter in model.parameters():
                    parameter.zero_()
                list(model.parameters())[-1][0] = 1.0  # the bias of class 0
            return model

    assert target().released.labels[:4].tolist() == [0, 1, 0, 1]
    found = Constant().run(target(), stripes(8, seed=1)).details["train_accuracy"]
    assert 0.2 < found < 0.8
