"""Fixed filters that all images go through before plain training.

Image shortcut squeezing (Liu, Zhao and Larson, ICML 2023) makes images too coarse to carry the noise. The authors and
APBench (Qin et al., 2023) squeeze training images only. A filter needs no label, so nothing keeps an attacker from
filtering the images to classify too, and training and test then look alike: here test images go through the same
filter, and the figure on test images as they are, APBench's protocol, is recorded as well.

The filters of the second table were chosen against this project's texture code. They are strong enough to destroy the
picture too, so each is measured next to clean images behind the same filter.
"""

from __future__ import annotations

import io

import numpy as np
import numpy.typing as npt
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
    """Gaussian blur of uint8 images, the kernel three deviations wide on each side."""
    side = min(2 * round(3 * sigma) + 1, 2 * int(images.shape[-1]) - 1)
    done: Tensor = operations.gaussian_blur(images, kernel_size=[side, side], sigma=[sigma, sigma])
    return done


def slightly_blurred(images: Tensor) -> Tensor:
    """5 x 5 Gaussian blur, sigma 1; APBench's `gauss` (sigma 0.1) is close to no blur at all."""
    done: Tensor = operations.gaussian_blur(images, kernel_size=[5, 5], sigma=[1.0, 1.0])
    return done


def grayscale(images: Tensor) -> Tensor:
    """ITU-R 601 luma in all three channels."""
    gray: Tensor = operations.rgb_to_grayscale(images, num_output_channels=3)
    return gray


def two_bits(images: Tensor) -> Tensor:
    """The levels 0, 64, 128 and 192, as in the source."""
    coarse: Tensor = operations.posterize(images, bits=2)
    return coarse


def through_jpeg(frame: npt.NDArray[np.uint8], quality: int) -> npt.NDArray[np.uint8]:
    """One (H, W, 3) uint8 image written as JPEG of this quality, 4:2:0, and read back."""
    file = io.BytesIO()
    Image.fromarray(frame).save(file, "JPEG", quality=quality, subsampling="4:2:0")
    with Image.open(file, formats=("JPEG",)) as image:
        return np.asarray(image)


def jpeg(quality: int) -> Filter:
    """Through Pillow's codec and back, one file for each image, chroma at half the resolution."""

    def compressed(images: Tensor) -> Tensor:
        frames = images.permute(0, 2, 3, 1).cpu().numpy()
        decoded = torch.from_numpy(np.stack([through_jpeg(frame, quality) for frame in frames]))
        return decoded.permute(0, 3, 1, 2).to(images.device)

    return compressed


def halved(images: Tensor) -> Tensor:
    """Means of 2 x 2 pixels, enlarged bilinearly to the size that the network takes."""
    small = functional.avg_pool2d(images.float(), 2, ceil_mode=True, count_include_pad=False)
    wide = functional.interpolate(small, size=images.shape[-2:], mode="bilinear")
    return wide.round_().clamp_(0, 255).to(torch.uint8)


def without_blue(images: Tensor) -> Tensor:
    """Red and green as they are: one channel can carry a code that costs the eye little."""
    kept = images.clone()
    kept[:, 2] = 0
    return kept


for _attack in (
    Variation("blur", "blurs all images with a Gaussian of one pixel", SQUEEZING, look=slightly_blurred),
    Variation("grayscale", "takes the colour out of all images", SQUEEZING, look=grayscale),
    Variation("bit-depth", "keeps the two highest bits of each channel of all images", SQUEEZING, look=two_bits),
    Variation("jpeg-10", "compresses all images as JPEG of quality 10", SQUEEZING, look=jpeg(10)),
    Variation("jpeg-30", "compresses all images as JPEG of quality 30", SQUEEZING, look=jpeg(30)),
):
    register(_attack)

for _name, _about, _look in (
    ("blur-2", "blurs all images with a Gaussian of two pixels", lambda images: blurred(images, 2.0)),
    ("half-size", "reduces all images to half their size and enlarges them again", halved),
    ("blue-drop", "blackens the blue channel of all images", without_blue),
):
    register(Variation(_name, _about, ADAPTIVE, cost=TWICE, clean_line=True, look=_look))

register(
    Variation(
        "jpeg-colour",
        "compresses all images as JPEG of quality 10 and trains with strong colour jitter",
        ADAPTIVE,
        cost=TWICE,
        clean_line=True,
        look=jpeg(10),
        transform=lambda _: colour,
    )
)
