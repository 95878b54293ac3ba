"""Measures reading and writing of photographs against bare Pillow that does the same codec work.

    python examples/benchmarks/io.py DATA [--count 200] [--rounds 3] [--workers 2] [--size 64]
    python examples/benchmarks/io.py --make DATA [--count 200]

DATA holds class folders of JPEG photographs; `--make` writes some of about 2 megapixels. For each file both sides do
one draft-scaled decode, one full decode, one encode at the same quality without chroma subsampling, and one decode of
what was written, with as many threads, from disk to disk. Noise takes a codec longer, so bare Pillow encodes protected
pictures too, which it holds in memory. The package also fits each JPEG to the budget, which encodes it several times,
hashes, reduces to the working size, adds noise, measures every file and the similarity of a fifth of them (as 200 of
1,000), and keeps its journal. Bare Pillow keeps its default settings; the package makes Pillow keep freed memory. The
two sides alternate, and the medians are compared.
"""

from __future__ import annotations

import argparse
import os
import shutil
import statistics
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from itertools import cycle
from pathlib import Path

import numpy as np
import PIL
from PIL import Image

from pueprotect.images.encode import Encoder
from pueprotect.images.folders import ImageFolder, scan
from pueprotect.images.sample import draw
from pueprotect.images.working_copies import read_folder
from pueprotect.protect import writer as writing
from pueprotect.protect.draft import Journal
from pueprotect.protect.writer import Writer
from pueprotect.release.vault import Vault
from pueprotect.runtime import SILENT

WIDE, HIGH = 1632, 1224


def make(data: Path, count: int) -> None:
    """Write `count` photographs of two classes: enlarged samples, each with a shift and sensor noise of its own."""
    for number in range(count):
        name, index = ("forest", "sea")[number % 2], number // 12
        rng = np.random.default_rng(number)
        scene = draw(name, index, size=512).resize((WIDE, HIGH), Image.Resampling.BICUBIC)
        pixels = np.roll(np.asarray(scene, dtype=np.float32), 97 * number, axis=1) + rng.normal(0, 3, (HIGH, WIDE, 3))
        path = data / name / f"{number:05d}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8)).save(path, quality=88)


def writer(folder: ImageFolder, sources: dict[str, str], size: int, workers: int) -> Writer:
    """A writer of random class-wise noise; the content of the noise does not matter here."""
    shape = (len(folder.classes), size, size, 3)
    return Writer(
        folder=folder,
        names=[entry.path for entry in folder.entries],
        held=np.zeros(len(folder.entries), dtype=np.bool_),
        sources=sources,
        noise=np.random.default_rng(0).integers(-8, 9, shape).astype(np.int8),
        rows=folder.labels,
        encoder=Encoder(epsilon=8, quality=QUALITY),
        seed=0,
        workers=workers,
    )


QUALITY = 90


HELD = 16  # protected pictures in memory


def ours(folder: ImageFolder, place: Path, size: int, workers: int) -> None:
    """Read and write as `protect` does."""
    loaded = read_folder(folder, size, workers=workers)
    store = Vault.create(place / "vault")
    (store.path / "draft").mkdir()
    journal = Journal(store, "benchmark", goes_on=False)
    writer(folder, loaded.digests, size, workers).write(place / "out", journal, SILENT)
    journal.close()


def protected(folder: ImageFolder, size: int, workers: int) -> list[Image.Image]:
    """The pictures that the package makes of the first files; also warms up."""
    few = ImageFolder(folder.root, folder.classes, folder.entries[:HELD])
    with tempfile.TemporaryDirectory(dir=folder.root.parent) as name:
        ours(few, Path(name), size, workers)
        held = [Image.open(Path(name) / "out" / entry.path) for entry in few.entries]
        for image in held:
            image.load()
    return held


def bare(held: list[Image.Image], folder: ImageFolder, place: Path, size: int, workers: int) -> None:
    """The codec work alone."""

    def glance(path: Path) -> None:
        with Image.open(path) as image:
            image.draft(None, (2 * size, 2 * size))
            image.load()

    def convert(path: Path, made: Image.Image) -> None:
        target = place / "out" / path.relative_to(folder.root)
        with Image.open(path) as image:
            image.load()
        made.save(target, "JPEG", quality=QUALITY, subsampling=0)
        with Image.open(target) as image:
            image.load()

    paths = [folder.path_of(entry) for entry in folder.entries]
    for name in folder.classes:
        (place / "out" / name).mkdir(parents=True)
    with ThreadPoolExecutor(workers) as pool:
        list(pool.map(glance, paths))
        list(pool.map(convert, paths, cycle(held)))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("--make", action="store_true", help="write photographs to DATA instead of measuring")
    parser.add_argument("--count", type=int, default=200, help="photographs")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--workers", type=int, default=os.cpu_count())
    parser.add_argument("--size", type=int, default=64, help="working size")
    chosen = parser.parse_args()
    if chosen.make:
        make(chosen.data, chosen.count)
        return
    whole = scan(chosen.data)
    picked = np.linspace(0, len(whole.entries) - 1, min(chosen.count, len(whole.entries))).astype(int)
    folder = ImageFolder(whole.root, whole.classes, tuple(whole.entries[number] for number in picked))
    writing.SSIM_SAMPLE = len(folder.entries) // 5
    held = protected(folder, chosen.size, chosen.workers)
    sides: dict[str, Callable[[ImageFolder, Path, int, int], None]]
    sides = {"pueprotect": ours, "bare Pillow": partial(bare, held)}
    seconds: dict[str, list[float]] = {name: [] for name in sides}
    busy: dict[str, list[float]] = {name: [] for name in sides}
    for _ in range(chosen.rounds):
        for name, side in sides.items():
            place = Path(tempfile.mkdtemp(dir=chosen.data.parent))
            began, cpu = time.perf_counter(), time.process_time()
            side(folder, place, chosen.size, chosen.workers)
            seconds[name].append(time.perf_counter() - began)
            busy[name].append(time.process_time() - cpu)
            shutil.rmtree(place)
    count = len(folder.entries)
    print(f"{count} photographs, JPEG quality {QUALITY}, {chosen.workers} workers, Pillow {PIL.__version__}")
    for name, each in seconds.items():
        rate = count / statistics.median(each)
        listed = ", ".join(f"{value:.1f}" for value in each)
        processor = statistics.median(busy[name])
        each_costs = f"{1000 * processor / count:.0f} ms of processor each"
        print(f"{name:12} {rate:7.2f} images/s (median of {listed} s), {each_costs}")
    for what, times in (("throughput", seconds), ("processor", busy)):
        ratio = statistics.median(times["bare Pillow"]) / statistics.median(times["pueprotect"])
        print(f"{what:12} {ratio:.0%} of bare Pillow's" + (" (its time as a share of ours)" * (what == "processor")))


if __name__ == "__main__":
    main()
