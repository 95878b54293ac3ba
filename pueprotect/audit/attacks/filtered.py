"""Plain training behind a filter that all images go through, beside clean images behind the same filter.

A filter strong enough destroys any noise, and the picture with it. So the figure means little without its own clean
line: the same network, trained on the clean originals behind the same filter, measured on the same test images. Whoever
looks at released images can choose the filter for them: a subclass may find it from what the attacker holds.
"""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor
from torch.nn import functional
from torchvision.transforms.v2 import functional as operations

from pueprotect.audit.attacks.base import CLEAN_BEHIND_IT, Run, Target, register
from pueprotect.audit.attacks.squeeze import Jpeg10, in_parts
from pueprotect.audit.attacks.standard import Plain
from pueprotect.learning.augment import colour
from pueprotect.learning.models import Classifier
from pueprotect.learning.training import Transform


class Filtered(Plain):
    """Plain training on filtered images; a subclass overrides `squeeze` or `filter`."""

    source = "adaptive attack on this project's texture code, by this project"
    cost = 2.0

    def steps(self, target: Target) -> int:
        """Two trainings where the clean images are known."""
        return super().steps(target) * (1 if target.originals is None else 2)

    def train(self, run: Run) -> Classifier:
        """On released images, and beside them on clean ones."""
        target = run.target
        run.trained_on = replace(target.released, images=run.filter(target.released.images))
        model = self.learn(run, run.trained_on, on_epoch=run.epoch)
        if target.originals is not None:
            clean = replace(target.originals, images=run.filter(target.originals.images))
            run.observe(CLEAN_BEHIND_IT, self.learn(run, clean), candidate=False)
        return model


def blurred(images: Tensor, sigma: float) -> Tensor:
    """Gaussian blur of uint8 images, the kernel three deviations wide on each side."""
    side = min(2 * round(3 * sigma) + 1, 2 * int(images.shape[-1]) - 1)
    done: Tensor = operations.gaussian_blur(images, kernel_size=[side, side], sigma=[sigma, sigma])
    return done


@register
class Blur2(Filtered):
    """What is finer than some eight pixels is gone."""

    name = "blur-2"
    about = "blurs all images with a Gaussian of two pixels"

    def squeeze(self, images: Tensor) -> Tensor:
        """Gaussian blur, sigma 2."""
        return in_parts(lambda part: blurred(part, 2.0), images)


@register
class HalfSize(Filtered):
    """Half the resolution, and back to the size that the network takes."""

    name = "half-size"
    about = "reduces all images to half their size and enlarges them again"

    def squeeze(self, images: Tensor) -> Tensor:
        """Means of 2 x 2 pixels, enlarged bilinearly."""

        def halved(part: Tensor) -> Tensor:
            small = functional.avg_pool2d(part.float(), 2, ceil_mode=True, count_include_pad=False)
            wide = functional.interpolate(small, size=part.shape[-2:], mode="bilinear")
            return wide.round_().clamp_(0, 255).to(torch.uint8)

        return in_parts(halved, images)


@register
class BlueDrop(Filtered):
    """Blue alone, for one channel can carry a code that costs the eye little."""

    name = "blue-drop"
    about = "blackens the blue channel of all images"

    def squeeze(self, images: Tensor) -> Tensor:
        """Red and green as they are."""
        kept = images.clone()
        kept[:, 2] = 0
        return kept


@register
class JpegColour(Filtered):
    """Compression and colour together; each alone is in the suite, too."""

    name = "jpeg-colour"
    about = "compresses all images as JPEG of quality 10 and trains with strong colour jitter"

    def squeeze(self, images: Tensor) -> Tensor:
        """As `jpeg-10`."""
        return Jpeg10().squeeze(images)

    def transform(self, target: Target) -> Transform:
        """As `colour`."""
        return colour
