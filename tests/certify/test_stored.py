from typing import Any

import pytest
import torch
from helpers import noise_images

from pueprotect.audit.attacks.pst import LowPass
from pueprotect.certify.stored import agree, answers, lowpass, restore
from pueprotect.errors import VaultError
from pueprotect.learning.models import Classifier, build, state_of

DATA = noise_images()


def network(times: int = 0) -> Classifier:
    model = build("cnn", 3, 16, seed=1)
    if times:
        model.prefilter = LowPass(times)
    return model


@pytest.mark.parametrize("times", [0, 2])
def test_a_stored_network_comes_back_with_its_low_pass_stage(times: int) -> None:
    model = network(times)
    found = restore(build("cnn", 3, 16, seed=9), (state_of(model), answers(model, DATA)), DATA, "pst")
    assert lowpass(found) == times
    images = DATA.images.float() / 255
    assert torch.equal(found.eval()(images), model.eval()(images))


def damaged_weights(state: Any, about: Any) -> None:
    state["body.head.bias"] += torch.tensor([0.0, 3.0, 0.0])


def lost_stage(state: Any, about: Any) -> None:
    about["lowpass"] = 0


def other_count(state: Any, about: Any) -> None:
    about["correct"] += 2


def nothing_stored(state: Any, about: Any) -> None:
    about.clear()


def other_network(state: Any, about: Any) -> None:
    state.pop("body.head.bias")


@pytest.mark.parametrize("change", [damaged_weights, lost_stage, other_count, nothing_stored, other_network])
def test_a_network_that_answers_otherwise_is_refused(change: Any) -> None:
    model = network(2)
    state, about = state_of(model), answers(model, DATA)
    change(state, about)
    with pytest.raises(VaultError, match=r"certify/pst\.safetensors .*leave out --resume"):
        restore(build("cnn", 3, 16, seed=9), (state, about), DATA, "pst")


def test_rounding_is_no_difference() -> None:
    wanted = answers(network(), DATA)
    near = wanted | {"logits": (torch.tensor(wanted["logits"]) * 1.0001).tolist(), "correct": wanted["correct"] + 1}
    assert agree(near, wanted, len(DATA))
    assert not agree(near | {"logits": near["logits"][:-1]}, wanted, len(DATA))
