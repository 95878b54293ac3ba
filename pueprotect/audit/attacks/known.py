"""Subtracts the noise with full knowledge of the protection, code book included.

Only protections in closed form have a code book. Optimised noise follows no book: an attacker who has the noise itself
subtracts it, which needs no test.
"""

from __future__ import annotations

from dataclasses import replace

import torch

from pueprotect.audit.attacks.base import KNOWLEDGE, Target, register
from pueprotect.audit.attacks.filtered import ADAPTIVE
from pueprotect.audit.attacks.standard import Plain
from pueprotect.learning.data import ImageSet
from pueprotect.protect.methods.texture import guessed

CHUNK = 1024


@register
class KnownCode(Plain):
    """Guesses the texture of each training image from the image, its label and the code book, and subtracts it."""

    name = "known-code"
    about = "knows the code book and subtracts the texture that fits best from each training image"
    needs = KNOWLEDGE
    source = ADAPTIVE

    def images(self, target: Target) -> ImageSet:
        """Training images minus the guess; test images carry no noise."""
        assert target.scheme is not None
        released, parts = target.released, []
        for images, labels in zip(released.images.split(CHUNK), released.labels.split(CHUNK), strict=True):
            pixels = images.permute(0, 2, 3, 1).cpu().numpy()
            noise = torch.from_numpy(guessed(pixels, labels.cpu().numpy(), target.scheme))
            left = images.cpu().short() - noise.permute(0, 3, 1, 2)
            parts.append(left.clamp_(0, 255).to(torch.uint8).to(images.device))
        return replace(released, images=torch.cat(parts).contiguous(memory_format=torch.channels_last))
