"""Filters the block DCT of all images where the released images show what tells their classes apart.

A code that strengthens some DCT indices in one class and others in the next shows in the energies of the classes. In
natural images that dependence is small, so an attacker knows which indices to remove. Equalising needs no labels: each
image gets the typical energy at each index, and the energy no longer depends on the class.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from pueprotect.audit.attacks.base import Filter, Run, Target, register
from pueprotect.audit.attacks.filtered import ADAPTIVE, TWICE, blurred
from pueprotect.audit.attacks.standard import Plain
from pueprotect.images.block_dct import BLOCK, LUMA, block_dct, inverse_block_dct
from pueprotect.learning.data import ImageSet
from pueprotect.learning.models import Classifier

NATURAL = 0.4
AT_LEAST = 10
WIDE = 30  # the strongest on the texture code, see examples/results/trials.md
BLUE_BLUR = 2.5


def spectrum(planes: Tensor) -> Tensor:
    """(N, H, W) float -> block DCT (N, H/8, W/8, 8, 8); incomplete blocks repeat the edge."""
    height, width = (-side % BLOCK for side in planes.shape[1:])
    whole = torch.nn.functional.pad(planes[:, None], (0, width, 0, height), mode="replicate")
    return torch.from_numpy(block_dct(whole[:, 0].cpu().numpy())).to(planes.device)


def luma(images: Tensor) -> Tensor:
    """(N, 3, H, W) in levels -> (N, H, W) float luma."""
    return (images.float() * torch.tensor(LUMA, device=images.device).view(1, 3, 1, 1)).sum(1)


def energies(images: Tensor) -> Tensor:
    """Log of one plus the mean energy of luma at each index: (N, 3, H, W) uint8 -> (N, 8, 8)."""
    return spectrum(luma(images)).square_().mean((1, 2)).log1p()


def dependence(data: ImageSet) -> Tensor:
    """Variance of the energies between classes over the variance within, for each index: (8, 8)."""
    found = torch.cat([energies(part) for part in data.images.split(1024)])
    groups = [group for label in range(data.classes) if len(group := found[data.labels == label]) > 1]
    between = torch.stack([group.mean(0) for group in groups]).var(0)
    within = torch.stack([group.var(0) for group in groups]).mean(0)
    return between / within.clamp_min(1e-6)


def most_telling(ratio: Tensor, count: int) -> Tensor:
    """The `count` indices of the highest `dependence`: (8, 8) bool. The mean of a block, (0, 0), is never chosen."""
    found = torch.zeros(ratio.numel(), dtype=torch.bool, device=ratio.device)
    found[1 + ratio.flatten()[1:].topk(count).indices] = True
    return found.view_as(ratio)


def telling(data: ImageSet) -> Tensor:
    """The indices that tell the classes apart more than in natural images, at least ten: (8, 8) bool."""
    ratio = dependence(data)
    beyond = int((ratio.flatten()[1:] >= NATURAL).sum())
    return most_telling(ratio, max(beyond, AT_LEAST))


def rescaled(images: Tensor, factors: Callable[[Tensor], Tensor]) -> Tensor:
    """Multiply the block DCT of each channel by `factors`, a function of coefficients (N, h, w, 8, 8)."""
    height, width = images.shape[-2:]
    planes = []
    for channel in images.float().unbind(1):
        coefficients = spectrum(channel)
        done = inverse_block_dct((coefficients * factors(coefficients)).cpu().numpy())
        planes.append(torch.from_numpy(done).to(images.device)[:, :height, :width])
    return torch.stack(planes, 1).round_().clamp_(0, 255).to(torch.uint8)


class Adaptive(Plain):
    """Plain training behind a filter for texture codes, and also on clean images behind the same filter."""

    source = ADAPTIVE
    cost = TWICE
    clean_line = True


@register
class Notch(Adaptive):
    """Removes the indices that tell the released classes apart more than in natural images."""

    name = "notch"
    about = "zeroes the DCT indices that tell the released classes apart and blurs blue, in all images"

    def out(self, data: ImageSet) -> Tensor:
        """The indices to remove, found from luma: (8, 8) bool."""
        return telling(data)

    def filter(self, target: Target) -> Filter:
        """Removes the indices from every channel and blurs blue."""
        kept = (~self.out(target.released)).float()

        def notched(part: Tensor) -> Tensor:
            done = rescaled(part, lambda _: kept)
            done[:, 2:] = blurred(done[:, 2:], BLUE_BLUR)
            return done

        return notched

    def train(self, run: Run) -> Classifier:
        """Plain training; `indices` in the details lists what was removed."""
        run.details["indices"] = torch.nonzero(self.out(run.target.released)).tolist()
        return super().train(run)


@register
class WideNotch(Notch):
    """Removes a fixed number of indices, whether or not they differ from natural images."""

    name = "wide-notch"
    about = "zeroes the 30 DCT indices that tell the released classes apart most and blurs blue"

    def __init__(self, indices: int = WIDE) -> None:
        self.indices = indices

    def out(self, data: ImageSet) -> Tensor:
        """The indices of the highest dependence: (8, 8) bool."""
        return most_telling(dependence(data), self.indices)


@register
class MidNotch(Adaptive):
    """Removes the indices that a code of this kind must use, whatever the released images show."""

    name = "mid-notch"
    about = "zeroes the DCT indices up to (4, 4), except the lowest 2 x 2, and blurs colour, in all images"

    def filter(self, target: Target) -> Filter:
        """Keeps means and slopes of blocks, and detail finer than a quarter of a cycle per pixel."""
        kept = torch.ones(BLOCK, BLOCK, device=target.released.device)
        kept[:5, :5] = 0
        kept[:2, :2] = 1

        def notched(part: Tensor) -> Tensor:
            done = rescaled(part, lambda _: kept).float()
            gray = luma(done)[:, None]
            return (gray + blurred(done - gray, BLUE_BLUR)).round_().clamp_(0, 255).to(torch.uint8)

        return notched


@register
class Equalise(Adaptive):
    """Gives each image the typical energy at every index."""

    name = "equalise"
    about = "scales every DCT index of each image to its average energy over all released images"

    def filter(self, target: Target) -> Filter:
        """Scales towards the mean energy of luma in the released images, in each channel alike."""
        sums = torch.stack([energies(part).expm1().sum(0) for part in target.released.images.split(1024)]).sum(0)
        usual = sums / len(target.released)

        def factors(coefficients: Tensor) -> Tensor:
            own = coefficients.square().mean((1, 2), keepdim=True)
            gain = (usual / own.clamp_min(1.0)).sqrt().clamp(0.1, 10)
            gain[..., 0, 0] = 1
            return gain

        return lambda part: rescaled(part, factors)
