"""Describes how noise is laid on the files of a folder, and how a file's working copy shows it.

A file of another size than the working size takes the noise value at the centre of each of its pixels
(`images.overlay.lay`), and its working copy is resized back. Both are linear along each axis: one matrix for each side
length describes them. A greyscale file takes one value for all channels.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image
from torch import Tensor

from pueprotect.images.overlay import shares
from pueprotect.learning.augment import separable
from pueprotect.learning.data import ImageSet

LONGEST = 8  # working sizes: a longer side shows the noise as one of this length does


@dataclass(frozen=True)
class Laying:
    """How each of N images shows its noise.

    Attributes:
        grey: (N,) bool, true for images without colours.
        sides: (N, 2) int64, the matrices of the image's height and width.
        matrices: (K, S, S) float: noise along an axis at the working size -> noise in the working copy.
    """

    grey: Tensor
    sides: Tensor
    matrices: Tensor

    @classmethod
    def of(cls, grey: npt.NDArray[np.bool_], sides: npt.NDArray[np.int64], size: int, device: str) -> Laying:
        """The laying on images of these heights and widths (N, 2) in pixels."""
        lengths, which = np.unique(np.minimum(sides, LONGEST * size), return_inverse=True)
        matrices = np.stack([_matrix(int(length), size) for length in lengths])
        return cls(
            torch.from_numpy(grey).to(device), torch.from_numpy(which.reshape(sides.shape)).to(device),
            torch.from_numpy(matrices).to(device),
        )  # fmt: skip

    @cached_property
    def exact(self) -> bool:
        """Whether every image has the working size, so that its working copy shows its noise as it is."""
        size = self.matrices.shape[1]
        return len(self.matrices) == 1 and torch.equal(self.matrices[0].cpu(), torch.eye(size))

    @cached_property
    def some_grey(self) -> bool:
        """Whether any image has no colours."""
        return bool(self.grey.any())

    def part(self, index: Tensor) -> Laying:
        """The laying on some of the images; `index` holds indices, or is a mask."""
        return replace(self, grey=self.grey[index], sides=self.sides[index])

    def seen(self, noise: Tensor, index: Tensor) -> Tensor:
        """Noise (B, S, S, 3) of the images `index` (B,) as their working copies show it."""
        return noise if self.exact else separable(*self._axes(index), noise.to(self.matrices.dtype))

    def adjoint(self, gradients: Tensor, index: Tensor) -> Tensor:
        """The transpose of `seen`; for images without colours, the sum over the channels in each of them."""
        if not self.exact:
            rows, columns = self._axes(index)
            gradients = separable(rows.mT, columns.mT, gradients)
        if self.some_grey:
            grey = self.grey[index].view(-1, 1, 1, 1)
            gradients = torch.where(grey, gradients.sum(3, keepdim=True), gradients)
        return gradients

    def _axes(self, index: Tensor) -> tuple[Tensor, Tensor]:
        sides = self.sides[index]
        return self.matrices[sides[:, 0]], self.matrices[sides[:, 1]]


def _matrix(length: int, size: int) -> npt.NDArray[np.float32]:
    """(S, S): lay noise on a side of `length` pixels and resize it to `size`, as `images.decode.working_copy` does."""
    laid = np.zeros((length, size), dtype=np.float32)
    laid[np.arange(length), shares(size, length)] = 1
    return np.array(Image.fromarray(laid).resize((size, size), Image.Resampling.LANCZOS))


@dataclass(frozen=True)
class Originals:
    """The images of a folder, and how noise is laid on their files.

    Attributes:
        images: working copies of all images.
        held: (N,) bool, true for the images that no training may see.
        laying: of all images.
    """

    images: ImageSet
    held: Tensor
    laying: Laying

    def patterns(self) -> tuple[Tensor, Tensor]:
        """Class-wise noise: the row of each image's pattern (N,) int64, and which rows have no colours (K,) bool.

        A class whose images are in greyscale and in colour has a pattern for each kind, since a greyscale file holds
        only the mean of a pattern's channels.
        """
        labels, classes, grey = self.images.labels, self.images.classes, self.laying.grey
        if bool(grey.all()) or not bool(grey.any()):
            return labels, grey[:1].expand(classes)
        return labels + classes * grey, torch.arange(2 * classes, device=labels.device) >= classes
