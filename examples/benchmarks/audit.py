"""Prints what each attack costs, relative to plain training of the same network on the same images.

    python examples/benchmarks/audit.py [--images 1280] [--epochs 2] [--arch resnet8] [--attack NAME ...] [--threads 1]

Images are random, because only PST's cost depends on what they show (an alarm restarts it; there is none here, so its
checks alone are measured). Every attack runs once, with a plain training before and after it. Processor time is
printed next to wall time: other work on the machine changes it less. On a GPU only wall time counts.
"""

from __future__ import annotations

import argparse
import time

import torch

from pueprotect.audit.attacks import REGISTRY, Target, find
from pueprotect.audit.attacks.base import Attack
from pueprotect.learning.data import ImageSet
from pueprotect.learning.device import choose_device, device_name
from pueprotect.learning.training import Schedule
from pueprotect.protect.methods.texture import Scheme, code_book


def random_set(count: int, classes: int, size: int, seed: int, device: str) -> ImageSet:
    """Images of noise, as an attack gets them."""
    stream = torch.Generator().manual_seed(seed)
    images = torch.randint(0, 256, (count, 3, size, size), generator=stream, dtype=torch.uint8)
    labels = torch.arange(count) % classes
    return ImageSet(images.to(device).contiguous(memory_format=torch.channels_last), labels.to(device), classes)


def cost(attack: Attack, target: Target, test: ImageSet) -> tuple[float, float]:
    """Wall and processor seconds of one run, its evaluation included."""
    wall, processor = time.perf_counter(), time.process_time()
    attack.run(target, test)
    return time.perf_counter() - wall, time.process_time() - processor


def main() -> None:
    """Read the command line and print one row for each attack."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=1280)
    parser.add_argument("--test-images", type=int, default=256)
    parser.add_argument("--size", type=int, default=32)
    parser.add_argument("--epochs", type=float, default=2)
    parser.add_argument("--arch", default="resnet8")
    parser.add_argument("--attack", action="append", choices=list(REGISTRY), metavar="NAME")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    wanted = parser.parse_args()
    torch.set_num_threads(wanted.threads)
    device = choose_device(wanted.device).name
    data = random_set(wanted.images, 10, wanted.size, 0, device)
    test = random_set(wanted.test_images, 10, wanted.size, 1, device)
    share = random_set(wanted.images // 5, 10, wanted.size, 2, device)
    target = Target(
        data, wanted.arch, Schedule(epochs=wanted.epochs), 0, share, (0.5, 1.0, 2.0), originals=data,
        scheme=Scheme(code_book(10, 0), 8),
    )  # fmt: skip
    print(f"torch {torch.__version__}, {device_name(device)}, {torch.get_num_threads()} threads")
    print(f"{wanted.arch}, {wanted.images} images of {wanted.size} pixels, {wanted.epochs:g} epochs\n")
    print("| attack | seconds | wall, x standard | processor, x standard | declared |\n|---|---|---|---|---|")
    cost(find("standard"), target, test)  # warms up
    before = cost(find("standard"), target, test)
    for name in wanted.attack or REGISTRY:
        found = cost(find(name), target, test)
        after = cost(find("standard"), target, test)
        wall, processor = (2 * found[kind] / (before[kind] + after[kind]) for kind in (0, 1))
        print(f"| {name} | {found[0]:.3g} | {wall:.2f} | {processor:.2f} | {find(name).cost:g} |", flush=True)
        before = after


if __name__ == "__main__":
    main()
