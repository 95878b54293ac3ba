"""The one train/evaluate loop: data resident on the device, augmentations batched, no host synchronisation inside.

Where the device multiplies bfloat16 in hardware, networks are trained in it (autocast; weights and updates float32).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import nullcontext
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from pueprotect.learning.augment import Crop, draw_crops
from pueprotect.learning.data import Labelled, to_float
from pueprotect.learning.device import evaluation_batch, native_bf16
from pueprotect.learning.distributed import ALONE, Group
from pueprotect.learning.models import ARCHITECTURES, Classifier
from pueprotect.learning.weights import noised, trainable
from pueprotect.runtime import SILENT, Progress, generator

Transform = Callable[[Tensor, torch.Generator], Tensor]
Prepare = Callable[[Tensor, Tensor, torch.Generator], tuple[Tensor, Tensor]]


@dataclass(frozen=True, kw_only=True)
class Schedule:
    """How a network is trained; the papers' SGD with a short warm-up and a cosine to zero.

    Attributes:
        epochs: passes over the data.
        batch_size: images for each step.
        lr: peak learning rate; None takes the architecture's.
        weight_decay: L2 penalty.
        clip: largest gradient norm.
        warmup: share of the steps in which the rate rises from a tenth of its peak.
        augment: random crop and flip, see `augment.draw_crops`.
    """

    epochs: float = 15
    batch_size: int = 64
    lr: float | None = None
    weight_decay: float = 1e-3
    clip: float = 5.0
    warmup: float = 0.2
    augment: bool = True

    def steps(self, images: int) -> int:
        """Number of optimiser steps on a set of this many images."""
        return max(1, round(self.epochs * steps_per_epoch(images, self.batch_size)))


def steps_per_epoch(images: int, batch_size: int) -> int:
    """Steps of one pass; the last, smaller batch counts."""
    return math.ceil(images / batch_size)


def shared_batches(images: int, batch_size: int, group: Group) -> tuple[int, int]:
    """How ranks share batches: (images of this rank in each step, steps of one pass over everyone's images).

    Args:
        images: how many this rank holds.
        batch_size: of all ranks together.
        group: the ranks; a batch is split evenly, what does not split is left out.
    """
    each = max(1, batch_size // group.size)
    return each, steps_per_epoch(sum(group.gather(images)), each * group.size)


def batches(
    images: int, size: int, stream: torch.Generator, device: str, *, batch_size: int = 64, augment: bool = True
) -> Iterator[tuple[Tensor, Crop]]:
    """Endless shuffled passes over `images` indices: (index (B,) int64, crop) for each step."""
    while True:
        order = torch.randperm(images, generator=stream, device=device)
        for index in order.split(batch_size):
            yield index, draw_crops(len(index), size, stream, device, augment)


class Trainer:
    """One optimiser over one model, one step at a time, with the schedule of a `Schedule`.

    Args:
        model: trained in place.
        schedule: learning rate, schedule, clipping.
        total_steps: length of the schedule.
        group: ranks that hold the same weights and step together, each on its share of the batch; gradients are
            averaged, BatchNorm sees each rank's share alone.
    """

    def __init__(self, model: Classifier, schedule: Schedule, total_steps: int, group: Group = ALONE) -> None:
        self.model = model
        self.group = group
        device = next(model.parameters()).device
        self.autocast = torch.autocast(device.type, torch.bfloat16, enabled=native_bf16(str(device)))
        self.schedule = schedule
        self.total_steps = total_steps
        self.position = 0
        self.parameters = trainable(model)
        known = ARCHITECTURES[model.arch]
        self.peak_lr = known.lr if schedule.lr is None else schedule.lr
        if known.optimizer == "adamw":
            self.optimizer: torch.optim.Optimizer = torch.optim.AdamW(
                self.parameters, lr=self.peak_lr, weight_decay=0.05, foreach=True
            )
        else:
            self.optimizer = torch.optim.SGD(
                self.parameters,
                lr=self.peak_lr,
                momentum=0.9,
                weight_decay=schedule.weight_decay,
                nesterov=True,
                foreach=True,
            )

    def rate(self) -> float:
        """Learning rate of the next step."""
        warm = self.schedule.warmup * self.total_steps
        if self.position < warm:
            return self.peak_lr * (0.1 + 0.9 * self.position / warm)
        along = (self.position - warm) / max(1.0, self.total_steps - warm)
        return self.peak_lr * 0.5 * (1 + math.cos(math.pi * min(1.0, along)))

    def step(
        self,
        inputs: Tensor,
        labels: Tensor,
        *,
        deviations: Sequence[list[Tensor] | float] = (),
        stream: torch.Generator | None = None,
    ) -> Tensor:
        """One optimiser step; returns how many answers were right, as an int64 scalar on the device.

        Args:
            inputs: (B, 3, H, W) float in [0, 1]; when it requires a gradient, it gets one.
            labels: (B,) int64, or (B, classes) float for images that are mixtures; the larger share counts as right.
            deviations: one entry for each draw of Gaussian weight noise; gradients are averaged over the
                draws and applied to the clean weights. A negative number repeats the draw before it with the other
                sign (antithetic draws). Empty: no noise.
            stream: the random stream of the weight noise.
        """
        self.model.train()
        self.optimizer.zero_grad(set_to_none=True)
        right: list[Tensor] = []
        drawn: Tensor | None = None
        truth = labels if labels.dim() == 1 else labels.argmax(1)
        for deviation in deviations or (0.0,):
            quiet = isinstance(deviation, float) and deviation == 0.0
            if not quiet:
                assert stream is not None
                if isinstance(deviation, float) and deviation < 0:
                    assert drawn is not None
                    stream.set_state(drawn)
                drawn = stream.get_state()
            with nullcontext() if quiet else noised(self.parameters, deviation, stream):  # type: ignore[arg-type]
                with self.autocast:
                    logits = self.model(inputs)
                    loss = functional.cross_entropy(logits, labels) / max(1, len(deviations))
                loss.backward()
            right.append((logits.detach().argmax(1) == truth).sum())
        self.group.average([parameter.grad for parameter in self.parameters if parameter.grad is not None])
        torch.nn.utils.clip_grad_norm_(self.parameters, self.schedule.clip, foreach=True)
        for group in self.optimizer.param_groups:
            group["lr"] = self.rate()
        self.optimizer.step()
        self.position += 1
        return right[-1]


def train(
    model: Classifier,
    data: Labelled,
    schedule: Schedule,
    *,
    seed: int,
    transform: Transform | None = None,
    prepare: Prepare | None = None,
    deviations: Callable[[float], list[Tensor] | float] | None = None,
    after_step: Callable[[], None] | None = None,
    on_epoch: Callable[[nn.Module], None] | None = None,
    group: Group = ALONE,
    progress: Progress = SILENT,
) -> Classifier:
    """Train `model` in place on `data` and return it.

    Args:
        model: the network to train.
        data: training images on the model's device.
        schedule: schedule and hyperparameters.
        seed: order, crops, noise and transforms are functions of it.
        transform: applied to each float batch in [0, 1].
        prepare: takes the float batch and its labels and returns what is trained on, such as mixtures of both.
        deviations: weight noise of a step as a function of the share of training done, in [0, 1).
        after_step: called after each optimiser step, such as a projection.
        on_epoch: called with the model after each pass.
        group: ranks that train one model, each on images of its own; the weights are the same on all of them.
        progress: one part for each step; started and finished by the caller.
    """
    stream = generator(seed, "train", group.rank, device=data.device)
    each, epoch = shared_batches(len(data), schedule.batch_size, group)
    total = max(1, round(schedule.epochs * epoch))
    trainer = Trainer(model, schedule, total, group)
    plan = batches(len(data), data.size, stream, data.device, batch_size=each, augment=schedule.augment)
    truth = data.labels
    for step, (index, crop) in zip(range(1, total + 1), plan, strict=False):
        inputs, labels = to_float(crop.apply(data.frames(index))), truth[index]
        if transform is not None:
            inputs = transform(inputs, stream)
        if prepare is not None:
            inputs, labels = prepare(inputs, labels, stream)
        noise = [deviations((step - 1) / total)] if deviations is not None else []
        trainer.step(inputs, labels, deviations=noise, stream=stream)
        if after_step is not None:
            after_step()
        progress.advance()
        if on_epoch is not None and (step % epoch == 0 or step == total):
            on_epoch(model)
    average_statistics(model, group)
    return model


def average_statistics(model: Classifier, group: Group) -> None:
    """Give all ranks the mean of their BatchNorm statistics."""
    group.average([buffer for buffer in model.buffers() if buffer.is_floating_point()])


@torch.no_grad()
def count_correct(model: nn.Module, data: Labelled, batch_size: int | None = None) -> Tensor:
    """Number of rightly classified images as an int64 scalar on the device; non-finite logits are wrong."""
    model.eval()
    labels, counts = data.labels, []
    for index in torch.arange(len(data), device=data.device).split(batch_size or evaluation_batch(data.device)):
        logits = model(to_float(data.frames(index).permute(0, 3, 1, 2)))
        counts.append(((logits.argmax(1) == labels[index]) & logits.isfinite().all(1)).sum())
    return torch.stack(counts).sum()


def accuracy(model: nn.Module, data: Labelled) -> float:
    """Share of rightly classified images in [0, 1]; a count over the whole set, so batch size does not matter."""
    return int(count_correct(model, data)) / len(data)


def default_epochs(images: int) -> float:
    """15 passes from 5,000 images on; small sets get more, up to 60, for about the same number of steps."""
    return float(min(60, max(15, round(75_000 / images))))
