"""Trains and evaluates networks on images that are resident on the device, without host synchronisation in the loop.

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
Sigma = list[Tensor] | float  # deviation of weight noise: one number, or a tensor for each parameter


@dataclass(frozen=True, kw_only=True)
class Schedule:
    """How a network is trained: SGD with a short warm-up, then a cosine to zero."""

    epochs: float = 15
    batch_size: int = 64
    lr: float | None = None  # at the peak; None takes the architecture's
    weight_decay: float = 1e-3
    clip: float = 5.0  # largest gradient norm
    warmup: float = 0.2  # share of the steps in which the rate rises from a tenth of its peak
    augment: bool = True  # random crop and flip, see `augment.draw_crops`

    def steps(self, images: int) -> int:
        """Number of optimiser steps on so many images."""
        return max(1, round(self.epochs * steps_per_epoch(images, self.batch_size)))


def steps_per_epoch(images: int, batch_size: int) -> int:
    """Steps of one pass; the last, smaller batch counts."""
    return math.ceil(images / batch_size)


def shared_batches(images: int, batch_size: int, group: Group) -> tuple[int, int]:
    """How ranks share batches: (images of this rank in each step, steps of one pass over the images of all ranks).

    `images` counts those of this rank; `batch_size` is that of all ranks together. A batch is split evenly, and a
    remainder is left out.
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


def autocast(device: torch.device) -> torch.autocast:
    """The precision of forward passes in training: bfloat16 where the device multiplies it in hardware."""
    return torch.autocast(device.type, torch.bfloat16, enabled=native_bf16(str(device)))


class Trainer:
    """Trains one model in place, one optimiser step at a time, over the `total_steps` of a schedule.

    The ranks of `group` hold the same weights and step together, each on its share of the batch. Gradients are
    averaged; BatchNorm uses each rank's share alone.
    """

    def __init__(self, model: Classifier, schedule: Schedule, total_steps: int, group: Group = ALONE) -> None:
        self.model, self.schedule, self.total_steps, self.group = model, schedule, total_steps, group
        self.autocast = autocast(next(model.parameters()).device)
        self.position = 0
        self.parameters = trainable(model)
        known = ARCHITECTURES[model.arch]
        self.peak_lr = rate = known.lr if schedule.lr is None else schedule.lr
        self.optimizer: torch.optim.Optimizer
        if known.optimizer == "adamw":
            self.optimizer = torch.optim.AdamW(self.parameters, lr=rate, weight_decay=0.05, foreach=True)
        else:
            decay = schedule.weight_decay
            self.optimizer = torch.optim.SGD(
                self.parameters, lr=rate, momentum=0.9, weight_decay=decay, nesterov=True, foreach=True
            )

    def rate(self) -> float:
        """Learning rate of the next step."""
        warm = self.schedule.warmup * self.total_steps
        if self.position < warm:
            return self.peak_lr * (0.1 + 0.9 * self.position / warm)
        along = (self.position - warm) / max(1.0, self.total_steps - warm)
        return self.peak_lr * 0.5 * (1 + math.cos(math.pi * min(1.0, along)))

    def step(
        self, inputs: Tensor, labels: Tensor, *, deviations: Sequence[Sigma] = (), stream: torch.Generator | None = None
    ) -> Tensor:
        """Take one optimiser step; returns the number of correct predictions, an int64 scalar on the device.

        Args:
            inputs: (B, 3, H, W) float in [0, 1]; it gets a gradient if it requires one.
            labels: (B,) int64, or (B, classes) float for mixed images, whose largest share counts as correct.
            deviations: one entry for each draw of Gaussian weight noise. Gradients are averaged over the draws and
                applied to the clean weights. A negative number repeats the draw before it with the other sign
                (antithetic draws).
            stream: the random stream of the weight noise.
        """
        self.model.train()
        self.optimizer.zero_grad(set_to_none=True)
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
            right: Tensor = (logits.detach().argmax(1) == truth).sum()
        self.group.average([parameter.grad for parameter in self.parameters if parameter.grad is not None])
        torch.nn.utils.clip_grad_norm_(self.parameters, self.schedule.clip, foreach=True)
        for group in self.optimizer.param_groups:
            group["lr"] = self.rate()
        self.optimizer.step()
        self.position += 1
        return right


def train(
    model: Classifier,
    data: Labelled,
    schedule: Schedule,
    *,
    seed: int,
    transform: Transform | None = None,
    prepare: Prepare | None = None,
    deviations: Callable[[float], Sigma] | None = None,
    after_step: Callable[[], None] | None = None,
    on_epoch: Callable[[nn.Module], None] | None = None,
    group: Group = ALONE,
    progress: Progress = SILENT,
) -> Classifier:
    """Train `model` in place on `data`, images on the model's device, and return it.

    `transform` changes each float batch in [0, 1] before the step, and `prepare` a batch together with its labels,
    for example into mixtures. `deviations` gives the weight noise of a step as a function of the share of training
    done, in [0, 1). Order, crops, noise and transforms are functions of `seed`. `after_step` is called after each
    optimiser step, for example for a projection, and `on_epoch` with the model after each pass. The ranks of `group`
    train one model, each on its own images, and end with the same weights. `progress` receives one part for each
    step; the caller starts and finishes it.
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
    """Number of correctly classified images, an int64 scalar on the device; non-finite logits count as wrong."""
    model.eval()
    labels, counts, batch = data.labels, [], batch_size or evaluation_batch(data.device, data.size)
    for index in torch.arange(len(data), device=data.device).split(batch):
        logits = model(to_float(data.frames(index).permute(0, 3, 1, 2)))
        counts.append(((logits.argmax(1) == labels[index]) & logits.isfinite().all(1)).sum())
    return torch.stack(counts).sum()


def accuracy(model: nn.Module, data: Labelled) -> float:
    """Share of correctly classified images in [0, 1]."""
    return int(count_correct(model, data)) / len(data)


def default_epochs(images: int) -> float:
    """15 passes from 5,000 images on; smaller sets get more, up to 60, for about as many steps."""
    return float(min(60, max(15, round(75_000 / images))))
