"""Draws a data set of many classes.

    python examples/many_classes.py DATA [--classes 100] [--per-class 50] [--own-colours 0.4]

Each class has an object of its own shape and colours, turned, scaled and moved, before backgrounds that any class may
have. `--own-colours` says how much of the colours is the class's and how much the image's: it decides how easily
classes are told apart. Writes DATA/train and DATA/test of 32 pixels; for every five images of training there are two of
test.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw


def drawn(label: int, index: int, own_colours: float, size: int = 32) -> Image.Image:
    """One image of the class `label`."""
    own, chance, paint = (np.random.default_rng(key) for key in ((0, label), (1, label, index), (2, label, index)))

    def field(rng: np.random.Generator, cells: int, side: int) -> Image.Image:
        colours = rng.integers(0, 256, (cells, cells, 3), dtype=np.uint8)
        return Image.fromarray(colours).resize((side, side), Image.Resampling.BICUBIC)

    side = 4 * size
    angles = np.linspace(0, 2 * np.pi, 90, endpoint=False)
    reach = 0.4 + sum(0.06 * np.cos(wave * angles + own.uniform(0, 2 * np.pi)) for wave in (2, 3, 4, 5))
    outline = np.stack([0.5 + reach * np.cos(angles), 0.5 + reach * np.sin(angles)], axis=1) * side
    thing = Image.blend(field(paint, 3, side), field(own, 3, side), own_colours)
    shape = Image.new("L", (side, side))
    ImageDraw.Draw(shape).polygon([tuple(point) for point in outline], fill=255)
    thing.putalpha(shape)
    scale, turn = chance.uniform(0.6, 0.95), chance.uniform(-25, 25)
    thing = thing.rotate(turn, Image.Resampling.BICUBIC).resize((round(scale * side),) * 2, Image.Resampling.BICUBIC)
    image = field(chance, 3, side)
    image.paste(thing, tuple(chance.integers(0, side - thing.width + 1, 2).tolist()), thing)
    pixels = np.asarray(image.resize((size, size), Image.Resampling.BOX), dtype=np.float32)
    light = chance.uniform(0.6, 1.1) * pixels + chance.uniform(-20, 20) + chance.normal(0, 4, pixels.shape)
    return Image.fromarray(np.clip(light, 0, 255).astype(np.uint8))


def make(data: Path, classes: int, per_class: int, own_colours: float) -> None:
    """Write DATA/train and DATA/test."""
    for part, numbers in (("train", range(per_class)), ("test", range(per_class, per_class + 2 * per_class // 5))):
        for label in range(classes):
            folder = data / part / f"{label:03d}"
            folder.mkdir(parents=True, exist_ok=True)
            for index in numbers:
                drawn(label, index, own_colours).save(folder / f"{index:03d}.jpg", quality=95, subsampling=0)


def main() -> None:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("--classes", type=int, default=100)
    parser.add_argument("--per-class", type=int, default=50)
    parser.add_argument("--own-colours", type=float, default=0.4)
    wanted = parser.parse_args()
    make(wanted.data, wanted.classes, wanted.per_class, wanted.own_colours)


if __name__ == "__main__":
    main()
