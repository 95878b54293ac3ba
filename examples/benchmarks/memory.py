"""Measures the peak memory of protecting, above what the imported package takes.

    python examples/benchmarks/memory.py photos DATA [--count 100] [--size 64]
    python examples/benchmarks/memory.py cache [--images 100000] [--size 64]

`photos` runs the whole of `protect` on photographs of DATA, with one round and a short self-check. Run it with
several counts: the difference is what an image costs. `cache` makes a working cache of that many images on disk, as
`protect` does for sets that take more than 512 MiB, and takes a few steps of everything that `protect` does with
it: how many steps there are does not change what is held. All pages of the cache count,
because it was written here, although the system may drop them when memory is short.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path

import numpy as np
import torch

from pueprotect.images import folders as image_files
from pueprotect.images.folders import ImageFolder
from pueprotect.images.holdout import stratified_holdout
from pueprotect.images.working_copies import empty_pixels, twins
from pueprotect.learning.data import ImageSet, Part, image_set
from pueprotect.learning.training import Schedule, accuracy, train
from pueprotect.protect import job, presets
from pueprotect.protect import pipeline as release
from pueprotect.protect.methods import error_minimising as protect
from pueprotect.protect.methods.base import NoiseSettings
from pueprotect.protect.options import Options

CLASSES = 10
STEPS = 3
KEY = "b5" * 16  # public, so that runs repeat


def status(field: str) -> float:
    """One line of /proc/self/status in MiB."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) / 1024 for line in lines if line.startswith(f"{field}:"))


def photos(data: Path, count: int, size: int) -> None:
    """All of `protect` on some of the photographs."""
    whole = image_files.scan(data)
    picked = np.linspace(0, len(whole.entries) - 1, count).astype(int)
    folder = ImageFolder(whole.root, whole.classes, tuple(whole.entries[number] for number in picked))
    job.scan = lambda *_, **__: folder  # type: ignore[assignment]
    presets.MOST_REPEATS = 1.0
    options = Options(preset="quick", rounds=1, size=size, release_anyway=True, key=KEY)
    with tempfile.TemporaryDirectory(dir=data.parent) as place:
        release.protect_folder(data, Path(place) / "out", options=options)


def cache(count: int, size: int) -> None:
    """What `protect` does between reading and writing, on a cache of noise."""
    with tempfile.TemporaryDirectory() as place:
        pixels = empty_pixels((count, size, size, 3), Path(place))
    rng = np.random.default_rng(0)
    for start in range(0, count, 4096):
        pixels[start : start + 4096] = rng.integers(0, 256, pixels[start : start + 4096].shape, dtype=np.uint8)
    labels = np.arange(count) % CLASSES
    entries = tuple(image_files.ImageEntry(f"{number:06d}.jpg", int(label)) for number, label in enumerate(labels))
    folder = ImageFolder(Path(), tuple(map(str, range(CLASSES))), entries)
    print(f"{len(twins(folder, pixels))} twins, cache {pixels.nbytes / 2**20:.0f} MiB: {type(pixels).__name__}")
    whole: ImageSet = image_set(pixels, labels, CLASSES, "cpu")
    held = torch.from_numpy(stratified_holdout(labels, 0.2, 0))
    holdout, shown = (Part(whole, members.nonzero().flatten()) for members in (held, ~held))
    optimizer = protect.Optimizer(shown, NoiseSettings(rounds=1, key=KEY))
    protect.shared_batches = lambda *_: (Schedule().batch_size, STEPS)
    optimizer.run(1)
    train(optimizer.surrogate, shown, Schedule(epochs=STEPS * 64 / len(shown)), seed=0)
    few = Part(whole, holdout.members[:512])
    print(f"accuracy {accuracy(optimizer.surrogate, few):.0%} on 512 of the holdout (noise: about chance)")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("photos", "cache"))
    parser.add_argument("data", type=Path, nargs="?")
    parser.add_argument("--count", type=int, default=100, help="photographs")
    parser.add_argument("--images", type=int, default=100_000, help="images of the cache")
    parser.add_argument("--size", type=int, default=64, help="working size")
    chosen = parser.parse_args()
    before, began = status("VmRSS"), time.perf_counter()
    if chosen.what == "photos":
        photos(chosen.data, chosen.count, chosen.size)
        what = f"{chosen.count} photographs at {chosen.size} px"
    else:
        cache(chosen.images, chosen.size)
        what = f"{chosen.images} images at {chosen.size} px"
    print(f"{what}: peak {status('VmHWM') - before:.0f} MiB above the {before:.0f} MiB of the imports", end=", ")
    print(f"{time.perf_counter() - began:.0f} s")


if __name__ == "__main__":
    main()
