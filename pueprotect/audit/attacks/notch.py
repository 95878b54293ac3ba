"""Filters in the block DCT that are found from the released images: what tells their classes apart is taken out.

A code that strengthens some indices in one class and others in the next shows in the classes' energies. On clean
CIFAR-10 no index has more than 0.3 times as much variance between its classes as within them (log energies of images,
5,000 images), so an attacker who sees more knows what to remove. Equalising needs no labels: each image gets the
typical energy at each index, and how much it held there tells nothing any more.
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
WIDE = 30  # of 0 to 45 the one that got furthest on the texture code, by its worst key (examples/notches.py)
BLUE_BLUR = 2.5


def spectrum(planes: Tensor) -> Tensor:
    """(N, H, W) float -> block DCT (N, H/8, W/8, 8, 8); what does not fill a block is repeated from the edge."""
    height, width = (-(-side // BLOCK) * BLOCK for side in planes.shape[1:])
    whole = torch.nn.functional.pad(
        planes[:, None], (0, width - planes.shape[2], 0, height - planes.shape[1]), mode="replicate"
    )
    return torch.from_numpy(block_dct(whole[:, 0].cpu().numpy())).to(planes.device)


def energies(images: Tensor) -> Tensor:
    """Log of one plus the mean energy of luma at each index: (N, 3, H, W) uint8 -> (N, 8, 8)."""
    weights = torch.tensor(LUMA, device=images.device).view(1, 3, 1, 1)
    return spectrum((images.float() * weights).sum(1)).square_().mean((1, 2)).log1p()


def dependence(data: ImageSet) -> Tensor:
    """Variance of the energies between classes over the variance within, for each index: (8, 8)."""
    found = torch.cat([energies(part) for part in data.images.split(1024)])
    groups = [found[data.labels == label] for label in range(data.classes)]
    groups = [group for group in groups if len(group) > 1]
    between = torch.stack([group.mean(0) for group in groups]).var(0)
    within = torch.stack([group.var(0) for group in groups]).mean(0)
    return between / within.clamp_min(1e-6)


def most_telling(ratio: Tensor, count: int) -> Tensor:
    """The indices of the highest `dependence`, so many of them: (8, 8) bool. A block's mean is no texture and stays."""
    found = torch.zeros(ratio.numel(), dtype=torch.bool, device=ratio.device)
    found[1 + ratio.flatten()[1:].topk(count).indices] = True
    return found.view_as(ratio)


def telling(data: ImageSet) -> Tensor:
    """The indices that tell the classes apart more than natural images do, at least ten: (8, 8) bool."""
    ratio = dependence(data)
    beyond = int((ratio.flatten()[1:] >= NATURAL).sum())
    return most_telling(ratio, max(beyond, AT_LEAST))


def rescaled(images: Tensor, factors: Callable[[Tensor], Tensor]) -> Tensor:
    """Multiply the block DCT of each channel: `factors` takes (N, h, w, 8, 8) and returns what fits it."""
    height, width = images.shape[-2:]
    planes = []
    for channel in images.float().unbind(1):
        coefficients = spectrum(channel)
        done = inverse_block_dct((coefficients * factors(coefficients)).cpu().numpy())
        planes.append(torch.from_numpy(done).to(images.device)[:, :height, :width])
    return torch.stack(planes, 1).round_().clamp_(0, 255).to(torch.uint8)


class Adaptive(Plain):
    """Plain training behind a filter for texture codes, next to clean images behind the same filter."""

    source = ADAPTIVE
    cost = TWICE
    clean_line = True


@register
class Notch(Adaptive):
    """Zeroes the indices that tell the released classes apart more than natural images do, and blurs blue."""

    name = "notch"
    about = "finds the DCT indices that tell the released classes apart, zeroes them in all images and blurs blue"

    def out(self, data: ImageSet) -> Tensor:
        """The indices that go, found from luma: (8, 8) bool."""
        return telling(data)

    def filter(self, target: Target) -> Filter:
        """Removed from every channel."""
        kept = (~self.out(target.released)).float()

        def notched(part: Tensor) -> Tensor:
            done = rescaled(part, lambda _: kept)
            done[:, 2:] = blurred(done[:, 2:], BLUE_BLUR)
            return done

        return notched

    def train(self, run: Run) -> Classifier:
        """Says which indices went."""
        run.details["indices"] = torch.nonzero(self.out(run.target.released)).tolist()
        return super().train(run)


@register
class WideNotch(Notch):
    """The same for a fixed number of indices, also where natural images tell as much."""

    name = "wide-notch"
    about = "zeroes the 30 DCT indices that tell the released classes apart most in all images and blurs blue"

    def __init__(self, indices: int = WIDE) -> None:
        self.indices = indices

    def out(self, data: ImageSet) -> Tensor:
        """The most telling ones, so many of them."""
        return most_telling(dependence(data), self.indices)


@register
class MidNotch(Adaptive):
    """A notch where a code of this kind has to lie, whatever the released images show."""

    name = "mid-notch"
    about = "zeroes all DCT indices from the second to the fourth row and column in all images and blurs colour"

    def filter(self, target: Target) -> Filter:
        """What is left: means and slopes of blocks, and what is finer than a quarter of a cycle for each pixel."""
        kept = torch.ones(BLOCK, BLOCK, device=target.released.device)
        kept[:5, :5] = 0
        kept[:2, :2] = 1
        weights = torch.tensor(LUMA, device=target.released.device).view(1, 3, 1, 1)

        def notched(part: Tensor) -> Tensor:
            done = rescaled(part, lambda _: kept).float()
            luma = (done * weights).sum(1, keepdim=True)
            return (luma + blurred(done - luma, BLUE_BLUR)).round_().clamp_(0, 255).to(torch.uint8)

        return notched


@register
class Equalise(Adaptive):
    """Each image gets the typical energy at every index."""

    name = "equalise"
    about = "scales every DCT index of each image to the energy that is usual over all released images"

    def filter(self, target: Target) -> Filter:
        """Usual is the mean over the released images, for each channel alike."""
        sums = torch.stack([energies(part).expm1().sum(0) for part in target.released.images.split(1024)]).sum(0)
        usual = sums / len(target.released)

        def factors(coefficients: Tensor) -> Tensor:
            own = coefficients.square().mean((1, 2), keepdim=True)
            gain = (usual / own.clamp_min(1.0)).sqrt().clamp(0.1, 10)
            gain[..., 0, 0] = 1
            return gain

        return lambda part: rescaled(part, factors)
