"""The noise of one release: optimised, checked with an attacker's eyes, and kept in the vault's draft."""

from __future__ import annotations

import shutil
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from pueprotect import protect
from pueprotect.errors import VaultError
from pueprotect.evidence import SURROGATE
from pueprotect.models import parameter_count, state_of
from pueprotect.options import Preset
from pueprotect.runtime import Progress
from pueprotect.training import ImageSet, Labelled, Part, Recipe, accuracy
from pueprotect.vault import DELTA, DRAFT, SCHEMA_VERSION, Vault

PLAN = f"{DRAFT}/plan.json"

Noise = npt.NDArray[np.int8]


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
    settings: protect.Settings,
    preset: Preset,
    progress: Progress,
) -> tuple[Noise, dict[str, Any]]:
    """Optimise noise, look at it with an attacker's eyes, and keep it in the vault's draft.

    Args:
        store: the vault; an older draft in it is removed.
        plan: all that the noise depends on, as JSON.
        images: working copies of all images.
        held: (N,) bool, true for the images that no training may see.
        settings: of the optimisation.
        preset: passes of the self-check, and of what follows a failed one.
        progress: told of each part.

    Returns:
        (classes or N, S, S, 3) int8 levels, and the facts: rounds, surrogate and self-check as in the contract.

    Raises:
        VaultError: the draft cannot be written.
    """
    shutil.rmtree(store.path / DRAFT, ignore_errors=True)
    mask = torch.from_numpy(held).to(images.images.device)
    holdout, shown = (Part(images, members.nonzero().flatten()) for members in (mask, ~mask))
    optimizer = protect.Optimizer(shown, settings)
    checks = _optimise(optimizer, holdout, preset, progress)
    noise = optimizer.levels()
    if settings.mode == "sample-wise":
        whole = torch.empty((len(images), *noise.shape[1:]), dtype=torch.int8, device=noise.device)
        whole[~mask], whole[mask] = noise, optimizer.noise_for(holdout)
        noise = whole
    facts = _facts(optimizer, checks)
    array: Noise = noise.cpu().numpy()
    state = {name: value.numpy() for name, value in state_of(optimizer.surrogate).items()}
    store.write_tensors(f"{DRAFT}/{DELTA}", {"delta": array})
    store.write_tensors(f"{DRAFT}/{SURROGATE}", state)
    store.write_json(PLAN, {"schema_version": SCHEMA_VERSION, "plan": plan, "facts": facts})
    return array, facts


def _optimise(
    optimizer: protect.Optimizer, holdout: Labelled, preset: Preset, progress: Progress
) -> list[protect.SelfCheck]:
    """Optimise and look; when a fresh network learns too much, go on from what it learnt and look again."""
    rounds = optimizer.settings.rounds
    progress.start("optimise noise", rounds)
    optimizer.run(rounds, progress=progress)
    progress.finish()
    checks = [_check(optimizer, holdout, preset, progress)]
    if not checks[0].passed:
        progress.start("optimise further", preset.extra_rounds)
        optimizer.run(preset.extra_rounds, teacher=checks[0].model, progress=progress)
        progress.finish()
        checks.append(_check(optimizer, holdout, preset, progress))
    return checks


def _check(optimizer: protect.Optimizer, holdout: Labelled, preset: Preset, progress: Progress) -> protect.SelfCheck:
    protected = optimizer.protected()
    progress.start("self-check", Recipe(epochs=preset.check_epochs).steps(len(protected)))
    check = protect.self_check(
        protected,
        holdout,
        optimizer.settings.surrogate,
        epochs=preset.check_epochs,
        seed=optimizer.settings.seed + optimizer.rounds,
        progress=progress,
    )
    progress.finish(f"{check.accuracy:.1%} on the clean holdout, limit {check.limit:.1%}")
    return check


def _facts(optimizer: protect.Optimizer, checks: list[protect.SelfCheck]) -> dict[str, Any]:
    last = checks[-1]
    return {
        "rounds": optimizer.rounds,
        "surrogate": {
            "name": optimizer.settings.surrogate,
            "size": optimizer.data.size,
            "parameters": parameter_count(optimizer.surrogate),
            "train_accuracy_protected": accuracy(optimizer.surrogate, optimizer.protected()),
        },
        "self_check": {
            "arch": last.arch,
            "epochs": last.epochs,
            "accuracy": last.accuracy,
            "chance": last.chance,
            "limit": last.limit,
            "passed": last.passed,
            "attempts": [check.accuracy for check in checks],
        },
    }
