"""Plain training that is stopped where a small clean validation set says so.

Networks learn images before they lock on to the noise, for a few passes at most; who has clean images to look at
keeps the network of that moment.
"""

from __future__ import annotations

import torch
from torch import nn

from pueprotect.audit.attacks.base import CLEAN_SHARE, Attack, Run, register
from pueprotect.learning.data import ImageSet
from pueprotect.learning.models import Classifier
from pueprotect.learning.training import count_correct, train
from pueprotect.learning.weights import clone

VALIDATION_PER_CLASS = 50


def validation_set(share: ImageSet) -> ImageSet:
    """Up to 50 clean images of each class."""
    chosen = [torch.nonzero(share.labels == label).flatten()[:VALIDATION_PER_CLASS] for label in range(share.classes)]
    return share.subset(torch.cat(chosen))


@register
class EarlyStopping(Attack):
    """The network of the best pass, chosen on clean images that are not the test images."""

    name = "early-stopping"
    about = f"trains plainly and keeps the pass that is best on up to {VALIDATION_PER_CLASS} clean images of each class"
    needs = CLEAN_SHARE
    source = "Sandoval-Segura et al., NeurIPS 2023, and Huang et al., ICLR 2021: accuracy peaks early and falls"

    def train(self, run: Run) -> Classifier:
        """Plain training with a choice after each pass; the earliest of equals wins."""
        target = run.target
        assert target.clean_share is not None
        validation = validation_set(target.clean_share)
        best, passes = -1, 0
        kept: dict[str, torch.Tensor] = {}

        def look(model: nn.Module) -> None:
            nonlocal best, passes, kept
            run.epoch(model)
            passes += 1
            right = int(count_correct(model, validation))
            if right > best:
                assert isinstance(model, Classifier)
                best, kept = right, clone(model)
                run.details |= {"stopped_after_pass": passes, "validation_accuracy": right / len(validation)}

        model = train(
            target.fresh(), target.released, target.schedule, seed=target.seed, on_epoch=look, progress=run.progress
        )  # fmt: skip
        model.load_state_dict(kept)
        run.details["validation_images"] = len(validation)
        return model
