"""Trains with the field's stronger augmentations, which change how a shortcut looks.

Cutout, mixup and cutmix do little against most unlearnable examples in the literature (APBench), but they remove
one-pixel shortcuts. Colour jitter does much: noise of 8/255 has to survive factors between 0.5 and 1.5.
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
    """Mixes each image with the next one of its shuffled batch, in one share for each batch, drawn uniformly."""

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
        "cutout", "blacks out a random square of half the side in each training image",
        "DeVries and Taylor, arXiv 1708.04552; as an attack in APBench (Qin et al., 2023)", transform=lambda _: cutout,
    ),
    Variation(
        "mixup", "trains on weighted averages of two images and of their labels",
        "Zhang et al., ICLR 2018; as an attack in APBench (Qin et al., 2023)", prepare=mixed(v2.MixUp, "mixup"),
    ),
    Variation(
        "cutmix", "pastes a rectangle of another image into each training image and mixes the labels by area",
        "Yun et al., ICCV 2019; as an attack in APBench (Qin et al., 2023)", prepare=mixed(v2.CutMix, "cutmix"),
    ),
    Variation(
        "randaugment", "applies two random operations such as rotation, shear or contrast to every eight images",
        "Cubuk et al., NeurIPS 2020, torchvision's operations",
        transform=lambda target: Grouped(v2.RandAugment(num_ops=2, magnitude=9), generator(target.seed, "randaugment")),
    ),
    Variation(
        "colour", "trains with strong colour jitter and random grayscale for each image",
        "grayscale: Liu et al., ICML 2023; the strong mixture: Dang et al., arXiv 2306.02064",
        transform=lambda _: colour,
    ),
):  # fmt: skip
    register(_attack)
