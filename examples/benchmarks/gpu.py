"""Measures a whole data set on one device: seconds, image passes a second and their share of the matrix ceiling.

    python examples/benchmarks/gpu.py DATA STORE [--arch resnet18] [--epochs 30] [--attack NAME ...] [--suite quick]

Meant for all of CIFAR-10 (DATA/train/<class>/*, DATA/test/<class>/*) and the papers' ResNet-18 on a GPU. Trains the
clean line; protects class-wise and sample-wise (PUE) and sample-wise (EMN), timed as `protect` itself reports it; and
audits each release with the command line, whose own tables are printed. The ceiling is the fastest of a few large bf16
matrix products (fp32 where the device has no bf16); training counts three forward passes for each image.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import torch
from torch.utils.flop_counter import FlopCounterMode

from pueprotect.images.folders import scan
from pueprotect.images.working_copies import load
from pueprotect.learning.data import ImageSet, image_set
from pueprotect.learning.device import choose_device, device_name, native_bf16
from pueprotect.learning.models import build
from pueprotect.learning.training import Schedule, accuracy, train

RELEASES = {
    "pue class-wise": ["--method", "pue"],
    "pue sample-wise": ["--method", "pue", "--mode", "sample-wise"],
    "emn sample-wise": ["--method", "emn", "--mode", "sample-wise"],
}


def folder(path: Path, device: str) -> ImageSet:
    found = scan(path)
    return image_set(load(found, 32), found.labels, len(found.classes), device)


def seconds_of(device: str, work: Callable[[], object]) -> float:
    """Wall seconds of a callable, the device's queue emptied before and after."""
    wait = torch.cuda.synchronize if device.startswith("cuda") else (lambda: None)
    wait()
    began = time.perf_counter()
    work()
    wait()
    return time.perf_counter() - began


def ceiling(device: str, side: int) -> float:
    """Floating-point operations a second of the best of ten products of square matrices."""
    kind = torch.bfloat16 if native_bf16(device) else torch.float32
    a, b = (torch.randn(side, side, device=device, dtype=kind) for _ in range(2))
    return 2 * side**3 / min(seconds_of(device, lambda: a @ b) for _ in range(10))


def operations(arch: str, data: ImageSet) -> int:
    """Floating-point operations of one forward pass of one image."""
    model = build(arch, data.classes, data.size, seed=0)
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        model.eval()(torch.zeros(1, 3, data.size, data.size))
    return counter.get_total_flops()


def command(*words: object) -> str:
    """What the command line prints; its progress goes where ours does."""
    call = [sys.executable, "-m", "pueprotect", *map(str, words)]
    done = subprocess.run(call, check=False, stdout=subprocess.PIPE, text=True)
    if done.returncode not in (0, 3):
        sys.exit(f"{' '.join(call)}: exit code {done.returncode}")
    return done.stdout


def main() -> None:
    """Measure and print as each part ends."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("store", type=Path)
    parser.add_argument("--arch", default="resnet18")
    parser.add_argument("--epochs", type=float, default=30)
    parser.add_argument("--attack", action="append", default=[], help="instead of the suite")
    parser.add_argument("--suite", default="quick")
    parser.add_argument("--release", action="append", choices=list(RELEASES), metavar="NAME")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--side", type=int, default=8192, help="of the matrices")
    parser.add_argument("--device", default="auto")
    chosen = parser.parse_args()
    device = choose_device(chosen.device).name
    clean, test = (folder(chosen.data / part, device) for part in ("train", "test"))
    top, each = ceiling(device, chosen.side), 3 * operations(chosen.arch, clean)
    print(f"torch {torch.__version__}, {device_name(device)}, {'bf16' if native_bf16(device) else 'fp32'} ", end="")
    print(f"ceiling {top / 1e12:.1f} TFLOP/s, {chosen.arch}, {len(clean)} images, seed {chosen.seed}", flush=True)

    model = build(chosen.arch, clean.classes, clean.size, seed=chosen.seed, device=device)
    schedule = Schedule(epochs=chosen.epochs)
    took = seconds_of(device, lambda: train(model, clean, schedule, seed=chosen.seed))
    rate = chosen.epochs * len(clean) / took
    print(f"clean line: {accuracy(model, test):.1%} after {chosen.epochs:g} epochs in {took:.1f} s, ", end="")
    print(f"{rate:.0f} images/s, {rate * each / top:.0%} of the ceiling", flush=True)

    attacks = [word for name in chosen.attack for word in ("--attack", name)] or ["--suite", chosen.suite]
    shared = ["--device", device, "--seed", chosen.seed]
    for name in chosen.release or RELEASES:
        out = chosen.store / f"{name.replace(' ', '-')}-{chosen.seed}"
        if not out.exists():
            words = [chosen.data / "train", "--out", out, "--format", "png", "--surrogate", chosen.arch, *shared]
            words += ["--key", f"{2**127 + chosen.seed:032x}"]  # public, so that figures repeat
            made = json.loads(command("protect", *words, *RELEASES[name], "--release-anyway", "--json"))
            check = made["self_check"]["accuracy"]
            print(f"\n{name}: self-check {check:.1%}, seconds {json.dumps(made['seconds'])}", flush=True)
        words = [out, "--test", chosen.data / "test", "--arch", chosen.arch, "--epochs", chosen.epochs, *shared]
        began = time.perf_counter()
        print(command("audit", *words, *attacks, "--resume"), end="")
        print(f"audit of {name}: {time.perf_counter() - began:.0f} s in all", flush=True)


if __name__ == "__main__":
    main()
