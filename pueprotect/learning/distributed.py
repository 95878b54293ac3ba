"""Shares one task between processes started by `torchrun`; without it, the group has one process.

Rank 0 reads, trains, writes and reports; the others take part in work that splits into independent parts. Processes
communicate through torch.distributed: gloo on CPUs, nccl on GPUs.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pueprotect.errors import PlatformError

if TYPE_CHECKING:
    from torch import Tensor

WAIT = timedelta(days=7)  # others wait while rank 0 trains; torchrun notices a rank that dies


@dataclass(frozen=True)
class Group:
    """The processes that work together; this one is number `rank` of `size`, counted from 0."""

    rank: int = 0
    size: int = 1

    @property
    def leads(self) -> bool:
        """Whether this is the process that reads, writes and reports."""
        return self.rank == 0

    def share(self, parts: list[Any]) -> list[Any]:
        """This process's part of a list; the parts of all ranks make up the list."""
        return parts[self.rank :: self.size]

    def gather(self, mine: Any) -> list[Any]:
        """Return on every rank what each rank passed in, in the order of ranks."""
        if self.size == 1:
            return [mine]
        import torch.distributed as dist

        everyone: list[Any] = [None] * self.size
        dist.all_gather_object(everyone, mine)
        return everyone

    def from_leader(self, thing: Any) -> Any:
        """Return on every rank what rank 0 passed in."""
        if self.size == 1:
            return thing
        import torch.distributed as dist

        box = [thing]
        dist.broadcast_object_list(box, src=0)
        return box[0]

    def dismiss(self) -> None:
        """Release the other ranks, which wait in `from_leader`, without work."""
        self.from_leader(None)

    def average(self, tensors: list[Tensor]) -> None:
        """Replace tensors by their means over the ranks, in one message; ranks pass the same shapes."""
        if self.size > 1:
            self.add_up(tensors)
            for tensor in tensors:
                tensor /= self.size

    def add_up(self, tensors: list[Tensor]) -> None:
        """Replace tensors by their sums over the ranks, in one message; ranks pass the same shapes."""
        if self.size == 1 or not tensors:
            return
        import torch
        import torch.distributed as dist

        flat = torch.cat([tensor.reshape(-1) for tensor in tensors])
        dist.all_reduce(flat)
        for tensor, summed in zip(tensors, flat.split([tensor.numel() for tensor in tensors]), strict=True):
            tensor.copy_(summed.view(tensor.shape))

    def deal(self, pieces: Iterable[Tensor] | None, device: str) -> Tensor:
        """Deal out rank 0's rows, row i to rank i % size; rank 0 passes them piece by piece, the others pass None."""
        import torch
        import torch.distributed as dist

        source, start = iter(pieces or ()), 0
        mine: list[Tensor] = []
        while True:
            piece = next(source, None)
            header = self.from_leader(None if piece is None else (tuple(piece.shape), piece.dtype))
            if header is None:
                return torch.cat(mine)
            if piece is None:
                piece = torch.empty(header[0], dtype=header[1], device=device)
            dist.broadcast(piece := piece.contiguous(), 0)
            mine.append(piece[(self.rank - start) % self.size :: self.size].clone())
            start += len(piece)

    def collect(self, mine: Tensor) -> Tensor:
        """Return on every rank the rows of `deal` in their first order."""
        if self.size == 1:
            return mine
        import torch.distributed as dist

        counts = self.gather(len(mine))
        whole = mine.new_empty((sum(counts), *mine.shape[1:]))
        for rank, count in enumerate(counts):
            rows = mine.contiguous() if rank == self.rank else mine.new_empty((count, *mine.shape[1:]))
            dist.broadcast(rows, rank)
            whole[rank :: self.size] = rows
        return whole

    @contextmanager
    def leader_works(self) -> Iterator[None]:
        """Inside the block rank 0 works while the others wait, so it uses all cores."""
        if self.size == 1 or not self.leads or _threads_were_chosen():
            yield
            return
        import torch

        before = torch.get_num_threads()
        torch.set_num_threads(len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1)
        try:
            yield
        finally:
            torch.set_num_threads(before)


ALONE = Group()


def _threads_were_chosen() -> bool:
    """Whether the user set OMP_NUM_THREADS; otherwise torchrun sets it to 1 for its children."""
    threads = os.environ.get("OMP_NUM_THREADS")
    try:
        return threads != "1" or b"OMP_NUM_THREADS=" in Path(f"/proc/{os.getppid()}/environ").read_bytes()
    except OSError:
        return False


def launched() -> tuple[int, int]:
    """(rank, size) from torchrun's environment variables; (0, 1) without them."""
    return int(os.environ.get("RANK", 0)), int(os.environ.get("WORLD_SIZE", 1))


def own_device(wanted: str) -> str:
    """The `--device` of this process: under torchrun, `auto` and `cuda` become the GPU of its local rank."""
    if launched()[1] > 1 and wanted in ("auto", "cuda"):
        import torch

        if torch.cuda.is_available():
            return f"cuda:{int(os.environ.get('LOCAL_RANK', 0)) % torch.cuda.device_count()}"
    return wanted


@contextmanager
def joined(device: str) -> Iterator[Group]:
    """The group of this process, which leaves it at the end of the block.

    Raises:
        PlatformError: torchrun's environment variables are incomplete.
    """
    rank, size = launched()
    if size == 1:
        yield ALONE
        return
    import torch
    import torch.distributed as dist

    cuda = device.startswith("cuda")
    if cuda:
        torch.cuda.set_device(device)
    try:
        dist.init_process_group("nccl" if cuda else "gloo", timeout=WAIT)
    except (ValueError, RuntimeError) as error:
        raise PlatformError(
            f"RANK={rank} and WORLD_SIZE={size} are set, but the processes cannot connect ({error}); start them with "
            "torchrun, or unset both."
        ) from error
    try:
        yield Group(rank, size)
    finally:
        dist.destroy_process_group()
