"""Finds test images that the attacker trains on as well: the same picture, with or without noise on it.

Accuracy on such images shows memory. Pictures count as the same when they differ by no more than the noise does, in
root mean square. That is exact and fast: sums over 8 x 8 tiles rule out nearly all pairs by matrix products.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

TILES = 8  # on each side
TEST_ROWS, TRAIN_ROWS, PAIRS = 1024, 8192, 4096  # of one matrix product; pairs that are compared at once
ROUNDING = 1.001


def near_pairs(test: Tensor, train: Tensor, levels: float) -> Tensor:
    """All pairs of a test and a training image at most `levels` apart: (K, 2) int64 indices, in order.

    Both are (N, 3, S, S) uint8 on one device. The distance is the root mean square over pixels and channels.
    """
    squares = levels**2 * test[0].numel()
    ours, theirs = _tiles(test), _tiles(train)
    own, other = ours.square().sum(1), theirs.square().sum(1)
    found = []
    for start in range(0, len(ours), TEST_ROWS):
        rows = slice(start, start + TEST_ROWS)
        for first in range(0, len(theirs), TRAIN_ROWS):
            columns = slice(first, first + TRAIN_ROWS)
            apart = torch.addmm(other[columns], ours[rows], theirs[columns].T, alpha=-2)
            near = (apart <= (ROUNDING * squares - own[rows])[:, None]).nonzero()
            near += near.new_tensor([start, first])
            found += [pairs[differences(test, train, pairs) <= levels] for pairs in near.split(PAIRS)]
    together = torch.cat(found)
    return together[(together[:, 0] * len(train) + together[:, 1]).argsort()]


def differences(test: Tensor, train: Tensor, pairs: Tensor) -> Tensor:
    """Root mean square difference of each pair in levels: (K,) float."""
    apart = (test[pairs[:, 0]].short() - train[pairs[:, 1]]).float()
    return apart.square().mean((1, 2, 3)).sqrt()


def _tiles(images: Tensor) -> Tensor:
    """Sums of each channel over tiles, each over the root of its area: (N, 192 or fewer) float.

    The squared distance of two rows is at most the sum of squared differences of their images (Cauchy-Schwarz).
    """
    side = -(-int(images.shape[-1]) // TILES)

    def summed(part: Tensor) -> Tensor:
        return functional.avg_pool2d(part, side, ceil_mode=True, divisor_override=1)

    area = summed(torch.ones((1, *images.shape[1:]), device=images.device))
    return torch.cat([(summed(part.float() - 128) / area.sqrt()).flatten(1) for part in images.split(PAIRS)])
