"""What a linear eye finds in the training images, taken out of them before plain training.

Class-wise noise is one pattern for each class: it stands in the class's mean image, and the images average out.
Sandoval-Segura et al. find the shortcut with a linear classifier instead and project its directions away. Both look at
training labels, so test images stay as they are. What is truly linear in clean images is lost as well.
"""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import replace

import torch
from torch import Tensor
from torch.nn import functional

from pueprotect.audit.attacks.base import Target, register
from pueprotect.audit.attacks.standard import Plain
from pueprotect.learning.augment import box_blur
from pueprotect.learning.data import ImageSet
from pueprotect.runtime import generator

CHUNK = 4096
FINE = 5
LINEAR_EPOCHS, LINEAR_BATCH, LINEAR_RATE = 20, 128, 1e-3


def class_means(data: ImageSet) -> Tensor:
    """Mean image of each class: (classes, 3, H, W) float in 0..255; zeros for a class without images."""
    sums = torch.zeros((data.classes, *data.images.shape[1:]), device=data.device)
    for images, labels in zip(data.images.split(CHUNK), data.labels.split(CHUNK), strict=True):
        sums.index_add_(0, labels, images.float())
    return sums / torch.bincount(data.labels, minlength=data.classes).clamp_min(1).view(-1, 1, 1, 1)


def class_patterns(data: ImageSet) -> Tensor:
    """What each class's mean image has beyond the mean of all: (classes, 3, H, W) float, in levels."""
    means = class_means(data)
    return means - means[data.labels.unique()].mean(0)


def fine_patterns(data: ImageSet, side: int = FINE) -> Tensor:
    """The part of `class_patterns` that a mean of `side` x `side` pixels around each does not explain."""
    patterns = class_patterns(data)
    return patterns - box_blur(patterns, side)


def without(data: ImageSet, patterns: Tensor, seed: int) -> ImageSet:
    """The images less their class's pattern (classes, 3, H, W), on the 8-bit grid.

    Rounding up or down is drawn for each pixel: rounding to the nearest level errs alike in all images of a class,
    which would leave a pattern of half a level.
    """
    stream, parts = generator(seed, "without-pattern", device=data.device), []
    for images, labels in zip(data.images.split(CHUNK), data.labels.split(CHUNK), strict=True):
        left = images.float() - patterns[labels]
        left += torch.rand(left.shape, generator=stream, device=data.device)
        parts.append(left.floor_().clamp_(0, 255).to(torch.uint8))
    return replace(data, images=torch.cat(parts).contiguous(memory_format=torch.channels_last))


def linear_directions(data: ImageSet, seed: int) -> tuple[Tensor, Tensor]:
    """An orthonormal basis of what a linear classifier of the pixels reads, and the mean image.

    Args:
        data: the images; each pixel is a feature, centred on its mean.
        seed: order of the batches.

    Returns:
        Basis (3 * H * W, classes) with orthonormal columns and mean (3 * H * W,) in 0..255, float.
    """
    flat = data.images.flatten(1)
    mean = torch.stack([part.float().sum(0) for part in flat.split(CHUNK)]).sum(0) / len(data)
    weight = torch.zeros((flat.shape[1], data.classes), device=flat.device, requires_grad=True)
    bias = torch.zeros(data.classes, device=flat.device, requires_grad=True)
    optimizer = torch.optim.Adam([weight, bias], lr=LINEAR_RATE)
    stream = generator(seed, "linear-directions", device=data.device)
    for _ in range(LINEAR_EPOCHS):
        for index in torch.randperm(len(data), generator=stream, device=flat.device).split(LINEAR_BATCH):
            logits = ((flat[index].float() - mean) / 255) @ weight + bias
            optimizer.zero_grad(set_to_none=True)
            functional.cross_entropy(logits, data.labels[index]).backward()
            optimizer.step()
    return torch.linalg.qr(weight.detach())[0], mean


def project_out(images: Tensor, basis: Tensor, mean: Tensor) -> Tensor:
    """Images without the directions of `basis` around `mean`: (N, 3, H, W) uint8 -> the same, on the 8-bit grid."""
    parts = []
    for part in images.split(CHUNK):
        centred = part.flatten(1).float() - mean
        kept = centred - (centred @ basis) @ basis.T + mean
        parts.append(kept.round_().clamp_(0, 255).to(torch.uint8).view(part.shape))
    return torch.cat(parts).contiguous(memory_format=torch.channels_last)


class _Cleaned(Plain):
    @abstractmethod
    def cleaned(self, data: ImageSet, seed: int) -> ImageSet:
        """What is left of the training images."""

    def images(self, target: Target) -> ImageSet:
        """Cleaned once, before training."""
        return self.cleaned(target.released, target.seed)


@register
class ClassMean(_Cleaned):
    """What is fine in class means goes; what is smooth stays, for natural class means are smooth.

    On clean CIFAR-10 a mean of 5 x 5 pixels leaves 1.4 of the 17 levels by which class means differ (RMS), on a
    class-wise PUE release 5.6. With that part gone plain training on it reached 60 %, as on clean images.
    """

    name = "class-mean"
    about = "subtracts from each training image what is fine in its class's mean image and not in the mean of all"
    source = "the simplest adaptive attack on class-wise noise, by this project"

    def cleaned(self, data: ImageSet, seed: int) -> ImageSet:
        """Training images whose class means differ smoothly."""
        return without(data, fine_patterns(data), seed)


@register
class WholeClassMean(_Cleaned):
    """All classes get the same mean image: smooth patterns go, too.

    Clean images lose by it what is natural in their class's mean, and test images keep theirs: CIFAR-10 falls from
    60 to 37 %.
    """

    name = "whole-class-mean"
    about = "subtracts from each training image what its class's mean image has beyond the mean of all"
    source = "the simplest adaptive attack on smooth class-wise noise, by this project"

    def cleaned(self, data: ImageSet, seed: int) -> ImageSet:
        """Training images whose class means are equal, up to rounding and clipping."""
        return without(data, class_patterns(data), seed)


@register
class Projection(_Cleaned):
    """Training images without the directions that a softmax regression of the pixels uses."""

    name = "projection"
    about = "projects the directions that a linear classifier learns out of the training images"
    source = "Sandoval-Segura et al., What Can We Learn from Unlearnable Datasets?, NeurIPS 2023"

    def cleaned(self, data: ImageSet, seed: int) -> ImageSet:
        """Fit, orthogonalise, project."""
        return replace(data, images=project_out(data.images, *linear_directions(data, seed)))
