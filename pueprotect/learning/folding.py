"""Folds BatchNorm into the convolution before it: the same classifier with one pass less over the activations."""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn


class Folded:
    """A second form of `source` without the BatchNorm layers that directly follow a convolution.

    All other tensors are shared with `source`: writing its parameters in place changes both. After a change of the
    folded convolutions or of their BatchNorm layers, call `refresh`. `source` is in evaluation mode; `example`,
    (1, 3, H, W) float in [0, 1], shows which layers follow each other.
    """

    def __init__(self, source: nn.Module, example: Tensor) -> None:
        pairs = _pairs(source, example)
        own = {id(tensor) for conv, _ in pairs.values() for tensor in conv.parameters()}
        tensors = [*source.parameters(), *source.buffers()]
        self.network = copy.deepcopy(source, {id(tensor): tensor for tensor in tensors if id(tensor) not in own})
        self.layers: list[tuple[nn.Conv2d, nn.BatchNorm2d, nn.Conv2d]] = []
        for (conv_name, norm_name), (conv, norm) in pairs.items():
            target = self.network.get_submodule(conv_name)
            assert isinstance(target, nn.Conv2d)
            if target.bias is None:
                target.bias = nn.Parameter(torch.zeros_like(conv.weight[:, 0, 0, 0]))
            self.network.set_submodule(norm_name, nn.Identity())
            self.layers.append((conv, norm, target))

    @torch.no_grad()
    def refresh(self) -> None:
        """Take over the source's present convolutions and BatchNorm layers."""
        for conv, norm, target in self.layers:
            mean, variance, bias = norm.running_mean, norm.running_var, target.bias
            assert mean is not None
            assert variance is not None
            assert bias is not None
            scale = norm.weight * (variance + norm.eps).rsqrt()
            target.weight.copy_(conv.weight * scale[:, None, None, None])
            bias.copy_(norm.bias - (mean if conv.bias is None else mean - conv.bias) * scale)


def _pairs(source: nn.Module, example: Tensor) -> dict[tuple[str, str], tuple[nn.Conv2d, nn.BatchNorm2d]]:
    """Each convolution whose output is the input of a BatchNorm layer, with that layer, by their names."""
    names = {module: name for name, module in source.named_modules()}
    outputs: list[tuple[Tensor, nn.Conv2d]] = []
    found: dict[tuple[str, str], tuple[nn.Conv2d, nn.BatchNorm2d]] = {}

    def leaves(conv: nn.Module, _inputs: object, output: Tensor) -> None:
        assert isinstance(conv, nn.Conv2d)
        outputs.append((output, conv))

    def enters(norm: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        assert isinstance(norm, nn.BatchNorm2d)
        found.update({(names[conv], names[norm]): (conv, norm) for output, conv in outputs if output is inputs[0]})

    handles = [m.register_forward_hook(leaves) for m in source.modules() if isinstance(m, nn.Conv2d)]
    handles += [m.register_forward_pre_hook(enters) for m in source.modules() if isinstance(m, nn.BatchNorm2d)]
    with torch.no_grad():
        source(example)
    for handle in handles:
        handle.remove()
    return found
