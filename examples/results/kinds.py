"""Does the self-check say what plain training learns, for every kind of picture?

Pictures of DATA/train are turned into each kind: greyscale, small, with alpha, as JPEG, of 16 bits. Each kind is
protected with the default preset, and released even when the self-check refuses it. Then plain training on the released
files is measured on the clean held-out pictures (`pueprotect audit --attack standard`). `--digits FILE` is
scikit-learn's sklearn/datasets/data/digits.csv.gz, real digits of 8 x 8 pixels.

    python examples/results/kinds.py run DATA STORE --digits digits.csv.gz
    python examples/results/kinds.py page > examples/results/kinds.md
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from cells import Book, Cell, Place, head, key_of, markdown, parser_of, percent, pooled, prose, serve
from PIL import Image

NAME = "kinds"
PER_CLASS = 150
EPOCHS = 30
# Name -> what it is, mode, side in pixels, and the quality of a JPEG.
KINDS: dict[str, tuple[str, str, int, int | None]] = {
    "grey-32": ("greyscale, 32 px", "L", 32, None),
    "digits-28": ("digits, greyscale, 28 px", "L", 28, None),
    "digits-8": ("digits, greyscale, 8 px", "L", 8, None),
    "mixed-32": ("greyscale and colour in turn, 32 px", "mixed", 32, None),
    "colour-16": ("colour, 16 px", "RGB", 16, None),
    "colour-28": ("colour, 28 px", "RGB", 28, None),
    "colour-50": ("colour, 50 px", "RGB", 50, None),
    "mixed-sizes": ("colour, 24 and 64 px in turn", "sizes", 64, None),
    "alpha-32": ("colour with alpha, 32 px", "RGBA", 32, None),
    "jpeg-50": ("colour, JPEG of quality 50, 32 px", "RGB", 32, 50),
    "jpeg-95": ("colour, JPEG of quality 95, 32 px", "RGB", 32, 95),
    "grey-jpeg-75": ("greyscale, JPEG of quality 75, 32 px", "L", 32, 75),
    "grey-16-bit": ("greyscale of 16 bits, 32 px", "16-bit", 32, None),
    "colour-32": ("colour, 32 px", "RGB", 32, None),
}


def pictures(name: str, data: Path, digits: Path | None) -> Iterator[tuple[str, Image.Image]]:
    """Class and picture, at the side that DATA has."""
    if name.startswith("digits"):
        if digits is None:
            raise SystemExit(f"{name} needs --digits FILE")
        for row in np.loadtxt(digits, delimiter=","):
            yield str(int(row[64])), Image.fromarray((row[:64].reshape(8, 8) * 15.9).astype(np.uint8))
        return
    for folder in sorted(path for path in (data / "train").iterdir() if path.is_dir()):
        for path in sorted(folder.iterdir())[:PER_CLASS]:
            yield folder.name, Image.open(path).convert("RGB")


def make(name: str, place: Path, data: Path, digits: Path | None) -> None:
    """Write the pictures of one kind into class folders."""
    _, mode, side, quality = KINDS[name]
    for number, (label, picture) in enumerate(pictures(name, data, digits)):
        folder = place / label
        folder.mkdir(parents=True, exist_ok=True)
        wide = (24, 64)[number % 2] if mode == "sizes" else side
        picture = picture.resize((wide, wide), Image.Resampling.BICUBIC) if picture.size != (wide, wide) else picture
        if mode == "16-bit":
            fine = np.asarray(picture.convert("L"), dtype=np.uint16) * 257
            Image.fromarray(fine).save(folder / f"{number:05d}.png")
            continue
        shown = picture.convert({"mixed": "L" if number % 2 else "RGB", "sizes": "RGB"}.get(mode, mode))
        if mode == "RGBA":
            shown.putalpha(Image.linear_gradient("L").resize(shown.size))
        if quality is None:
            shown.save(folder / f"{number:05d}.png")
        else:
            shown.save(folder / f"{number:05d}.jpg", quality=quality)


def called(*words: object) -> dict[str, Any]:
    """What a command prints as JSON."""
    command = [sys.executable, "-m", "pueprotect", *map(str, words), "--json"]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def measure(place: Place, cell: Cell, digits: Path | None) -> Cell:
    """Protect one kind, and train plainly on what was released."""
    (seed,) = cell.seeds or (0,)
    source, out = place.store / f"{cell.release}-src", place.store / f"{cell.release}-{seed}"
    if not source.exists():
        make(cell.release, source, place.data, digits)
    words = ("--seed", seed, "--key", key_of(seed), "--release-anyway", "--overwrite")
    check = called("protect", source, "--out", out, *words)["self_check"]
    found = called("audit", out, "--attack", "standard", "--epochs", EPOCHS, "--seed", seed + 100)
    (row,) = found["results"]
    said = {"self_check": check["accuracy"], "limit": check["limit"], "clean": found["clean_accuracy"]}
    return replace(cell, accuracy=row["accuracy"], best=row["best_accuracy"], points=said)


def plan(wanted: argparse.Namespace) -> Iterator[Cell]:
    """Every kind, the first seed of all kinds first."""
    for seed in wanted.seeds:
        for name in wanted.kinds:
            yield Cell(release=name, attack="standard", epochs=EPOCHS, seeds=(seed,))


def tables(book: Book) -> str:
    """A row for each kind."""
    rows = []
    for name, (about, *_) in KINDS.items():
        if cells := book.pick(release=name):
            said, limit = pooled(cells, "self_check"), pooled(cells, "limit")
            assert said is not None
            assert limit is not None
            verdict = "released" if said.mean <= limit.mean else "refused"
            shown = [percent(pooled(cells, key)) for key in ("self_check", "limit", "accuracy", "best", "clean")]
            rows.append([about, *shown, verdict])
    return markdown(["pictures", "self-check", "limit", "plain training", "best pass", "originals", "verdict"], rows)


ABOUT = f"""
Pictures of CIFAR-10 (the first {PER_CLASS} of each class) and scikit-learn's digits were turned into each kind and
protected with the default preset of `pue` at 8/255. The self-check trains on the released files, read back from the
disk. Plain training is `pueprotect audit --attack standard` with {EPOCHS} passes and another seed. Percent of the
clean held-out pictures; chance is 10 %. Refused kinds are not released without `--release-anyway`.
"""


def page(book: Book) -> str:
    """The whole page."""
    return "\n\n".join([head("Kinds of pictures", NAME, book), prose(ABOUT), tables(book)])


def main() -> None:
    """Read the command line."""
    parser, commands = parser_of(__doc__)
    commands["run"].set_defaults(seeds=[0])
    commands["run"].add_argument("--digits", type=Path, help="digits.csv.gz of scikit-learn")
    commands["run"].add_argument("--kinds", nargs="+", default=list(KINDS), choices=KINDS, metavar="KIND")
    wanted = parser.parse_args()
    serve(
        wanted, NAME, plan, tables, page,
        how=lambda place, cell: measure(place, cell, wanted.digits),
    )  # fmt: skip


if __name__ == "__main__":
    main()
