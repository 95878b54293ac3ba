"""Training with the field's stronger augmentations, which blur what a shortcut looks like.

Cutout, mixup and cutmix do little against most unlearnable examples in the literature (APBench), but one-pixel
shortcuts fall to them. Colour does much: noise of 8/255 has to survive factors between a half and one and a half.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torchvision.transforms import v2

from pueprotect.audit.attacks.base import Target, register
from pueprotect.audit.attacks.standard import Variation
from pueprotect.learning.augment import Grouped, colour, cutout, lent_stream
from pueprotect.learning.training import Prepare
from pueprotect.runtime import generator


def mixed(mixer: type[v2.MixUp] | type[v2.CutMix], purpose: str) -> Callable[[Target], Prepare]:
    """One share for each batch, drawn uniformly; each image meets the next one of its shuffled batch."""

    def prepare(target: Target) -> Prepare:
        mix, own = mixer(num_classes=target.released.classes), generator(target.seed, purpose)

        def mixture(inputs: Tensor, labels: Tensor, _stream: torch.Generator) -> tuple[Tensor, Tensor]:
            with lent_stream(own):
                inputs, shares = mix(inputs, labels)
            return inputs, shares

        return mixture

    return prepare


for _attack in (
    Variation(
        "cutout",
        "trains with a square of half the side blacked out in each image",
        "DeVries and Taylor, arXiv 1708.04552; as an attack in APBench (Qin et al., 2023)",
        transform=lambda _: cutout,
    ),
    Variation(
        "mixup",
        "trains on weighted means of two images and of their labels",
        "Zhang et al., ICLR 2018; as an attack in APBench (Qin et al., 2023)",
        prepare=mixed(v2.MixUp, "mixup"),
    ),
    Variation(
        "cutmix",
        "trains on images with a rectangle of another image, labels shared by area",
        "Yun et al., ICCV 2019; as an attack in APBench (Qin et al., 2023)",
        prepare=mixed(v2.CutMix, "cutmix"),
    ),
    Variation(
        "randaugment",
        "trains with two random operations (rotation, shear, colour, contrast, ...) for every eight images",
        "Cubuk et al., NeurIPS 2020, torchvision's operations",
        transform=lambda target: Grouped(v2.RandAugment(num_ops=2, magnitude=9), generator(target.seed, "randaugment")),
    ),
    Variation(
        "colour",
        "trains with strong colour jitter and random grayscale for each image",
        "grayscale: Liu et al., ICML 2023; the strong mixture: Dang et al., arXiv 2306.02064",
        transform=lambda _: colour,
    ),
):
    register(_attack)
