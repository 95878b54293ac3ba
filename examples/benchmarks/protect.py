"""Compares what protection costs: this package's default against a plain implementation of the published schedule.

    python examples/benchmarks/protect.py DATA [--draw-share 0.01] [--most-rounds 20] [--epochs 15] [--threads 1]
    python examples/benchmarks/protect.py --scale [--threads 1]

DATA holds train/<class>/* and test/<class>/* of 32 px images. Cost is counted in forward+backward passes of one
image. The published PUE schedule (Wang et al., NDSS 2025; class-wise): in each round 20 batches of 128 for the
surrogate and one step of 0.8/255 for the noise on every image, both under weight noise of 0, 0.05 ... 0.25 once the
surrogate fits half of the protected images, with 100 and 10 draws for each level; it ends when the surrogate's error
is at most 0.1. All those draws take hours on a CPU: `--draw-share` makes fewer of them and counts the passes that all
would have taken. Networks are trained plainly on the images after fewer rounds and at the end, and, for the
published schedule, when its weight noise begins and at the end; they are measured on clean test images.

`--scale` times one round on 5,000 and on 50,000 random images, alternating, and compares the cost of an image.
"""

from __future__ import annotations

import argparse
import statistics
import time
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional

from pueprotect.images.folders import scan
from pueprotect.images.holdout import stratified_holdout
from pueprotect.images.working_copies import read_folder
from pueprotect.learning.data import ImageSet, image_set
from pueprotect.learning.device import device_name
from pueprotect.learning.models import build
from pueprotect.learning.training import Schedule, accuracy, train
from pueprotect.protect.methods.base import NoiseSettings
from pueprotect.protect.methods.error_minimising import Optimizer
from pueprotect.protect.options import Options

LEVELS = (0.0, 0.05, 0.1, 0.15, 0.2, 0.25)
SURROGATE_DRAWS, NOISE_DRAWS = 100, 10
SURROGATE_BATCHES, BATCH = 20, 128
STEP, EPSILON = 0.8 / 255, 8 / 255
ENOUGH = 0.1


class Published:
    """The schedule as the paper states it, written plainly; `passes` are those that all draws would take."""

    def __init__(self, data: ImageSet, seed: int, share: float) -> None:
        self.data, self.share = data, share
        self.images = data.images.float() / 255
        self.model = build("resnet8", data.classes, data.size, seed=seed)
        self.optimizer = torch.optim.SGD(self.model.parameters(), 0.1, momentum=0.9, weight_decay=5e-4)
        self.stream = torch.Generator().manual_seed(seed)
        shape = (data.classes, 3, data.size, data.size)
        self.delta = (2 * torch.rand(shape, generator=self.stream) - 1) * EPSILON
        self.noisy = False
        self.passes = 0

    def shown(self, index: Tensor) -> Tensor:
        """The chosen images with their class's noise, in [0, 1]."""
        return (self.images[index] + self.delta[self.data.labels[index]]).clamp(0, 1)

    def backward(self, inputs: Tensor, labels: Tensor, draws: int) -> None:
        """Mean gradients over the levels and their draws."""
        levels = LEVELS if self.noisy else LEVELS[:1]
        wanted = draws if self.noisy else 1
        made = max(1, round(self.share * wanted))
        self.passes += len(levels) * wanted * len(labels)
        for level in levels:
            for _ in range(made):
                saved = [parameter.detach().clone() for parameter in self.model.parameters()]
                with torch.no_grad():
                    for parameter in self.model.parameters():
                        parameter += level * torch.randn(parameter.shape, generator=self.stream)
                (functional.cross_entropy(self.model(inputs), labels) / (len(levels) * made)).backward()
                with torch.no_grad():
                    for parameter, before in zip(self.model.parameters(), saved, strict=True):
                        parameter.copy_(before)

    def round(self) -> float:
        """One round; returns the surrogate's error on the protected images."""
        self.model.train()
        for _ in range(SURROGATE_BATCHES):
            index = torch.randint(0, len(self.data), (BATCH,), generator=self.stream)
            self.optimizer.zero_grad()
            self.backward(self.shown(index), self.data.labels[index], SURROGATE_DRAWS)
            nn.utils.clip_grad_norm_(self.model.parameters(), 5.0)
            self.optimizer.step()
        self.model.eval()
        total = torch.zeros_like(self.delta)
        for index in torch.arange(len(self.data)).split(BATCH):
            inputs, labels = self.shown(index).requires_grad_(), self.data.labels[index]
            self.backward(inputs, labels, NOISE_DRAWS)
            assert inputs.grad is not None
            moved = (self.delta[labels] - STEP * inputs.grad.sign()).clamp(-EPSILON, EPSILON)
            total.index_add_(0, labels, moved)
        self.delta = total / torch.bincount(self.data.labels).view(-1, 1, 1, 1)
        known = accuracy(self.model, self.protected())
        self.noisy = self.noisy or known > 0.5
        return 1 - known

    def protected(self) -> ImageSet:
        """All images with their noise on the 8-bit grid."""
        levels = (255 * self.shown(torch.arange(len(self.data)))).round().to(torch.uint8)
        pixels = levels.contiguous(memory_format=torch.channels_last)
        return ImageSet(pixels, self.data.labels, self.data.classes)


def folder(path: Path) -> ImageSet:
    found = scan(path)
    return image_set(read_folder(found, 32, workers=2).pixels, found.labels, len(found.classes), "cpu")


def plainly(images: ImageSet, test: ImageSet, arch: str, epochs: float, seed: int) -> float:
    """Clean test accuracy after plain training on `images`."""
    model = build(arch, images.classes, images.size, seed=seed + 100)
    return accuracy(train(model, images, Schedule(epochs=epochs), seed=seed + 100), test)


def compare_sizes(sizes: tuple[int, int] = (5_000, 50_000), repeats: int = 2) -> None:
    """Print wall and processor time for each image of a round, small set and large."""
    taken: dict[int, list[tuple[float, float]]] = {size: [] for size in sizes}
    for _ in range(repeats):
        for size in sizes:
            stream = torch.Generator().manual_seed(0)
            frames = torch.randint(0, 256, (size, 32, 32, 3), generator=stream, dtype=torch.uint8)
            own = Optimizer(ImageSet(frames.permute(0, 3, 1, 2), torch.arange(size) % 10, 10), NoiseSettings(rounds=1))
            wall, processor = time.perf_counter(), time.process_time()
            own.run(1)
            taken[size].append((time.perf_counter() - wall, time.process_time() - processor))
    print("| images | wall, ms for each image | processor, ms for each image |\n|---|---|---|")
    cost = {}
    for size, runs in taken.items():
        walls, processors = zip(*runs, strict=True)
        cost[size] = 1000 * statistics.median(processors) / size
        print(f"| {size} | {1000 * statistics.median(walls) / size:.2f} | {cost[size]:.2f} |")
    print(f"\nlarge / small, processor time of an image: {cost[sizes[1]] / cost[sizes[0]]:.2f}")


def main() -> None:
    """Measure and print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path, nargs="?")
    parser.add_argument("--scale", action="store_true")
    parser.add_argument("--draw-share", type=float, default=0.01)
    parser.add_argument("--most-rounds", type=int, default=20, help="end the published schedule here")
    parser.add_argument("--epochs", type=float, default=15)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=1)
    wanted = parser.parse_args()
    torch.set_num_threads(wanted.threads)
    if wanted.scale:
        return compare_sizes()
    if wanted.data is None:
        parser.error("name the data folder")
    everything, test = folder(wanted.data / "train"), folder(wanted.data / "test")
    names = tuple(str(label) for label in range(everything.classes))
    held = torch.from_numpy(stratified_holdout(everything.labels.numpy(), 0.2, wanted.seed, names))
    data = everything.subset(~held)
    print(f"{len(data)} images, seed {wanted.seed}, torch {torch.__version__}, {device_name('cpu')}\n")
    print("| schedule | rounds | passes | resnet8 | cnn |\n|---|---|---|---|---|", flush=True)

    def row(name: str, rounds: int, passes: int, protected: ImageSet) -> None:
        reached = [plainly(protected, test, arch, wanted.epochs, wanted.seed) for arch in ("resnet8", "cnn")]
        print(f"| {name} | {rounds} | {passes} | {reached[0]:.1%} | {reached[1]:.1%} |", flush=True)

    settings = Options(seed=wanted.seed, key=f"{2**127 + wanted.seed:032x}").settings("resnet8", len(data), data.size)
    for rounds in (1, 2, settings.rounds):
        own = Optimizer(data, replace(settings, rounds=rounds))
        own.run(rounds)
        ours = rounds * settings.draws * len(data)
        released = (data.images.short() + own.levels().permute(0, 3, 1, 2)[data.labels]).clamp(0, 255).to(torch.uint8)
        row("default preset", rounds, ours, ImageSet(released, data.labels, data.classes))
    other, error = Published(data, wanted.seed, wanted.draw_share), 1.0
    for rounds in range(1, wanted.most_rounds + 1):
        was_noisy = other.noisy
        error = other.round()
        if other.noisy > was_noisy or error <= ENOUGH or rounds == wanted.most_rounds:
            row(f"published (error {error:.0%})", rounds, other.passes, other.protected())
        if error <= ENOUGH:
            break
    print(f"\ndefault / published: 1/{other.passes / ours:.0f} of the passes")


if __name__ == "__main__":
    main()
