"""A texture code in closed form: each class has textures of its own, laid along what each image shows anyway.

No surrogate and no optimisation. Luma: every block of 8 x 8 pixels shows one index of the block's DCT that belongs to
its class. Its sign follows the image's own coefficient and runs on across 2 x 2 blocks, so it strengthens what is
there, differs from image to image and averages out over a class: no linear eye finds it. The other classes' indices are
pushed against the image. Red and green get the luma code. Blue gets a square grating of one frequency for each class,
with a phase for each image; greyscale images get the luma code alone. Where a picture is flat the noise is weaker. Up
to ten classes own one index each, of those that survive JPEG of quality 10 and hold little natural energy. More
classes own pairs or triples of indices, of which each tile of 2 x 2 blocks draws one.

What it does not do: the indices and the frequencies show in the energies of the released classes, so the key is no
defence. Who notches them, or knows the book and subtracts what it lays, gets most of the images back (attacks `notch`,
`known-code`).

No torch: noise is the same on every device.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Literal

import numpy as np
import numpy.typing as npt
from scipy.ndimage import uniform_filter

from pueprotect.errors import ImageError, InputError
from pueprotect.images import ImageFolder
from pueprotect.pixels import identify
from pueprotect.runtime import child_seed

BLOCK = 8
TILE = 2 * BLOCK
SMALLEST = 16  # pixels: one tile
LEAST_LEVELS = 4  # a quarter of it, all that `subtle` leaves in flat areas, is one whole level
CHUNK = 256
LUMA = (0.299, 0.587, 0.114)
AGAINST = 0.15  # how far the indices of other classes are pushed against the image, relative to the own one
TYPICAL = 60.0  # levels of a DCT coefficient at which that push is whole

# (row, column) of the block DCT: one for each of up to ten classes, and the pool of sets for more.
SINGLES = ((0, 3), (3, 0), (0, 4), (5, 0), (2, 2), (3, 1), (1, 3), (3, 2), (1, 4), (4, 1))
POOL = (*SINGLES, (0, 2), (2, 0), (4, 0), (0, 5), (1, 2), (2, 1), (2, 3), (3, 3), (2, 4), (4, 2))
# (horizontal, vertical) in sixteenths of a cycle for each pixel; networks were trained on the first ten alone.
CHROMA = (
    *((3, 3), (4, 0), (0, 4), (2.2, 2.2), (3, 1.5), (1.5, 3), (0, 2.6), (2.6, 0), (4, 2), (2, 4)),
    *((4, 4), (5, 1), (1, 5), (5, 3), (3, 5), (0, 5.5), (5.5, 0), (1.2, 1.2), (5, 5), (6, 2), (2, 6), (6, 4)),
)

Visibility = Literal["subtle", "standard", "strong"]
# Share of the budget in flat areas, and the deviation of luma (levels, within 7 x 7 pixels) from which on it is whole.
SHAPES: dict[Visibility, tuple[float, float]] = {"subtle": (0.25, 40.0), "standard": (0.5, 20.0), "strong": (1.0, 1.0)}
WINDOW = 7

Pixels = npt.NDArray[np.uint8]
Levels = npt.NDArray[np.int8]
Floats = npt.NDArray[np.float32]
Labels = npt.NDArray[np.int64]


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


@dataclass(frozen=True)
class Scheme:
    """All that there is to know about one release but the draws of each image.

    Attributes:
        codes: from `code_book`, one for each class.
        epsilon: L-infinity budget in levels.
        visibility: how far the code yields where a picture is flat; `strong` takes the whole budget everywhere.
    """

    codes: tuple[Code, ...]
    epsilon: int
    visibility: Visibility = "standard"


def code_book(classes: int, key: int) -> tuple[Code, ...]:
    """A code for each class, any two at least two textures apart.

    Args:
        classes: how many.
        key: decides which class gets which code; what others need not know.

    Raises:
        InputError: more classes than the book separates.
    """
    found: tuple[Code, ...] = ()
    for members, pool in ((1, SINGLES), (2, POOL), (3, POOL)):
        found = _apart(classes, members, pool, np.random.default_rng(child_seed(key, "code-book", members)))
        if len(found) == classes:
            return found
    raise InputError(
        f"{classes} classes are more than the {len(found)} that the texture code can separate; merge classes, or "
        "protect with --method pue."
    )


def _apart(classes: int, members: int, pool: Sequence[tuple[int, int]], rng: np.random.Generator) -> tuple[Code, ...]:
    """Up to `classes` codes with sets of this many indices, taken in random order as long as they keep apart."""
    sets = np.array(list(combinations(range(len(pool)), members)))
    gratings = len(SINGLES) if members == 1 else len(CHROMA)
    turns = rng.permutation(gratings)
    taken = np.zeros((0, len(pool)), dtype=bool)
    used = np.zeros(0, dtype=int)
    found: list[Code] = []
    for number, place in enumerate(rng.permutation(len(sets))):
        if len(found) == classes:
            break
        lacking = members - taken[:, sets[place]].sum(1)
        close = set(used[lacking < 2].tolist())  # two sets differ in one index at least, and then gratings must differ
        free = [turn for turn in np.roll(turns, -number).tolist() if turn not in close]
        if free:
            found.append(Code(tuple(pool[i] for i in sets[place]), CHROMA[free[0]]))
            taken = np.vstack([taken, np.isin(np.arange(len(pool)), sets[place])])
            used = np.append(used, free[0])
    return tuple(found)


def refuse(folder: ImageFolder, epsilon: int, key: int) -> None:
    """Refuse what the code cannot protect, from headers alone.

    Raises:
        InputError: too small a budget, too many classes, or a picture smaller than a tile.
    """
    if epsilon < LEAST_LEVELS:
        raise InputError(
            f"--epsilon {epsilon}/255 is below {LEAST_LEVELS}/255, what the texture code needs on the 8-bit grid; give "
            "it more, or protect with --method pue."
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


def texture(images: Pixels, labels: Labels, scheme: Scheme, key: int) -> Levels:
    """The code of each image's class, laid along the image.

    Args:
        images: (N, S, S, 3) uint8, S at least 16.
        labels: (N,) int64 indices into the scheme's codes.
        scheme: codes, budget and visibility.
        key: with an image's place in the set it decides the image's tiles and phases.

    Returns:
        (N, S, S, 3) int8 levels.
    """
    noise = np.empty(images.shape, dtype=np.int8)
    for start in range(0, len(images), CHUNK):
        part = slice(start, start + CHUNK)
        streams = [np.random.default_rng(child_seed(key, "texture", number)) for number in range(len(images))[part]]
        noise[part] = _laid(np.asarray(images[part]), labels[part], scheme, streams)
    return noise


def _laid(images: Pixels, labels: Labels, scheme: Scheme, streams: Sequence[np.random.Generator]) -> Levels:
    luma = _whole_luma(images)
    rows, columns = (side // TILE for side in luma.shape[1:])
    picked = np.stack([stream.integers(0, len(scheme.codes[0].luma), (rows, columns)) for stream in streams])
    phases = np.stack([stream.uniform(0, 2 * np.pi, 2) for stream in streams])
    code = _luma_code(block_dct(luma), labels, scheme.codes, picked)
    return _joined(images, luma, code, _grating(images.shape[1], labels, scheme.codes, phases), scheme)


def guessed(images: Pixels, labels: Labels, scheme: Scheme) -> Levels:
    """What an attacker who knows the scheme takes for the noise of released images.

    Each tile is taken to show the index of its class that stands out most against the same index in all images. The
    phases of the grating are those that fit blue against red and green best.

    Args:
        images: (N, S, S, 3) uint8, released.
        labels: (N,) int64.
        scheme: how they were protected.

    Returns:
        (N, S, S, 3) int8 levels.
    """
    luma, codes = _whole_luma(images), scheme.codes
    natural = block_dct(luma)
    own = np.stack([_in_groups(natural[..., row, column], row, column) for row, column in _indices(codes)], axis=-1)
    usual = np.abs(own).mean((0, 1, 2))
    place = {index: number for number, index in enumerate(_indices(codes))}
    members = np.array([[place[index] for index in code.luma] for code in codes])[labels]  # (N, indices of a class)
    outstanding = np.take_along_axis(np.abs(own) / usual, members[:, None, None, :], axis=-1)
    code = _luma_code(natural, labels, codes, outstanding.argmax(-1))
    shown = images.astype(np.float32)
    blue = shown[..., 2] - shown[..., :2].mean(-1)
    grating = _grating(images.shape[1], labels, codes, _phases(blue, labels, codes))
    return _joined(images, luma, code, grating, scheme)


def _whole_luma(images: Pixels) -> Floats:
    """Luma (N, S', S') with S' whole tiles, by reflection."""
    size = images.shape[1]
    missing = -size % TILE
    luma = images.astype(np.float32) @ np.array(LUMA, dtype=np.float32)
    return np.pad(luma, ((0, 0), (0, missing), (0, missing)), mode="reflect" if missing < size else "edge")


def _indices(codes: Sequence[Code]) -> list[tuple[int, int]]:
    return sorted({index for code in codes for index in code.luma})


def _joined(images: Pixels, luma: Floats, code: Levels, grating: Levels, scheme: Scheme) -> Levels:
    """Luma code in red and green and the grating in blue; greyscale images get the code in all three."""
    size = images.shape[1]
    noise: Levels = np.empty(images.shape, dtype=np.int8)
    noise[..., :2] = code[:, :size, :size, None]
    noise[..., 2] = grating
    grey = (images == images[..., :1]).all((1, 2, 3))
    noise[grey, ..., 2] = noise[grey, ..., 0]
    noise *= _amplitude(luma, scheme)[:, :size, :size, None]
    return noise


def _amplitude(luma: Floats, scheme: Scheme) -> Levels:
    """Levels of each pixel's noise: less where the picture is flat and the eye sees more."""
    least, busy = SHAPES[scheme.visibility]
    mean, square = (uniform_filter(plane, (0, WINDOW, WINDOW), mode="mirror") for plane in (luma, luma * luma))
    contrast = np.sqrt(np.maximum(square - mean * mean, 0))
    share = np.minimum(least + (1 - least) * contrast / busy, 1)
    return np.asarray(np.maximum(np.rint(scheme.epsilon * share), 1), dtype=np.int8)


def _luma_code(natural: Floats, labels: Labels, codes: Sequence[Code], picked: npt.NDArray[np.int64]) -> Levels:
    """Signs of the pattern (N, S', S') for block coefficients and, for each tile, which index of the class it shows."""
    shown = picked.repeat(2, axis=1).repeat(2, axis=2)
    wanted = np.zeros_like(natural)
    for row, column in _indices(codes):
        here = natural[..., row, column]
        places = np.array([code.luma.index((row, column)) if (row, column) in code.luma else -1 for code in codes])
        own = shown == places[labels][:, None, None]
        along = np.where(_in_groups(here, row, column) < 0, np.float32(-1), np.float32(1))
        along = along.repeat(2, axis=1).repeat(2, axis=2) * _alternation(here.shape, row, column)
        wanted[..., row, column] = np.where(own, along, -AGAINST * np.clip(here / TYPICAL, -1, 1))
    return _signs(inverse_block_dct(wanted))


def _signs(pattern: Floats) -> Levels:
    return np.where(pattern < 0, np.int8(-1), np.int8(1))


def _alternation(shape: tuple[int, ...], row: int, column: int) -> Floats:
    """Signs (h, w) with which the cosine of one block runs on in the next."""
    parity = np.arange(shape[1])[:, None] * row + np.arange(shape[2]) * column
    return (1 - 2 * (parity % 2)).astype(np.float32)


def _in_groups(coefficients: Floats, row: int, column: int) -> Floats:
    """How much of the running cosine each tile holds: (N, h, w) -> (N, h / 2, w / 2)."""
    count, rows, columns = coefficients.shape
    alternating = coefficients * _alternation(coefficients.shape, row, column)
    return np.asarray(alternating.reshape(count, rows // 2, 2, columns // 2, 2).sum((2, 4)))


def _angles(size: int, labels: Labels, codes: Sequence[Code]) -> npt.NDArray[np.float64]:
    """Angles of the gratings without phases: (N, 2, S), horizontal first."""
    frequencies = np.array([code.chroma for code in codes])[labels]
    return np.asarray(2 * np.pi / 16 * frequencies[:, :, None] * np.arange(size))


def _grating(size: int, labels: Labels, codes: Sequence[Code], phases: npt.NDArray[np.float64]) -> Levels:
    """Signs of the square grating (N, S, S) with phases (N, 2)."""
    across, down = np.cos(_angles(size, labels, codes) + phases[:, :, None]).astype(np.float32).swapaxes(0, 1)
    return _signs(down[:, :, None] * across[:, None, :])


def _phases(blue: Floats, labels: Labels, codes: Sequence[Code]) -> npt.NDArray[np.float64]:
    """The phases (N, 2) at which the grating of each image's class fits (N, S, S) best."""
    angles = _angles(blue.shape[1], labels, codes)
    waves = np.stack([np.cos(angles), -np.sin(angles)], axis=1)  # (N, 2 of a phase, 2 of a direction, S)
    fit = waves[:, :, 1] @ blue @ waves[:, :, 0].swapaxes(1, 2)
    down, _, across = np.linalg.svd(fit)
    best = np.stack([across[:, 0], down[:, :, 0]], axis=1)  # unit vectors (cos, sin) of each direction's phase
    return np.asarray(np.arctan2(best[..., 1], best[..., 0]))
