"""Batched augmentations on the device: random crop and flip with per-image parameters, and colour.

Images are stored as uint8, channels last in memory, so one gather crops, flips and batches at once.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional


def crop_padding(size: int) -> int:
    """The padding of the usual random crop: an eighth of the side (4 pixels at 32)."""
    return max(1, size // 8)


def pad(images: Tensor, padding: int) -> Tensor:
    """Zero-pad (N, H, W, C) on all four sides."""
    return functional.pad(images, (0, 0, padding, padding, padding, padding))


@dataclass(frozen=True)
class CropFlip:
    """One random crop and horizontal flip per image, as gather coordinates into the padded images.

    Attributes:
        rows: (B, size, 1) int64 row of the padded image that each output row shows.
        columns: (B, 1, size) int64, likewise; flipped images count backwards.
        padding: zeros on each side of the padded images.
    """

    rows: Tensor
    columns: Tensor
    padding: int

    @classmethod
    def draw(cls, count: int, size: int, generator: torch.Generator, device: str, augment: bool = True) -> CropFlip:
        """Draw `count` crops; without `augment` the crop is centred and nothing flips."""
        padding = crop_padding(size)
        if augment:
            tops, lefts = torch.randint(0, 2 * padding + 1, (2, count), generator=generator, device=device)
            flips = torch.rand(count, generator=generator, device=device) < 0.5
        else:
            tops = lefts = torch.full((count,), padding, device=device)
            flips = torch.zeros(count, dtype=torch.bool, device=device)
        steps = torch.arange(size, device=device)
        forward = lefts[:, None] + steps
        backward = lefts[:, None] + steps.flip(0)
        columns = torch.where(flips[:, None], backward, forward)
        return cls(rows=(tops[:, None] + steps)[:, :, None], columns=columns[:, None, :], padding=padding)

    def apply(self, padded: Tensor, index: Tensor) -> Tensor:
        """Crop images: (N, H + 2p, W + 2p, C) and index (B,) -> (B, C, H, W), channels last in memory."""
        return padded[index[:, None, None], self.rows, self.columns].permute(0, 3, 1, 2)

    def adjoint(self, gradients: Tensor) -> Tensor:
        """The transpose of `apply`: (B, C, H, W) -> (B, H, W, C) gradients in the image's own frame.

        Pixels that a crop did not show get zero.
        """
        count, _, height, width = gradients.shape
        framed = gradients.new_zeros((count, height + 2 * self.padding, width + 2 * self.padding, gradients.shape[1]))
        image = torch.arange(count, device=gradients.device)[:, None, None]
        framed[image, self.rows, self.columns] = gradients.permute(0, 2, 3, 1)
        return framed[:, self.padding : -self.padding, self.padding : -self.padding]


def colour(images: Tensor, generator: torch.Generator, *, strength: float = 0.5, gray: float = 0.3) -> Tensor:
    """Per-image brightness, contrast, saturation and channel jitter, then random grayscale.

    Args:
        images: (B, 3, H, W) float in [0, 1].
        generator: the random stream, on the same device.
        strength: factors are drawn from [1 - strength, 1 + strength]; channels mix by half of it.
        gray: probability that an image loses its colour.

    Returns:
        (B, 3, H, W) float in [0, 1].
    """
    count, device = len(images), images.device

    def factors(width: float, *shape: int) -> Tensor:
        return 1 + width * (2 * torch.rand(count, *shape, generator=generator, device=device) - 1)

    luma_weights = images.new_tensor([0.299, 0.587, 0.114]).view(1, 3, 1, 1)
    jittered = images * factors(strength, 1, 1, 1) * factors(strength / 2, 3, 1, 1)
    mean = jittered.mean((1, 2, 3), keepdim=True)
    jittered = mean + (jittered - mean) * factors(strength, 1, 1, 1)
    luma = (jittered * luma_weights).sum(1, keepdim=True)
    jittered = luma + (jittered - luma) * factors(strength, 1, 1, 1)
    to_gray = torch.rand(count, 1, 1, 1, generator=generator, device=device) < gray
    return torch.where(to_gray, luma, jittered).clamp(0, 1)


def blur3(images: Tensor) -> Tensor:
    """A 3x3 box blur with reflected borders: (B, C, H, W) -> the same shape."""
    return functional.avg_pool2d(functional.pad(images, (1, 1, 1, 1), mode="reflect"), 3, 1)
