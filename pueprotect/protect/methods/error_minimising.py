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

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from pueprotect.learning.augment import Crop, box_blur, draw_crops
from pueprotect.learning.data import ImageSet, Labelled, Protected, split
from pueprotect.learning.device import Machine
from pueprotect.learning.distributed import ALONE, Group
from pueprotect.learning.models import Classifier, build
from pueprotect.learning.training import Schedule, Trainer, average_statistics, batches, shared_batches
from pueprotect.protect.methods.base import Made, Method, NoiseSettings
from pueprotect.protect.methods.self_check import facts, self_check
from pueprotect.protect.presets import Preset
from pueprotect.release.records import NoiseFacts, SelfCheck
from pueprotect.runtime import SILENT, Progress, generator, secret_stream

FINE = 3  # pixels: side of the mean that `fine` removes
PIECE = 16384  # images in one message between ranks
Task = tuple[NoiseSettings, Preset, int]  # what rank 0 sends to the others; the last is the number of classes
NOISE_STARTS_AT = 0.5  # published: weight noise begins once the surrogate's accuracy exceeds one half


def fine(gradients: Tensor) -> Tensor:
    """The part of a gradient (B, C, H, W) that a 3x3 mean does not explain.

    Descent along the whole gradient settles on smooth colour fields tied to their place in the image, from which fresh
    networks still learn. Fine patterns become textures that any convolution finds anywhere in the image.
    """
    return gradients - box_blur(gradients, FINE)


@dataclass
class Optimizer:
    """Joint descent on surrogate and perturbation; keeps its state, so that more rounds can follow.

    Several ranks share the work: each holds its part `data` of the training images (never of the holdout) and,
    sample-wise, of the noise. The gradients of the surrogate and the signs for class-wise noise are summed over all
    ranks at each step.
    """

    data: Labelled
    settings: NoiseSettings
    group: Group = ALONE

    def __post_init__(self) -> None:
        settings, data = self.settings, self.data
        self.rounds = 0
        self.class_delta: Tensor | None = None  # the class-wise pattern, once every image has its own
        self.surrogate = build(
            settings.surrogate, data.classes, data.size, seed=settings.key, purpose="surrogate", device=data.device
        )
        # Each rank draws its own order of its images.
        self.stream = generator(settings.key, "protect", self.group.rank, device=data.device)
        self.labels = self.rows = data.labels  # `rows` holds the row of `delta` for each image
        shape = (data.classes, data.size, data.size, 3)
        start = secret_stream(settings.key, "start").random(shape, np.float32)  # the same on all ranks
        self.delta = (2 * torch.from_numpy(start).to(data.device) - 1) * settings.epsilon

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
                self.class_delta, self.delta = self.delta, self.delta[self.rows]
                self.rows = torch.arange(len(self.data), device=self.data.device)
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
        """Whether every image now has its own pattern."""
        return self.class_delta is not None

    def _step(self, trainer: Trainer, index: Tensor, crop: Crop, noisy: bool) -> Tensor:
        settings, labels, rows = self.settings, self.labels[index], self.rows[index]
        clean = crop.apply(self.data.frames(self._seen(index))).float()
        sigma = settings.sigma
        # Antithetic pairs: the gradients' change with the noise cancels, which lowers their variance.
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

    def noise_for(self, unseen: Labelled, steps: int = 6) -> Tensor:
        """Noise from the finished surrogate for images that the optimisation must not see.

        Class-wise it is the class's pattern. Sample-wise, `steps` error-minimising steps of one level on these images
        start from the class's pattern; the surrogate's weights do not change.

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
        """The noise on the 8-bit grid: (classes or N, H, W, 3) int8."""
        return self.delta.round().to(torch.int8)

    def protected(self) -> Protected:
        """The training images with their noise."""
        return Protected(self.data, self.levels(), self.rows)


class PUE(Method):
    """Noise optimised under Gaussian weight noise."""

    name = "pue"
    about = "minimises the training error under Gaussian weight noise"
    source = "Wang et al., Provably Unlearnable Data Examples, NDSS 2025"
    dials = frozenset({"rounds"})
    weight_noise = True

    def make(self, images: ImageSet, held: Tensor, settings: NoiseSettings, preset: Preset, machine: Machine) -> Made:
        """Optimise with the images that are not held out; sample-wise, the held-out ones get noise at the end."""
        holdout, shown = split(images, held)
        task = machine.group.from_leader((settings, preset, images.classes))
        optimizer, noise, found = self._share(shown, holdout, task, machine)
        if settings.mode == "sample-wise":
            whole = torch.empty((len(images), *noise.shape[1:]), dtype=torch.int8, device=noise.device)
            whole[~held], whole[held] = noise, optimizer.noise_for(holdout)
            noise = whole
        return Made(noise.cpu().numpy(), optimizer.surrogate, found)

    def assist(self, task: Task, machine: Machine) -> None:
        """Do this rank's share of the optimisation."""
        self._share(None, None, task, machine)

    def _share(
        self, clean: Labelled | None, holdout: Labelled | None, task: Task, machine: Machine
    ) -> tuple[Optimizer, Tensor, NoiseFacts]:
        """Optimise with the images that rank 0 deals out; in the end every rank has the whole noise."""
        settings, preset, classes = task
        used = settings if self.weight_noise else replace(settings, sigma=0.0)
        optimizer = Optimizer(_dealt(clean, classes, machine), used, machine.group)
        checks = _optimise(optimizer, holdout, preset, machine)
        found = facts(settings, optimizer.protected(), optimizer.surrogate, optimizer.rounds, checks, machine)
        noise = machine.group.collect(optimizer.levels()) if optimizer.individual else optimizer.levels()
        return optimizer, noise, found


class EMN(PUE):
    """Noise optimised without weight noise."""

    name = "emn"
    about = "minimises the training error, without weight noise"
    source = "Huang et al., Unlearnable Examples, ICLR 2021"
    weight_noise = False


def _dealt(clean: Labelled | None, classes: int, machine: Machine) -> Labelled:
    """This rank's part of the images that rank 0 holds."""
    group, device = machine.group, machine.device.name
    if group.size == 1:
        assert clean is not None
        return clean
    if clean is None:
        frames, labels = group.deal(None, device), group.deal(None, device)
    else:
        pieces = torch.arange(len(clean), device=device).split(PIECE)
        frames = group.deal((clean.frames(index) for index in pieces), device)
        labels = group.deal(clean.labels.split(PIECE), device)
    return ImageSet(frames.permute(0, 3, 1, 2), labels, classes)


def _optimise(optimizer: Optimizer, holdout: Labelled | None, preset: Preset, machine: Machine) -> list[SelfCheck]:
    """Optimise and check; when a fresh network learns too much, continue from its weights and check again."""

    def run(label: str, rounds: int, teacher: Classifier | None = None) -> tuple[SelfCheck, Classifier]:
        machine.progress.start(label, rounds)
        optimizer.run(rounds, teacher=teacher, progress=machine.progress)
        machine.progress.finish()
        return self_check(
            optimizer.protected(), holdout, optimizer.settings.surrogate, epochs=preset.check_epochs,
            seed=optimizer.settings.seed + optimizer.rounds, machine=machine,
        )  # fmt: skip

    check, network = run("optimise noise", optimizer.settings.rounds)
    if check.passed:
        return [check]
    return [check, run("optimise further", preset.extra_rounds, network)[0]]
