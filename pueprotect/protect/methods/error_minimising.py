"""Optimises error-minimising noise: EMN and PUE, one pattern for each class or for each image.

EMN (Huang et al., "Unlearnable Examples", ICLR 2021) solves min_theta min_delta E loss(f_theta(x + delta), y).
PUE (Wang et al., "Provably Unlearnable Data Examples", NDSS 2025) puts Gaussian weight noise into both halves:
min_theta min_delta E_{v ~ N(0, s^2 I)} E loss(f_{theta + v}(x + delta), y).

The papers alternate: some steps on theta, then a pass over the data for delta. Both halves lower the same loss, so here
one backward pass serves both: its weight gradient moves theta and its input gradient moves delta. Each batch is seen
under the attacker's own random crop and flip; the gradient is carried back into the image's frame. A round is one pass
over the training images. Sample-wise noise starts from a class-wise pattern, since noise that is optimised for each
image from the start protects against the surrogate's architecture only (examples/results/trials.md).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from pueprotect.learning.augment import Crop, box_blur, draw_crops
from pueprotect.learning.data import PIECE, Labelled, dealt, split
from pueprotect.learning.device import Machine
from pueprotect.learning.distributed import ALONE, Group
from pueprotect.learning.models import Classifier, build, state_of
from pueprotect.learning.training import Schedule, Trainer, average_statistics, batches, shared_batches
from pueprotect.protect.methods.base import Made, Method, NoiseSettings
from pueprotect.protect.methods.laying import Laying, Originals
from pueprotect.runtime import SILENT, Progress, generator, secret_stream

FINE = 3  # pixels: side of the mean that `fine` removes
NOISE_STARTS_AT = 0.5  # published: weight noise begins once the surrogate's accuracy exceeds one half


def fine(gradients: Tensor) -> Tensor:
    """The part of a gradient (B, C, H, W) that a 3x3 mean does not explain.

    Descent along the whole gradient settles on smooth colour fields tied to their place in the image, from which fresh
    networks still learn. Fine patterns become textures that any convolution finds anywhere in the image.
    """
    return gradients - box_blur(gradients, FINE)


@dataclass
class Optimizer:
    """Joint descent on surrogate and perturbation.

    Several ranks share the work: each holds its part `data` of the training images (never of the holdout) and,
    sample-wise, of the noise. The gradients of the surrogate and the signs for class-wise noise are summed over all
    ranks at each step.

    Attributes:
        data: this rank's training images; `laying` says how noise is laid on their files, None exactly as it is.
        rows: (N,) int64, the pattern of each image; None takes its class.
        grey: (K,) bool, the patterns without colours; None for one pattern with colours for each class.
        start: levels to go on from after `rounds` passes: one pattern for each row, or for each image if `individual`;
            None starts from random noise.
        individual: whether every image has its own pattern.
    """

    data: Labelled
    settings: NoiseSettings
    group: Group = ALONE
    laying: Laying | None = None
    rows: Tensor | None = None
    grey: Tensor | None = None
    start: Tensor | None = None
    rounds: int = 0
    individual: bool = False

    def __post_init__(self) -> None:
        settings, data = self.settings, self.data
        purpose = "protect" if self.start is None else "improve"
        self.surrogate = build(
            settings.surrogate, data.classes, data.size, seed=settings.key, purpose="surrogate", device=data.device
        )
        # Each rank draws its own order of its images.
        self.stream = generator(settings.key, purpose, self.group.rank, device=data.device)
        self.labels = data.labels
        self.pattern = self.labels if self.rows is None else self.rows  # the row of `delta` for each image
        if self.start is None:
            shape = (data.classes if self.grey is None else len(self.grey), data.size, data.size, 3)
            start = secret_stream(settings.key, "start").random(shape, np.float32)  # the same on all ranks
            self.delta = (2 * torch.from_numpy(start).to(data.device) - 1) * settings.epsilon
            if self.grey is not None:
                self.delta[self.grey] = self.delta[self.grey][..., :1]
        else:
            self.delta = self.start.to(data.device).float()
        self.class_delta = self.delta  # stays the class-wise pattern once every image has its own
        if self.individual:
            self.pattern = torch.arange(len(data), device=data.device)

    def run(self, rounds: int, *, teacher: Classifier | None = None, progress: Progress = SILENT) -> None:
        """Optimise for `rounds` more passes over the training images.

        The surrogate continues from the weights of `teacher`, a network that learnt from the current noise, so that the
        noise is optimised against what the teacher learnt.
        """
        if teacher is not None:
            self.surrogate.load_state_dict(teacher.state_dict())
        each, epoch = shared_batches(len(self.data), Schedule().batch_size, self.group)
        trainer = Trainer(self.surrogate, Schedule(), rounds * epoch, self.group)
        plan = batches(len(self.data), self.data.size, self.stream, self.data.device, batch_size=each)
        noisy = teacher is not None
        for _ in range(rounds):
            class_wise = self.settings.mode == "class-wise" or self.rounds < self.settings.class_rounds
            if not class_wise and not self.individual:  # each image continues with its own copy of the class's pattern
                self.class_delta, self.delta, self.individual = self.delta, self.delta[self.pattern], True
                self.pattern = torch.arange(len(self.data), device=self.data.device)
            right = torch.zeros((), dtype=torch.int64, device=self.data.device)
            for (index, crop), _step in zip(plan, range(epoch), strict=False):
                right += self._step(trainer, index, crop, noisy)
            self.rounds += 1
            counts = self.group.gather((int(right), len(self.data)))
            share = sum(found for found, _ in counts) / sum(images for _, images in counts)
            noisy = noisy or share > NOISE_STARTS_AT
            progress.advance(note=f"surrogate {share:.0%} on protected images")
        average_statistics(self.surrogate, self.group)

    def _step(self, trainer: Trainer, index: Tensor, crop: Crop, noisy: bool) -> Tensor:
        settings, labels, rows = self.settings, self.labels[index], self.pattern[index]
        clean = crop.apply(self.data.frames(self._seen(index))).float()
        sigma = settings.sigma
        # Antithetic pairs: the gradients' change with the noise cancels, which lowers their variance.
        deviations = [-sigma if draw % 2 else sigma for draw in range(settings.draws)] if noisy and sigma else []
        visits = settings.inner_steps if self.individual else 1
        for _ in range(visits):
            laid = self.delta[rows] if self.laying is None else self.laying.seen(self.delta[rows], index)
            inputs = (clean + crop.apply(laid)).clamp_(0, 255).div_(255).requires_grad_()
            right = trainer.step(inputs, labels, deviations=deviations, stream=self.stream)
            assert inputs.grad is not None
            gradient = crop.adjoint(fine(inputs.grad))
            if self.laying is not None:
                gradient = self.laying.adjoint(gradient, index)
            self._descend(gradient.sign_(), rows)
        trainer.position -= visits - 1
        return right

    def _seen(self, index: Tensor) -> Tensor:
        """The images shown in a batch: its own, or in shuffled rounds the same ones exchanged among each other."""
        if self.individual or self.rounds >= self.settings.shuffled * self.settings.class_rounds:
            return index
        return index[torch.randperm(len(index), generator=self.stream, device=index.device)]

    def _descend(self, signs: Tensor, rows: Tensor) -> None:
        step, limit = self.settings.step_size, self.settings.epsilon
        if self.individual:
            self.delta[rows] = (self.delta[rows] - step * signs).clamp_(-limit, limit)
            return
        # A product with the one-hot labels: the mean over each class, in a fixed order of summation.
        members = functional.one_hot(rows, len(self.delta)).T.float()
        signs, count = (members @ signs.flatten(1)).view(self.delta.shape), members.sum(1)
        self.group.add_up([signs, count])
        signs /= count.clamp_(min=1).view(-1, 1, 1, 1)
        self.delta = (self.delta - step * signs).clamp_(-limit, limit)

    def noise_for(self, unseen: Labelled, laying: Laying, start: Tensor, steps: int = 6) -> Tensor:
        """Noise of their own for images that the optimisation must not see, from the finished surrogate.

        `steps` error-minimising steps of one level go on from `start` (N, H, W, 3); the surrogate's weights do not
        change.

        Returns:
            (N, H, W, 3) int8 levels.
        """
        limit = self.settings.epsilon
        self.surrogate.eval()
        noise = []
        for index in torch.arange(len(unseen), device=unseen.device).split(256):
            frames, labels = unseen.frames(index), unseen.labels[index]
            delta = start[index]
            for _ in range(steps):
                crop = draw_crops(len(index), unseen.size, self.stream, unseen.device)
                shown = crop.apply(frames).float() + crop.apply(laying.seen(delta, index))
                inputs = shown.clamp_(0, 255).div_(255).requires_grad_()
                loss = functional.cross_entropy(self.surrogate(inputs), labels)
                (gradient,) = torch.autograd.grad(loss, inputs)
                signs = laying.adjoint(crop.adjoint(fine(gradient)), index).sign_()
                delta = (delta - signs).clamp_(-limit, limit)
            noise.append(delta.round().to(torch.int8))
        return torch.cat(noise)

    def levels(self) -> Tensor:
        """The noise on the 8-bit grid: (patterns or N, H, W, 3) int8."""
        return self.delta.round().to(torch.int8)


class PUE(Method):
    """Noise optimised under Gaussian weight noise."""

    name = "pue"
    about = "minimises the training error under Gaussian weight noise"
    source = "Wang et al., Provably Unlearnable Data Examples, NDSS 2025"
    dials = frozenset({"rounds"})
    weight_noise = True

    def make(self, originals: Originals, settings: NoiseSettings, machine: Machine) -> Made:
        """Optimise with the images that are not held out; sample-wise, the held-out ones get noise at the end."""
        machine.group.from_leader(("make", settings))
        optimizer = self._optimizer(originals, settings, machine)
        return _optimised(optimizer, originals, "optimise noise", settings.rounds, None, machine)

    def improve(
        self, made: Made, originals: Originals, settings: NoiseSettings, teacher: Classifier, rounds: int,
        machine: Machine,
    ) -> Made | None:  # fmt: skip
        """Continue from the teacher's weights."""
        state = state_of(teacher) if machine.group.size > 1 else None
        machine.group.from_leader(("improve", settings, rounds, state))
        optimizer = self._optimizer(originals, settings, machine, made)
        return _optimised(optimizer, originals, "optimise further", rounds, made, machine, teacher)

    def assist(self, task: Any, machine: Machine) -> None:
        """Do this rank's share of the optimisation."""
        match task:
            case ("make", NoiseSettings() as settings):
                optimizer = self._optimizer(None, settings, machine)
                optimizer.run(settings.rounds)
            case ("improve", NoiseSettings() as settings, rounds, state):
                optimizer = self._optimizer(None, settings, machine)
                optimizer.surrogate.load_state_dict(state)
                optimizer.run(rounds, teacher=optimizer.surrogate)
        if optimizer.individual:
            machine.group.collect(optimizer.levels())

    def _optimizer(
        self, originals: Originals | None, settings: NoiseSettings, machine: Machine, before: Made | None = None
    ) -> Optimizer:
        """The optimiser of this rank's part of the training images; only rank 0 passes originals and earlier noise."""
        used = settings if self.weight_noise else replace(settings, sigma=0.0)
        group, device = machine.group, machine.device.name
        if originals is None:
            part = dealt(None, group, device)
            grey, matrices, start, rounds, own = group.from_leader(None)
            rows, bare, sides = (group.deal(None, device) for _ in range(3))
            start = group.deal(None, device) if own else start
            laying = Laying(bare, sides, matrices.to(device))
            return Optimizer(part, used, group, laying, rows, grey.to(device), start, rounds, own)
        shown, laying = split(originals.images, originals.held)[1], originals.laying.part(~originals.held)
        part, (rows, grey) = dealt(shown, group, device), originals.patterns()
        rows, start, own, rounds = rows[~originals.held], None, False, 0
        if before is not None:
            own, rounds = settings.mode == "sample-wise", before.rounds
            start = torch.from_numpy(before.noise).to(device)
            start = start[~originals.held] if own else start
        group.from_leader((grey.cpu(), laying.matrices.cpu(), None if own else start, rounds, own))
        if group.size > 1:
            rows, bare, sides = (group.deal([values], device) for values in (rows, laying.grey, laying.sides))
            laying = replace(laying, grey=bare, sides=sides)
            start = group.deal(start.split(PIECE), device) if own and start is not None else start
        return Optimizer(part, used, group, laying, rows, grey, start, rounds, own)


def _optimised(
    optimizer: Optimizer, originals: Originals, label: str, rounds: int, before: Made | None, machine: Machine,
    teacher: Classifier | None = None,
) -> Made:  # fmt: skip
    """Run the optimiser, and put the noise of all images together."""
    machine.progress.start(label, rounds)
    optimizer.run(rounds, teacher=teacher, progress=machine.progress)
    machine.progress.finish()
    rows, noise = originals.patterns()[0], optimizer.levels()
    if optimizer.individual:
        noise, held = machine.group.collect(noise), originals.held
        whole = torch.empty((len(held), *noise.shape[1:]), dtype=torch.int8, device=noise.device)
        start = optimizer.class_delta[rows[held]]
        if before is not None:
            start = torch.from_numpy(before.noise).to(held.device)[held].float()
        whole[~held] = noise
        whole[held] = optimizer.noise_for(split(originals.images, held)[0], originals.laying.part(held), start)
        rows, noise = torch.arange(len(held)), whole
    return Made(noise.cpu().numpy(), rows.cpu().numpy(), optimizer.surrogate, optimizer.rounds)


class EMN(PUE):
    """Noise optimised without weight noise."""

    name = "emn"
    about = "minimises the training error, without weight noise"
    source = "Huang et al., Unlearnable Examples, ICLR 2021"
    weight_noise = False
