"""Makes the noise of a release with its method, stores it in the vault's draft, and reads it back with `--resume`."""

from __future__ import annotations

import shutil
from typing import Any

import torch

from pueprotect.errors import VaultError
from pueprotect.learning.data import ImageSet
from pueprotect.learning.device import Machine
from pueprotect.learning.models import state_of
from pueprotect.protect.key import is_key
from pueprotect.protect.methods.base import Mask, Noise, NoiseSettings, find
from pueprotect.protect.presets import Preset
from pueprotect.release.records import NoiseFacts
from pueprotect.release.vault import DELTA, DRAFT, RUN, SCHEMA_VERSION, SURROGATE, Vault

PLAN = f"{DRAFT}/plan.json"


def kept_key(store: Vault) -> str | None:
    """The key of the vault's draft, or else of its finished release; None where there is no whole one."""
    for name, inside in ((PLAN, ("plan",)), (RUN, ())):
        try:
            found: Any = store.read_json(name)
            for step in (*inside, "settings", "key"):
                found = found[step]
        except (VaultError, LookupError, TypeError):
            continue
        if is_key(found):
            return str(found)
    return None


def kept(store: Vault, plan: dict[str, Any]) -> tuple[Noise, NoiseFacts] | None:
    """The noise of the vault's draft and the facts about it, if it is whole and was made by the same plan."""
    try:
        found = store.read_json(PLAN)
        if found.get("plan") != plan:
            return None
        return store.read_tensors(f"{DRAFT}/{DELTA}")["delta"], NoiseFacts.model_validate(found["facts"])
    except (VaultError, LookupError, ValueError):  # damaged: the noise is made anew
        return None


def make(
    store: Vault, plan: dict[str, Any], images: ImageSet, held: Mask, settings: NoiseSettings, preset: Preset,
    machine: Machine,
) -> tuple[Noise, NoiseFacts]:  # fmt: skip
    """Make noise with the method of the settings, and store it in the vault's draft, replacing an older draft.

    `plan` is all that the noise depends on, as JSON. For the other arguments see `Method.make`.

    Returns:
        (classes or N, S, S, 3) levels, and the facts: rounds, surrogate and self-check.

    Raises:
        VaultError: the draft cannot be written.
    """
    shutil.rmtree(store.path / DRAFT, ignore_errors=True)
    mask = torch.from_numpy(held).to(images.images.device)
    made = find(settings.method).make(images, mask, settings, preset, machine)
    state = {name: value.numpy() for name, value in state_of(made.network).items()}
    store.write_tensors(f"{DRAFT}/{DELTA}", {"delta": made.noise})
    store.write_tensors(f"{DRAFT}/{SURROGATE}", state)
    store.write_json(PLAN, {"schema_version": SCHEMA_VERSION, "plan": plan, "facts": made.facts.as_json()})
    return made.noise, made.facts


def assist(method: str, machine: Machine) -> None:
    """Take part in the optimisation on every rank but 0, while rank 0 protects a folder; a method may need no help."""
    task = machine.group.from_leader(None)
    if task is not None:
        find(method).assist(task, machine)
