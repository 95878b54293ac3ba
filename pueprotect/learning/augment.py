"""Augments batches on the device: random crop and flip, cutout and colour, with parameters for each image.

torchvision's transforms draw one set of parameters for a whole batch, from the global stream. `Grouped` draws one for
every few images, from its own stream. Images are stored as uint8, channels last in memory.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor
from torch.nn import functional

RESIZED_ABOVE = 48  # pixels; smaller images are cropped with padding, as is usual for CIFAR-10
SCALE = 0.35, 1.0  # area of a resized crop as a share of the image
RATIO = 3 / 4, 4 / 3  # its width to its height


class Crop(Protocol):
    """How each image of a batch is shown: a linear map of its pixels, and the transpose."""

    def apply(self, frames: Tensor) -> Tensor:
        """(B, H, W, C) images or noise -> (B, C, H, W) as shown, channels last in memory."""

    def adjoint(self, gradients: Tensor) -> Tensor:
        """The transpose of `apply`: (B, C, H, W) -> (B, H, W, C) gradients, zero for pixels that were not shown."""


def draw_crops(count: int, size: int, generator: torch.Generator, device: str, augment: bool = True) -> Crop:
    """One random crop and flip for each of `count` images of side `size`.

    Above `RESIZED_ABOVE` pixels this is the random resized crop of photographs, else the padded crop of small images.
    The generator is on `device`, where the crops are used. Without `augment` every image is shown as it is.
    """
    if augment and size > RESIZED_ABOVE:
        return ResizedCrop.draw(count, size, generator, device)
    return CropFlip.draw(count, size, generator, device, augment)


def crop_padding(size: int) -> int:
    """The padding of the usual random crop: an eighth of the side (4 pixels at 32)."""
    return max(1, size // 8)


@dataclass(frozen=True)
class CropFlip:
    """One padded random crop and horizontal flip per image, as gather coordinates.

    `rows` (B, size, 1) int64 is the row of the image that each output row shows, and `columns` (B, 1, size) likewise;
    flipped images count backwards. Coordinates reach up to `padding` pixels outside the image, which is black there.
    """

    rows: Tensor
    columns: Tensor
    padding: int

    @classmethod
    def draw(cls, count: int, size: int, generator: torch.Generator, device: str, augment: bool = True) -> CropFlip:
        """Draw `count` crops; without `augment` the crop is centred and nothing flips."""
        padding = crop_padding(size)
        if augment:
            tops, lefts = torch.randint(0, 2 * padding + 1, (2, count), generator=generator, device=device) - padding
            flips = torch.rand(count, generator=generator, device=device) < 0.5
        else:
            tops = lefts = torch.zeros(count, dtype=torch.int64, device=device)
            flips = torch.zeros(count, dtype=torch.bool, device=device)
        steps = torch.arange(size, device=device)
        columns = lefts[:, None] + torch.where(flips[:, None], steps.flip(0), steps)
        return cls((tops[:, None] + steps)[:, :, None], columns[:, None, :], padding)

    def apply(self, frames: Tensor) -> Tensor:
        """See `Crop`; the type of `frames` is kept."""
        last = frames.shape[1] - 1
        image = torch.arange(len(frames), device=frames.device)[:, None, None]
        shown = frames[image, self.rows.clamp(0, last), self.columns.clamp(0, last)]
        outside = (self.rows < 0) | (self.rows > last) | (self.columns < 0) | (self.columns > last)
        return shown.masked_fill_(outside[..., None], 0).permute(0, 3, 1, 2)

    def adjoint(self, gradients: Tensor) -> Tensor:
        """See `Crop`."""
        count, channels, height, width = gradients.shape
        margin = self.padding
        framed = gradients.new_zeros((count, height + 2 * margin, width + 2 * margin, channels))
        image = torch.arange(count, device=gradients.device)[:, None, None]
        framed[image, self.rows + margin, self.columns + margin] = gradients.permute(0, 2, 3, 1)
        return framed[:, margin:-margin, margin:-margin]


@dataclass(frozen=True)
class ResizedCrop:
    """One random resized crop and horizontal flip per image, as torchvision's, but with edges between pixels too.

    A crop is bilinear: `rows` and `columns` (B, size, size) float hold the share of each image row and column in each
    of the output; flipped images count backwards. Their transposes carry gradients back.
    """

    rows: Tensor
    columns: Tensor

    @classmethod
    def draw(cls, count: int, size: int, generator: torch.Generator, device: str) -> ResizedCrop:
        """Draw `count` crops: area uniform in `SCALE`, aspect log-uniform in `RATIO`, clipped to the image."""
        area, aspect, down, right, flip = torch.rand((5, count), generator=generator, device=device)
        area = SCALE[0] + (SCALE[1] - SCALE[0]) * area
        ratio = RATIO[0] * (RATIO[1] / RATIO[0]) ** aspect
        height, width = (area / ratio).sqrt().clamp(max=1), (area * ratio).sqrt().clamp(max=1)
        columns = _bilinear(right * (1 - width), width, size)
        columns = torch.where((flip < 0.5)[:, None, None], columns.flip(1), columns)
        return cls(_bilinear(down * (1 - height), height, size), columns)

    def apply(self, frames: Tensor) -> Tensor:
        """See `Crop`; the result is float."""
        return separable(self.rows, self.columns, frames.to(self.rows.dtype)).permute(0, 3, 1, 2)

    def adjoint(self, gradients: Tensor) -> Tensor:
        """See `Crop`."""
        return separable(self.rows.mT, self.columns.mT, gradients.permute(0, 2, 3, 1))


def _bilinear(start: Tensor, extent: Tensor, size: int) -> Tensor:
    """Weights (B, size, size) that stretch [start, start + extent] of an axis of length 1 over `size` pixels."""
    steps = torch.arange(size, device=start.device)
    centres = (start[:, None] + extent[:, None] * (steps + 0.5) / size) * size - 0.5
    return (1 - (centres.clamp(0, size - 1)[:, :, None] - steps).abs()).clamp_(min=0)


def separable(rows: Tensor, columns: Tensor, frames: Tensor) -> Tensor:
    """Apply a matrix (B, size, size) along each axis of (B, H, W, C)."""
    count, height, width, channels = frames.shape
    down = (rows @ frames.reshape(count, height, width * channels)).view(count, height, width, channels)
    across = columns @ down.transpose(1, 2).reshape(count, width, height * channels)
    return across.view(count, width, height, channels).transpose(1, 2).contiguous()


def colour(images: Tensor, generator: torch.Generator, *, strength: float = 0.5, gray: float = 0.3) -> Tensor:
    """Per-image brightness, contrast, saturation and channel jitter, then random grayscale.

    Args:
        images: (B, 3, H, W) float in [0, 1], as is the result.
        generator: the random stream, on the same device.
        strength: factors are from [1 - strength, 1 + strength], those of channels from half that width.
        gray: probability that an image loses its colour.
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


def box_blur(images: Tensor, side: int) -> Tensor:
    """The mean of the `side` x `side` pixels (odd) around each pixel of (B, C, H, W), borders reflected."""
    return functional.avg_pool2d(functional.pad(images, (side // 2,) * 4, mode="reflect"), side, 1)


def blur3(images: Tensor) -> Tensor:
    """A 3x3 box blur."""
    return box_blur(images, 3)


def cutout(images: Tensor, generator: torch.Generator) -> Tensor:
    """Blacken one square of half the side around a random point of each image, cut off at the border.

    Takes (B, C, H, W) float and returns a copy (DeVries and Taylor 2017: 16 pixels at a side of 32). The generator is
    on the same device.
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
    """Smooth random fields (count, 1, size, size) float, each stretched to [0, 1].

    A field is the sum of octaves of upsampled noise, each finer one weaker by the factor `roughness`.
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
    """Inside the block torch's global CPU generator continues `stream`; afterwards it is as before.

    torchvision's transforms accept no generator. `stream` is a CPU generator and advances by what was drawn.
    """
    before = torch.default_generator.get_state()
    torch.default_generator.set_state(stream.get_state())
    try:
        yield
    finally:
        stream.set_state(torch.default_generator.get_state())
        torch.default_generator.set_state(before)


class Grouped:
    """A transform of torchvision, (N, 3, H, W) float in [0, 1], with new parameters for every few images of a batch.

    `stream` is a CPU generator, the only source of randomness. `group` is the number of images that share parameters;
    with one each, a batch would take hundreds of launches on a GPU.
    """

    def __init__(self, transform: Callable[[Tensor], Tensor], stream: torch.Generator, group: int = 8) -> None:
        self.transform, self.stream, self.group = transform, stream, group

    def __call__(self, images: Tensor, _stream: torch.Generator | None = None) -> Tensor:
        """(B, 3, H, W) -> the same shape."""
        with lent_stream(self.stream):
            return torch.cat([self.transform(part) for part in images.split(self.group)])
