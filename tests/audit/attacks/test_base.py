from dataclasses import replace
from importlib.metadata import EntryPoint
from typing import Any

import pytest
import torch
from helpers import shades, stripes, target
from torch import nn

from pueprotect.audit.attacks import REGISTRY, base, denoise, find, known_seed
from pueprotect.audit.attacks.base import (
    CLEAN_SHARE,
    HELD_OUT,
    KNOWLEDGE,
    Attack,
    Run,
    behind,
    clean_share,
    register,
    register_plugins,
)
from pueprotect.errors import InputError
from pueprotect.learning.data import ImageSet
from pueprotect.learning.models import Classifier, build
from pueprotect.learning.training import accuracy
from pueprotect.protect.methods.texture import Scheme, code_book
from pueprotect.release.audits import AS_THEY_ARE


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


class Brightness(nn.Module):
    """Tells dark images from bright ones, as `shades` are; a shift of 1 calls all bright, one of -1 all dark."""

    def __init__(self, shift: float = 0.0) -> None:
        super().__init__()
        self.shift = nn.Parameter(torch.tensor(float(shift)))

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        bright = images.mean((1, 2, 3)) - 0.4 + self.shift
        return torch.stack([-bright, bright], dim=1)


class Told(Attack):
    """Returns a network that is known beforehand, after doing what a test asks for."""

    name = "told"
    about = source = "-"

    def __init__(self, shift: float = 0.0, first: Any = lambda run: None) -> None:
        self.shift, self.first = shift, first

    def train(self, run: Run) -> Any:
        self.first(run)
        return Brightness(self.shift)


def uneven() -> ImageSet:
    """Thirty dark images and ten bright ones."""
    data = shades(60, seed=1)
    dark, bright = ((data.labels == label).nonzero()[:, 0] for label in (0, 1))
    return data.subset(torch.cat([dark, bright[:10]]))


def test_passes_and_further_networks_are_recorded_and_the_best_one_counts() -> None:
    def first(run: Run) -> None:
        run.epoch(Brightness(1))
        run.observe("half way", Brightness(-1))
        run.observe("for comparison", Brightness(), candidate=False)

    result = Told(1, first).run(target(), uneven())
    assert (result.accuracy, result.best_accuracy) == (0.25, 0.75), "what is only for comparison is not the best"
    assert result.details["epoch_accuracy"] == [0.25, 0.75]
    assert result.details["points"] == {"half way": 0.75, "for comparison": 1.0}
    assert (result.attack, result.arch, result.epochs, result.flags) == ("told", "resnet8", 5, ())
    assert 0 <= result.seconds < 60
    plain = Told(-1).run(target(), uneven())
    assert (plain.accuracy, plain.best_accuracy) == (0.75, 0.75), "the end of training is a candidate too"
    assert set(plain.details) == {"epoch_accuracy", "train_accuracy"}


def test_test_images_go_through_the_filter_and_are_measured_as_they_are_too() -> None:
    class Negative(Told):
        def filter(self, target: Any) -> Any:
            return lambda images: 255 - images

    seen: list[torch.Tensor] = []

    def first(run: Run) -> None:
        seen.append(run.filtered(run.target.released).images)
        run.epoch(Brightness())

    here = target(drawn=shades)
    result = Negative(0, first).run(here, uneven())
    assert (result.accuracy, result.best_accuracy, result.details["epoch_accuracy"]) == (0.0, 0.0, [0.0])
    assert result.details["points"] == {AS_THEY_ARE: 1.0}
    assert torch.equal(seen[0], 255 - here.released.images)


def test_training_accuracy_is_of_what_the_attack_trained_on() -> None:
    here = target(drawn=shades)
    assert Told().run(here, uneven()).details["train_accuracy"] == 1.0

    def first(run: Run) -> None:
        run.trained_on = replace(run.target.released, labels=1 - run.target.released.labels)

    assert Told(0, first).run(here, uneven()).details["train_accuracy"] == 0.0


def test_the_training_images_that_are_measured_follow_from_the_seed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(base, "TRAINING_SAMPLE", 9)
    here = replace(target(drawn=shades), seed=3)
    bright = here.released.drawn(9, 3, "train-accuracy").labels.float().mean()
    assert Told(1).run(here, uneven()).details["train_accuracy"] == pytest.approx(float(bright))
    other = here.released.drawn(9, 4, "train-accuracy").labels.float().mean()
    assert float(bright) != float(other), "otherwise the seed would not be tested"


def test_weights_that_are_not_finite_have_no_figure() -> None:
    result = Told(float("nan"), lambda run: run.flags.append("alarm")).run(target(), uneven())
    assert (result.accuracy, result.best_accuracy, result.flags) == (None, None, ("alarm", "diverged"))


def test_progress_names_the_work_and_its_result() -> None:
    class Shown:
        def __init__(self) -> None:
            self.said: list[Any] = []

        def start(self, label: str, total: int) -> None:
            self.said += [label, total]

        def advance(self, parts: int = 1, note: str = "") -> None:
            self.said.append(parts)

        def finish(self, note: str = "") -> None:
            self.said.append(note)

    shown = Shown()
    Told(-1, lambda run: run.progress.advance(3)).run(target(), uneven(), shown)
    assert shown.said == ["attack told (resnet8)", 20, 3, "75.0% on clean test images"]
    Told().run(target(), uneven(), shown, "seed 2")
    assert shown.said[4] == "seed 2"


@pytest.mark.parametrize(
    ("needs", "given", "says"),
    [
        (CLEAN_SHARE, (False, True, True), "needs clean training images"),
        (KNOWLEDGE, (True, False, True), "needs a code book"),
        (HELD_OUT, (True, True, False), "needs held-out files"),
    ],
)
def test_an_attack_says_what_it_lacks(needs: str, given: tuple[bool, bool, bool], says: str) -> None:
    attack = Told()
    assert attack.lacks(False, False, False) == ""
    attack.needs = needs
    assert attack.lacks(True, True) == ""
    text = attack.lacks(*given)
    assert text.startswith(f"The attack told {says}: run it ")
    assert text.endswith(", or leave it out.")
    if needs != HELD_OUT:
        with pytest.raises(InputError, match=says):
            attack.run(replace(target(), clean_share=None), uneven())


def test_an_attackers_network_starts_from_its_seed() -> None:
    here = replace(target(), seed=3)
    wanted = build("resnet8", 2, 16, seed=3, purpose="attacker")
    assert all(torch.equal(a, b) for a, b in zip(here.fresh().parameters(), wanted.parameters(), strict=True))


def test_the_clean_share_follows_from_the_seed() -> None:
    """Its members and their order are pinned: audits with the same seed must compare."""
    numbers = torch.arange(20)
    data = ImageSet(numbers.view(-1, 1, 1, 1).expand(-1, 3, 4, 4).to(torch.uint8), numbers % 2, 2)
    shares = [clean_share(data, 0.3, seed) for seed in (0, 1)]
    assert [share.images[:, 0, 0, 0].tolist() for share in shares if share] == [
        [4, 10, 6, 9, 5, 1],
        [1, 12, 14, 0, 17, 3],
    ]


def test_attacks_of_other_packages_are_registered_once(monkeypatch: pytest.MonkeyPatch) -> None:
    class Theirs(Told):
        name = "theirs"

    offered = {"theirs": EntryPoint("theirs", "their_module:Theirs", "pueprotect.attacks")}
    monkeypatch.setattr(base, "REGISTRY", {"told": Told()})
    monkeypatch.setattr(base, "plugins", {"pueprotect.attacks": offered}.__getitem__)
    monkeypatch.setattr(base, "load_plugin", {offered["theirs"]: Theirs}.__getitem__)
    register_plugins()
    first = base.REGISTRY["theirs"]
    register_plugins()
    assert type(first) is Theirs
    assert base.REGISTRY["theirs"] is first
    Theirs.name = "told"
    with pytest.raises(InputError, match=r"'theirs' of the package their_module:Theirs .*'told' is registered already"):
        register_plugins()


def test_an_attack_is_registered_as_an_object() -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(base, "REGISTRY", {})
        assert register(Told) is Told
        assert isinstance(base.find("told"), Told)
        other = Told()
        other.name = "other"
        assert register(other) is other
        assert base.REGISTRY["other"] is other
