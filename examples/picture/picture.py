"""Draws the picture of README.md: originals, what was released, and the difference times ten, one above the other.

    pueprotect sample photos && pueprotect protect photos --out shared
    python examples/picture/picture.py shared examples/picture/picture.png

It shows originals next to protected files, so make it of a sample, never of what you protect.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from pueprotect.images.decode import decode_rgb
from pueprotect.release.vault import Vault, default_vault

GAIN, SIDE, MARGIN = 10, 128, 100


def strip(out: Path, columns: int = 5) -> Image.Image:
    """Three labelled rows of `columns` pictures, enlarged without smoothing."""
    vault = Vault.open(default_vault(out))
    source = Path(vault.run()["source"])
    first = {row.class_name: row for row in reversed(vault.read_manifest())}
    page = Image.new("RGB", (MARGIN + columns * SIDE, 3 * SIDE), "white")
    draw, font = ImageDraw.Draw(page), ImageFont.load_default(16)
    for row, label in enumerate(("original", "protected", f"noise x {GAIN}")):
        draw.text((MARGIN - 10, (row + 0.5) * SIDE), label, fill="black", font=font, anchor="rm")
    for column, (_, shown) in enumerate(sorted(first.items())[:columns]):
        before, after = decode_rgb(source / shown.source_path), decode_rgb(out / shown.path)
        noise = np.clip(128 + GAIN * (after.astype(int) - before), 0, 255).astype(np.uint8)
        for row, pixels in enumerate((before, after, noise)):
            enlarged = Image.fromarray(pixels).resize((SIDE, SIDE), Image.Resampling.NEAREST)
            page.paste(enlarged, (MARGIN + column * SIDE, row * SIDE))
    return page


def main() -> None:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path, metavar="OUT", help="a released folder")
    parser.add_argument("picture", type=Path, metavar="PICTURE")
    wanted = parser.parse_args()
    strip(wanted.out).save(wanted.picture, optimize=True)


if __name__ == "__main__":
    main()
