"""Times draws around a surrogate: the engine, the bare forward pass and a research-style loop, alternating in one run.

    python examples/benchmarks/certify.py [--arch resnet8] [--images 1000] [--draws 8] [--device auto] [--threads 1]

Prints medians over the rounds. Rates count images: the engine's calibration images count as forward passes too. The
images are random: the time does not depend on what they show. With several threads the engine makes a draw on each,
and the bare forward pass and the research loop use all of them for one pass, as torch does. `research loop` adds
noise in place, parameter by parameter, takes it away again, reads the images through a data loader and asks for
`.item()` after each batch.
"""

from __future__ import annotations

import argparse
import resource
import statistics
import time
from collections.abc import Callable

import torch
from PIL import Image
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset
from torchvision.transforms.functional import to_tensor

from pueprotect.certify.certificate import CertificateSettings, Precision, certify
from pueprotect.certify.draws import CALIBRATION_IMAGES, Workers
from pueprotect.learning.data import ImageSet
from pueprotect.learning.device import choose_device, device_name, evaluation_batch, native_bf16
from pueprotect.learning.draw_engine import DrawEngine
from pueprotect.learning.models import Classifier, build

SIGMA = 0.05
CLASSES = 10


class Pictures(Dataset[tuple[Tensor, int]]):
    """Test images as torchvision's CIFAR-10 holds them: arrays that become pictures and tensors one by one."""

    def __init__(self, pixels: Tensor, labels: Tensor) -> None:
        self.arrays = pixels.permute(0, 2, 3, 1).numpy()
        self.labels = labels.tolist()

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        return to_tensor(Image.fromarray(self.arrays[index])), self.labels[index]


def clocked(work: Callable[[], object], cuda: bool) -> float:
    if cuda:
        torch.cuda.synchronize()
    began = time.perf_counter()
    work()
    if cuda:
        torch.cuda.synchronize()
    return time.perf_counter() - began


def bare_forward(model: nn.Module, data: ImageSet, bf16: bool) -> None:
    """Nothing but forward passes over images that are floats already."""
    batches = [batch.float().div_(255) for batch in data.images.split(evaluation_batch(data.device))]

    with torch.inference_mode(), torch.autocast(data.images.device.type, torch.bfloat16, enabled=bf16):
        for batch in batches:
            model(batch)


def research_draw(model: Classifier, loader: DataLoader[tuple[Tensor, int]], device: torch.device) -> float:
    """One draw as published scripts do it."""
    noises = []
    right, seen = 0, 0
    with torch.no_grad():
        for parameter in model.parameters():
            noise = torch.randn_like(parameter) * SIGMA
            parameter.add_(noise)
            noises.append(noise)
        for images, labels in loader:
            answers = model(images.to(device)).argmax(1)
            right += (answers == labels.to(device)).sum().item()
            seen += len(labels)
        for parameter, noise in zip(model.parameters(), noises, strict=True):
            parameter.sub_(noise)
    return right / seen


def ceiling(device: torch.device, bf16: bool) -> float:
    """The rate of a large matrix product in floating-point operations for each second: what the unit can do."""
    size = 8192 if device.type == "cuda" else 1024
    a = torch.randn(size, size, device=device, dtype=torch.bfloat16 if bf16 else torch.float32)
    a @ a
    seconds = [clocked(lambda: a @ a, device.type == "cuda") for _ in range(10)]
    return 2 * size**3 / statistics.median(seconds)


def operations(model: Classifier, size: int) -> int:
    """Multiply-adds times two of one forward pass of one image, convolutions and linear layers."""
    from torch.utils.flop_counter import FlopCounterMode

    with FlopCounterMode(display=False) as counter, torch.no_grad():
        model(torch.zeros(1, 3, size, size, device=next(model.parameters()).device))
    return counter.get_total_flops()


def main() -> None:
    """Measure and print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--arch", default="resnet8")
    parser.add_argument("--images", type=int, default=1000)
    parser.add_argument("--size", type=int, default=32)
    parser.add_argument("--draws", type=int, default=8, help="rounds of the comparison")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--full", type=int, default=0, metavar="N", help="also certify with N draws and show memory")
    wanted = parser.parse_args()
    torch.set_num_threads(wanted.threads)
    device = torch.device(choose_device(wanted.device).name)
    cuda, bf16 = device.type == "cuda", native_bf16(str(device))

    stream = torch.Generator().manual_seed(0)
    pixels = torch.randint(0, 256, (wanted.images, 3, wanted.size, wanted.size), generator=stream, dtype=torch.uint8)
    labels = torch.randint(0, CLASSES, (wanted.images,), generator=stream)
    data = ImageSet(pixels.to(device).contiguous(memory_format=torch.channels_last), labels.to(device), CLASSES)
    model = build(wanted.arch, CLASSES, wanted.size, seed=0, device=str(device)).eval()
    plain = build(wanted.arch, CLASSES, wanted.size, seed=0, device=str(device)).eval()
    plain = plain.to(memory_format=torch.contiguous_format)
    calibration = data.images[:CALIBRATION_IMAGES]
    engines = {
        "draws, running statistics": DrawEngine(model, data.images, data.labels, None, sigma=SIGMA, seed=0, bf16=bf16),
        "draws, statistics re-estimated": DrawEngine(
            model, data.images, data.labels, calibration, sigma=SIGMA, seed=0, bf16=bf16
        ),
    }
    loader = DataLoader(Pictures(pixels, labels), batch_size=128)
    # What to do, how many images a pass has, how many passes it makes.
    tasks: dict[str, tuple[Callable[[], object], int, int]] = {
        "bare forward pass": (lambda: bare_forward(model, data, bf16), wanted.images, 1),
        "research loop": (lambda: research_draw(plain, loader, device), wanted.images, 1),
    }
    for name, engine in engines.items():
        extra = len(calibration) if "re-est" in name else 0
        workers = Workers(engine, wanted.threads)
        indices = list(range(len(workers.engines)))
        tasks[name] = (  # type: ignore[misc]
            lambda workers=workers, indices=indices: workers.counts(indices),
            wanted.images + extra,
            len(indices),
        )
    seconds: dict[str, list[float]] = {name: [] for name in tasks}
    for round_number in range(wanted.draws + 1):
        for name, (work, _, passes) in tasks.items():
            took = clocked(work, cuda) / passes
            if round_number:  # the first warms up
                seconds[name].append(took)

    rates = {name: tasks[name][1] / statistics.median(taken) for name, taken in seconds.items()}
    precision: Precision = "bf16" if bf16 else "fp32"
    print(f"{wanted.arch}, {wanted.images} images of {wanted.size} px, {precision}, median of {wanted.draws}")
    print(f"torch {torch.__version__}, {device_name(str(device))}, {wanted.threads} thread(s)\n")
    print(
        "| what | ms for each pass over the images | images / s | share of the bare forward pass |\n|---|---|---|---|"
    )
    for name, rate in rates.items():
        took = 1000 * statistics.median(seconds[name])
        print(f"| {name} | {took:.0f} | {rate:.0f} | {rate / rates['bare forward pass']:.0%} |")
    ratios = [
        slow / fast
        for slow, fast in zip(seconds["research loop"], seconds["draws, statistics re-estimated"], strict=True)
    ]
    print(f"\nresearch loop / draws with re-estimated statistics: {statistics.median(ratios):.2f} times the time")
    work = operations(model, wanted.size)
    top = ceiling(device, bf16)
    reached = work * rates["draws, statistics re-estimated"]
    print(f"{work / 1e6:.1f} MFLOP for each image: {reached / 1e9:.0f} of {top / 1e9:.0f} GFLOP/s, {reached / top:.0%}")
    if wanted.full:
        for draws in (wanted.full // 10, wanted.full):
            began = time.perf_counter()
            settings = CertificateSettings(sigma=SIGMA, draws=draws, precision=precision)
            certify(model, "plain", data, data, settings)
            peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
            print(f"{draws} draws: {time.perf_counter() - began:.1f} s, peak resident memory {peak:.0f} MiB")


if __name__ == "__main__":
    main()
