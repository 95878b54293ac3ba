"""Adds a texture code in closed form (method `hardened`): each class has textures, which follow each image's content.

No surrogate and no optimisation. In luma, every block of 8 x 8 pixels shows one index of the block DCT that belongs to
its class. The sign of the noise follows the image's own coefficient and continues across 2 x 2 blocks. The noise thus
strengthens the image's content, differs from image to image and averages out over a class: a linear classifier does
not find it. The indices of other classes are pushed against the image. Blue shows a coarse grating of a frequency that
belongs to the class, with phases for each image. Red and green show the luma code, modulated by a second such grating.
Gratings are coarse, since low frequencies survive an attacker's blur, and images hold little colour there. Greyscale
images get the luma code alone. Where an image is flat the noise is weaker.

Up to 100 classes show one index each, of those that survive JPEG of quality 10 and hold little natural energy. Up to
ten classes avoid the finest of these, which repeated 3x3 means remove. More classes own pairs of indices, of which each
tile of 2 x 2 blocks draws one.

Limits: the indices and frequencies can be read off the energies of the released classes, so a secret key does not help.
An attacker who knows the code book and subtracts its noise recovers the images. Removing the code's frequencies
recovers part of them, more with a wider notch or a smaller budget (attacks `known-code`, `notch`, `wide-notch`).

NumPy computes it, so the noise is the same on every device.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.ndimage import uniform_filter

from pueprotect.errors import ImageError, InputError
from pueprotect.images.block_dct import BLOCK, LUMA, Floats, block_dct, inverse_block_dct
from pueprotect.images.decode import identify
from pueprotect.images.folders import ImageFolder
from pueprotect.protect.methods.base import Labels, Mask, Noise, NoiseSettings, Pixels, Visibility
from pueprotect.protect.methods.closed_form import ClosedForm
from pueprotect.runtime import secret_stream

TILE = 2 * BLOCK
SMALLEST = 16  # pixels: one tile
LEAST_LEVELS = 4  # a quarter of it, the share of `subtle` in flat areas, is one whole level
ADVISED_LEVELS = 12  # with less, several filter attacks remove the code (examples/results/trials.md)
CHUNK = 256  # images in memory at once
AGAINST = 0.15  # push of other classes' indices against the image, relative to the amplitude of the class's own index
TYPICAL = 60.0  # levels of a DCT coefficient at which that push is complete

# (row, column) of the block DCT: one for each class; finer ones for more than ten classes, since networks learn them
# sooner; and the pool of pairs for more than 100.
FEW = ((0, 3), (3, 0), (0, 2), (2, 0), (2, 2), (3, 1), (1, 3), (2, 1), (1, 2), (3, 2))
MANY = ((0, 3), (3, 0), (0, 4), (5, 0), (2, 2), (3, 1), (1, 3), (3, 2), (1, 4), (4, 1))
POOL = (*MANY, (0, 2), (2, 0), (4, 0), (0, 5), (1, 2), (2, 1), (2, 3), (3, 3), (2, 4), (4, 2))
# (horizontal, vertical) in sixteenths of a cycle for each pixel.
GRATINGS = ((1, 0), (0, 1), (1, 1), (1.6, 0), (0, 1.6), (1.6, 1), (1, 1.6), (1.6, 1.6), (2.2, 0), (0, 2.2))
RED_GREEN = 0.5  # size of the grating between red and green, relative to the luma code

# Share of the budget in flat areas, and the deviation of luma (levels, in 7 x 7 pixels) at which all of it is used.
SHAPES: dict[Visibility, tuple[float, float]] = {"subtle": (0.25, 40.0), "standard": (0.75, 20.0), "strong": (1.0, 1.0)}
WINDOW = 7

Levels = npt.NDArray[np.int8]
Frequencies = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Code:
    """The textures of one class.

    Attributes:
        luma: indices (row, column) of the block DCT.
        blue: frequency of the grating in blue, one of `GRATINGS`; `red_green` is the one between red and green.
    """

    luma: tuple[tuple[int, int], ...]
    blue: tuple[float, float]
    red_green: tuple[float, float]

    def distance(self, other: Code) -> int:
        """How many textures of this class the other class lacks."""
        return len(set(self.luma) - set(other.luma)) + (self.blue != other.blue) + (self.red_green != other.red_green)


@dataclass(frozen=True)
class Scheme:
    """All parameters of the code of one release, except the random draws of each image.

    Attributes:
        codes: from `code_book`, one for each class.
        epsilon: L-infinity budget in levels.
        visibility: how visible the code is where an image is flat; `strong` uses the whole budget everywhere.
    """

    codes: tuple[Code, ...]
    epsilon: int
    visibility: Visibility = "standard"


def code_book(classes: int, key: int | str) -> tuple[Code, ...]:
    """A code for each class, any two at least two textures apart.

    Args:
        classes: number of classes.
        key: decides which class gets which code; a whole number is the seed of a release that has no key.

    Raises:
        InputError: more classes than the book separates.
    """
    rng = secret_stream(key, "code-book")
    pool = FEW if classes <= len(FEW) else MANY if classes <= len(MANY) * len(GRATINGS) else POOL
    drawn = rng.permutation(pool).tolist()
    sets = _pairs(drawn) if pool is POOL else [[index] for index in drawn]
    separable = len(sets) * len(GRATINGS)
    if classes > separable:
        raise InputError(
            f"{classes} classes are more than the {separable} that the texture code can separate; merge classes, or "
            "protect with --method pue."
        )
    blue, red_green = (rng.permutation(GRATINGS).tolist() for _ in range(2))
    book = []
    for number in range(classes):
        # A Latin square: classes of one blue differ between red and green, or are ten sets apart and share no index.
        place, turn = number % len(sets), (number // len(sets) + number) % len(GRATINGS)
        other = place if classes <= len(GRATINGS) else (place + turn) % len(GRATINGS)
        luma = tuple((row, column) for row, column in sets[place])
        book.append(Code(luma, tuple(blue[turn]), tuple(red_green[other])))
    return tuple(book)


def _pairs(pool: list[list[int]]) -> list[list[list[int]]]:
    """Pairs of indices such that pairs ten places apart share none: the rounds of a round-robin tournament."""
    last = len(pool) - 1
    rounds = [
        [[pool[last], pool[turn]]]
        + [[pool[(turn + step) % last], pool[(turn - step) % last]] for step in range(1, (last + 1) // 2)]
        for turn in range(len(GRATINGS))
    ]
    return [pair for match in zip(*rounds, strict=True) for pair in match]


def texture(
    images: Pixels, labels: Labels, scheme: Scheme, key: int | str, places: Sequence[int] | None = None
) -> Levels:
    """The code of each image's class, laid along the image.

    Args:
        images: (N, S, S, 3) uint8, S at least 16.
        labels: (N,) int64 indices into the scheme's codes.
        scheme: codes, budget and visibility.
        key: decides each image's tiles and phases, together with its place in the set.
        places: place of each image in the set; None where `images` is the whole set.

    Returns:
        (N, S, S, 3) int8 levels.
    """
    noise = np.empty(images.shape, dtype=np.int8)
    numbers = range(len(images)) if places is None else places
    for start in range(0, len(images), CHUNK):
        part = slice(start, start + CHUNK)
        streams = [secret_stream(key, "texture", number) for number in numbers[part]]
        noise[part] = _laid(np.asarray(images[part]), labels[part], scheme, streams)
    return noise


def _laid(images: Pixels, labels: Labels, scheme: Scheme, streams: Sequence[np.random.Generator]) -> Levels:
    luma = _whole_luma(images)
    rows, columns = (side // TILE for side in luma.shape[1:])
    picked = np.stack([stream.integers(0, len(scheme.codes[0].luma), (rows, columns)) for stream in streams])
    drawn = np.stack([stream.uniform(0, 2 * np.pi, (2, 2)) for stream in streams])
    frequencies = _frequencies(labels, scheme.codes)
    phases = [np.where(given > 0, drawn[:, number], 0) for number, given in enumerate(frequencies)]
    return _joined(images, luma, _luma_code(block_dct(luma), labels, scheme.codes, picked), labels, phases, scheme)


def guessed(images: Pixels, labels: Labels, scheme: Scheme) -> Levels:
    """Estimate the noise of released images, as an attacker who knows the scheme can.

    The estimate for each tile is the index of its class with the most energy relative to the same index in all images.
    The phases of the gratings are those that best fit blue against red and green, and red against green.

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
    outstanding = np.take_along_axis(np.abs(own) / np.maximum(usual, 1e-6), members[:, None, None, :], axis=-1)
    code = _luma_code(natural, labels, codes, outstanding.argmax(-1))
    phases = [_phases(*both) for both in zip(colours(images), _frequencies(labels, codes), strict=True)]
    return _joined(images, luma, code, labels, phases, scheme)


def colours(images: Pixels) -> tuple[Floats, Floats]:
    """Blue against red and green, and red against green, where the gratings are: (N, S, S) each."""
    shown = images.astype(np.float32)
    return shown[..., 2] - shown[..., :2].mean(-1), shown[..., 0] - shown[..., 1]


def grating_energies(planes: Floats) -> Frequencies:
    """Energy of each of `GRATINGS` in planes (N, S, S), whatever its phases: (N, 10)."""
    frequencies = [np.tile(np.array(grating), (len(planes), 1)) for grating in GRATINGS]
    return np.stack([np.square(_fit(planes, each)).sum((1, 2)) for each in frequencies], axis=1)


def _whole_luma(images: Pixels) -> Floats:
    """Luma (N, S', S'), padded by reflection to whole tiles."""
    missing = -images.shape[1] % TILE
    luma = images.astype(np.float32) @ np.array(LUMA, dtype=np.float32)
    return np.pad(luma, ((0, 0), (0, missing), (0, missing)), mode="reflect" if missing < images.shape[1] else "edge")


def _indices(codes: Sequence[Code]) -> list[tuple[int, int]]:
    return sorted({index for code in codes for index in code.luma})


def _joined(
    images: Pixels, luma: Floats, code: Floats, labels: Labels, phases: Sequence[Frequencies], scheme: Scheme
) -> Levels:
    """The luma code and the gratings at their amplitude; greyscale images get the luma code in all three channels."""
    size = images.shape[1]
    frequencies = _frequencies(labels, scheme.codes)
    blue, red_green = (_grating(size, *both) for both in zip(frequencies, phases, strict=True))
    code = code[:, :size, :size]
    noise: Levels = np.empty(images.shape, dtype=np.int8)
    noise[..., 0] = _signs(code + RED_GREEN * red_green)
    noise[..., 1] = _signs(code - RED_GREEN * red_green)
    noise[..., 2] = _signs(blue)
    grey = (images == images[..., :1]).all((1, 2, 3))
    noise[grey] = _signs(code[grey])[..., None]
    noise *= _amplitude(luma, scheme)[:, :size, :size, None]
    return noise


def _amplitude(luma: Floats, scheme: Scheme) -> Levels:
    """Levels of each pixel's noise: less where the image is flat and noise is more visible."""
    least, busy = SHAPES[scheme.visibility]
    mean, square = (uniform_filter(plane, (0, WINDOW, WINDOW), mode="mirror") for plane in (luma, luma * luma))
    contrast = np.sqrt(np.maximum(square - mean * mean, 0))
    share = np.minimum(least + (1 - least) * contrast / busy, 1)
    return np.asarray(np.maximum(np.rint(scheme.epsilon * share), 1), dtype=np.int8)


def _luma_code(natural: Floats, labels: Labels, codes: Sequence[Code], picked: npt.NDArray[np.int64]) -> Floats:
    """The luma pattern (N, S', S') of root mean square 1, from block coefficients and the index picked in each tile."""
    shown = picked.repeat(2, axis=1).repeat(2, axis=2)
    wanted = np.zeros_like(natural)
    for row, column in _indices(codes):
        here = natural[..., row, column]
        places = np.array([code.luma.index((row, column)) if (row, column) in code.luma else -1 for code in codes])
        own = shown == places[labels][:, None, None]
        along = np.where(_in_groups(here, row, column) < 0, np.float32(-1), np.float32(1))
        along = along.repeat(2, axis=1).repeat(2, axis=2) * _alternation(here.shape, row, column)
        wanted[..., row, column] = np.where(own, along, -AGAINST * np.clip(here / TYPICAL, -1, 1))
    return inverse_block_dct(BLOCK * wanted)


def _signs(pattern: Floats) -> Levels:
    return np.where(pattern < 0, np.int8(-1), np.int8(1))


def _alternation(shape: tuple[int, ...], row: int, column: int) -> Floats:
    """Signs (h, w) with which the cosine of one block continues in the next."""
    parity = np.arange(shape[1])[:, None] * row + np.arange(shape[2]) * column
    return (1 - 2 * (parity % 2)).astype(np.float32)


def _in_groups(coefficients: Floats, row: int, column: int) -> Floats:
    """The sum of the continued cosine in each tile: (N, h, w) -> (N, h / 2, w / 2)."""
    count, rows, columns = coefficients.shape
    alternating = coefficients * _alternation(coefficients.shape, row, column)
    return np.asarray(alternating.reshape(count, rows // 2, 2, columns // 2, 2).sum((2, 4)))


def _frequencies(labels: Labels, codes: Sequence[Code]) -> tuple[Frequencies, Frequencies]:
    """Frequencies of each image's gratings, in blue and between red and green: (N, 2) each, horizontal first."""
    return np.array([code.blue for code in codes])[labels], np.array([code.red_green for code in codes])[labels]


def _angles(size: int, frequencies: Frequencies) -> Frequencies:
    """Angles of the gratings without phases: (N, 2, S), horizontal first."""
    return np.asarray(2 * np.pi / 16 * frequencies[:, :, None] * np.arange(size))


def _grating(size: int, frequencies: Frequencies, phases: Frequencies) -> Floats:
    """Gratings (N, S, S) with phases (N, 2), of root mean square about 1."""
    scale = np.where(frequencies > 0, np.sqrt(2), 1)[:, :, None]
    waves = np.cos(_angles(size, frequencies) + phases[:, :, None]) * scale
    across, down = waves.astype(np.float32).swapaxes(0, 1)
    return np.asarray(down[:, :, None] * across[:, None, :])


def _phases(plane: Floats, frequencies: Frequencies) -> Frequencies:
    """The phases (N, 2) at which gratings of these frequencies fit the planes (N, S, S) best."""
    down, _, across = np.linalg.svd(_fit(plane, frequencies))
    best = np.stack([across[:, 0], down[:, :, 0]], axis=1)  # unit vectors (cos, sin) of each direction's phase
    return np.asarray(np.arctan2(best[..., 1], best[..., 0]))


def _fit(plane: Floats, frequencies: Frequencies) -> Frequencies:
    """Products (N, 2, 2) of the planes with the cosine and the sine of each direction, vertical first."""
    angles = _angles(plane.shape[1], frequencies)
    waves = np.stack([np.cos(angles), -np.sin(angles)], axis=1)  # (N, 2 of a phase, 2 of a direction, S)
    return np.asarray(waves[:, :, 1] @ plane @ waves[:, :, 0].swapaxes(1, 2))


class Hardened(ClosedForm):
    """The texture code of this module, on every image."""

    name = "hardened"
    about = "adds textures of the class that follow each image's content, in closed form"
    source = "this project"
    dials = frozenset({"visibility"})
    checks = 2  # networks learn the coarse part of a texture code later than optimised noise

    def check(self, folder: ImageFolder, settings: NoiseSettings) -> None:
        """Refuse too small a budget, too many classes, or an image smaller than a tile; reads headers alone."""
        if settings.epsilon < LEAST_LEVELS:
            raise InputError(
                f"--epsilon {settings.epsilon}/255 is below {LEAST_LEVELS}/255, the least that the texture code needs; "
                "use more, or protect with --method pue."
            )
        code_book(len(folder.classes), settings.key)
        for entry in folder.entries:
            try:
                width, height = identify(folder.path_of(entry))[:2]
            except ImageError:
                continue  # reported with all others that cannot be read
            if min(width, height) < SMALLEST:
                raise InputError(
                    f"{folder.path_of(entry)} has {width} x {height} pixels, but the texture code needs {SMALLEST} on "
                    "each side; enlarge or remove it, or protect with --method pue."
                )

    def noise(self, pixels: Pixels, labels: Labels, held: Mask, settings: NoiseSettings) -> Noise:
        """The code of each image's class, see `texture`; nothing is fitted to the images."""
        scheme = Scheme(code_book(int(labels.max()) + 1, settings.key), settings.epsilon, settings.visibility)
        return texture(pixels, labels, scheme, settings.key)

    def advice(self, settings: NoiseSettings) -> list[str]:
        """Warn of a budget below the advised one."""
        if settings.epsilon >= ADVISED_LEVELS:
            return []
        return [
            f"{settings.epsilon}/255 is below the advised budget: several attacks recover more than at "
            f"{ADVISED_LEVELS}/255. Use --epsilon {ADVISED_LEVELS}/255 if the images may look noisier."
        ]

    def scheme(self, run: Mapping[str, Any]) -> Scheme:
        """The code book, the budget and the visibility."""
        settings = run["settings"]
        key = settings.get("key", run["seed"])  # the seed was the key before there were keys
        return Scheme(code_book(len(run["classes"]), key), settings["epsilon"], settings["visibility"])
