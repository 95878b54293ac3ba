"""Keeps results of `certify` and `audit` in a vault, and reads them back with `--resume`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from pueprotect.errors import VaultError
from pueprotect.learning.models import state_of
from pueprotect.release.vault import SCHEMA_VERSION, Vault, refuse_other
from pueprotect.runtime import VERSION

ABOUT = "network"


@dataclass(frozen=True)
class Results:
    """The finished parts of commands on one release. The first one of a foreign folder makes its vault.

    Methods that write raise `VaultError` when the vault cannot be made or written.

    Attributes:
        vault: where they are kept.
        digests: of the released bytes and of the test images; every result depends on both.
        chance: accuracy of always answering the most frequent test class.
        test_images: how many clean images were used for the figures.
        flags: reasons to doubt every figure measured on these test images.
    """

    vault: Vault
    digests: dict[str, str]
    chance: float
    test_images: int
    flags: tuple[str, ...] = ()

    def path(self, name: str) -> Path:
        """The path of a file in the vault, which is made if needed."""
        return Vault.create(self.vault.path).path / name

    def write(self, name: str, data: dict[str, Any]) -> None:
        """Write the output of a command."""
        Vault.create(self.vault.path).write_json(name, data)

    def keep(self, name: str, key: dict[str, Any], result: dict[str, Any]) -> None:
        """Store a finished part and all that it depends on."""
        about = {"chance": self.chance, "test_images": self.test_images, "pueprotect": VERSION, "flags": self.flags}
        self.write(name, {"schema_version": SCHEMA_VERSION, "key": key | self.digests, **about, "result": result})

    def kept(self, name: str, key: dict[str, Any]) -> dict[str, Any] | None:
        """What `keep` stored for the same key, released bytes and test images; None when there is no such result."""
        try:
            found = self.vault.read_json(name)
        except VaultError:
            return None
        result = found.get("result") if found.get("key") == key | self.digests else None
        return result if isinstance(result, dict) else None

    def keep_weights(self, name: str, key: dict[str, Any], model: nn.Module, about: dict[str, Any]) -> None:
        """Store a trained network, all that it depends on, and `about`: what else is known of it, as JSON."""
        self.path(f"certify/{name}.json").unlink(missing_ok=True)
        state = {key: value.numpy() for key, value in state_of(model).items()}
        self.vault.write_tensors(f"certify/{name}.safetensors", state)
        self.write(f"certify/{name}.json", key | self.digests | {ABOUT: about})

    def kept_weights(self, name: str, key: dict[str, Any]) -> tuple[dict[str, torch.Tensor], dict[str, Any]] | None:
        """The weights that `keep_weights` stored, and what it was told about them; None when there are none.

        Raises:
            InputError: they were trained with other settings or data.
        """
        made_for = self.vault.path / f"certify/{name}.json"
        if not made_for.exists():
            return None
        found = self.vault.read_json(f"certify/{name}.json")
        about = found.pop(ABOUT, {})
        refuse_other(made_for, found, key | self.digests)
        return tensors(self.vault, f"certify/{name}.safetensors"), about


def tensors(vault: Vault, name: str) -> dict[str, torch.Tensor]:
    """What `Vault.write_tensors` wrote, as torch tensors.

    Raises:
        VaultError: missing, truncated or not safetensors.
    """
    return {key: torch.from_numpy(value) for key, value in vault.read_tensors(name).items()}
