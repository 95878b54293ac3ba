"""Measures how visible the textures of `--method hardened` are: PSNR, SSIM, and a sheet to look at.

    python examples/results/visibility.py DATA SHEET.png [--store STORE]

Measures on DATA/test, and draws one image of each class at its own and at three times its size: the original, then
each visibility at 8/255, then 12/255 and 16/255. With `--store` the figures are kept as
`STORE/cells-methods/*.json`, and `methods.py collect` copies them into its page.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from cells import Cell, Figure, Place, folder_of, keep, markdown, place_of, pooled
from PIL import Image

from pueprotect.images.folders import scan
from pueprotect.images.similarity import ssim
from pueprotect.images.working_copies import load

if TYPE_CHECKING:
    from pueprotect.protect.methods.base import Visibility

LOOKS: dict[str, tuple[Visibility, int]] = {
    "hardened-subtle": ("subtle", 8),
    "hardened": ("standard", 8),
    "hardened-strong": ("strong", 8),
    "hardened-12": ("standard", 12),
    "hardened-16": ("standard", 16),
}
HEADS = ("visibility", "budget", "PSNR", "SSIM")


def row(cell: Cell) -> list[str]:
    """One row of the table."""
    visibility, levels = LOOKS[cell.release]
    psnr, alike = pooled([cell], "psnr"), pooled([cell], "ssim")
    assert psnr is not None
    assert alike is not None
    return [visibility, f"{levels}/255", f"{psnr.mean:.1f} dB", f"{alike.mean:.3f}"]


def main() -> None:
    """Read the command line, print a table and draw a sheet."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path, metavar="DATA")
    parser.add_argument("sheet", type=Path, metavar="SHEET")
    parser.add_argument("--size", type=int, default=32, help="working size")
    parser.add_argument("--store", type=Path)
    wanted = parser.parse_args()
    from pueprotect.protect.methods.texture import Scheme, code_book, texture

    folder = scan(wanted.data / "test")
    images, labels = load(folder, wanted.size), folder.labels
    shown = np.flatnonzero(np.diff(labels, prepend=-1))
    rows, cells = [images[shown]], []
    for name, (visibility, levels) in LOOKS.items():
        began = time.perf_counter()
        scheme = Scheme(code_book(len(folder.classes), 0), levels, visibility)
        released = np.clip(images.astype(int) + texture(images, labels, scheme, 0), 0, 255).astype(np.uint8)
        errors = np.square(released - images.astype(float)).mean((1, 2, 3))
        points: dict[str, Figure] = {
            "psnr": float((10 * np.log10(255**2 / errors)).mean()),
            "ssim": float(np.mean([ssim(one, other) for one, other in zip(images, released, strict=True)])),
        }
        cell = Cell(kind="visibility", release=name, arch=None, epochs=None, seeds=(0,), points=points)
        if wanted.store:
            place = Place(wanted.data, wanted.store, "methods")
            keep(place, place_of(folder_of(wanted.store, "methods"), cell), cell, time.perf_counter() - began)
        cells.append(cell)
        rows.append(released[shown])
    print(f"{len(images)} images of {wanted.size} pixels\n\n{markdown(HEADS, map(row, cells))}")
    once = np.concatenate([np.concatenate(list(row), axis=1) for row in rows])
    thrice = once.repeat(3, axis=0).repeat(3, axis=1)
    above = np.full((once.shape[0], thrice.shape[1], 3), 255, dtype=np.uint8)
    above[:, : once.shape[1]] = once
    Image.fromarray(np.concatenate([above, thrice])).save(wanted.sheet)


if __name__ == "__main__":
    main()
