"""Batched augmentations on the device: random crop and flip, cutout and colour with parameters for each image.

torchvision's transforms draw one set of parameters for a batch, from the global stream: `Grouped` gives every few
images their own, from a stream of their own. Images are stored as uint8, channels last in memory, so one gather
crops, flips and batches at once.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
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


def cutout(images: Tensor, generator: torch.Generator) -> Tensor:
    """Blacken one square of half the side around a random point of each image, cut off at the border.

    Args:
        images: (B, C, H, W) float in [0, 1].
        generator: the random stream, on the same device.

    Returns:
        (B, C, H, W), a copy (DeVries and Taylor 2017; 16 pixels at a side of 32).
    """
    count, _, height, width = images.shape
    rows, columns = (torch.arange(side, device=images.device) for side in (height, width))
    top = torch.randint(0, height, (count, 1), generator=generator, device=images.device) - height // 4
    left = torch.randint(0, width, (count, 1), generator=generator, device=images.device) - width // 4
    inside_rows = (rows >= top) & (rows < top + height // 2)
    inside_columns = (columns >= left) & (columns < left + width // 2)
    hole = inside_rows[:, None, :, None] & inside_columns[:, None, None, :]
    return images.masked_fill(hole, 0.0)


def plasma(count: int, size: int, generator: torch.Generator, device: str, roughness: float = 0.5) -> Tensor:
    """Smooth random fields: octaves of upsampled noise, each finer one `roughness` times weaker.

    Returns:
        (count, 1, size, size) float, each field stretched to [0, 1].
    """
    field = torch.zeros((count, 1, size, size), device=device)
    grid, weight = 2, 1.0
    while grid < size:
        coarse = torch.rand((count, 1, grid, grid), generator=generator, device=device)
        field += weight * functional.interpolate(coarse, (size, size), mode="bilinear", align_corners=True)
        grid, weight = 2 * grid, weight * roughness
    low, high = field.amin((2, 3), keepdim=True), field.amax((2, 3), keepdim=True)
    return (field - low) / (high - low).clamp_min(1e-6)


@contextmanager
def lent_stream(stream: torch.Generator) -> Iterator[None]:
    """Inside the block torch's global CPU generator goes on from `stream`; afterwards it is as before.

    torchvision's transforms know no generator. `stream` is a CPU generator and moves on by what was drawn.
    """
    before = torch.default_generator.get_state()
    torch.default_generator.set_state(stream.get_state())
    try:
        yield
    finally:
        stream.set_state(torch.default_generator.get_state())
        torch.default_generator.set_state(before)


class Grouped:
    """A transform of torchvision with fresh parameters for every few images of a batch.

    Args:
        transform: takes and returns (N, 3, H, W) float in [0, 1].
        stream: a CPU generator, the only source of its randomness.
        group: images that share parameters; one each would take a GPU hundreds of launches for a batch.
    """

    def __init__(self, transform: Callable[[Tensor], Tensor], stream: torch.Generator, group: int = 8) -> None:
        self.transform, self.stream, self.group = transform, stream, group

    def __call__(self, images: Tensor, _stream: torch.Generator | None = None) -> Tensor:
        """(B, 3, H, W) -> the same shape."""
        with lent_stream(self.stream):
            return torch.cat([self.transform(part) for part in images.split(self.group)])
