"""A texture code in closed form: each class has textures of its own, laid along what each image shows anyway.

No surrogate and no optimisation. Luma: an image is a grid of tiles of 2 x 2 blocks of 8 x 8 pixels, and each tile
shows one index of the block's DCT, drawn at random from its class's set. The sign follows the image's own coefficient
and runs on across the blocks of the tile, so it strengthens what is there, differs from image to image and averages
out over a class: no linear eye finds it. The other classes' indices are pushed against the image. Red and green get
the luma code. Blue gets a square grating of one frequency for each class, with a phase for each image; greyscale
images get the luma code alone. The indices survive JPEG of quality 10, as it quantises them the least for the little
that photographs hold there.

No torch: noise is the same on every device.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np
import numpy.typing as npt

from pueprotect.errors import ImageError, InputError
from pueprotect.images import ImageFolder
from pueprotect.pixels import identify
from pueprotect.runtime import child_seed

BLOCK = 8
TILE = 2 * BLOCK
SMALLEST = 16  # pixels: one tile
LEAST_LEVELS = 4
CHUNK = 256
LUMA = (0.299, 0.587, 0.114)
AGAINST = 0.15  # how far the indices of other classes are pushed against the image, relative to the own one
TYPICAL = 60.0  # levels of a DCT coefficient at which that push is whole

# (row, column) of the block DCT; pairs of one texture at two scales.
INDICES = (
    *((0, 2), (0, 4), (2, 0), (4, 0), (0, 3), (0, 5), (3, 0), (5, 0), (2, 2), (3, 3)),
    *((1, 2), (2, 4), (2, 1), (4, 2), (1, 3), (1, 5), (3, 1), (5, 1), (2, 3), (1, 4)),
)
# (horizontal, vertical) in sixteenths of a cycle for each pixel.
CHROMA = (
    *((3, 3), (4, 0), (0, 4), (2.2, 2.2), (3, 1.5), (1.5, 3), (0, 2.6), (2.6, 0), (4, 2), (2, 4)),
    *((4, 4), (5, 1), (1, 5), (5, 3), (3, 5), (0, 5.5), (5.5, 0), (1.2, 1.2)),
)

Pixels = npt.NDArray[np.uint8]
Levels = npt.NDArray[np.int8]
Floats = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Code:
    """The textures of one class.

    Attributes:
        luma: indices (row, column) of the block DCT.
        chroma: frequency of the blue grating, (horizontal, vertical) in sixteenths of a cycle for each pixel.
    """

    luma: tuple[tuple[int, int], ...]
    chroma: tuple[float, float]

    def distance(self, other: Code) -> int:
        """How many textures of this class the other one lacks."""
        return len(set(self.luma) - set(other.luma)) + (self.chroma != other.chroma)


def code_book(classes: int, key: int) -> tuple[Code, ...]:
    """A code for each class, any two at least two textures apart.

    As long as there are enough indices no two classes share one; beyond, pairs of indices may share one index when
    their gratings differ.

    Args:
        classes: how many.
        key: decides which class gets which code; what others need not know.

    Raises:
        InputError: more classes than the book separates.
    """
    rng = np.random.default_rng(child_seed(key, "code-book"))
    own = [INDICES[start : start + 2] for start in range(0, len(INDICES), 2)]
    others = [pair for pair in combinations(INDICES, 2) if pair not in own]
    found: list[Code] = []
    shuffled = [own[i] for i in rng.permutation(len(own))] + [others[i] for i in rng.permutation(len(others))]
    gratings = [CHROMA[i] for i in rng.permutation(len(CHROMA))]
    rounds = [(pair, gratings[(turn + number) % len(gratings)]) for turn in range(len(gratings))
              for number, pair in enumerate(shuffled)]  # fmt: skip
    for pair, grating in rounds:
        code = Code(pair, grating)
        if len(found) < classes and all(code.distance(other) >= 2 for other in found):
            found.append(code)
    if len(found) < classes:
        raise InputError(
            f"{classes} classes are more than the {len(found)} that the texture code can separate; merge classes, or "
            "protect with --method pue."
        )
    return tuple(found)


def refuse(folder: ImageFolder, epsilon: int, key: int) -> None:
    """Refuse what the code cannot protect, from headers alone.

    Raises:
        InputError: too small a budget, too many classes, or a picture smaller than a tile.
    """
    if epsilon < LEAST_LEVELS:
        raise InputError(
            f"--epsilon {epsilon}/255 is below {LEAST_LEVELS}/255, what the texture code needs to be seen on the 8-bit "
            "grid; give it more, or protect with --method pue."
        )
    code_book(len(folder.classes), key)
    for entry in folder.entries:
        try:
            width, height = identify(folder.path_of(entry))[:2]
        except ImageError:
            continue  # reported with all others that cannot be read
        if min(width, height) < SMALLEST:
            raise InputError(
                f"{folder.path_of(entry)} has {width} x {height} pixels and the texture code needs {SMALLEST} on each "
                "side; enlarge or remove it, or protect with --method pue."
            )


def _cosines() -> Floats:
    """The orthonormal DCT of 8 points, as a matrix."""
    points = np.arange(BLOCK)
    matrix = 0.5 * np.cos(np.pi * (2 * points[None] + 1) * points[:, None] / (2 * BLOCK))
    matrix[0] /= np.sqrt(2)
    return matrix.astype(np.float32)


_DCT = _cosines()


def block_dct(planes: Floats) -> Floats:
    """(N, H, W) -> (N, H/8, W/8, 8, 8), orthonormal."""
    count, height, width = planes.shape
    blocks = planes.reshape(count, height // BLOCK, BLOCK, width // BLOCK, BLOCK).swapaxes(2, 3)
    return np.asarray(_DCT @ blocks @ _DCT.T)


def inverse_block_dct(coefficients: Floats) -> Floats:
    """The inverse of `block_dct`."""
    count, rows, columns = coefficients.shape[:3]
    blocks = _DCT.T @ coefficients @ _DCT
    return np.asarray(blocks.swapaxes(2, 3).reshape(count, rows * BLOCK, columns * BLOCK))


def texture(images: Pixels, labels: npt.NDArray[np.int64], codes: Sequence[Code], epsilon: int, key: int) -> Levels:
    """The code of each image's class, laid along the image.

    Args:
        images: (N, S, S, 3) uint8, S at least 16.
        labels: (N,) int64 indices into `codes`.
        codes: from `code_book`.
        epsilon: L-infinity budget in levels; every pixel takes all of it.
        key: with an image's place in the set it decides the image's tiles and phases.

    Returns:
        (N, S, S, 3) int8 levels.
    """
    noise = np.empty(images.shape, dtype=np.int8)
    for start in range(0, len(images), CHUNK):
        part = slice(start, start + CHUNK)
        streams = [np.random.default_rng(child_seed(key, "texture", number)) for number in range(len(images))[part]]
        noise[part] = _laid(np.asarray(images[part]), labels[part], codes, epsilon, streams)
    return noise


def _laid(
    images: Pixels, labels: npt.NDArray[np.int64], codes: Sequence[Code], epsilon: int,
    streams: Sequence[np.random.Generator],
) -> Levels:  # fmt: skip
    size = images.shape[1]
    missing = -size % TILE
    luma = images.astype(np.float32) @ np.array(LUMA, dtype=np.float32)
    whole = np.pad(luma, ((0, 0), (0, missing), (0, missing)), mode="reflect" if missing < size else "edge")
    noise = np.empty(images.shape, dtype=np.int8)
    noise[..., :2] = _luma_code(whole, labels, codes, epsilon, streams)[:, :size, :size, None]
    noise[..., 2] = _grating(size, labels, codes, epsilon, streams)
    grey = (images == images[..., :1]).all((1, 2, 3))
    noise[grey, ..., 2] = noise[grey, ..., 0]
    return noise


def _luma_code(
    luma: Floats, labels: npt.NDArray[np.int64], codes: Sequence[Code], epsilon: int,
    streams: Sequence[np.random.Generator],
) -> Levels:  # fmt: skip
    natural = block_dct(luma)
    rows, columns = natural.shape[1:3]
    picked = np.stack([stream.integers(0, len(codes[0].luma), (rows // 2, columns // 2)) for stream in streams])
    picked = picked.repeat(2, axis=1).repeat(2, axis=2)
    wanted = np.zeros_like(natural)
    for row, column in sorted({index for code in codes for index in code.luma}):
        here = natural[..., row, column]
        places = np.array([code.luma.index((row, column)) if (row, column) in code.luma else -1 for code in codes])
        own = picked == places[labels][:, None, None]
        against = -AGAINST * np.clip(here / TYPICAL, -1, 1)
        wanted[..., row, column] = np.where(own, _signs(here, row, column), against)
    return np.where(inverse_block_dct(wanted) < 0, -epsilon, epsilon).astype(np.int8)


def _signs(coefficients: Floats, row: int, column: int) -> Floats:
    """Signs (N, h, w) that follow the image and let the cosine run on within each group of 2 x 2 blocks."""
    count, rows, columns = coefficients.shape
    parity = np.arange(rows)[:, None] * row + np.arange(columns) * column
    alternation = (1 - 2 * (parity % 2)).astype(np.float32)
    groups = (alternation * coefficients).reshape(count, rows // 2, 2, columns // 2, 2).sum((2, 4))
    signs = np.where(groups < 0, np.float32(-1), np.float32(1))
    return np.asarray(signs.repeat(2, axis=1).repeat(2, axis=2) * alternation)


def _grating(
    size: int, labels: npt.NDArray[np.int64], codes: Sequence[Code], epsilon: int,
    streams: Sequence[np.random.Generator],
) -> Levels:  # fmt: skip
    phases = np.stack([stream.uniform(0, 2 * np.pi, 2) for stream in streams])
    frequencies = np.array([code.chroma for code in codes])[labels]
    angles = 2 * np.pi / 16 * frequencies[:, :, None] * np.arange(size) + phases[:, :, None]
    across, down = np.cos(angles).astype(np.float32).swapaxes(0, 1)
    return np.where(down[:, :, None] * across[:, None, :] < 0, -epsilon, epsilon).astype(np.int8)
