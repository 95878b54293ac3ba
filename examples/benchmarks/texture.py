"""Prints how many images the texture code protects in a second, next to its floor and a plain loop.

    OMP_NUM_THREADS=1 python examples/benchmarks/texture.py [--images 5000] [--size 32] [--classes 10]

Images are random. The floor is the block transform there and back; the plain loop lays one image at a time. Seconds are
the processor's, which other work on the machine disturbs less than wall time.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable

import numpy as np

from pueprotect.images.block_dct import block_dct, inverse_block_dct
from pueprotect.learning.device import device_name
from pueprotect.protect.methods.texture import CHUNK, Scheme, code_book, texture


def rate(work: Callable[[], object], images: int, repeats: int = 3) -> float:
    """Images for each processor second, the best of a few runs."""
    best = float("inf")
    for _ in range(repeats):
        began = time.process_time()
        work()
        best = min(best, time.process_time() - began)
    return images / best


def main() -> None:
    """Read the command line and print one row for each way."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=5000)
    parser.add_argument("--size", type=int, default=32)
    parser.add_argument("--classes", type=int, default=10)
    wanted = parser.parse_args()
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (wanted.images, wanted.size, wanted.size, 3), dtype=np.uint8)
    labels = np.arange(wanted.images) % wanted.classes
    scheme = Scheme(code_book(wanted.classes, 0), 8)

    def floor() -> None:
        for start in range(0, wanted.images, CHUNK):
            inverse_block_dct(block_dct(images[start : start + CHUNK, ..., 1].astype(np.float32)))

    def loop() -> None:
        for number in range(wanted.images):
            texture(images[number : number + 1], labels[number : number + 1], scheme, 0)

    print(f"numpy {np.__version__}, {device_name('cpu')}, {wanted.images} images of {wanted.size} pixels\n")
    print("| way | images / processor second |\n|---|---|")
    print(f"| texture code | {rate(lambda: texture(images, labels, scheme, 0), wanted.images):.0f} |")
    print(f"| one image at a time | {rate(loop, wanted.images, 1):.0f} |")
    print(f"| floor: block transform there and back | {rate(floor, wanted.images):.0f} |")


if __name__ == "__main__":
    main()
