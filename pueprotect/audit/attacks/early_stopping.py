"""Stops plain training at the pass that is best on a small clean validation set.

Networks learn images for a few passes before they lock on to the noise. An attacker with clean images to validate on
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
    """Keeps the network of the best pass, chosen on clean images that are not the test images."""

    name = "early-stopping"
    about = f"keeps the pass of plain training that is best on up to {VALIDATION_PER_CLASS} clean images of each class"
    needs = CLEAN_SHARE
    source = "Sandoval-Segura et al., NeurIPS 2023, and Huang et al., ICLR 2021: accuracy peaks early and falls"

    def train(self, run: Run) -> Classifier:
        """Plain training with a choice after each pass; the earliest of equal passes wins."""
        target = run.target
        assert target.clean_share is not None
        validation = validation_set(target.clean_share)
        scores: list[int] = []
        kept: dict[str, torch.Tensor] = {}

        def look(model: nn.Module) -> None:
            run.epoch(model)
            right = int(count_correct(model, validation))
            if right > max(scores, default=-1):
                assert isinstance(model, Classifier)
                kept.update(clone(model))
                run.details |= {"stopped_after_pass": len(scores) + 1, "validation_accuracy": right / len(validation)}
            scores.append(right)

        model = train(
            target.fresh(), target.released, target.schedule, seed=target.seed, on_epoch=look, progress=run.progress
        )
        model.load_state_dict(kept)
        run.details["validation_images"] = len(validation)
        return model
