"""Measures what an attacker's notch recovers and what it costs the picture: one row for each number of removed indices.

    python examples/results/notches.py RELEASE [RELEASE ...] --test DIR [--indices 0 5 10 20 30 45] [--seeds 0]
        [--arch resnet8] [--store STORE]

The attack `notch` takes out the indices of the block DCT that tell the released classes apart more than natural
images do. Here it takes out as many as asked for, the most telling first, and blurs blue; with 30 it is
`wide-notch`. The figure next to each is the same training on the clean originals behind the same filter. Accuracy
is measured on every second image of DIR, as by methods.py. Several releases (keys), or seeds of the attacker, give
mean and range.

With `--store` each cell is kept as `STORE/cells-methods/*.json` and taken up again. Releases are then named as
methods.py names them, such as `STORE/hardened-12-0`, and `methods.py collect` copies the cells into its page.
"""

from __future__ import annotations

import argparse
import json
import os
import time
from dataclasses import replace
from pathlib import Path

from cells import (
    Cell,
    Figure,
    Place,
    Spread,
    attacked,
    folder_of,
    from_json,
    keep,
    markdown,
    on_disk,
    percent,
    place_of,
    pooled,
)  # fmt: skip

HEADS = ("indices taken out", "released: end", "best pass", "clean behind the same filter")


def over(values: list[float]) -> Figure:
    """One value, or mean and range of several."""
    if len(values) == 1:
        return values[0]
    return Spread(sum(values) / len(values), min(values), max(values), len(values))


def named(release: Path, indices: int, wanted: argparse.Namespace) -> Cell:
    """The cell of one release, whose name ends in its key, and one number of indices."""
    name, _, key = release.name.rpartition("-")
    setting = {"indices": indices, "attackers": " ".join(map(str, wanted.seeds))}
    return Cell(
        kind="notch", release=name or release.name, attack="wide-notch", arch=wanted.arch, epochs=wanted.epochs,
        seeds=(int(key),) if key.isdigit() else None, setting=setting,
    )  # fmt: skip


def measured(release: Path, number: int, cell: Cell, wanted: argparse.Namespace) -> Cell:
    """One release against all seeds of the attacker."""
    from pueprotect.audit.attacks.notch import WideNotch
    from pueprotect.release.audits import CLEAN_BEHIND_IT

    found = on_disk(release, wanted.test, second_half=True)
    results = [
        # The attacker's seed is not the owner's.
        attacked(found, WideNotch(cell.setting["indices"]), arch=wanted.arch, epochs=wanted.epochs,
                 seed=number + 100 * (1 + seed)) for seed in wanted.seeds
    ]  # fmt: skip
    return replace(
        cell, accuracy=over([result.accuracy for result in results]),
        best=over([result.best_accuracy for result in results]),
        clean_behind_filter=over([result.details["points"][CLEAN_BEHIND_IT] for result in results]),
    )  # fmt: skip


def row(indices: int, cells: list[Cell]) -> list[str]:
    """One row: end of training, best pass, clean images behind the same filter."""
    names = ("accuracy", "best", "clean_behind_filter")
    return [str(indices), *(percent(pooled(cells, name)) for name in names)]


def main() -> None:
    """Read the command line and print one row for each number of indices."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("releases", type=Path, nargs="+", metavar="RELEASE")
    parser.add_argument("--test", type=Path, required=True)
    parser.add_argument(
        "--indices", type=int, nargs="+", default=[0, 5, 10, 20, 30, 45], choices=range(64), metavar="N"
    )
    parser.add_argument("--seeds", type=int, nargs="+", default=[0], help="the attacker's, for each release")
    parser.add_argument("--arch", default="resnet8")
    parser.add_argument("--epochs", type=float, default=15)
    parser.add_argument("--store", type=Path)
    wanted = parser.parse_args()
    import torch

    from pueprotect.learning.device import device_name

    print(f"torch {torch.__version__}, {device_name('cpu')}, {os.cpu_count()} cores, {wanted.arch}\n")
    print(markdown(HEADS, []))
    for indices in wanted.indices:
        cells = []
        for number, release in enumerate(wanted.releases):
            cell, began = named(release, indices, wanted), time.perf_counter()
            path = wanted.store and place_of(folder_of(wanted.store, "methods"), cell)
            if path and path.exists():
                cells.append(from_json(json.loads(path.read_text())))
                continue
            cells.append(measured(release, number, cell, wanted))
            if path:
                place = Place(wanted.test.parent, wanted.store, "methods", second_half=True)
                keep(place, path, cells[-1], time.perf_counter() - began)
        print(f"| {' | '.join(row(indices, cells))} |", flush=True)


if __name__ == "__main__":
    main()
