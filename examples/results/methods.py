"""Measures protections against the attacks of standard-v2, one cell at a time, and prints methods by attacks.

    python examples/hardened.py run DATA STORE [--methods hardened pue ...] [--attacks notch ...] [--seeds 0 1 2]
    python examples/hardened.py table STORE [--arch resnet8]
    python examples/hardened.py look DATA SHEET.png

DATA holds train/<class>/*.jpg and test/<class>/*.jpg, as for results.py. Figures are counted on every second test
image: the other half is the one that choices were made on. Each cell is one JSON file in STORE, written when it is
finished, so runs can be stopped, repeated and shared between processes; keep another STORE for each choice of
`--epochs` and `--no-augment`, which trains without crops and flips. `clean` is the clean upper line; lsp and ops are
the tests' versions of Linearly Separable Perturbations and One-Pixel Shortcuts. `look` measures how visible the texture
code is on DATA/test, and draws one image of each class at 1x and 3x: the original, then each visibility at
8/255, then 12/255 and 16/255.

`hybrid` and `hybrid-6` share the budget: PUE noise of 3/255 or 2/255, optimised on images that carry a texture code of
5/255 or 6/255.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from pueprotect.audit.attacks import Target, find
from pueprotect.audit.attacks.base import AS_THEY_ARE, CLEAN_BEHIND_IT, KNOWLEDGE, clean_share
from pueprotect.audit.attacks.known import code_book_of
from pueprotect.audit.attacks.recovery import ALONE
from pueprotect.audit.suites import SUITES
from pueprotect.images.folders import scan
from pueprotect.images.similarity import ssim
from pueprotect.images.working_copies import load
from pueprotect.learning.data import ImageSet
from pueprotect.learning.device import choose_device, device_name
from pueprotect.learning.training import Schedule
from pueprotect.protect.methods.base import Visibility
from pueprotect.protect.methods.texture import Scheme, code_book, texture
from pueprotect.release.opened import OpenedRelease, open_release

sys.path.append(str(Path(__file__).resolve().parent.parent / "tests"))
from toy import lsp, one_pixel_shortcut

RELEASES = {
    "hardened": ["--method", "hardened"],
    "hardened-subtle": ["--method", "hardened", "--visibility", "subtle"],
    "hardened-strong": ["--method", "hardened", "--visibility", "strong"],
    "hardened-12": ["--method", "hardened", "--epsilon", "12/255"],
    "hardened-16": ["--method", "hardened", "--epsilon", "16/255"],
    "hardened-5": ["--method", "hardened", "--epsilon", "5/255"],
    "hardened-6": ["--method", "hardened", "--epsilon", "6/255"],
    "hybrid": ["--method", "pue", "--epsilon", "3/255"],
    "hybrid-6": ["--method", "pue", "--epsilon", "2/255"],
    "pue": ["--method", "pue"],
    "pue-sample": ["--method", "pue", "--mode", "sample-wise"],
    "emn": ["--method", "emn"],
}
MADE_FROM = {"hybrid": "hardened-5", "hybrid-6": "hardened-6"}  # the others from DATA/train
FIXTURES = {"clean": lambda data: data, "lsp": lsp, "ops": one_pixel_shortcut}
METHODS = (*FIXTURES, *RELEASES)
ASIDE = ("at-4", "at-8", "recovery", "known-code")  # nothing stops the first two; the others know more
Found = dict[tuple[str, str], list[dict[str, float]]]  # method and attack -> the cells of all seeds
LOOKS: tuple[tuple[Visibility, int], ...] = (
    ("subtle", 8), ("standard", 8), ("strong", 8), ("standard", 12), ("standard", 16)
)  # fmt: skip


def opened(data: Path, store: Path, method: str, seed: int) -> OpenedRelease:
    """The release of a method and seed, made on first use, measured on half of DATA/test."""
    out = store / f"{method}-{seed}"
    if not (out.with_name(out.name + ".vault") / "run.json").exists():
        source = data / "train"
        if method in MADE_FROM:
            opened(data, store, MADE_FROM[method], seed)
            source = store / "sources" / f"{method}-{seed}"  # away from the vault, by which `protect` knows a release
            shutil.copytree(store / f"{MADE_FROM[method]}-{seed}", source, dirs_exist_ok=True)
        command = [sys.executable, "-m", "pueprotect", "protect", str(source), "--out", str(out)]
        command += ["--format", "png", "--seed", str(seed), "--release-anyway", "--json", *RELEASES[method]]
        done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
        (store / f"protect-{method}-{seed}.json").write_text(done.stdout)
    return held_out(out, data / "test")


def held_out(release: Path, test: Path) -> OpenedRelease:
    """A release measured on the half of the test images that no choice was made on."""
    evidence = open_release(release, test=test, device=choose_device().name)
    evidence.test = evidence.test.subset(slice(1, None, 2))
    return evidence


def cell(
    data: Path, store: Path, method: str, name: str, arch: str, seed: int, schedule: Schedule
) -> dict[str, object]:
    """One attack on one release, and on clean images behind the same filter where the attack has one."""
    evidence = opened(data, store, method if method in RELEASES else "hardened", seed)
    first = opened(data, store, MADE_FROM[method], seed) if method in MADE_FROM else evidence
    originals = first.originals
    assert originals is not None
    released: ImageSet = evidence.released if method in RELEASES else FIXTURES[method](originals)
    share = clean_share(originals, 0.2, seed) if find(name).needs == "a clean share" else None
    # The attacker's seed is not the owner's: their networks must not start from the same weights.
    target = Target(
        released, arch, schedule, seed + 100, share, (0.5, 1.0, 2.0),
        originals=None if method == "clean" else originals,
        known=code_book_of(evidence) if "hardened" in method else None,
    )  # fmt: skip
    result = find(name).run(target, evidence.test)
    points = result.details.get("points", {})
    kept = {place: points[place] for place in (AS_THEY_ARE, CLEAN_BEHIND_IT, ALONE) if place in points}
    return {"accuracy": result.accuracy, "best": result.best_accuracy, "seconds": result.seconds, **kept}


def place(store: Path, method: str, name: str, arch: str, seed: int) -> Path:
    """The JSON file of one cell."""
    return store / f"{method}_{name}_{arch}_{seed}.json"


def run(data: Path, store: Path, wanted: argparse.Namespace) -> None:
    """Measure every cell that is not there yet, the first seed of all cells first."""
    store.mkdir(parents=True, exist_ok=True)
    cells = ((seed, arch, name, method) for seed in wanted.seeds for arch in wanted.archs
             for name in wanted.attacks for method in wanted.methods)  # fmt: skip
    for seed, arch, name, method in cells:
        file = place(store, method, name, arch, seed)
        if file.exists() or (find(name).needs == KNOWLEDGE and "hardened" not in method):
            continue
        schedule = Schedule(epochs=wanted.epochs, augment=not wanted.no_augment)
        result = cell(data, store, method, name, arch, seed, schedule)
        file.write_text(json.dumps(result | {"epochs": wanted.epochs}, indent=1))
        print(f"{method} | {name} | {arch} | seed {seed} | {result['accuracy']:.4f}", flush=True)


def figure(values: list[float]) -> str:
    """Percent: the mean, and the spread over seeds where there are several."""
    spread = f" ({100 * min(values):.0f}-{100 * max(values):.0f})" if len(values) > 1 else ""
    return f"{100 * statistics.mean(values):.0f}{spread}"


def entry(cells: list[dict[str, float]]) -> str:
    """End of training / best pass [clean images behind the same filter, or the clean share alone]."""
    if not cells:
        return ""
    shown = f"{figure([cell['accuracy'] for cell in cells])} / {figure([cell['best'] for cell in cells])}"
    beside = [cell[place] for cell in cells for place in (CLEAN_BEHIND_IT, ALONE) if place in cell]
    return f"{shown} [{figure(beside)}]" if beside else shown


def table(store: Path, arch: str) -> None:
    """Print what the store holds as Markdown."""
    print(f"torch {torch.__version__}, {device_name('cpu')}, {os.cpu_count()} cores, attackers' network {arch}")
    print("\nPercent clean test accuracy: end / best pass [clean images behind the same filter; clean share alone]\n")
    found: Found = {
        (method, name): [json.loads(file.read_text()) for seed in range(10)
                         if (file := place(store, method, name, arch, seed)).exists()]
        for method in METHODS for name in SUITES["standard-v2"]
    }  # fmt: skip
    methods = [method for method in METHODS if any(found[method, name] for name in SUITES["standard-v2"])]
    print(f"| attack | {' | '.join(methods)} |\n|---|{'---|' * len(methods)}")
    for name in SUITES["standard-v2"]:
        entries = [entry(found[method, name]) for method in methods]
        if any(entries):
            print(f"| {name} | {' | '.join(entries)} |")
    print(f"| worst, {', '.join(ASIDE)} aside | {' | '.join(worst(found, method) for method in methods)} |")


def worst(found: Found, method: str) -> str:
    """The attack that ends highest, by the mean over seeds, and where."""
    ends = {
        name: statistics.mean(cell["accuracy"] for cell in cells)
        for (of, name), cells in found.items() if of == method and cells and name not in ASIDE
    }  # fmt: skip
    if not ends:
        return ""
    name = max(ends, key=ends.__getitem__)
    return f"{100 * ends[name]:.0f} {name}"


def look(data: Path, sheet: Path, size: int = 32) -> None:
    """Print PSNR and SSIM of each visibility and budget, and draw a sheet."""
    folder = scan(data / "test")
    images, labels = load(folder, size), folder.labels
    shown = np.flatnonzero(np.diff(labels, prepend=-1))
    rows = [images[shown]]
    print(f"{len(images)} images of {size} pixels\n\n| visibility | budget | PSNR | SSIM |\n|---|---|---|---|")
    for visibility, epsilon in LOOKS:
        scheme = Scheme(code_book(len(folder.classes), 0), epsilon, visibility)
        released = np.clip(images.astype(int) + texture(images, labels, scheme, 0), 0, 255).astype(np.uint8)
        errors = np.square(released - images.astype(float)).mean((1, 2, 3))
        psnr = (10 * np.log10(255**2 / errors)).mean()
        alike = np.mean([ssim(one, other) for one, other in zip(images, released, strict=True)])
        print(f"| {visibility} | {epsilon}/255 | {psnr:.1f} dB | {alike:.3f} |")
        rows.append(released[shown])
    once = np.concatenate([np.concatenate(list(row), axis=1) for row in rows])
    thrice = once.repeat(3, axis=0).repeat(3, axis=1)
    above = np.full((once.shape[0], thrice.shape[1], 3), 255, dtype=np.uint8)
    above[:, : once.shape[1]] = once
    Image.fromarray(np.concatenate([above, thrice])).save(sheet)


def main() -> None:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(required=True, dest="command")
    measure = commands.add_parser("run")
    measure.add_argument("data", type=Path)
    measure.add_argument("store", type=Path)
    measure.add_argument("--methods", nargs="+", default=list(METHODS), choices=METHODS, metavar="METHOD")
    measure.add_argument("--attacks", nargs="+", default=list(SUITES["standard-v2"]), metavar="ATTACK")
    measure.add_argument("--archs", nargs="+", default=["resnet8", "cnn"], metavar="ARCH")
    measure.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    measure.add_argument("--epochs", type=float, default=15)
    measure.add_argument("--no-augment", action="store_true")
    measure.add_argument("--threads", type=int, default=torch.get_num_threads())
    show = commands.add_parser("table")
    show.add_argument("store", type=Path)
    show.add_argument("--arch", default="resnet8")
    draw = commands.add_parser("look")
    draw.add_argument("data", type=Path)
    draw.add_argument("sheet", type=Path)
    wanted = parser.parse_args()
    if wanted.command == "look":
        look(wanted.data, wanted.sheet)
    elif wanted.command == "table":
        table(wanted.store, wanted.arch)
    else:
        torch.set_num_threads(wanted.threads)
        os.environ["OMP_NUM_THREADS"] = str(wanted.threads)
        run(wanted.data, wanted.store, wanted)


if __name__ == "__main__":
    main()
