"""Adds Gaussian noise to the weights of a network, and handles its BatchNorm statistics."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

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
def reestimate_batch_norm(model: nn.Module, images: Tensor, batch_size: int = 512) -> None:
    """Set running statistics to those of `images` (N, 3, H, W) uint8, an average over equal batches.

    The model ends in evaluation mode.
    """
    norms = batch_norms(model)
    model.eval()
    if not norms:
        return
    momenta = [norm.momentum for norm in norms]
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None
        norm.train()
    for batch in images.split(batch_size):
        model(batch.float().div_(255))
    for norm, momentum in zip(norms, momenta, strict=True):
        norm.momentum = momentum
        norm.eval()


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
