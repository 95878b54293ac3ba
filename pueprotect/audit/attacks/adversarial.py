"""Trains on the worst version of each image: within a small L-infinity ball, or among augmentations.

Both attacks look for inputs with a large loss at each step. A shortcut of 8/255 cannot lower the loss when images move
by as much against it (adversarial training), or when their augmentation was chosen to hide it (UEraser).
"""

from __future__ import annotations

from dataclasses import replace
from itertools import count

import torch
from torch import Tensor
from torch.nn import functional
from torchvision.transforms import v2

from pueprotect.audit.attacks.base import Attack, Run, Target, register
from pueprotect.learning.augment import Grouped, plasma
from pueprotect.learning.models import Classifier
from pueprotect.learning.training import Schedule, Transform, autocast, train
from pueprotect.learning.weights import batch_statistics
from pueprotect.runtime import generator

STEP = 1.25
CANDIDATES = 5
PASSES = 2  # times those of plain training: clean images augmented this strongly take longer to learn
HARD_SHARE = 0.15  # of the steps; the authors take 60 of 200 epochs


def fast_perturbed(
    model: Classifier, inputs: Tensor, labels: Tensor, epsilon: float, stream: torch.Generator
) -> Tensor:
    """One signed step of 1.25 epsilon from a random start, kept in the ball and in [0, 1] (FGSM-RS).

    `inputs` are (B, 3, H, W) float in [0, 1], `labels` (B,) int64, and `epsilon` is the L-infinity radius on [0, 1].
    BatchNorm uses the batch and records nothing.
    """
    start = epsilon * (2 * torch.rand(inputs.shape, generator=stream, device=inputs.device) - 1)
    delta = start.contiguous(memory_format=torch.channels_last).requires_grad_()
    with autocast(inputs.device), batch_statistics(model):
        loss = functional.cross_entropy(model((inputs + delta).clamp(0, 1)), labels)
    (slope,) = torch.autograd.grad(loss, delta)
    moved = (delta.detach() + STEP * epsilon * slope.sign()).clamp_(-epsilon, epsilon)
    return (inputs + moved).clamp_(0, 1)


class AdversarialTraining(Attack):
    """Trains on images that a fast attack has changed by up to `levels`; this costs clean accuracy as well."""

    source = "Tao et al., NeurIPS 2021 (AT against delusive noise), with the fast step of Wong et al., ICLR 2020"
    cost = 1.8

    def __init__(self, levels: int) -> None:
        self.name = f"at-{levels}"
        self.about = f"trains on images perturbed adversarially by up to {levels}/255 (L-infinity, one fast step)"
        self.epsilon = levels / 255

    def train(self, run: Run) -> Classifier:
        """Plain training on perturbed batches."""
        target = run.target
        model = target.fresh()

        def prepare(inputs: Tensor, labels: Tensor, stream: torch.Generator) -> tuple[Tensor, Tensor]:
            return fast_perturbed(model, inputs, labels, self.epsilon, stream), labels

        return train(
            model, target.released, target.schedule, seed=target.seed, prepare=prepare, on_epoch=run.epoch,
            progress=run.progress,
        )  # fmt: skip


register(AdversarialTraining(4))  # half of the usual protection budget
register(AdversarialTraining(8))


def hardest(model: Classifier, inputs: Tensor, labels: Tensor, candidates: list[Tensor]) -> Tensor:
    """For each image the candidate with the largest loss; `labels` are (B,) int64.

    The candidates are versions of the batch `inputs`, each (B, 3, H, W) float in [0, 1]. BatchNorm uses the batch and
    records nothing.
    """
    with torch.no_grad(), autocast(inputs.device), batch_statistics(model):
        losses = torch.stack([functional.cross_entropy(model(seen), labels, reduction="none") for seen in candidates])
    chosen = torch.stack(candidates)[losses.argmax(0), torch.arange(len(inputs), device=inputs.device)]
    return chosen.contiguous(memory_format=torch.channels_last)


def strong_augmentation(seed: int) -> Transform:
    """Brightness and contrast in smooth random fields, shuffled channels, then torchvision's TrivialAugment."""
    trivial = Grouped(v2.TrivialAugmentWide(), generator(seed, "ueraser"))

    def augment(images: Tensor, stream: torch.Generator) -> Tensor:
        count, size, device = len(images), images.shape[-1], str(images.device)

        def chance(*shape: int) -> Tensor:
            return torch.rand((count, *shape), generator=stream, device=device)

        brightness, contrast = plasma(2 * count, size, stream, device).split(count)
        brighter = images + (brightness - 0.5) * 2 * (0.5 + 0.5 * chance(1, 1, 1))
        images = torch.where(chance(1, 1, 1) < 0.5, brighter, images).clamp(0, 1)
        images = torch.where(chance(1, 1, 1) < 0.5, images * 4 * contrast, images).clamp(0, 1)
        order = torch.where(chance(1) < 0.5, chance(3).argsort(1), torch.arange(3, device=device))
        return trivial(images.gather(1, order[:, :, None, None].expand_as(images)))

    return augment


@register
class UEraser(Attack):
    """Trains on the hardest of five strong augmentations of each image first, then on one drawn at random.

    The hardest ones alone do not teach clean images, so they come first only (examples/results/trials.md).
    """

    name = "ueraser"
    about = f"trains on the hardest of {CANDIDATES} strong augmentations of each image, later on random ones (UEraser)"
    source = "Qin et al., Learning the Unlearnable, arXiv 2303.15127; its augmentations rebuilt with torchvision's"
    cost = 2.4

    def schedule(self, target: Target) -> Schedule:
        """Twice the passes."""
        return replace(target.schedule, epochs=PASSES * target.schedule.epochs)

    def train(self, run: Run) -> Classifier:
        """Training on the chosen augmentations."""
        target = run.target
        model, augment = target.fresh(), strong_augmentation(target.seed)
        hard, done = round(HARD_SHARE * self.steps(target)), count()

        def prepare(inputs: Tensor, labels: Tensor, stream: torch.Generator) -> tuple[Tensor, Tensor]:
            if next(done) >= hard:
                return augment(inputs, stream).contiguous(memory_format=torch.channels_last), labels
            return hardest(model, inputs, labels, [augment(inputs, stream) for _ in range(CANDIDATES)]), labels

        return train(
            model, target.released, self.schedule(target), seed=target.seed, prepare=prepare, on_epoch=run.epoch,
            progress=run.progress,
        )  # fmt: skip
