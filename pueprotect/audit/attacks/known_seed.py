"""Tries the keys that can be guessed on a release, and subtracts the noise of the one that fits.

It has the tool and the released files. The key decides the code book, so each key predicts which textures stand out in
which class. Keys drawn at random are the yardstick: if the owner's key was not guessable, the keys tried are no better
than those, and the best of all is among the keys tried with the probability `FALSE_ALARM`, which needs no assumption
about the images. With the key, the attacker also knows the tiles and phases of each image from its place among the
files, and reads budget and visibility off the blue channel.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from pueprotect.audit.attacks.base import Run, register
from pueprotect.audit.attacks.filtered import ADAPTIVE
from pueprotect.audit.attacks.notch import energies
from pueprotect.audit.attacks.standard import Plain
from pueprotect.errors import InputError
from pueprotect.learning.data import ImageSet
from pueprotect.learning.models import Classifier
from pueprotect.protect.key import guessable_keys
from pueprotect.protect.methods.base import LARGEST_BUDGET, Labels, Pixels, Visibility
from pueprotect.protect.methods.texture import (
    GRATINGS,
    LEAST_LEVELS,
    SHAPES,
    SMALLEST,
    Code,
    Levels,
    Scheme,
    code_book,
    colours,
    grating_energies,
    guessed,
    texture,
)
from pueprotect.runtime import secret_stream

FALSE_ALARM = 0.01  # probability that a key is reported on a release whose key is not guessable
CHUNK = 1024
SAMPLE = 2000  # images that budget and visibility are read off
HIDDEN = 1.05  # black and white clip some of the noise, and its own contrast hides some more
FINE = 100  # levels of a pattern whose strength is measured
USUAL: tuple[int, Visibility] = (8, "standard")  # budget and visibility where no image has colours to read them off

Table = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Contrast:
    """How far each texture stands out in each class against all others, in standard errors of the difference.

    Attributes:
        luma: (classes, 8, 8), by index of the block DCT; `blue` and `red_green` are (classes, 10), by grating.
    """

    luma: Table
    blue: Table
    red_green: Table

    def score(self, book: Sequence[Code]) -> float:
        """The sum over the textures of a code book."""
        classes = np.arange(len(book))
        blue, red_green = ([_GRATING[getattr(code, name)] for code in book] for name in ("blue", "red_green"))
        rows, columns = np.array([code.luma for code in book]).transpose(2, 1, 0)  # (indices of a class, classes)
        luma = self.luma[classes, rows, columns].sum()
        return float(luma + self.blue[classes, blue].sum() + self.red_green[classes, red_green].sum())


_GRATING = {grating: number for number, grating in enumerate(GRATINGS)}


def contrast(data: ImageSet) -> Contrast:
    """Measure the textures of released images; (N, 3, S, S), S at least 16."""
    labels, parts = data.labels.cpu().numpy(), []
    for images in data.images.split(CHUNK):
        blue, red_green = colours(images.permute(0, 2, 3, 1).cpu().numpy())
        gratings = [np.log1p(grating_energies(plane)) for plane in (blue, red_green)]
        parts.append([energies(images).cpu().numpy().astype(float), *gratings])
    return Contrast(*(_standing_out(np.concatenate(found), labels, data.classes) for found in zip(*parts, strict=True)))


def _standing_out(found: Table, labels: Labels, classes: int) -> Table:
    """(N, ...) of images -> (classes, ...): the mean of a class minus that of the others, in standard errors."""
    rows = []
    for label in range(classes):
        own, rest = found[labels == label], found[labels != label]
        if min(len(own), len(rest)) < 2:
            rows.append(np.zeros(found.shape[1:]))
            continue
        error = np.sqrt(own.var(0, ddof=1) / len(own) + rest.var(0, ddof=1) / len(rest))
        rows.append((own.mean(0) - rest.mean(0)) / np.maximum(error, 1e-6))
    return np.stack(rows)


def fitting_key(data: ImageSet, seed: int) -> tuple[int | str | None, dict[str, Any]]:
    """The guessable key that fits the release better than every random one; None if there is none.

    Returns:
        The key, a whole number where it is the seed of an old release, and what was tried.
    """
    keys, classes = guessable_keys(), data.classes
    drawn = round(len(keys) * (1 - FALSE_ALARM) / FALSE_ALARM)
    random = secret_stream(seed, "known-seed").bytes(16 * drawn).hex()
    told: dict[str, Any] = {"keys": len(keys), "random_keys": drawn, "false_alarm": FALSE_ALARM}
    none = "no guessable key fits, so this is plain training"
    try:
        books = [code_book(classes, key) for key in keys]
    except InputError:  # more classes than a code book has
        books = []
    if data.size < SMALLEST or not books:
        return None, told | {"key": None, "reading": none}
    measured = contrast(data)
    scores = [measured.score(book) for book in books]
    yardstick = max(measured.score(code_book(classes, random[32 * n : 32 * n + 32])) for n in range(drawn))
    best = int(np.argmax(scores))
    told |= {"score": scores[best], "best_random_score": yardstick}
    if scores[best] <= yardstick:
        return None, told | {"key": None, "reading": none}
    return keys[best], told | {"key": str(keys[best]), "reading": "this key fits, and its noise was subtracted"}


def subtracted(data: ImageSet, key: int | str, places: Sequence[int] | None = None) -> tuple[ImageSet, dict[str, Any]]:
    """Released images minus the noise of this key.

    Args:
        data: released images.
        key: the owner's.
        places: place of each image among all files of the release; None where these are all of them. If they turn out
            not to be the owner's, tiles and phases are guessed from the images.

    Returns:
        The images, and the budget and visibility that were found.
    """
    images, labels = data.images.permute(0, 2, 3, 1).cpu().numpy(), data.labels.cpu().numpy()
    codes, numbers = code_book(data.classes, key), range(len(images)) if places is None else places

    def keyed(shown: Pixels, scheme: Scheme) -> Levels:
        return texture(shown, labels[: len(shown)], scheme, key, numbers)

    def fitted(shown: Pixels, scheme: Scheme) -> Levels:
        return guessed(shown, labels[: len(shown)], scheme)

    how, noise = "of the key", keyed
    epsilon, visibility = _strength(images[:SAMPLE], codes, noise)
    if epsilon < LEAST_LEVELS:
        how, noise = "guessed from the images", fitted
        epsilon, visibility = _strength(images[:SAMPLE], codes, noise)
    scheme = Scheme(codes, min(max(epsilon, LEAST_LEVELS), LARGEST_BUDGET), visibility)
    # The noise follows the clean image: half of the first estimate brings the released one nearer to it.
    nearer = np.clip(images - noise(images, scheme) / 2, 0, 255).round().astype(np.uint8)
    left = np.clip(images.astype(np.int16) - noise(nearer, scheme), 0, 255).astype(np.uint8)
    found = torch.from_numpy(left).to(data.images.device).permute(0, 3, 1, 2)
    told = {"epsilon": scheme.epsilon, "visibility": visibility, "tiles_and_phases": how}
    return replace(data, images=found.contiguous(memory_format=torch.channels_last)), told


def _strength(
    images: Pixels, codes: tuple[Code, ...], noise: Callable[[Pixels, Scheme], Levels]
) -> tuple[int, Visibility]:
    """The budget in levels and the visibility whose gratings fit blue best, where pictures hold little colour."""
    blue = colours(images)[0]
    blue -= blue.mean((1, 2), keepdims=True)
    if not blue.any():
        return USUAL
    fits: dict[Visibility, tuple[float, float]] = {}
    for visibility in SHAPES:
        pattern = noise(images, Scheme(codes, FINE, visibility))[..., 2].astype(np.float32) / FINE
        along, size = float((blue * pattern).sum()), float((pattern * pattern).sum())
        fits[visibility] = along / size**0.5, along / size
    best = max(fits, key=lambda visibility: fits[visibility])
    return round(HIDDEN * fits[best][1]), best


@register
class KnownSeed(Plain):
    """Subtracts the noise if the release was made with a key that can be guessed, else trains plainly."""

    name = "known-seed"
    about = "tries guessable keys of hardened on the release and subtracts the noise of the one that fits"
    source = ADAPTIVE
    cost = 1.2

    def train(self, run: Run) -> Classifier:
        """Plain training on what is left; the details say which key fits, or that none does."""
        target = run.target
        key, told = fitting_key(target.released, target.seed)
        run.details |= told
        run.trained_on = target.released
        if key is not None:
            run.trained_on, found = subtracted(target.released, key, target.places)
            run.details |= found
        return self.learn(run, run.trained_on, on_epoch=run.epoch)
