from typing import Any

import pytest
import torch
from helpers import noise, random_images, shades

from pueprotect.learning.device import Machine
from pueprotect.learning.models import build
from pueprotect.learning.training import Schedule, accuracy, train
from pueprotect.protect.methods.self_check import SELF_CHECK_MARGIN, Learnt, judged, learnable, learnt, limit_of
from pueprotect.runtime import child_seed

NETWORK = build("cnn", 2, 16, seed=0)


def test_the_limit_is_near_chance_and_at_most_half_of_what_the_originals_give() -> None:
    assert limit_of(0.1, 0.9) == pytest.approx(0.1 + SELF_CHECK_MARGIN * 0.9)
    assert limit_of(0.1, 0.2) == pytest.approx(0.15)
    assert limit_of(0.1, 0.05) == 0.1, "nothing above chance may pass where the originals give nothing"


def test_the_check_passes_up_to_the_limit_only_and_keeps_earlier_attempts() -> None:
    limit = limit_of(0.5, 0.9)
    for reached, passed in ((limit, True), (limit + 1e-6, False)):
        found = judged([Learnt(0.1, 0.5, NETWORK), Learnt(reached, 0.5, NETWORK)], 0.9, "cnn", 3, [0.8])
        assert (found.passed, found.limit, found.attempts) == (passed, limit, [0.8, reached])
        assert (found.arch, found.epochs, found.chance, found.clean_accuracy) == ("cnn", 3, 0.5, 0.9)
        assert (found.accuracy, found.networks) == (reached, [0.1, reached]), "the best network counts"


@pytest.mark.parametrize(
    ("accuracy", "chance", "images", "enough"),
    [
        (0.30, 0.10, 500, True),
        (0.14, 0.10, 5000, False),  # no luck, but hardly anything
        (0.146, 0.10, 5000, True),
        (0.60, 0.50, 50, False),  # a tenth above chance by luck
        (0.60, 0.50, 500, True),
        (1.00, 0.50, 6, False),  # too few to tell
        (1.00, 0.50, 7, True),
        (0.10, 0.10, 500, False),
        (1.00, 1.00, 500, False),  # one class only
    ],
)
def test_labels_are_learnable_well_above_chance_only(accuracy: float, chance: float, images: int, enough: bool) -> None:
    assert learnable(Learnt(accuracy, chance, NETWORK), images) == enough


def test_a_fresh_network_learns_what_is_there_and_nothing_else() -> None:
    there, none = (learnt(data, data, "resnet8", epochs=3, seed=0) for data in (shades(120), noise(120)))
    assert learnable(there, 120)
    assert there.chance == none.chance == 0.5
    clean, nothing = random_images(90), random_images(90, seed=1)
    assert not learnable(learnt(clean, nothing, "resnet8", epochs=3, seed=0), 90)


class Reports:
    """Keeps what was reported."""

    def __init__(self) -> None:
        self.said, self.parts = list[Any](), 0

    def start(self, label: str, total: int) -> None:
        self.said.append((label, total))

    def advance(self, parts: int = 1, note: str = "") -> None:
        self.parts += parts

    def finish(self, note: str = "") -> None:
        self.said.append(note)


def test_the_check_is_a_standard_training_that_follows_from_its_seed() -> None:
    data, shown = random_images(40), Reports()
    uneven = data.subset(torch.tensor([0, 1, 2, 3, 6]))  # classes 0, 1, 2, 0, 0
    found = learnt(data, uneven, "cnn", epochs=2, seed=4, label="check it", machine=Machine(progress=shown))
    start = build("cnn", 3, 16, seed=4, purpose="self-check")
    wanted = train(start, data, Schedule(epochs=2), seed=child_seed(4, "self-check"))
    for mine, same in zip(found.network.parameters(), wanted.parameters(), strict=True):
        assert torch.equal(mine, same)
    assert (found.accuracy, found.chance) == (accuracy(wanted, uneven), 0.6)
    assert shown.said == [
        ("check it", Schedule(epochs=2).steps(40)), f"{found.accuracy:.1%} on the clean holdout, chance 60.0%"
    ]  # fmt: skip
    assert shown.parts == Schedule(epochs=2).steps(40)


def test_a_rank_without_the_holdout_measures_nothing() -> None:
    shown = Reports()
    found = learnt(random_images(24), None, "cnn", epochs=1, seed=0, machine=Machine(progress=shown))
    assert (found.accuracy, found.chance) == (0.0, 0.0)
    assert shown.said[0][0] == "self-check"
