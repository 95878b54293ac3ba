"""Builds the surrogate networks. Every model takes (N, 3, H, W) float in [0, 1] and normalises it itself.

Networks of torchvision get the usual small-image stem (3x3, stride 1, no pooling) at working sizes up to 64 pixels.
`stages` names each model's parts from shallow to deep, for attacks that treat depths differently; the last stage ends
in the features that are pooled.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from pueprotect.errors import InputError
from pueprotect.learning.device import Device
from pueprotect.runtime import generator

SMALL_STEM_UP_TO = 64


class Classifier(nn.Module):
    """A network with its input normalisation and its named stages.

    Args:
        body: maps normalised (N, 3, H, W) images to (N, classes) logits.
        stages: names of submodules of `body`, shallow to deep. A stage's output is (N, C, h, w) or,
            for transformers, (N, tokens, C).
        arch: its name in `ARCHITECTURES`.

    Attributes:
        prefilter: applied to images first; an attack may put a filter here.
    """

    def __init__(self, body: nn.Module, stages: tuple[str, ...], arch: str) -> None:
        super().__init__()
        self.prefilter: nn.Module = nn.Identity()
        self.body, self.stages, self.arch = body, stages, arch

    def forward(self, images: Tensor) -> Tensor:
        """Logits (N, classes) of images (N, 3, H, W) float in [0, 1]."""
        logits: Tensor = self.body((self.prefilter(images) - 0.5) * 4.0)
        return logits

    def stage_modules(self) -> list[nn.Module]:
        """The modules named by `stages`, shallow to deep."""
        return [self.body.get_submodule(name) for name in self.stages]


class BasicBlock(nn.Module):
    """Two 3x3 convolutions with BatchNorm and a shortcut (He et al., 2016)."""

    def __init__(self, channels_in: int, channels: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels_in, channels, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(channels)
        self.conv2 = nn.Conv2d(channels, channels, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(channels)
        self.shortcut: nn.Module = nn.Identity()
        if stride != 1 or channels_in != channels:
            projection = nn.Conv2d(channels_in, channels, 1, stride, bias=False)
            self.shortcut = nn.Sequential(projection, nn.BatchNorm2d(channels))

    def forward(self, inputs: Tensor) -> Tensor:
        """(N, channels_in, H, W) -> (N, channels, H / stride, W / stride)."""
        hidden = torch.relu_(self.bn1(self.conv1(inputs)))
        return torch.relu_(self.bn2(self.conv2(hidden)) + self.shortcut(inputs))


def _resnet8(classes: int, size: int) -> nn.Module:
    """Three stages of one basic block, widths 16, 32 and 64; small enough for CPUs."""
    channels = 16
    stem = nn.Sequential(nn.Conv2d(3, channels, 3, 1, 1, bias=False), nn.BatchNorm2d(channels), nn.ReLU(inplace=True))
    layers: OrderedDict[str, nn.Module] = OrderedDict(stem=stem)
    if size > SMALL_STEM_UP_TO:
        layers["reduce"] = nn.AvgPool2d(2)
    for number, width in enumerate((16, 32, 64), start=1):
        layers[f"stage{number}"] = BasicBlock(channels, width, 1 if number == 1 else 2)
        channels = width
    layers |= {"pool": nn.AdaptiveAvgPool2d(1), "flatten": nn.Flatten(), "head": nn.Linear(channels, classes)}
    return nn.Sequential(layers)


def _cnn(classes: int, size: int) -> nn.Module:
    """Four plain convolutions without BatchNorm."""

    def conv(channels_in: int, channels: int, stride: int) -> nn.Module:
        layer = nn.Conv2d(channels_in, channels, 3, stride, 1)
        nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")
        nn.init.zeros_(layer.bias)  # type: ignore[arg-type]
        return nn.Sequential(layer, nn.ReLU(inplace=True))

    layers: OrderedDict[str, nn.Module] = OrderedDict(
        stem=conv(3, 32, 1),
        stage1=conv(32, 32, 2 if size > SMALL_STEM_UP_TO else 1),
        stage2=nn.Sequential(nn.MaxPool2d(2), conv(32, 64, 1)),
        stage3=nn.Sequential(nn.MaxPool2d(2), conv(64, 128, 1)),
        pool=nn.AdaptiveAvgPool2d(4),
        flatten=nn.Flatten(),
        head=nn.Linear(128 * 16, classes),
    )
    return nn.Sequential(layers)


def _torchvision(name: str, conv: str, pool: str) -> Callable[[int, int], nn.Module]:
    """A network of torchvision; `conv` and `pool` are replaced by the small-image stem."""

    def make(classes: int, size: int) -> nn.Module:
        import torchvision.models

        net: nn.Module = torchvision.models.get_model(name, weights=None, num_classes=classes)
        if size <= SMALL_STEM_UP_TO:
            net.set_submodule(conv, nn.Conv2d(3, 64, 3, 1, 1, bias=False))
            net.set_submodule(pool, nn.Identity())
        return net

    return make


def _vit_tiny(classes: int, size: int) -> nn.Module:
    """The VisionTransformer of torchvision with 6 layers of width 192."""
    import torchvision.models

    patch = max(4, size // 16)
    net: nn.Module = torchvision.models.VisionTransformer(
        image_size=size, patch_size=patch, num_layers=6, num_heads=3, hidden_dim=192, mlp_dim=768, num_classes=classes
    )
    return net


@dataclass(frozen=True)
class Architecture:
    """How to build and train one kind of network."""

    make: Callable[[int, int], nn.Module]
    stages: tuple[str, ...]
    lr: float = 0.1  # peak for SGD with momentum at batch 128 (`sgd`) or for AdamW (`adamw`)
    optimizer: str = "sgd"
    min_size: int = 8
    multiple_of: int = 1  # working sizes must be divisible by this


_SMALL_STAGES = ("stem", "stage1", "stage2", "stage3")
_RESNET_STAGES = ("relu", "layer1", "layer2", "layer3", "layer4")
_DENSENET_STAGES = ("features.relu0", *(f"features.denseblock{number}" for number in (1, 2, 3, 4)))
_VIT_STAGES = tuple(f"encoder.layers.encoder_layer_{number}" for number in (1, 3, 5))

ARCHITECTURES: dict[str, Architecture] = {
    "resnet8": Architecture(_resnet8, _SMALL_STAGES),
    "cnn": Architecture(_cnn, _SMALL_STAGES, lr=0.02),
    "resnet18": Architecture(_torchvision("resnet18", "conv1", "maxpool"), _RESNET_STAGES),  # as in the papers
    "resnet50": Architecture(_torchvision("resnet50", "conv1", "maxpool"), _RESNET_STAGES),
    "densenet121": Architecture(
        _torchvision("densenet121", "features.conv0", "features.pool0"), _DENSENET_STAGES, min_size=32
    ),
    "vit_tiny": Architecture(_vit_tiny, _VIT_STAGES, lr=5e-4, optimizer="adamw", multiple_of=16),
}


def architecture(arch: str, size: int) -> Architecture:
    """The architecture of a name, checked against the working size.

    Raises:
        InputError: unknown name, or the working size does not fit it.
    """
    if arch not in ARCHITECTURES:
        raise InputError(f"Unknown architecture {arch!r}; known: {', '.join(ARCHITECTURES)}.")
    found = ARCHITECTURES[arch]
    if size < found.min_size or size % found.multiple_of:
        multiple = f" and a multiple of {found.multiple_of}" if found.multiple_of > 1 else ""
        needs = f"at least {found.min_size}{multiple}"
        raise InputError(f"{arch} does not fit a working size of {size} pixels: it needs {needs}; set --size.")
    return found


def build(
    arch: str, classes: int, size: int, *, seed: int | str, purpose: str = "init", device: str = "cpu"
) -> Classifier:
    """A new classifier whose weights depend on (seed, purpose) alone.

    Raises:
        InputError: unknown name, or the working size does not fit it.
    """
    found = architecture(arch, size)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(generator(seed, purpose).initial_seed())
        body = found.make(classes, size)
    model = Classifier(body, found.stages, arch)
    return model.to(device=device, memory_format=torch.channels_last)  # type: ignore[call-overload,no-any-return]


def parameter_count(model: nn.Module) -> int:
    """Number of trainable parameters, the dimension of the certified ball."""
    return sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad)


def choose_surrogate(wanted: str, device: Device) -> tuple[str, str]:
    """Resolve `auto` to an architecture; returns its name and the reason."""
    if wanted != "auto":
        return wanted, "as asked"
    if device.is_cuda:
        return "resnet18", "auto on a GPU: the papers' network"
    return "resnet8", "auto on a CPU: the smallest network to which the noise transfers"


def state_of(model: nn.Module) -> dict[str, Tensor]:
    """A detached contiguous CPU copy of all weights and buffers, for storage."""
    return {name: value.detach().to("cpu", copy=True).contiguous() for name, value in model.state_dict().items()}
