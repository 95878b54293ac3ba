"""The attacker who knows how the images were protected, code book included, and takes the noise off again.

Only protections in closed form have a book to know. Noise that is optimised is a secret of its own; an attacker who
has it subtracts it, which needs no test.
"""

from __future__ import annotations

from dataclasses import replace

import torch

from pueprotect.audit.attacks.base import KNOWLEDGE, Target, register
from pueprotect.audit.attacks.standard import Plain
from pueprotect.learning.data import ImageSet
from pueprotect.protect.methods.texture import Scheme, code_book, guessed
from pueprotect.release.opened import OpenedRelease

CHUNK = 1024


@register
class KnownCode(Plain):
    """Guesses the texture of each training image from the image, its label and the book, and subtracts it."""

    name = "known-code"
    about = "knows the code book, and subtracts from each training image the texture that fits it best"
    needs = KNOWLEDGE
    source = "adaptive attack on this project's texture code, by this project"

    def images(self, target: Target) -> ImageSet:
        """Training images less the guess; test images need none."""
        assert target.scheme is not None
        released, parts = target.released, []
        for images, labels in zip(released.images.split(CHUNK), released.labels.split(CHUNK), strict=True):
            pixels = images.permute(0, 2, 3, 1).cpu().numpy()
            noise = torch.from_numpy(guessed(pixels, labels.cpu().numpy(), target.scheme))
            left = images.cpu().short() - noise.permute(0, 3, 1, 2)
            parts.append(left.clamp_(0, 255).to(torch.uint8).to(images.device))
        return replace(released, images=torch.cat(parts).contiguous(memory_format=torch.channels_last))


def code_book_of(evidence: OpenedRelease) -> Scheme | None:
    """The code of a hardened release; None for any other."""
    run = evidence.run
    if run.get("method") != "hardened":
        return None
    return Scheme(
        code_book(len(run["classes"]), run["seed"]), run["settings"]["epsilon"], run["settings"]["visibility"]
    )
