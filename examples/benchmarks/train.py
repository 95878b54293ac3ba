"""Times training: the engine, the bare forward, backward and optimiser step, and a research-style loop, alternating.

    python examples/benchmarks/train.py [--arch resnet8] [--images 1280] [--rounds 5] [--device auto] [--threads 1]

Prints medians of one pass over the images. The bare step repeats one batch of prepared floats: no crop, no flip,
no gradient norm, no schedule. `research loop` crops, flips and converts picture by picture in a data loader, keeps
images in the order of channels, height and width, and asks for `.item()` after each step. The images are random.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable

import torch
from PIL import Image
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.data import DataLoader, Dataset
from torchvision.transforms import v2

from pueprotect.learning.data import ImageSet
from pueprotect.learning.device import choose_device, device_name, native_bf16
from pueprotect.learning.models import build
from pueprotect.learning.training import Schedule, train

CLASSES = 10


class Pictures(Dataset[tuple[Tensor, int]]):
    """Training images as torchvision's CIFAR-10 holds them, with the usual transforms."""

    def __init__(self, pixels: Tensor, labels: Tensor) -> None:
        self.arrays = pixels.permute(0, 2, 3, 1).numpy()
        self.labels = labels.tolist()
        size = pixels.shape[-1]
        self.transform = v2.Compose(
            [v2.RandomCrop(size, size // 8), v2.RandomHorizontalFlip(), v2.ToImage(), v2.ToDtype(torch.float32, True)]
        )

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        return self.transform(Image.fromarray(self.arrays[index])), self.labels[index]


def sgd(model: nn.Module) -> torch.optim.Optimizer:
    return torch.optim.SGD(model.parameters(), 0.1, momentum=0.9, weight_decay=1e-3, nesterov=True)


def bare(model: nn.Module, images: Tensor, labels: Tensor, steps: int, bf16: bool) -> None:
    """Nothing but forward, backward and update."""
    optimizer = sgd(model)
    for _ in range(steps):
        optimizer.zero_grad(set_to_none=True)
        with torch.autocast(images.device.type, torch.bfloat16, enabled=bf16):
            loss = functional.cross_entropy(model(images), labels)
        loss.backward()
        optimizer.step()


def research(model: nn.Module, loader: DataLoader[tuple[Tensor, int]], device: torch.device) -> float:
    """One pass as published scripts do it."""
    optimizer, total = sgd(model), 0.0
    for images, labels in loader:
        images, labels = images.to(device), labels.to(device)
        optimizer.zero_grad()
        loss = functional.cross_entropy(model(images), labels)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 5.0)
        optimizer.step()
        total += loss.item()
    return total


def main() -> None:
    """Measure and print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--arch", default="resnet8")
    parser.add_argument("--images", type=int, default=1280)
    parser.add_argument("--size", type=int, default=32)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--device", default="auto")
    parser.add_argument("--threads", type=int, default=1)
    wanted = parser.parse_args()
    torch.set_num_threads(wanted.threads)
    device = torch.device(choose_device(wanted.device).name)
    bf16 = native_bf16(str(device))

    stream = torch.Generator().manual_seed(0)
    pixels = torch.randint(0, 256, (wanted.images, 3, wanted.size, wanted.size), generator=stream, dtype=torch.uint8)
    labels = torch.randint(0, CLASSES, (wanted.images,), generator=stream)
    data = ImageSet(pixels.to(device).contiguous(memory_format=torch.channels_last), labels.to(device), CLASSES)
    schedule = Schedule(epochs=1)
    networks = [build(wanted.arch, CLASSES, wanted.size, seed=0, device=str(device)).train() for _ in range(3)]
    networks[2] = networks[2].to(memory_format=torch.contiguous_format)
    ready = data.images[: schedule.batch_size].float().div_(255)
    loader = DataLoader(Pictures(pixels, labels), batch_size=schedule.batch_size, shuffle=True)
    steps = schedule.steps(wanted.images)
    tasks: dict[str, Callable[[], object]] = {
        "bare steps": lambda: bare(networks[0], ready, data.labels[: schedule.batch_size], steps, bf16),
        "engine, with random crop and flip": lambda: train(networks[1], data, schedule, seed=0),
        "research loop": lambda: research(networks[2], loader, device),
    }
    seconds: dict[str, list[float]] = {name: [] for name in tasks}
    for round_number in range(wanted.rounds + 1):
        for name, work in tasks.items():
            if device.type == "cuda":
                torch.cuda.synchronize()
            began = time.perf_counter()
            work()
            if device.type == "cuda":
                torch.cuda.synchronize()
            if round_number:  # the first warms up
                seconds[name].append(time.perf_counter() - began)

    print(
        f"{wanted.arch}, {wanted.images} images of {wanted.size} px, batches of {schedule.batch_size}, {steps} steps,"
    )
    print(f"{'bf16' if bf16 else 'fp32'}, median of {wanted.rounds}, torch {torch.__version__},")
    print(f"{device_name(str(device))}, {wanted.threads} thread(s)\n")
    print("| what | ms for each step | images / s | share of the bare rate |\n|---|---|---|---|")
    for name, taken in seconds.items():
        took = statistics.median(taken)
        share = statistics.median(floor / each for floor, each in zip(seconds["bare steps"], taken, strict=True))
        print(f"| {name} | {1000 * took / steps:.1f} | {wanted.images / took:.0f} | {share:.0%} |")


if __name__ == "__main__":
    main()
