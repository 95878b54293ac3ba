"""Fine-tunes on a little clean data within an L2 ball of weights: the recovery attack.

Source: Wang et al., "Provably Unlearnable Data Examples", NDSS 2025. Start from a classifier trained on protected data,
fine-tune it on clean images, and after every step project the trainable parameters back into the ball of radius eta if
they left it. Training from scratch on the same clean images is measured as well; without it a recovery shows nothing.
BatchNorm statistics are not part of the ball, so the point `eta 0` shows what re-estimating them alone does.
`random search` draws weights around the classifier at the largest radius, and keeps the best draw on the clean share.
"""

from __future__ import annotations

import copy
from dataclasses import replace

import torch
from torch import Tensor, nn

from pueprotect.audit.attacks.base import CLEAN_SHARE, Attack, Run, Target, register
from pueprotect.learning.data import ImageSet
from pueprotect.learning.draw_engine import DrawEngine
from pueprotect.learning.models import Classifier
from pueprotect.learning.training import Schedule, train
from pueprotect.learning.weights import distance, reestimate_batch_norm, trainable
from pueprotect.release.audits import CLEAN_SHARE_ALONE
from pueprotect.runtime import SILENT, Progress

SEARCH = "random search"
SEARCH_DRAWS = 20


@torch.no_grad()
def project(parameters: list[Tensor], centre: list[Tensor], eta: float) -> None:
    """Pull weights back to the L2 ball of radius `eta` around `centre`, only when they are outside it.

    The norm is accumulated in float64; afterwards the distance is eta to 1e-6 relative.
    """
    offsets = [parameter.double() - middle.double() for parameter, middle in zip(parameters, centre, strict=True)]
    norm = torch.stack([torch.sum(offset**2) for offset in offsets]).sum().sqrt()
    # A factor of 1 leaves inside points alone without asking the device where they are.
    factor = (eta / norm.clamp_min(1e-300)).clamp_max(1.0)
    outside = factor < 1
    for parameter, offset, middle in zip(parameters, offsets, centre, strict=True):
        pulled = (middle.double() + factor * offset).to(parameter.dtype)
        parameter.copy_(torch.where(outside, pulled, parameter))


def fine_tuned_within(
    start: Classifier, clean: ImageSet, eta: float, schedule: Schedule, *, seed: int, progress: Progress = SILENT
) -> Classifier:
    """A copy of `start`, fine-tuned on clean images inside the ball of radius `eta` around its weights."""
    centre = [parameter.detach().clone() for parameter in trainable(start)]
    model = copy.deepcopy(start)
    parameters = trainable(model)
    return train(
        model, clean, replace(schedule, lr=0.01, warmup=0.0), seed=seed,
        after_step=lambda: project(parameters, centre, eta), progress=progress,
    )  # fmt: skip


@register
class Recovery(Attack):
    """Projected fine-tuning over a grid of radii."""

    name = "recovery"
    about = "fine-tunes a plainly trained network on a clean share (20 %), inside weight balls of radius eta"
    needs = CLEAN_SHARE
    source = "Provably Unlearnable Data Examples, Wang et al., NDSS 2025"
    cost = 2.9

    def steps(self, target: Target) -> int:
        """Plain training, one fine-tuning for each radius, one training from scratch, twice as long, and the draws."""
        assert target.clean_share is not None
        clean_steps = target.schedule.steps(len(target.clean_share))
        return super().steps(target) + clean_steps * (len(target.etas) + 2) + SEARCH_DRAWS

    def train(self, run: Run) -> Classifier:
        """Plain training on the released files, then the grid of radii, ascending."""
        target = run.target
        clean, schedule = target.clean_share, target.schedule
        assert clean is not None
        start = train(
            target.fresh(), target.released, schedule, seed=target.seed, on_epoch=run.epoch, progress=run.progress
        )
        run.observe("before", start)
        model = copy.deepcopy(start)
        reestimate_batch_norm(model, clean.images)
        run.observe("eta 0", model)
        moved = {}
        for eta in target.etas:
            model = fine_tuned_within(start, clean, eta, schedule, seed=target.seed, progress=run.progress)
            moved[f"eta {eta:g}"] = distance(trainable(model), trainable(start))
            run.observe(f"eta {eta:g}", model)
        longer = replace(schedule, epochs=2 * schedule.epochs)
        alone = train(target.fresh(), clean, longer, seed=target.seed, progress=run.progress)
        run.observe(CLEAN_SHARE_ALONE, alone, candidate=False)
        run.details["distance"] = moved
        run.observe(SEARCH, self.search(run, start, clean))
        return model

    def search(self, run: Run, start: Classifier, clean: ImageSet) -> nn.Module:
        """The best of 20 draws of N(start, eta^2 / d), so about eta away, for the largest eta; the first of equals."""
        target = run.target
        dimensions = sum(parameter.numel() for parameter in trainable(start))
        engine = DrawEngine(
            start, clean.images, clean.labels, clean.images[:512], sigma=target.etas[-1] / dimensions**0.5,
            seed=target.seed,
        )  # fmt: skip
        counts = []
        for index in range(SEARCH_DRAWS):
            counts.append(engine.draw(index)[0])
            run.progress.advance()
        return engine.network(int(torch.stack(counts).argmax()))
