"""Training with the field's stronger augmentations, which blur what a shortcut looks like.

Cutout, mixup and cutmix do little against most unlearnable examples in the literature (APBench), but one-pixel
shortcuts fall to them. Colour does much: noise of 8/255 has to survive factors between a half and one and a half.
"""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor
from torchvision.transforms import v2

from pueprotect.audit.attacks.base import Target, register
from pueprotect.audit.attacks.standard import Plain
from pueprotect.learning.augment import Grouped, colour, cutout, lent_stream
from pueprotect.learning.training import Prepare, Transform
from pueprotect.runtime import generator


@register
class Cutout(Plain):
    """A black square of half the side, at its own place in each image."""

    name = "cutout"
    about = "trains with a square of half the side blacked out in each image"
    source = "DeVries and Taylor, arXiv 1708.04552; as an attack in APBench (Qin et al., 2023)"

    def transform(self, target: Target) -> Transform:
        """Cutout with parameters for each image."""
        return cutout


class _Mixed(Plain):
    mixer: ClassVar[type[v2.MixUp] | type[v2.CutMix]]

    def prepare(self, target: Target) -> Prepare:
        """One share for each batch, drawn uniformly; each image meets the next one of its shuffled batch."""
        mix, own = self.mixer(num_classes=target.released.classes), generator(target.seed, self.name)

        def mixed(inputs: Tensor, labels: Tensor, _stream: torch.Generator) -> tuple[Tensor, Tensor]:
            with lent_stream(own):
                inputs, shares = mix(inputs, labels)
            return inputs, shares

        return mixed


@register
class MixUp(_Mixed):
    """Images and labels averaged in pairs."""

    name = "mixup"
    about = "trains on weighted means of two images and of their labels"
    source = "Zhang et al., ICLR 2018; as an attack in APBench (Qin et al., 2023)"
    mixer = v2.MixUp


@register
class CutMix(_Mixed):
    """A rectangle of one image in another, labels by area."""

    name = "cutmix"
    about = "trains on images with a rectangle of another image, labels shared by area"
    source = "Yun et al., ICCV 2019; as an attack in APBench (Qin et al., 2023)"
    mixer = v2.CutMix


@register
class RandAugment(Plain):
    """Two random operations of torchvision's RandAugment, fresh for every eight images."""

    name = "randaugment"
    about = "trains with two random operations (rotation, shear, colour, contrast, ...) for every eight images"
    source = "Cubuk et al., NeurIPS 2020, torchvision's operations"

    def transform(self, target: Target) -> Transform:
        """RandAugment(2, 9)."""
        return Grouped(v2.RandAugment(num_ops=2, magnitude=9), generator(target.seed, self.name))


@register
class Colour(Plain):
    """Brightness, contrast, saturation and channel jitter of a half, and grayscale for three images in ten."""

    name = "colour"
    about = "trains with strong colour jitter and random grayscale for each image"
    source = "grayscale: Liu et al., ICML 2023; the strong mixture: Dang et al., arXiv 2306.02064"

    def transform(self, target: Target) -> Transform:
        """Colour jitter with parameters for each image."""
        return colour
