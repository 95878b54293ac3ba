"""Passes all images through a fixed filter before plain training.

Image shortcut squeezing (Liu, Zhao and Larson, ICML 2023) makes images too coarse to carry the noise. The authors and
APBench (Qin et al., 2023) squeeze training images only. A filter needs no label, so an attacker can also filter the
images to classify: here test images go through the same filter. The figure on test images as they are, APBench's
protocol, is recorded as well.

The filters with `clean_line` were chosen against this project's texture code. They are strong enough to destroy the
picture too, so each is also measured on clean images behind the same filter.
"""

from __future__ import annotations

import io

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional
from torchvision.transforms.v2 import functional as operations

from pueprotect.audit.attacks.base import Filter, register
from pueprotect.audit.attacks.standard import Variation
from pueprotect.learning.augment import colour

SQUEEZING = "Liu et al., Image Shortcut Squeezing, ICML 2023"
ADAPTIVE = "adaptive attack on this project's texture code, by this project"
TWICE = 2.0  # the cost of an attack that trains on clean images as well


def blurred(images: Tensor, sigma: float) -> Tensor:
    """Gaussian blur of uint8 images; the kernel reaches three deviations to each side."""
    side = min(2 * round(3 * sigma) + 1, 2 * int(images.shape[-1]) - 1)
    done: Tensor = operations.gaussian_blur(images, kernel_size=[side, side], sigma=[sigma, sigma])
    return done


def jpeg(quality: int) -> Filter:
    """Writes each image with Pillow as JPEG of this quality, 4:2:0, and reads it back."""

    def compressed(images: Tensor) -> Tensor:
        decoded = []
        for frame in images.permute(0, 2, 3, 1).cpu().numpy():
            file = io.BytesIO()
            Image.fromarray(frame).save(file, "JPEG", quality=quality, subsampling="4:2:0")
            with Image.open(file, formats=("JPEG",)) as image:
                decoded.append(np.asarray(image))
        return torch.from_numpy(np.stack(decoded)).permute(0, 3, 1, 2).to(images.device)

    return compressed


def halved(images: Tensor) -> Tensor:
    """Means of 2 x 2 pixels, enlarged bilinearly to the size that the network takes."""
    small = functional.avg_pool2d(images.float(), 2, ceil_mode=True, count_include_pad=False)
    wide = functional.interpolate(small, size=images.shape[-2:], mode="bilinear")
    return wide.round_().clamp_(0, 255).to(torch.uint8)


for _name, _about, _look in (
    # The 5 x 5 kernel of the source; APBench's `gauss` (sigma 0.1) is close to no blur at all.
    (
        "blur", "blurs all images with a Gaussian of sigma 1 pixel",
        lambda images: operations.gaussian_blur(images, kernel_size=[5, 5], sigma=[1.0, 1.0]),
    ),
    (
        "grayscale", "converts all images to grayscale",  # ITU-R 601 luma in all three channels
        lambda images: operations.rgb_to_grayscale(images, num_output_channels=3),
    ),
    (
        "bit-depth", "keeps the two highest bits of each channel in all images",  # 0, 64, 128, 192, as in the source
        lambda images: operations.posterize(images, bits=2),
    ),
    ("jpeg-10", "compresses all images as JPEG of quality 10", jpeg(10)),
    ("jpeg-30", "compresses all images as JPEG of quality 30", jpeg(30)),
):  # fmt: skip
    register(Variation(_name, _about, SQUEEZING, look=_look))

for _name, _about, _look in (
    ("blur-2", "blurs all images with a Gaussian of sigma 2 pixels", lambda images: blurred(images, 2.0)),
    ("half-size", "reduces all images to half their size and enlarges them again", halved),
    # A code in blue is hardly visible.
    (
        "blue-drop", "sets the blue channel of all images to zero",
        lambda images: torch.cat([images[:, :2], torch.zeros_like(images[:, 2:])], 1),
    ),
):  # fmt: skip
    register(Variation(_name, _about, ADAPTIVE, cost=TWICE, clean_line=True, look=_look))

register(Variation(
    "jpeg-colour", "compresses all images as JPEG of quality 10 and trains with strong colour jitter", ADAPTIVE,
    cost=TWICE, clean_line=True, look=jpeg(10), transform=lambda _: colour,
))  # fmt: skip
