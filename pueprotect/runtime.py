"""What every long computation shares: the device, the random streams and the progress protocol.

Torch is imported inside the functions, so that modules which only want `Progress` start quickly.
"""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    import torch


class Progress(Protocol):
    """Receives the state of one named piece of work; the core never prints."""

    def start(self, label: str, total: int) -> None:
        """A piece of work of `total` equal parts begins."""

    def advance(self, parts: int = 1, note: str = "") -> None:
        """`parts` more are done; `note` is a short reading such as an accuracy."""

    def finish(self, note: str = "") -> None:
        """The piece of work that was started last has ended."""


class Silent:
    """The default `Progress`: says nothing."""

    def start(self, label: str, total: int) -> None:
        """Ignore."""

    def advance(self, parts: int = 1, note: str = "") -> None:
        """Ignore."""

    def finish(self, note: str = "") -> None:
        """Ignore."""


SILENT = Silent()


def child_seed(seed: int, purpose: str, index: int = 0) -> int:
    """A 63-bit seed that depends on nothing but (seed, purpose, index)."""
    digest = hashlib.blake2b(f"{seed}/{purpose}/{index}".encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") >> 1


def generator(seed: int, purpose: str, index: int = 0, device: str = "cpu") -> torch.Generator:
    """An independent random stream for one purpose.

    CPU and CUDA streams differ: results are reproducible on one kind of device, not across kinds.
    """
    import torch

    return torch.Generator(device=device).manual_seed(child_seed(seed, purpose, index))
