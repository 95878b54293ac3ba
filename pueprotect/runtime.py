"""Reports progress, makes random streams and loads plug-ins for every room. Imports torch only to make a stream."""

from __future__ import annotations

import hashlib
from functools import cache
from typing import TYPE_CHECKING, Any, Protocol

from pueprotect.errors import InputError

if TYPE_CHECKING:
    from importlib.metadata import EntryPoint

    import numpy as np
    import torch

VERSION = "0.1.0"


class Progress(Protocol):
    """Receives the state of one named piece of work; the core never prints. The methods here do nothing."""

    def start(self, label: str, total: int) -> None:
        """A piece of work of `total` equal parts begins."""
        return None

    def advance(self, parts: int = 1, note: str = "") -> None:
        """`parts` more are done; `note` is a short reading such as an accuracy."""
        return None

    def finish(self, note: str = "") -> None:
        """The piece of work that was started last has ended."""
        return None


class Silent(Progress):
    """The default: reports nothing."""


SILENT = Silent()


def child_seed(seed: int | str, purpose: str, index: int = 0) -> int:
    """A 63-bit seed that depends on nothing but (seed, purpose, index); `seed` may be a secret key, as text."""
    digest = hashlib.blake2b(f"{seed}/{purpose}/{index}".encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") >> 1


def generator(seed: int | str, purpose: str, index: int = 0, device: str = "cpu") -> torch.Generator:
    """An independent random stream for one purpose; CPU and CUDA streams of one seed differ.

    On CPUs torch uses 32 bits of any seed, so all streams can be tried. `secret_stream` has no such limit.
    """
    import torch

    return torch.Generator(device=device).manual_seed(child_seed(seed, purpose, index))


def secret_stream(key: int | str, purpose: str, index: int = 0) -> np.random.Generator:
    """An independent NumPy stream for one purpose, for what nobody may guess.

    Args:
        key: 128 bits as text, all of which the stream depends on. A whole number gives the stream of `child_seed`, as
            in releases that were made before there were keys.
        purpose: what the numbers are for.
        index: tells streams of one purpose apart.
    """
    import numpy as np

    if isinstance(key, int):
        return np.random.default_rng(child_seed(key, purpose, index))
    digest = hashlib.blake2b(f"{key}/{purpose}/{index}".encode(), digest_size=16).digest()
    return np.random.default_rng(int.from_bytes(digest, "big"))


@cache
def plugins(group: str) -> dict[str, EntryPoint]:
    """What installed packages offer in an entry point group, such as `pueprotect.attacks`, by name."""
    from importlib.metadata import entry_points

    return {entry.name: entry for entry in entry_points(group=group)}


def unusable(plugin: EntryPoint, why: object) -> InputError:
    """The error for a plug-in that cannot be used; it names the plug-in's package."""
    package = plugin.dist.name if plugin.dist else plugin.value
    reason = " ".join(str(why).split()) or type(why).__name__
    return InputError(
        f"The plug-in {plugin.name!r} of the package {package} cannot be used ({reason}); update or uninstall the "
        "package."
    )


def load_plugin(plugin: EntryPoint) -> Any:
    """Import what a plug-in names.

    Raises:
        InputError: it cannot be imported; the message names the package.
    """
    try:
        return plugin.load()
    except Exception as error:  # foreign code may fail in any way
        raise unusable(plugin, error) from error
