"""Tiny sets for tests of attacks, and two protections by other hands, written from their papers' description."""

from collections.abc import Callable

import torch

from pueprotect.audit.attacks import Target
from pueprotect.learning.data import ImageSet
from pueprotect.learning.training import Schedule


def image_set(images: torch.Tensor, labels: torch.Tensor, classes: int) -> ImageSet:
    """Float or integer images in 0..255 on the 8-bit grid, channels last in memory."""
    pixels = images.round().clamp(0, 255).to(torch.uint8).contiguous(memory_format=torch.channels_last)
    return ImageSet(pixels, labels, classes)


def stripes(count: int = 64, size: int = 16, seed: int = 0) -> ImageSet:
    """Upright and lying stripes; each image has a phase of its own, so the classes differ in no pixel's mean."""
    stream = torch.Generator().manual_seed(seed)
    labels = torch.arange(count) % 2
    phase = torch.randint(0, 4, (count, 1), generator=stream)
    wave = ((torch.arange(size) + phase) // 2 % 2 * 160.0)[:, None, :].expand(-1, size, -1)
    grain = 60 * torch.rand((count, size, size), generator=stream)
    shown = torch.where(labels.view(-1, 1, 1) == 0, wave, wave.mT) + grain
    return image_set(shown[:, None].expand(-1, 3, -1, -1), labels, 2)


def shades(count: int = 64, size: int = 16, seed: int = 0) -> ImageSet:
    """Dark and bright images with grain: what no filter of textures takes away."""
    stream = torch.Generator().manual_seed(seed)
    labels = torch.arange(count) % 2
    grain = 60 * torch.rand((count, 3, size, size), generator=stream)
    return image_set(30 + 130.0 * labels.view(-1, 1, 1, 1) + grain, labels, 2)


def target(
    arch: str = "resnet8", epochs: float = 5, drawn: Callable[..., ImageSet] = stripes, *, known: bool = False
) -> Target:
    return Target(
        drawn(), arch, Schedule(epochs=epochs, batch_size=16), 0, clean_share=drawn(16, seed=2), etas=(0.1, 0.5),
        originals=drawn() if known else None,
    )  # fmt: skip


def noise(count: int = 64, size: int = 16, classes: int = 2, seed: int = 0) -> ImageSet:
    """Images that hold no class at all."""
    stream = torch.Generator().manual_seed(seed)
    images = 60 + 130 * torch.rand((count, 3, size, size), generator=stream)
    return image_set(images, torch.arange(count) % classes, classes)


def lsp(data: ImageSet, levels: float = 6, patch: int = 8, seed: int = 0) -> ImageSet:
    """Linearly separable noise in blocks (Yu et al., "Availability Attacks Create Shortcuts", KDD 2022).

    One random sign for each channel of each patch and class, plus a little sample-wise noise on the patches, scaled to
    the L2 norm of `levels` in every pixel: linearly separable, and constant within a patch of 8 pixels. On 2,000
    CIFAR-10 photographs and 10 epochs of resnet8 plain training still reached 41.6 %.
    """
    stream = torch.Generator().manual_seed(seed)
    grid = data.size // patch
    centres = torch.randn((data.classes, 3, grid, grid), generator=stream).sign()
    points = centres[data.labels] + 0.1 * torch.randn((len(data), 3, grid, grid), generator=stream)
    points *= levels * points[0].numel() ** 0.5 / points.flatten(1).norm(dim=1).view(-1, 1, 1, 1)
    blocks = points.repeat_interleave(patch, 2).repeat_interleave(patch, 3)
    return image_set(data.images.float() + blocks, data.labels, data.classes)


def one_pixel_shortcut(data: ImageSet) -> ImageSet:
    """One pixel of each class gets one colour at a corner of the cube (Wu et al., ICLR 2023).

    Place and colour are those from which the class's images are farthest for their spread, none used twice. On 2,000
    CIFAR-10 photographs and 10 epochs of resnet8 plain training still reached 40.6 %.
    """
    images, taken = data.images.clone(), set()
    colours = torch.tensor([[r, g, b] for r in (0.0, 1.0) for g in (0.0, 1.0) for b in (0.0, 1.0)])
    for label in range(data.classes):
        members = torch.nonzero(data.labels == label).flatten()
        shown = data.images[members].float() / 255
        away = (shown[:, None] - colours[None, :, :, None, None]).abs().mean(2)  # (n, 8, H, W)
        score = (away.mean(0) / away.std(0).clamp_min(1e-6)).flatten()
        place = next(int(i) for i in score.argsort(descending=True) if int(i) not in taken)
        taken.add(place)
        colour, rest = divmod(place, data.size**2)
        row, column = divmod(rest, data.size)
        images[members, :, row, column] = (255 * colours[colour]).to(torch.uint8)
    return image_set(images, data.labels, data.classes)
