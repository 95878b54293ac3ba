"""Measures the results table of the README on a CIFAR-10 subset, one cell at a time, and prints it.

    python examples/results.py run DATA STORE [--seeds 0 1 2] [--only ROW ...]
    python examples/results.py table STORE

DATA holds train/<class>/*.jpg (500 images of each class) and test/<class>/*.jpg (100 of each). Each cell
is one JSON file in STORE, written when it is finished, so runs can be stopped, repeated and shared between
processes. Releases are made with the command line; every attack and every certificate reads the released files.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import torch

from pueprotect.audit.attacks import Target, find
from pueprotect.audit.attacks.base import clean_share
from pueprotect.audit.suites import suite
from pueprotect.certify.certificate import CertificateSettings, certify
from pueprotect.certify.surrogates import train_surrogates
from pueprotect.learning.data import ImageSet
from pueprotect.learning.device import choose_device, device_name
from pueprotect.learning.models import build
from pueprotect.learning.training import Schedule, train
from pueprotect.release.opened import OpenedRelease, open_release

RELEASES = {
    "pue": ["--method", "pue"],
    "emn": ["--method", "emn"],
    "pue-sample": ["--method", "pue", "--mode", "sample-wise"],
}
COST = "protect command / 15 plain epochs"
DRAWS = {0: 1000}
FEWER_DRAWS = 100


def release(data: Path, store: Path, name: str, seed: int) -> Path:
    """The release folder of one method and seed, made on first use."""
    out = store / f"{name}-{seed}"
    if not (out.with_name(out.name + ".vault") / "run.json").exists():
        command = [sys.executable, "-m", "pueprotect", "protect", str(data / "train"), "--out", str(out)]
        command += ["--format", "png", "--seed", str(seed), "--json", *RELEASES[name]]
        done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
        (store / f"protect-{name}-{seed}.json").write_text(done.stdout)
    return out


def opened(data: Path, store: Path, name: str, seed: int) -> OpenedRelease:
    """The release on disk, measured on DATA/test."""
    return open_release(release(data, store, name, seed), test=data / "test", device=choose_device().name)


def attack(
    data: Path, store: Path, seed: int, name: str, source: str, *, arch: str = "resnet8", epochs: float = 15
) -> dict[str, object]:
    """One attack on a release, or on the clean originals of the PUE release."""
    evidence = opened(data, store, "pue" if source == "clean" else source, seed)
    images = evidence.originals if source == "clean" else evidence.released
    assert images is not None
    needy = find(name).needs == "a clean share"
    share = clean_share(evidence.originals, 0.2, seed) if needy else None
    # The attacker's seed is not the owner's: their networks must not start from the same weights.
    target = Target(images, arch, Schedule(epochs=epochs), seed + 100, share, (0.5, 1.0, 2.0))
    result = find(name).run(target, evidence.test)
    kept = {key: result.details[key] for key in ("alarms", "steps", "points", "distance") if key in result.details}
    return {"accuracy": result.accuracy, "best": result.best_accuracy, "seconds": result.seconds, **kept}


def certificate(data: Path, store: Path, seed: int, recipe: str, clean: bool = False) -> dict[str, object]:
    """One certificate at sigma 0.05 on the class-wise PUE release, or on its originals."""
    evidence = opened(data, store, "pue", seed)
    images = evidence.originals if clean else evidence.released
    assert images is not None
    settings = CertificateSettings(sigma=0.05, draws=DRAWS.get(seed, FEWER_DRAWS), seed=seed)
    online = evidence.online_surrogate() if recipe == "online" and not clean else None
    model = (
        online
        or train_surrogates(
            recipe, evidence.default_arch, images, evidence.test, 0.05, Schedule(epochs=15), seed=seed + 100
        )[recipe]
    )
    found = certify(model, recipe, images, evidence.test, settings)
    return {
        "accuracy": found.noisy_median, "draws": settings.draws, "own": found.surrogate_clean_accuracy,
        "bounds": [[point.eta, point.certified_learnability, point.population] for point in found.curve],
        "seconds": found.seconds,
    }  # fmt: skip


def protect_cost(data: Path, store: Path, seed: int) -> dict[str, object]:
    """The whole command against 15 plain epochs of its surrogate on the same images, alternating in one run."""
    ratios, commands, trainings = [], [], []
    evidence = opened(data, store, "pue", seed)
    assert evidence.originals is not None
    count = round(0.8 * len(evidence.originals))
    pick = torch.randperm(len(evidence.originals), generator=torch.Generator().manual_seed(seed))[:count]
    images: ImageSet = evidence.originals.subset(pick)
    for repeat in range(2):
        out = store / f"cost-{seed}-{repeat}"
        began = time.perf_counter()
        subprocess.run(
            [sys.executable, "-m", "pueprotect", "protect", str(data / "train"), "--out", str(out), "--seed", str(seed),
             "--overwrite"], check=True, stdout=subprocess.DEVNULL,
        )  # fmt: skip
        commands.append(time.perf_counter() - began)
        shutil.rmtree(out)
        shutil.rmtree(out.with_name(out.name + ".vault"))
        began = time.perf_counter()
        model = build("resnet8", 10, images.size, seed=seed)
        train(model, images, Schedule(epochs=15), seed=seed)
        trainings.append(time.perf_counter() - began)
        ratios.append(commands[-1] / trainings[-1])
    return {"accuracy": statistics.median(ratios), "command": commands, "training": trainings}


Cell = Callable[[Path, Path, int], dict[str, object]]
ROWS: dict[str, Cell] = {
    "clean, resnet8, 15 epochs": lambda d, s, k: attack(d, s, k, "standard", "clean"),
    "PUE class-wise: standard, resnet8": lambda d, s, k: attack(d, s, k, "standard", "pue"),
    "PUE class-wise: standard, cnn": lambda d, s, k: attack(d, s, k, "standard", "pue", arch="cnn"),
    "PUE sample-wise: standard, resnet8": lambda d, s, k: attack(d, s, k, "standard", "pue-sample"),
    "PUE sample-wise: standard, cnn": lambda d, s, k: attack(d, s, k, "standard", "pue-sample", arch="cnn"),
    "EMN class-wise: standard, resnet8": lambda d, s, k: attack(d, s, k, "standard", "emn"),
    "EMN class-wise: pst, 15 epochs": lambda d, s, k: attack(d, s, k, "pst", "emn"),
    "clean: pst, 15 epochs": lambda d, s, k: attack(d, s, k, "pst", "clean"),
    "PUE class-wise: recovery": lambda d, s, k: attack(d, s, k, "recovery", "pue"),
    "certify: online surrogate, noisy median": lambda d, s, k: certificate(d, s, k, "online"),
    "certify: weight-noise surrogate, noisy median": lambda d, s, k: certificate(d, s, k, "weight-noise"),
    "certify: weight-noise-early surrogate, noisy median": lambda d, s, k: certificate(d, s, k, "weight-noise-early"),
    "certify: weight-noise-tuned surrogate, noisy median": lambda d, s, k: certificate(d, s, k, "weight-noise-tuned"),
    "certify: clean baseline (online recipe), noisy median": lambda d, s, k: certificate(d, s, k, "online", True),
    "EMN class-wise: pst, 30 epochs": lambda d, s, k: attack(d, s, k, "pst", "emn", epochs=30),
    "clean, resnet8, 30 epochs": lambda d, s, k: attack(d, s, k, "standard", "clean", epochs=30),
    "clean: pst, 30 epochs": lambda d, s, k: attack(d, s, k, "pst", "clean", epochs=30),
    "PUE class-wise: weight-noise, resnet8": lambda d, s, k: attack(d, s, k, "weight-noise", "pue"),
    "PUE class-wise: pst, 15 epochs": lambda d, s, k: attack(d, s, k, "pst", "pue"),
    "PUE class-wise: pst-colour, 15 epochs": lambda d, s, k: attack(d, s, k, "pst-colour", "pue"),
    COST: protect_cost,
    "PUE class-wise: pst, 30 epochs": lambda d, s, k: attack(d, s, k, "pst", "pue", epochs=30),
    "PUE sample-wise: pst, 15 epochs": lambda d, s, k: attack(d, s, k, "pst", "pue-sample"),
    "PUE sample-wise: pst, 30 epochs": lambda d, s, k: attack(d, s, k, "pst", "pue-sample", epochs=30),
    "EMN class-wise: pst, cnn, 15 epochs": lambda d, s, k: attack(d, s, k, "pst", "emn", arch="cnn"),
    "EMN class-wise: colour, 15 epochs": lambda d, s, k: attack(d, s, k, "colour", "emn"),
    "PUE class-wise: colour, 15 epochs": lambda d, s, k: attack(d, s, k, "colour", "pue"),
    "PUE sample-wise: colour, 15 epochs": lambda d, s, k: attack(d, s, k, "colour", "pue-sample"),
    "EMN class-wise: class-mean": lambda d, s, k: attack(d, s, k, "class-mean", "emn"),
    "PUE class-wise: class-mean": lambda d, s, k: attack(d, s, k, "class-mean", "pue"),
    "PUE sample-wise: class-mean": lambda d, s, k: attack(d, s, k, "class-mean", "pue-sample"),
    "EMN class-wise: weight-noise": lambda d, s, k: attack(d, s, k, "weight-noise", "emn"),
    "EMN class-wise: weight-noise, 30 epochs": lambda d, s, k: attack(d, s, k, "weight-noise", "emn", epochs=30),
    "EMN class-wise: weight-noise-short": lambda d, s, k: attack(d, s, k, "weight-noise-short", "emn"),
    "clean, cnn, 15 epochs": lambda d, s, k: attack(d, s, k, "standard", "clean", arch="cnn"),
    "clean: pst, cnn, 15 epochs": lambda d, s, k: attack(d, s, k, "pst", "clean", arch="cnn"),
    "clean, cnn, 30 epochs": lambda d, s, k: attack(d, s, k, "standard", "clean", arch="cnn", epochs=30),
    "clean: pst, cnn, 30 epochs": lambda d, s, k: attack(d, s, k, "pst", "clean", arch="cnn", epochs=30),
}
# What each attack does to data that nobody protected: the price of the attack itself.
ROWS |= {f"clean: {name}": lambda d, s, k, name=name: attack(d, s, k, name, "clean")  # type: ignore[misc]
         for name in suite("standard-v1") if name not in ("standard", "pst")}  # fmt: skip


def place(store: Path, row: str, seed: int) -> Path:
    """The JSON file of one cell."""
    return store / ("".join(c if c.isalnum() else "-" for c in row) + f"_{seed}.json")


def run(data: Path, store: Path, rows: list[str], seeds: list[int]) -> None:
    """Measure every cell that is not there yet."""
    store.mkdir(parents=True, exist_ok=True)
    for seed in seeds:
        for row in rows:
            cell = place(store, row, seed)
            if cell.exists():
                continue
            result = ROWS[row](data, store, seed)
            cell.write_text(json.dumps(result, indent=1))
            print(f"{row} | seed {seed} | {result['accuracy']:.4f}", flush=True)


def line(name: str, values: list[float], unit: str) -> str:
    """One row of the table: mean, spread and number of seeds."""
    digits = 1 if unit else 2
    spread = f"{min(values):.{digits}f} - {max(values):.{digits}f}{unit}"
    return f"| {name} | {statistics.mean(values):.{digits}f}{unit} | {spread} | {len(values)} |"


def table(store: Path) -> None:
    """Print what the store holds as Markdown: mean, spread and the single values."""
    print(f"torch {torch.__version__}, {device_name('cpu')}, {os.cpu_count()} cores\n")
    print("| what | mean | spread (lowest - highest) | seeds |\n|---|---|---|---|")
    for row in ROWS:
        cells = [json.loads(cell.read_text()) for seed in range(10) if (cell := place(store, row, seed)).exists()]
        if not cells:
            continue
        if row == COST:
            print(line(row, [cell["accuracy"] for cell in cells], ""))
            continue
        print(line(row, [100 * cell["accuracy"] for cell in cells], " %"))
        if "weight-noise" in row and "best" in cells[0]:  # peaks and falls
            print(line("- best pass", [100 * cell["best"] for cell in cells], " %"))
        for name in cells[0].get("points", {}):
            print(line(f"- {name}", [100 * cell["points"][name] for cell in cells], " %"))
        if "alarms" in cells[0]:
            print(line("- alarms", [cell["alarms"] for cell in cells], ""))


def main() -> None:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(required=True, dest="command")
    measure = commands.add_parser("run")
    measure.add_argument("data", type=Path)
    measure.add_argument("store", type=Path)
    measure.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    measure.add_argument("--only", nargs="+", default=list(ROWS), choices=list(ROWS), metavar="ROW")
    measure.add_argument("--threads", type=int, default=torch.get_num_threads())
    show = commands.add_parser("table")
    show.add_argument("store", type=Path)
    wanted = parser.parse_args()
    if wanted.command == "table":
        table(wanted.store)
    else:
        torch.set_num_threads(wanted.threads)
        os.environ["OMP_NUM_THREADS"] = str(wanted.threads)
        run(wanted.data, wanted.store, wanted.only, wanted.seeds)


if __name__ == "__main__":
    main()
