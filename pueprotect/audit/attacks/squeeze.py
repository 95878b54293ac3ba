"""Image shortcut squeezing: make the images too coarse to carry the noise, then train plainly.

Source: Liu, Zhao and Larson, "Image Shortcuts Squeezing", ICML 2023. Their code and APBench (Qin et al., 2023) squeeze
training images only. A squeeze needs no label, so nothing stops an attacker from squeezing what he classifies too,
and training and test then look alike: here test images get the same squeeze, and the figure on test images as
they are, APBench's protocol, stands beside it. The squeezes are deterministic: they are applied once, to the
resident images.
"""

from __future__ import annotations

import io
from abc import abstractmethod
from collections.abc import Callable
from dataclasses import replace
from typing import ClassVar

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image
from torch import Tensor
from torchvision.transforms.v2 import functional as operations

from pueprotect.audit.attacks.base import Target, register
from pueprotect.audit.attacks.standard import Plain
from pueprotect.learning.data import ImageSet

SOURCE = "Liu et al., Image Shortcut Squeezing, ICML 2023"
CHUNK = 4096  # images squeezed at once


def in_parts(squeeze: Callable[[Tensor], Tensor], images: Tensor) -> Tensor:
    """Filter a few images at a time, so that no float copy of a whole set is made."""
    parts = torch.cat([squeeze(part) for part in images.split(CHUNK)])
    return parts.contiguous(memory_format=torch.channels_last)


class Squeeze(Plain):
    """Plain training on squeezed images; a subclass names the squeeze."""

    source = SOURCE

    def squeeze(self, images: Tensor) -> Tensor:
        """Squeeze (N, 3, H, W) uint8 images."""
        return in_parts(self.squeezed, images)

    @abstractmethod
    def squeezed(self, images: Tensor) -> Tensor:
        """The squeeze of a few images, (N, 3, H, W) uint8."""

    def images(self, target: Target) -> ImageSet:
        """Squeezed once, before training."""
        return replace(target.released, images=self.squeeze(target.released.images))


@register
class Blur(Squeeze):
    """A Gaussian of one pixel; APBench's `gauss` (sigma 0.1) is close to no blur at all."""

    name = "blur"
    about = "blurs all images with a Gaussian of one pixel"

    def squeezed(self, images: Tensor) -> Tensor:
        """5 x 5 Gaussian blur, sigma 1."""
        blurred: Tensor = operations.gaussian_blur(images, kernel_size=[5, 5], sigma=[1.0, 1.0])
        return blurred


@register
class Grayscale(Squeeze):
    """Luma in all three channels."""

    name = "grayscale"
    about = "takes the colour out of all images"

    def squeezed(self, images: Tensor) -> Tensor:
        """ITU-R 601 luma, three times."""
        gray: Tensor = operations.rgb_to_grayscale(images, num_output_channels=3)
        return gray


@register
class BitDepth(Squeeze):
    """Two bits for each channel, as in the source."""

    name = "bit-depth"
    about = "keeps the two highest bits of each channel of all images"

    def squeezed(self, images: Tensor) -> Tensor:
        """The levels 0, 64, 128 and 192."""
        coarse: Tensor = operations.posterize(images, bits=2)
        return coarse


def through_jpeg(frame: npt.NDArray[np.uint8], quality: int) -> npt.NDArray[np.uint8]:
    """One (H, W, 3) uint8 image written as JPEG of this quality, 4:2:0, and read back."""
    file = io.BytesIO()
    Image.fromarray(frame).save(file, "JPEG", quality=quality, subsampling="4:2:0")
    with Image.open(file, formats=("JPEG",)) as image:
        return np.asarray(image)


class _Jpeg(Squeeze):
    quality: ClassVar[int]

    def squeezed(self, images: Tensor) -> Tensor:
        """Through Pillow's codec and back, one file for each image, chroma at half the resolution."""
        frames = images.permute(0, 2, 3, 1).cpu().numpy()
        decoded = torch.from_numpy(np.stack([through_jpeg(frame, self.quality) for frame in frames]))
        return decoded.permute(0, 3, 1, 2).to(images.device)


@register
class Jpeg10(_Jpeg):
    """The source's quality."""

    name = "jpeg-10"
    about = "compresses all images as JPEG of quality 10"
    quality = 10


@register
class Jpeg30(_Jpeg):
    """Keeps more of small images than quality 10."""

    name = "jpeg-30"
    about = "compresses all images as JPEG of quality 30"
    quality = 30
