"""Trains a denoiser on a clean share and applies it to every image.

The attacker knows the budget, and that noise may be fine or coarse, grey or coloured, but not the code. So the denoiser
learns to remove signs drawn for each pixel, and two-valued gratings of random frequencies, phases and channels, at the
usual budget of 8/255.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from pueprotect.audit.attacks.base import CLEAN_SHARE, Filter, Target, register
from pueprotect.audit.attacks.filtered import ADAPTIVE
from pueprotect.audit.attacks.standard import Plain
from pueprotect.learning.data import ImageSet
from pueprotect.runtime import generator

LEVELS = 8
STEPS, BATCH, RATE, WIDTH = 300, 64, 2e-3, 24


def gratings(count: int, size: int, stream: torch.Generator, device: str) -> Tensor:
    """Patterns (count, 3, S, S) of -1 and 1, each of single pixels, gratings or gray gratings by chance."""
    axis = torch.arange(size, device=device)

    def wave() -> Tensor:
        frequency = 0.5 * torch.rand((count, 3, 1), generator=stream, device=device)
        phase = torch.rand((count, 3, 1), generator=stream, device=device)
        return torch.cos(2 * math.pi * (frequency * axis + phase))

    pattern = wave()[..., :, None] * wave()[..., None, :]
    kind = torch.randint(0, 3, (count, 1, 1, 1), generator=stream, device=device)
    grain = torch.randn((count, 3, size, size), generator=stream, device=device)
    pattern = torch.where(kind == 0, grain, torch.where(kind == 1, pattern[:, :1], pattern))
    return torch.where(pattern < 0, -1.0, 1.0)


def denoiser(size: int, data: ImageSet, seed: int) -> nn.Module:
    """Train a small network that predicts the noise of an image in [0, 1], on clean `data`."""
    stream = generator(seed, "denoiser", device=data.device)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        layers = [nn.Conv2d(3, WIDTH, 5, padding=2), nn.ReLU(), nn.Conv2d(WIDTH, WIDTH, 3, padding=1), nn.ReLU()]
        net = nn.Sequential(*layers, nn.Conv2d(WIDTH, 3, 5, padding=2)).to(data.device)
    optimizer = torch.optim.Adam(net.parameters(), lr=RATE)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, STEPS)
    for _ in range(STEPS):
        picked = torch.randint(len(data), (BATCH,), generator=stream, device=data.device)
        noise = LEVELS / 255 * gratings(BATCH, size, stream, data.device)
        shown = (data.images[picked].float() / 255 + noise).clamp_(0, 1)
        optimizer.zero_grad(set_to_none=True)
        (net(shown) - noise).square().mean().backward()
        optimizer.step()
        schedule.step()
    return net.eval()


@register
class Denoise(Plain):
    """Plain training behind one learnt filter for all images."""

    name = "denoise"
    about = "trains a denoiser for noise of many kinds on clean images and applies it to all images"
    needs = CLEAN_SHARE
    source = ADAPTIVE
    cost = 2.5
    clean_line = True

    def filter(self, target: Target) -> Filter:
        """The denoiser, trained on the clean share first."""
        assert target.clean_share is not None
        net = denoiser(target.released.size, target.clean_share, target.seed)

        @torch.no_grad()
        def cleaned(part: Tensor) -> Tensor:
            shown = part.float() / 255
            done: Tensor = 255 * (shown - net(shown))
            return done.round_().clamp_(0, 255).to(torch.uint8)

        return cleaned
