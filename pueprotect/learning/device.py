"""Chooses CPU or GPU once for a command, and explains the choice.

Torch is imported inside the functions, so that `doctor` can report what is wrong with it.
"""

from __future__ import annotations

import platform
from dataclasses import dataclass

from pueprotect.errors import PlatformError
from pueprotect.learning.distributed import ALONE, Group
from pueprotect.runtime import SILENT, Progress


@dataclass(frozen=True)
class Device:
    """A chosen torch device (`cpu`, `cuda:0`) and the reason for the choice."""

    name: str
    reason: str

    @property
    def is_cuda(self) -> bool:
        """Whether this is an NVIDIA GPU."""
        return self.name.startswith("cuda")


@dataclass(frozen=True)
class Machine:
    """The device of a command, the processes that share its work, and the progress that they report to."""

    device: Device = Device("cpu", "cpu, the default")
    group: Group = ALONE
    progress: Progress = SILENT


HERE = Machine()


def choose_device(wanted: str = "auto") -> Device:
    """Resolve `auto`, `cpu`, `cuda` or `cuda:i` once for the whole command.

    Raises:
        PlatformError: CUDA was asked for and is absent, or torch and torchvision do not match.
    """
    check_torch()
    import torch

    threads = torch.get_num_threads()
    cpu = f"cpu with {threads} thread{'s' if threads > 1 else ''}"
    if wanted == "cpu":
        return Device("cpu", f"{cpu}, as asked")
    if wanted == "auto":
        if torch.cuda.is_available():
            return Device("cuda:0", f"cuda:0 ({torch.cuda.get_device_name(0)}), found by auto")
        return Device("cpu", f"{cpu}: auto found no CUDA GPU")
    kind, _, index = wanted.partition(":")
    if kind != "cuda" or (index and not index.isdecimal()):
        raise PlatformError(f"--device {wanted!r} is not auto, cpu, cuda or cuda:N.")
    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    number = int(index or 0)
    if number >= count:
        have = f"only {count} CUDA device(s)" if count else "no CUDA device"
        raise PlatformError(
            f"--device {wanted}: torch {torch.__version__} finds {have}; use --device cpu, or install a CUDA build of "
            "torch and the NVIDIA driver."
        )
    return Device(f"cuda:{number}", f"cuda:{number} ({torch.cuda.get_device_name(number)}), as asked")


def this_machine() -> Machine:
    """The machine of one process that reports no progress, on the device that `auto` chooses."""
    return Machine(choose_device())


def check_torch() -> None:
    """Import torch and torchvision, and report a broken pair with its fix.

    Raises:
        PlatformError: either is missing, or torchvision was built for another torch.
    """
    try:
        import torch
    except ImportError as error:
        raise PlatformError(
            f"torch does not load ({_first_line(error)}); run: pip install torch torchvision"
        ) from error
    try:
        import torchvision  # noqa: F401
    except (ImportError, RuntimeError, OSError) as error:
        raise PlatformError(
            f"torchvision does not load with torch {torch.__version__} ({_first_line(error)}): the two "
            "come from different releases; run: pip install --upgrade --force-reinstall torch torchvision"
        ) from error


def _first_line(error: BaseException) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]


def at_once(images: int, size: int) -> int:
    """How many images of `size` x `size` pixels take the memory of `images` at 32 x 32: at least one, at most as many.

    A network of 64 channels needs 512 MiB for each activation of 2048 images at 32 x 32 in float32.
    """
    return max(1, min(images, images * 32 * 32 // size**2))


def evaluation_batch(device: str, size: int = 32) -> int:
    """Images of `size` x `size` pixels for each forward pass without gradients.

    They are few enough for a CPU's caches, and many to fill a GPU; larger images need as much memory as small ones.
    """
    return at_once(2048, size) if device.startswith("cuda") else max(8, at_once(128, size))


def native_bf16(device: str) -> bool:
    """Whether the device multiplies bfloat16 in hardware, so that rounding to it saves time."""
    import torch

    if device.startswith("cuda"):
        return torch.cuda.get_device_capability(device) >= (8, 0)
    # Private names: for a torch without them, float32 is the safe answer.
    asked = (getattr(torch.cpu, name, None) for name in ("_is_avx512_bf16_supported", "_is_amx_tile_supported"))
    return any(ask() for ask in asked if ask is not None)


def versions(device: str) -> dict[str, str | int | None]:
    """The software that decides how results round: torch, cuDNN (on a GPU, else None) and this package."""
    import torch

    from pueprotect.runtime import VERSION

    cudnn = torch.backends.cudnn.version() if device.startswith("cuda") else None
    return {"torch": torch.__version__, "cudnn": cudnn, "pueprotect": VERSION}


def environment(device: Device) -> dict[str, str]:
    """Versions and device, recorded with every result."""
    import numpy
    import PIL
    import torch
    import torchvision

    from pueprotect.runtime import VERSION

    return {
        "pueprotect": VERSION,
        "python": platform.python_version(),
        "torch": torch.__version__,
        "torchvision": torchvision.__version__,
        "numpy": numpy.__version__,
        "pillow": PIL.__version__,
        "device": device.name,
        "device_name": device_name(device.name),
        "threads": str(torch.get_num_threads()),
        "platform": platform.platform(),
    }


def device_name(device: str) -> str:
    """The product name of the GPU or processor."""
    import torch

    if device.startswith("cuda"):
        return torch.cuda.get_device_name(device)
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as lines:
            for line in lines:
                if line.startswith("model name"):
                    return line.split(":", 1)[1].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()
