"""Attacks protected photographs at their full size, as a user of the files would train on them.

    python examples/photos.py PLACE [--per-class 150] [--method pue] [--epsilon 8] [--epochs 60]
        [--arch resnet8 --arch cnn] [--attack plain --attack colour --attack jpeg-10]

Draws the sample at 512 pixels (`pueprotect sample --size 512`) and protects it, unless PLACE holds both already. The
attacker then reads the released files at their full size and trains at 64 pixels through torchvision's
RandomResizedCrop and a flip; the clean line trains so on the originals of the same files. `colour` adds strong colour
jitter, `jpeg-10` compresses crops and test images with quality 10. Accuracy is counted on the originals of the holdout,
reduced to 64 pixels.
"""

from __future__ import annotations

import argparse
import itertools
import json
import time
from dataclasses import replace
from pathlib import Path
from typing import get_args

import numpy as np
import torch
from torch import Tensor
from torchvision.transforms import v2

from pueprotect.images.decode import decode_rgb, working_copy
from pueprotect.images.sample import write_sample
from pueprotect.learning.augment import RATIO, colour, lent_stream
from pueprotect.learning.data import ImageSet, to_float
from pueprotect.learning.device import choose_device
from pueprotect.learning.models import build
from pueprotect.learning.training import Schedule, Trainer, accuracy
from pueprotect.protect.methods.base import Method
from pueprotect.protect.options import Options
from pueprotect.protect.pipeline import protect_folder
from pueprotect.release.records import ManifestRow
from pueprotect.release.vault import Vault, default_vault
from pueprotect.runtime import generator

SIZE = 64
ATTACKS = ("plain", "colour", "jpeg-10")


def release(place: Path, chosen: argparse.Namespace) -> Path:
    """The released folder, made on first use."""
    photos, out = place / "photos", place / "shared"
    if not photos.exists():
        write_sample(photos, per_class=chosen.per_class, size=512)
    if not out.exists():
        # Released even when the self-check fails: here the attack below is what is asked.
        options = Options(method=chosen.method, epsilon=chosen.epsilon, seed=chosen.seed, release_anyway=True)
        began = time.perf_counter()
        made = protect_folder(photos, out, options=options, device=choose_device("cpu"))
        check = made.result["self_check"]
        print(f"protected in {time.perf_counter() - began:.0f} s; self-check {check['accuracy']:.1%}", end=", ")
        print(f"limit {check['limit']:.1%}, realised {json.dumps(made.result['realised'])}", flush=True)
    return out


def labels_of(rows: list[ManifestRow], classes: list[str]) -> Tensor:
    """The class index of each row: (N,) int64."""
    return torch.tensor([classes.index(row.class_name) for row in rows])


def trained(
    images: list[Tensor], labels: Tensor, test: ImageSet, arch: str, attack: str, chosen: argparse.Namespace
) -> list[float]:
    """Train through RandomResizedCrop and what the attack adds; clean test accuracy after each tenth of it."""
    seed = chosen.seed + 100
    model = build(arch, test.classes, SIZE, seed=seed, purpose="attacker")
    schedule = Schedule(epochs=chosen.epochs)
    total = schedule.steps(len(images))
    trainer, found = Trainer(model, schedule, total), list[float]()
    stream = generator(seed, "photos")
    compress = [v2.JPEG(10)] if attack == "jpeg-10" else []
    look = v2.Compose(
        [v2.RandomResizedCrop(SIZE, (chosen.scale, 1.0), RATIO, antialias=True), v2.RandomHorizontalFlip(), *compress]
    )
    if compress:
        test = replace(test, images=torch.stack([compress[0](image) for image in test.images]))
    order = torch.empty(0, dtype=torch.int64)
    for step in range(1, total + 1):
        if not len(order):
            order = torch.randperm(len(images), generator=stream)
        index, order = order[: schedule.batch_size], order[schedule.batch_size :]
        with lent_stream(stream):
            batch = torch.stack([look(images[number]) for number in index.tolist()])
        inputs = to_float(batch).contiguous(memory_format=torch.channels_last)
        trainer.step(colour(inputs, stream) if attack == "colour" else inputs, labels[index])
        if step % max(1, total // 10) == 0 or step == total:
            found.append(accuracy(model, test))
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("place", type=Path)
    parser.add_argument("--per-class", type=int, default=150)
    parser.add_argument("--epochs", type=float, default=60)
    parser.add_argument("--scale", type=float, default=0.35, help="smallest area of a crop; torchvision's own is 0.08")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--arch", action="append")
    parser.add_argument("--method", default="pue", choices=get_args(Method), help="of the release, if it is made now")
    parser.add_argument("--epsilon", type=int, default=8, help="levels, likewise")
    parser.add_argument("--attack", action="append", choices=ATTACKS)
    parser.add_argument("--only", choices=("clean originals", "released files"))
    chosen = parser.parse_args()
    out = release(chosen.place, chosen)
    vault = Vault(default_vault(out))
    run, rows = vault.run(), vault.read_manifest()
    train = [row for row in rows if row.split == "train"]
    held = [row for row in rows if row.split == "holdout"]
    source = Path(run["source"])
    pixels = np.stack([working_copy(source / row.source_path, SIZE)[0] for row in held])
    test = ImageSet(torch.from_numpy(pixels).permute(0, 3, 1, 2), labels_of(held, run["classes"]), len(run["classes"]))
    chance = float(torch.bincount(test.labels).max()) / len(test)
    kinds = {
        "clean originals": [source / row.source_path for row in train],
        "released files": [out / row.path for row in train],
    }
    steps = Schedule(epochs=chosen.epochs).steps(len(train))
    print(f"{len(train)} photographs, {len(test)} to measure on, chance {chance:.1%}, {steps} steps of training")
    for kind, paths in kinds.items():
        if chosen.only not in (None, kind):
            continue
        images = [torch.from_numpy(decode_rgb(path).copy()).permute(2, 0, 1) for path in paths]
        for arch, attack in itertools.product(chosen.arch or ["resnet8", "cnn"], chosen.attack or ["plain"]):
            began = time.perf_counter()
            found = trained(images, labels_of(train, run["classes"]), test, arch, attack, chosen)
            along = " ".join(f"{100 * value:.0f}" for value in found)
            print(f"{kind:15}  {arch:8}  {attack:8}  {found[-1]:6.1%} at the end, {max(found):6.1%} at best", end="  ")
            print(f"({along}; {time.perf_counter() - began:.0f} s)", flush=True)


if __name__ == "__main__":
    main()
