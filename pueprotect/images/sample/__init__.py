"""A small labelled data set to try everything on at once: five kinds of photo-like pictures, drawn, not stored.

Each picture is composed from (seed, class, index) alone: pose, number, colours, season, daylight, background,
focus and sensor noise vary, and every class comes in every light, so that shape and texture tell the classes
apart and no single colour does. Each scene is seen through a window pane that reflects another one. The reflections are
there on purpose to make the classes harder: without them a small network reached 99 % within a few passes, and noise
of 8/255 did not stop it. What protection reaches on this sample therefore says nothing about easier data.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

from pueprotect.errors import InputError
from pueprotect.images.sample.canvas import Scene
from pueprotect.images.sample.motifs import CLASSES
from pueprotect.runtime import child_seed

__all__ = ["CLASSES", "draw", "write_sample"]

JPEG_QUALITY = 92
SMALLEST, LARGEST = 32, 512
_CLEARNESS = (0.52, 0.66)  # share of light that comes through the pane


def write_sample(dest: str | Path, *, per_class: int = 150, size: int = 32, seed: int = 0) -> int:
    """Write `dest`/CLASS/NNNN.jpg for five classes and return the number of images.

    Args:
        dest: a folder that is empty or not there yet.
        per_class: images per class, at least 1.
        size: side of the square images in pixels, `SMALLEST` to `LARGEST`.
        seed: image i of a class depends on (seed, class, i) and `size` alone.

    Raises:
        InputError: `dest` is not an empty folder or a number is out of range.
    """
    dest = Path(dest)
    if dest.exists() and (not dest.is_dir() or any(dest.iterdir())):
        raise InputError(f"{dest} is not an empty folder; name one that is empty or does not exist yet.")
    if not SMALLEST <= size <= LARGEST:
        raise InputError(f"size {size} is not between {SMALLEST} and {LARGEST} pixels.")
    if per_class < 1:
        raise InputError(f"{per_class} images per class are too few; write at least 1.")
    for name in CLASSES:
        (dest / name).mkdir(parents=True, exist_ok=True)
        for index in range(per_class):
            image = draw(name, index, size=size, seed=seed)
            image.save(dest / name / f"{index:04d}.jpg", quality=JPEG_QUALITY, subsampling=0)
    return per_class * len(CLASSES)


def draw(name: str, index: int, *, size: int = 64, seed: int = 0) -> Image.Image:
    """One RGB picture of class `name` (a key of `CLASSES`), size x size pixels."""
    side = size * (3 if size < 64 else 2)
    window = np.random.default_rng(child_seed(seed, f"sample/{name}/window", index))
    scene, shown = _seen(name, child_seed(seed, f"sample/{name}", index), side, window)
    other = list(CLASSES)[window.integers(len(CLASSES))]
    _, reflected = _seen(other, child_seed(seed, f"sample/{name}/reflection", index), side, window)
    scene.image = Image.blend(reflected, shown, window.uniform(*_CLEARNESS))
    return scene.develop(size)


def _seen(name: str, seed: int, side: int, window: np.random.Generator) -> tuple[Scene, Image.Image]:
    """A scene of a class, and the part of it that the photographer shows."""
    scene = Scene(np.random.default_rng(seed), side)
    CLASSES[name](scene)
    extent = window.uniform(0.6, 1.0)
    left, top = window.uniform(0, 1 - extent, 2)
    box = (left * side, top * side, (left + extent) * side, (top + extent) * side)
    return scene, scene.image.resize((side, side), Image.Resampling.BILINEAR, box)
