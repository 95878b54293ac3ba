"""Keeps trained surrogates in the vault, and checks that what is read back is the network that was stored.

Next to the weights are the low-pass stage that PST may put in front of them, and what the network answered on the clean
images when it was stored. A network that is read back must answer the same, up to the rounding of forward passes.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from pueprotect.audit.attacks.pst import LowPass
from pueprotect.errors import VaultError
from pueprotect.learning.data import ImageSet, to_float
from pueprotect.learning.models import Classifier
from pueprotect.learning.training import count_correct
from pueprotect.release.results import Results

ROUNDING = 1e-3  # share of answers that rounding may change
SAMPLE = 8  # clean images whose logits are stored
TOLERANCE = 0.01  # of the largest stored logit

Stored = tuple[dict[str, Tensor], dict[str, Any]]


def lowpass(model: Classifier) -> int:
    """How many 3x3 means are in front of the network; 0 where it sees the images themselves."""
    if isinstance(model.prefilter, LowPass):
        return model.prefilter.times
    assert isinstance(model.prefilter, nn.Identity), "a stage that the vault cannot store"
    return 0


@torch.inference_mode()
def answers(model: Classifier, test: ImageSet) -> dict[str, Any]:
    """What identifies a network, as JSON: its low-pass stage, its right answers on `test`, and some of its logits."""
    correct = int(count_correct(model, test))
    logits = model(to_float(test.images[:SAMPLE])).cpu()
    return {"lowpass": lowpass(model), "correct": correct, "logits": logits.nan_to_num().tolist()}


def keep(results: Results, name: str, key: dict[str, Any], model: Classifier, test: ImageSet) -> None:
    """Store a trained surrogate under `name`, with all that it depends on."""
    results.keep_weights(name, key, model, answers(model, test))


def restore(model: Classifier, stored: Stored, test: ImageSet, name: str) -> Classifier:
    """Make `model` the stored network: the result of `Results.kept_weights`, on the device of `model`.

    Raises:
        VaultError: it answers otherwise than the network that was stored as `name`.
    """
    state, wanted = stored
    try:
        model.load_state_dict(state)
        model.prefilter = LowPass(wanted["lowpass"]) if wanted["lowpass"] else nn.Identity()
        same = agree(answers(model, test), wanted, len(test))
    except (RuntimeError, KeyError, TypeError, ValueError):
        same = False
    if not same:
        raise VaultError(
            f"The surrogate in certify/{name}.safetensors does not give the answers that were stored with it in "
            f"certify/{name}.json; leave out --resume to train it anew."
        )
    return model


def agree(found: dict[str, Any], wanted: dict[str, Any], images: int) -> bool:
    """Whether two results of `answers` on so many images are those of one network, up to rounding."""
    given, logits = torch.tensor(found["logits"]), torch.tensor(wanted["logits"])
    near = given.shape == logits.shape and torch.allclose(
        given, logits, rtol=0, atol=TOLERANCE * max(1e-3, float(logits.abs().max()))
    )
    # An answer of the smallest sets counts whole: rounding may change one.
    return near and abs(found["correct"] - wanted["correct"]) <= max(1, round(ROUNDING * images))


def check_online(results: Results, model: Classifier, test: ImageSet) -> None:
    """Check the network of the optimisation against the answers of its first use here, which are stored.

    Raises:
        VaultError: the weights in the vault have changed since then.
    """
    given, about = answers(model, test), "certify/online.json"
    known = results.kept(about, {"recipe": "online"})
    if known is None:
        results.keep(about, {"recipe": "online"}, given)
    elif not agree(given, known, len(test)):
        raise VaultError(
            f"{results.vault.path}: surrogate.safetensors has changed since an earlier certificate; restore the vault "
            f"from a copy. If the change is meant, remove {about} there."
        )
