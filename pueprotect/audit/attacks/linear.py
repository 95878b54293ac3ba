"""Removes what a linear classifier could find from the training images before plain training.

Class-wise noise is one pattern for each class, which the class's average image shows. Sandoval-Segura et al. instead
find the shortcut with a linear classifier and project its directions out. Both ways need the labels of the training
images, so test images stay as they are. What is truly linear in clean images is lost as well.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import torch
from torch import Tensor
from torch.nn import functional

from pueprotect.audit.attacks.base import Target, register
from pueprotect.audit.attacks.standard import Plain
from pueprotect.learning.augment import box_blur
from pueprotect.learning.data import ImageSet
from pueprotect.learning.device import at_once
from pueprotect.runtime import generator

CHUNK = 4096  # images of 32 x 32 pixels at once
FINE = 5
LINEAR_EPOCHS, LINEAR_BATCH, LINEAR_RATE = 20, 128, 1e-3


def class_means(data: ImageSet) -> Tensor:
    """Average image of each class: (classes, 3, H, W) float in 0..255; zeros for a class without images."""
    members = functional.one_hot(data.labels, data.classes).float()
    sums = torch.zeros((data.classes, data.images[0].numel()), dtype=torch.float64, device=data.device)
    count = at_once(CHUNK, data.size)
    for images, mine in zip(data.images.split(count), members.split(count), strict=True):
        sums += mine.T @ images.flatten(1).float()  # whole numbers below 2^24, so exact in any order
    means = sums.float().view(data.classes, *data.images.shape[1:])
    return means / torch.bincount(data.labels, minlength=data.classes).clamp_min(1).view(-1, 1, 1, 1)


def class_patterns(data: ImageSet) -> Tensor:
    """Average image of each class minus the average of all classes: (classes, 3, H, W) float, in levels."""
    means = class_means(data)
    return means - means[data.labels.unique()].mean(0)


def fine_patterns(data: ImageSet, side: int = FINE) -> Tensor:
    """`class_patterns` minus their means of `side` x `side` pixels: (classes, 3, H, W) float, in levels."""
    patterns = class_patterns(data)
    return patterns - box_blur(patterns, side)


def without(data: ImageSet, patterns: Tensor, seed: int) -> ImageSet:
    """Subtract from each image its class's pattern, of patterns (classes, 3, H, W), and return 8-bit images.

    Whether to round up or down is drawn for each pixel: rounding to the nearest level errs alike in all images of a
    class, which would leave a pattern of half a level.
    """
    stream, parts = generator(seed, "without-pattern", device=data.device), []
    count = at_once(CHUNK, data.size)
    for images, labels in zip(data.images.split(count), data.labels.split(count), strict=True):
        left = images.float() - patterns[labels]
        left += torch.rand(left.shape, generator=stream, device=data.device)
        parts.append(left.floor_().clamp_(0, 255).to(torch.uint8))
    return replace(data, images=torch.cat(parts).contiguous(memory_format=torch.channels_last))


def linear_directions(data: ImageSet, seed: int) -> tuple[Tensor, Tensor]:
    """The directions that a linear classifier of the centred pixels uses, and the average image.

    Both are float: (3 * H * W, classes) with orthonormal columns, and (3 * H * W,) in 0..255.
    """
    flat = data.images.flatten(1)
    mean = torch.stack([part.float().sum(0) for part in flat.split(at_once(CHUNK, data.size))]).sum(0) / len(data)
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
    """Remove the directions of `basis` around `mean` from images (N, 3, H, W) uint8; returns 8-bit images."""
    parts = []
    for part in images.split(at_once(CHUNK, images.shape[-1])):
        centred = part.flatten(1).float() - mean
        kept = centred - (centred @ basis) @ basis.T + mean
        parts.append(kept.round_().clamp_(0, 255).to(torch.uint8).view(part.shape))
    return torch.cat(parts).contiguous(memory_format=torch.channels_last)


class _Cleaned(Plain):
    patterns: Callable[[ImageSet], Tensor]

    def cleaned(self, data: ImageSet, seed: int) -> ImageSet:
        """Training images without the patterns of their classes."""
        return without(data, self.patterns(data), seed)

    def images(self, target: Target) -> ImageSet:
        """The released images, cleaned once before training."""
        return self.cleaned(target.released, target.seed)


@register
class ClassMean(_Cleaned):
    """Removes only what is fine in the average images, because natural average images are smooth."""

    name = "class-mean"
    about = "removes the fine detail of each class's average image"
    source = "the simplest adaptive attack on class-wise noise, by this project"
    patterns = staticmethod(fine_patterns)


@register
class WholeClassMean(_Cleaned):
    """Removes smooth patterns too, and with them the natural average of each class, which test images keep."""

    name = "whole-class-mean"
    about = "removes the difference between each class's average image and the average of all classes"
    source = "the simplest adaptive attack on smooth class-wise noise, by this project"
    patterns = staticmethod(class_patterns)


@register
class Projection(_Cleaned):
    """Removes the directions that a softmax regression of the pixels uses."""

    name = "projection"
    about = "removes the directions that a linear classifier learns from the training images"
    source = "Sandoval-Segura et al., What Can We Learn from Unlearnable Datasets?, NeurIPS 2023"

    def cleaned(self, data: ImageSet, seed: int) -> ImageSet:
        """Training images without these directions."""
        return replace(data, images=project_out(data.images, *linear_directions(data, seed)))
