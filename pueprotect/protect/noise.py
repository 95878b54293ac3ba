"""The noise of one release: made, checked with an attacker's eyes, and kept in the vault's draft."""

from __future__ import annotations

import shutil
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from pueprotect.errors import VaultError
from pueprotect.learning.data import ImageSet
from pueprotect.learning.distributed import ALONE, Group
from pueprotect.learning.models import state_of
from pueprotect.protect.methods.base import Noise, NoiseSettings
from pueprotect.protect.methods.error_minimising import _optimised, _share
from pueprotect.protect.methods.texture import _coded
from pueprotect.protect.presets import Preset
from pueprotect.release.vault import DELTA, DRAFT, SCHEMA_VERSION, SURROGATE, Vault
from pueprotect.runtime import SILENT, Progress

PLAN = f"{DRAFT}/plan.json"


def kept(store: Vault, plan: dict[str, Any]) -> tuple[Noise, dict[str, Any]] | None:
    """The noise of the vault's draft and the facts about it, if it was made by the same plan."""
    try:
        found = store.read_json(PLAN)
        if found.get("plan") != plan:
            return None
        return store.read_tensors(f"{DRAFT}/{DELTA}")["delta"], found["facts"]
    except VaultError:
        return None


def make(
    store: Vault,
    plan: dict[str, Any],
    images: ImageSet,
    held: npt.NDArray[np.bool_],
    settings: NoiseSettings,
    preset: Preset,
    progress: Progress,
    group: Group = ALONE,
) -> tuple[Noise, dict[str, Any]]:
    """Make noise, look at it with an attacker's eyes, and keep it in the vault's draft.

    Args:
        store: the vault; an older draft in it is removed.
        plan: all that the noise depends on, as JSON.
        images: working copies of all images.
        held: (N,) bool, true for the images that no training may see.
        settings: of the optimisation.
        preset: passes of the self-check, and of what follows a failed one.
        progress: told of each part.
        group: ranks that share the optimisation; the others are in `assist`.

    Returns:
        (classes or N, S, S, 3) int8 levels, and the facts: rounds, surrogate and self-check as in the contract.

    Raises:
        VaultError: the draft cannot be written.
    """
    shutil.rmtree(store.path / DRAFT, ignore_errors=True)
    mask = torch.from_numpy(held).to(images.images.device)
    if settings.method == "hardened":
        dismiss(group)
        array, surrogate, facts = _coded(images, mask, settings, preset, progress)
    else:
        array, surrogate, facts = _optimised(images, mask, settings, preset, progress, group)
    state = {name: value.numpy() for name, value in state_of(surrogate).items()}
    store.write_tensors(f"{DRAFT}/{DELTA}", {"delta": array})
    store.write_tensors(f"{DRAFT}/{SURROGATE}", state)
    store.write_json(PLAN, {"schema_version": SCHEMA_VERSION, "plan": plan, "facts": facts})
    return array, facts


def assist(group: Group, device: str) -> None:
    """What the other ranks do while rank 0 protects a folder: their share of the optimisation, if there is one."""
    task = group.from_leader(None)
    if task is not None:
        _share(None, None, task, SILENT, group, device)


def dismiss(group: Group) -> None:
    """Rank 0 has no work for the others."""
    group.from_leader(None)
