"""Adds Gaussian noise to the weights of a network, and handles its BatchNorm statistics."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from pueprotect.learning.device import at_once
from pueprotect.learning.models import Classifier


def gaussian(parameters: list[Tensor], stream: torch.Generator) -> list[Tensor]:
    """Standard normal noise in the shapes of `parameters`, from one draw of the stream."""
    sizes = [parameter.numel() for parameter in parameters]
    pieces = torch.randn(sum(sizes), generator=stream, device=parameters[0].device).split(sizes)
    return [piece.view(parameter.shape) for piece, parameter in zip(pieces, parameters, strict=True)]


def trainable(model: nn.Module) -> list[Tensor]:
    """The parameters that span the certified space, in the model's own order."""
    return [parameter for parameter in model.parameters() if parameter.requires_grad]


def weights_digest(model: nn.Module) -> str:
    """SHA-256 of the trainable parameters in hex; it identifies the centre of draws."""
    digest = hashlib.sha256()
    for parameter in trainable(model):
        digest.update(parameter.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()


@contextmanager
def noised(parameters: list[Tensor], deviations: list[Tensor] | float, stream: torch.Generator) -> Iterator[None]:
    """Inside the block the leaf tensors `parameters` carry one draw of noise; afterwards they are bit-equal to before.

    `deviations` is the standard deviation: one number, or one broadcastable tensor for each parameter.
    """
    saved = [parameter.detach().clone() for parameter in parameters]
    noise = gaussian(parameters, stream)
    with torch.no_grad():
        torch._foreach_mul_(noise, deviations)
        torch._foreach_add_(parameters, noise)
    try:
        yield
    finally:
        with torch.no_grad():
            torch._foreach_copy_(parameters, saved)


def batch_norms(model: nn.Module) -> list[_BatchNorm]:
    """The model's BatchNorm layers."""
    return [module for module in model.modules() if isinstance(module, _BatchNorm)]


@torch.no_grad()
def reestimate_batch_norm(model: nn.Module, images: Tensor, batch_size: int | None = None) -> None:
    """Set running statistics to the mean and variance over all of `images` (N, 3, H, W) uint8.

    The images pass in batches of nearly equal size, at most `batch_size`: by default 512, fewer above 64 x 64 pixels.
    Pass them in mixed order, because a layer sees its input as the layers before it normalise that batch. The model
    ends in evaluation mode.
    """
    norms = batch_norms(model)
    model.eval()
    if not norms:
        return
    momenta = [norm.momentum for norm in norms]
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = 1.0  # running statistics are those of the last batch
        norm.train()
    batch_size = batch_size or min(512, max(64, at_once(2048, images.shape[-1])))
    parts = images.tensor_split(math.ceil(len(images) / batch_size))
    with _pooled(norms) if len(parts) > 1 else nullcontext():
        for part in parts:
            model(part.float().div_(255))
    for norm, momentum in zip(norms, momenta, strict=True):
        norm.momentum = momentum
        norm.eval()


@contextmanager
def _pooled(norms: list[_BatchNorm]) -> Iterator[None]:
    """At the end of the block running statistics are those over all batches in it, in float64 about the common mean."""
    batches: dict[nn.Module, list[tuple[int, Tensor, Tensor]]] = {norm: [] for norm in norms}

    def record(norm: nn.Module, inputs: tuple[Tensor, ...], _output: Tensor) -> None:
        mean, variance = _running(norm)
        batches[norm].append((inputs[0].numel() // inputs[0].shape[1], mean.double(), variance.double()))

    handles = [norm.register_forward_hook(record) for norm in norms]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()
    for norm, found in batches.items():
        total = sum(values for values, _, _ in found)
        mean = torch.stack([values * own for values, own, _ in found]).sum(0) / total
        squares = [(values - 1) * variance + values * (own - mean) ** 2 for values, own, variance in found]
        for kept, pooled in zip(_running(norm), (mean, torch.stack(squares).sum(0) / (total - 1)), strict=True):
            kept.copy_(pooled)


def _running(norm: nn.Module) -> tuple[Tensor, Tensor]:
    """Running mean and variance of a BatchNorm layer."""
    mean, variance = norm.running_mean, norm.running_var
    assert isinstance(mean, Tensor)
    assert isinstance(variance, Tensor)
    return mean, variance


def clone(model: Classifier) -> dict[str, Tensor]:
    """A copy of all weights and buffers on their own device."""
    return {name: value.detach().clone() for name, value in model.state_dict().items()}


@torch.no_grad()
def distance(parameters: list[Tensor], centre: list[Tensor]) -> float:
    """L2 distance between two weight vectors."""
    squares = [torch.sum((a.double() - b.double()) ** 2) for a, b in zip(parameters, centre, strict=True)]
    return float(torch.stack(squares).sum().sqrt())


@contextmanager
def batch_statistics(model: nn.Module) -> Iterator[None]:
    """Inside the block BatchNorm normalises by the statistics of each batch and records nothing."""
    model.eval()
    norms = batch_norms(model)
    for norm in norms:
        norm.track_running_stats = False
        norm.train()
    try:
        yield
    finally:
        for norm in norms:
            norm.track_running_stats = True
