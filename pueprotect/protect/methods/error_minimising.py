"""Error-minimising perturbations: EMN and PUE, one pattern for each class or for each image.

EMN (Huang et al., "Unlearnable Examples", ICLR 2021) solves min_theta min_delta E loss(f_theta(x + delta), y).
PUE (Wang et al., "Provably Unlearnable (Data) Examples", NDSS 2025) puts Gaussian weight noise into both
halves: min_theta min_delta E_{v ~ N(0, s^2 I)} E loss(f_{theta + v}(x + delta), y).

The papers alternate: some steps on theta, then a pass over the data for delta. Both halves lower the same loss,
so here one backward pass serves both: its weight gradient moves theta and its input gradient moves delta. Each
batch is seen under the attacker's own random crop and flip; the gradient is carried back into the image's frame.
A round is one pass over the training images. Sample-wise noise starts from a class-wise pattern:
noise that was made for each image from nothing bound only the kind of network it was made with (resnet8 18 %, but
a plain convolutional network 59 % on CIFAR-10; one seed).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional

from pueprotect.errors import InputError
from pueprotect.learning.augment import Crop, box_blur, draw_crops
from pueprotect.learning.distributed import ALONE, Group
from pueprotect.learning.models import Classifier, build
from pueprotect.learning.training import (
    Labelled,
    Recipe,
    Trainer,
    accuracy,
    average_statistics,
    batches,
    shared_batches,
    train,
)
from pueprotect.protect.methods.texture import Visibility
from pueprotect.runtime import SILENT, Progress, child_seed, generator

Method = Literal["pue", "emn", "hardened"]
Mode = Literal["class-wise", "sample-wise"]

FINE = 3
SELF_CHECK_MARGIN = 0.12
NOISE_STARTS_AT = 0.5  # published: weight noise begins once the surrogate's accuracy exceeds one half


@dataclass(frozen=True, kw_only=True)
class Settings:
    """What the perturbation is optimised for.

    Attributes:
        method: `pue` (under Gaussian weight noise) or `emn` (without); `hardened` is a code in closed form (module
            `texture`), for which `epsilon`, `seed`, `visibility` and the self-check's `surrogate` count alone.
        mode: one pattern for each class or for each image.
        epsilon: L-infinity budget in levels of 0..255.
        sigma: standard deviation of the weight noise; 0 makes PUE equal to EMN.
        rounds: passes over the training images.
        draws: weight draws averaged within one step; every second one is the one before it with the other sign.
        inner_steps: perturbation steps for each visit of an image (sample-wise).
        step_size: length of one perturbation step in levels.
        shuffled: share of the rounds, the first ones, in which each image is exchanged for another of its batch, so
            that the noise alone tells the class.
        surrogate: name of the network.
        seed: everything random is a function of it.
        visibility: how far a texture code yields where a picture is flat.
    """

    method: Method = "pue"
    mode: Mode = "class-wise"
    epsilon: int = 8
    sigma: float = 0.05
    rounds: int = 6
    draws: int = 1
    inner_steps: int = 2
    step_size: float = 0.8
    shuffled: float = 0.0
    surrogate: str = "resnet8"
    seed: int = 0
    visibility: Visibility = "standard"

    def __post_init__(self) -> None:
        if not 1 <= self.epsilon <= 127:
            raise InputError(f"--epsilon {self.epsilon}/255 is outside 1/255 .. 127/255, what signed bytes hold.")
        if not 0 <= self.sigma <= 10:
            raise InputError(f"--sigma {self.sigma:g} is outside [0, 10].")
        if self.rounds < 1:
            raise InputError(f"--rounds {self.rounds} is below 1.")
        if not 0 <= self.shuffled <= 1:
            raise InputError(f"A share of {self.shuffled:g} shuffled rounds is outside [0, 1].")
        if self.draws < 1 or self.inner_steps < 1 or self.step_size <= 0:
            raise InputError("draws, inner steps and step size must be positive.")

    @property
    def class_rounds(self) -> int:
        """Rounds in which all images of a class share one pattern; sample-wise, the last third is each image's own."""
        return self.rounds if self.mode == "class-wise" else self.rounds - max(1, self.rounds // 3)

    @property
    def weight_noise(self) -> float:
        """The noise that this method optimises under."""
        return self.sigma if self.method == "pue" else 0.0


@dataclass(frozen=True)
class SelfCheck:
    """What a fresh network learns from the protected pixels by brief, plain training.

    Attributes:
        arch: its architecture.
        epochs: passes over the protected training images.
        accuracy: on the clean holdout at the end, in [0, 1].
        chance: the share of the largest class in the holdout.
        limit: the largest accuracy that passes.
        model: the network, the teacher of further rounds when it learnt too much.
    """

    arch: str
    epochs: float
    accuracy: float
    chance: float
    limit: float
    model: Classifier

    @property
    def passed(self) -> bool:
        """Whether the noise kept the network from learning."""
        return self.accuracy <= self.limit


def self_check(
    protected: Labelled,
    holdout: Labelled | None,
    arch: str,
    *,
    epochs: float,
    seed: int,
    group: Group = ALONE,
    progress: Progress = SILENT,
) -> SelfCheck:
    """Look at the noise with an attacker's eyes: train a fresh network plainly on the protected pixels.

    The published stopping rule (a small training error of the surrogate) can be met by noise that fails; this
    asks the question itself. It passes when accuracy stays within `SELF_CHECK_MARGIN` of the way from chance to 1.

    Args:
        protected: protected training images, of this rank.
        holdout: clean images that no training saw; only rank 0 needs them.
        arch: architecture of the fresh network.
        epochs: passes.
        seed: everything random is a function of it.
        group: ranks that train together.
        progress: one part for each step.
    """
    model = build(arch, protected.classes, protected.size, seed=seed, purpose="self-check", device=protected.device)
    train(model, protected, Recipe(epochs=epochs), seed=child_seed(seed, "self-check"), group=group, progress=progress)
    chance, reached = 0.0, 0.0
    if holdout is not None:
        chance = int(torch.bincount(holdout.labels, minlength=holdout.classes).max()) / len(holdout)
        reached = accuracy(model, holdout)
    chance, reached = group.from_leader((chance, reached))
    return SelfCheck(
        arch=arch,
        epochs=epochs,
        accuracy=reached,
        chance=chance,
        limit=chance + SELF_CHECK_MARGIN * (1 - chance),
        model=model,
    )


def apply(frames: Tensor, delta: Tensor) -> Tensor:
    """Add signed noise on the 8-bit grid.

    Args:
        frames: (N, H, W, 3) uint8.
        delta: (N, H, W, 3) int8 levels.

    Returns:
        (N, H, W, 3) uint8, clipped to 0..255.
    """
    return (frames.short() + delta).clamp_(0, 255).to(torch.uint8)


@dataclass(frozen=True)
class Protected:
    """Images with their noise, which is added whenever some of them are looked at.

    Attributes:
        clean: the images.
        delta: (K, H, W, 3) int8 levels.
        rows: (N,) int64, the row of `delta` that each image gets.
    """

    clean: Labelled
    delta: Tensor
    rows: Tensor

    def __len__(self) -> int:
        return len(self.clean)

    @property
    def labels(self) -> Tensor:
        """(N,) int64 in [0, classes)."""
        return self.clean.labels

    @property
    def classes(self) -> int:
        """Number of classes."""
        return self.clean.classes

    @property
    def size(self) -> int:
        """Height and width in pixels."""
        return self.clean.size

    @property
    def device(self) -> str:
        """Where the images live."""
        return self.clean.device

    def frames(self, index: Tensor) -> Tensor:
        """A copy of the chosen images: (B, H, W, 3) uint8."""
        return apply(self.clean.frames(index), self.delta[self.rows[index]])


def fine(gradients: Tensor) -> Tensor:
    """The part of a gradient (B, C, H, W) that a 3x3 mean does not explain.

    Descent along the whole gradient settles on smooth colour fields, tied to their place in the image: fresh
    networks still learnt 15-28 % of CIFAR-10 from them (chance 10; one seed). Fine patterns become textures that any
    convolution finds anywhere in the image, and leave 10 % after the same number of passes.
    """
    return gradients - box_blur(gradients, FINE)


@dataclass
class Optimizer:
    """Joint descent on surrogate and perturbation; keeps its state, so that more rounds can follow.

    Several ranks share the work: each holds its part of the images and, sample-wise, of the noise; the gradients of the
    surrogate and the votes on class-wise noise are added up over all ranks at each step.

    Args:
        data: training images of this rank; the holdout is never among them.
        settings: see `Settings`.
        group: the ranks.
    """

    data: Labelled
    settings: Settings
    group: Group = ALONE
    surrogate: Classifier = field(init=False)
    delta: Tensor = field(init=False)
    labels: Tensor = field(init=False)
    rows: Tensor = field(init=False)
    class_delta: Tensor | None = field(init=False, default=None)
    rounds: int = field(init=False, default=0)

    def __post_init__(self) -> None:
        settings, data = self.settings, self.data
        self.surrogate = build(
            settings.surrogate, data.classes, data.size, seed=settings.seed, purpose="surrogate", device=data.device
        )
        self.stream = generator(settings.seed, "protect", device=data.device)
        self.labels = self.rows = data.labels
        shape = (data.classes, data.size, data.size, 3)
        start = torch.rand(shape, generator=self.stream, device=data.device)
        self.delta = (2 * start - 1) * settings.epsilon
        if self.group.rank:  # all ranks start from the same noise; then each sees its images in an order of its own
            self.stream = generator(settings.seed, "protect", self.group.rank, device=data.device)

    def run(self, rounds: int, *, teacher: Classifier | None = None, progress: Progress = SILENT) -> None:
        """Optimise for `rounds` more passes.

        Args:
            rounds: passes over the training images.
            teacher: a network that learnt from the noise so far; the surrogate goes on from its weights, so that
                the noise is optimised against what it learnt.
            progress: one part for each pass.
        """
        if teacher is not None:
            self.surrogate.load_state_dict(teacher.state_dict())
        each, epoch = shared_batches(len(self.data), Recipe().batch_size, self.group)
        trainer = Trainer(self.surrogate, Recipe(), rounds * epoch, self.group)
        plan = batches(len(self.data), self.data.size, self.stream, self.data.device, batch_size=each)
        noisy = teacher is not None
        for _ in range(rounds):
            if self.settings.mode == "sample-wise" and self.rounds >= self.settings.class_rounds:
                self._part_ways()
            right = torch.zeros((), dtype=torch.int64, device=self.data.device)
            for (index, crop), _step in zip(plan, range(epoch), strict=False):
                right += self._step(trainer, index, crop, noisy)
            self.rounds += 1
            counts = self.group.gather((int(right), len(self.data)))
            share = sum(found for found, _ in counts) / sum(images for _, images in counts)
            noisy = noisy or share > NOISE_STARTS_AT
            progress.advance(note=f"surrogate {share:.0%} on protected images")
        average_statistics(self.surrogate, self.group)

    @property
    def individual(self) -> bool:
        """Whether every image has a pattern of its own by now."""
        return self.class_delta is not None

    def _part_ways(self) -> None:
        """From here on each image changes its own copy of its class's pattern."""
        if not self.individual:
            self.class_delta = self.delta
            self.delta = self.delta[self.labels]
            self.rows = torch.arange(len(self.data), device=self.data.device)

    def _step(self, trainer: Trainer, index: Tensor, crop: Crop, noisy: bool) -> Tensor:
        settings = self.settings
        labels, rows = self.labels[index], self.rows[index]
        clean = crop.apply(self.data.frames(self._seen(index))).float()
        sigma = settings.weight_noise
        # Antithetic pairs: the gradients' change with the noise cancels, which left 0.64-0.80 of the variance of two
        # independent draws in the weights' gradient and 0.72-0.97 in the images' (resnet8 on a CIFAR-10 release).
        deviations = [-sigma if draw % 2 else sigma for draw in range(settings.draws)] if noisy and sigma else []
        visits = settings.inner_steps if self.individual else 1
        for _ in range(visits):
            inputs = (clean + crop.apply(self.delta[rows])).clamp_(0, 255).div_(255).requires_grad_()
            right = trainer.step(inputs, labels, deviations=deviations, stream=self.stream)
            assert inputs.grad is not None
            self._descend(crop.adjoint(fine(inputs.grad)).sign_(), rows)
        trainer.position -= visits - 1
        return right

    def _seen(self, index: Tensor) -> Tensor:
        """The images that stand for these ones: themselves, or each other."""
        if self.individual or self.rounds >= self.settings.shuffled * self.settings.class_rounds:
            return index
        return index[torch.randperm(len(index), generator=self.stream, device=index.device)]

    def _descend(self, signs: Tensor, rows: Tensor) -> None:
        settings = self.settings
        if not self.individual:
            # A product with the one-hot labels: the mean over each class, in a fixed order of summation.
            members = functional.one_hot(rows, len(self.delta)).T.float()
            signs, count = (members @ signs.flatten(1)).view(self.delta.shape), members.sum(1)
            self.group.add_up([signs, count])
            signs /= count.clamp_(min=1).view(-1, 1, 1, 1)
            self.delta = (self.delta - settings.step_size * signs).clamp_(-settings.epsilon, settings.epsilon)
        else:
            moved = self.delta[rows] - settings.step_size * signs
            self.delta[rows] = moved.clamp_(-settings.epsilon, settings.epsilon)

    def noise_for(self, unseen: Labelled, steps: int = 6) -> Tensor:
        """Noise for images that the optimisation must not see, from the finished surrogate.

        Class-wise it is the class's pattern; sample-wise the error-minimising steps are taken on these images, from the
        class's pattern on, with the surrogate's weights left alone.

        Args:
            unseen: the holdout.
            steps: perturbation steps for each image, one level each.

        Returns:
            (classes or N, H, W, 3) int8 levels.
        """
        if self.class_delta is None:
            return self.levels()
        limit = self.settings.epsilon
        self.surrogate.eval()
        noise = []
        for index in torch.arange(len(unseen), device=unseen.device).split(256):
            frames, labels = unseen.frames(index), unseen.labels[index]
            delta = self.class_delta[labels]
            for _ in range(steps):
                crop = draw_crops(len(index), unseen.size, self.stream, unseen.device)
                shown = crop.apply(frames).float() + crop.apply(delta)
                inputs = shown.clamp_(0, 255).div_(255).requires_grad_()
                loss = functional.cross_entropy(self.surrogate(inputs), labels)
                (gradient,) = torch.autograd.grad(loss, inputs)
                delta = (delta - crop.adjoint(fine(gradient)).sign_()).clamp_(-limit, limit)
            noise.append(delta.round().to(torch.int8))
        return torch.cat(noise)

    def levels(self) -> Tensor:
        """The noise on the 8-bit grid: (K, H, W, 3) int8."""
        return self.delta.round().to(torch.int8)

    def protected(self) -> Protected:
        """The training images with their noise."""
        return Protected(self.data, self.levels(), self.rows)
