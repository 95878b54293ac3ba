"""Holds labelled images on a device, as they are or seen in another way."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from pueprotect.learning.distributed import Group
from pueprotect.runtime import generator

PIECE = 16384  # images in one message between ranks


class Labelled(Protocol):
    """Labelled images that batches are taken from, however they are stored."""

    @property
    def labels(self) -> Tensor:
        """(N,) int64 in [0, classes)."""

    @property
    def classes(self) -> int:
        """Number of classes."""

    @property
    def size(self) -> int:
        """Height and width in pixels."""

    @property
    def device(self) -> str:
        """The device that holds the images."""

    def __len__(self) -> int: ...

    def frames(self, index: Tensor) -> Tensor:
        """A copy of the chosen images: (B, H, W, 3) uint8."""


@dataclass(frozen=True)
class ImageSet:
    """Images (N, 3, H, W) uint8, channels last in memory, and labels (N,) int64 in [0, classes) on one device."""

    images: Tensor
    labels: Tensor
    classes: int

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def size(self) -> int:
        """Height and width in pixels."""
        return int(self.images.shape[-1])

    @property
    def device(self) -> str:
        """The device that holds the images."""
        return str(self.images.device)

    def frames(self, index: Tensor) -> Tensor:
        """A copy of the chosen images: (B, H, W, 3) uint8."""
        return self.images.permute(0, 2, 3, 1)[index]

    def subset(self, index: Tensor | slice) -> ImageSet:
        """The images chosen by an index, mask or slice, in its order."""
        return ImageSet(self.images[index], self.labels[index], self.classes)

    def drawn(self, count: int, seed: int, purpose: str) -> ImageSet:
        """`count` images drawn without replacement by (seed, purpose), or all if fewer, in random order.

        Folders are read class by class, so the first images of a set are not a sample of it.
        """
        order = torch.randperm(len(self), generator=generator(seed, purpose))
        return self.subset(order[:count].to(self.images.device))


@dataclass(frozen=True)
class View:
    """Another view of the images in `whole`, which answers all that the view does not change."""

    whole: Labelled

    @property
    def labels(self) -> Tensor:
        """(N,) int64 in [0, classes)."""
        return self.whole.labels

    @property
    def classes(self) -> int:
        """Number of classes."""
        return self.whole.classes

    @property
    def size(self) -> int:
        """Height and width in pixels."""
        return self.whole.size

    @property
    def device(self) -> str:
        """The device that holds the images."""
        return self.whole.device

    def __len__(self) -> int:
        return len(self.labels)


@dataclass(frozen=True)
class Part(View):
    """Some images of a set, not copied; `members` (N,) int64 are their indices."""

    members: Tensor

    @property
    def labels(self) -> Tensor:
        """(N,) int64 in [0, classes)."""
        return self.whole.labels[self.members]

    def frames(self, index: Tensor) -> Tensor:
        """A copy of the chosen images: (B, H, W, 3) uint8."""
        return self.whole.frames(self.members[index])


def split(images: ImageSet, held: Tensor) -> tuple[Part, Part]:
    """The held-out images and the others; `held` is (N,) bool."""
    return Part(images, held.nonzero().flatten()), Part(images, (~held).nonzero().flatten())


def dealt(images: Labelled | None, group: Group, device: str) -> Labelled:
    """This rank's part of the images that rank 0 passes; the others pass None."""
    if group.size == 1:
        assert images is not None
        return images
    classes = group.from_leader(None if images is None else images.classes)
    if images is None:
        frames, labels = group.deal(None, device), group.deal(None, device)
    else:
        pieces = torch.arange(len(images), device=device).split(PIECE)
        frames = group.deal((images.frames(index) for index in pieces), device)
        labels = group.deal(images.labels.split(PIECE), device)
    return ImageSet(frames.permute(0, 3, 1, 2), labels, classes)


def to_float(images: Tensor) -> Tensor:
    """Uint8 images 0..255 to float [0, 1]."""
    return images.float().div_(255)


def image_set(pixels: npt.NDArray[np.uint8], labels: npt.NDArray[np.int64], classes: int, device: str) -> ImageSet:
    """Decoded images (N, S, S, 3) uint8 and labels (N,) int64 as a set resident on `device`."""
    tensor = torch.from_numpy(np.ascontiguousarray(pixels)).to(device).permute(0, 3, 1, 2)
    return ImageSet(tensor, torch.from_numpy(labels).to(device), classes)
