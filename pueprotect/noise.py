"""The noise of one release: made, checked with an attacker's eyes, and kept in the vault's draft."""

from __future__ import annotations

import shutil
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from pueprotect import protect
from pueprotect.errors import VaultError
from pueprotect.evidence import SURROGATE
from pueprotect.models import Classifier, parameter_count, state_of
from pueprotect.options import Preset
from pueprotect.runtime import Progress
from pueprotect.texture import Scheme, code_book, texture
from pueprotect.training import ImageSet, Recipe, accuracy
from pueprotect.vault import DELTA, DRAFT, SCHEMA_VERSION, Vault

PLAN = f"{DRAFT}/plan.json"

Noise = npt.NDArray[np.int8]
Made = tuple[Noise, Classifier, dict[str, Any]]


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
    """Make noise, look at it with an attacker's eyes, and keep it in the vault's draft.

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
    family = _coded if settings.method == "hardened" else _optimised
    array, surrogate, facts = family(images, mask, settings, preset, progress)
    state = {name: value.numpy() for name, value in state_of(surrogate).items()}
    store.write_tensors(f"{DRAFT}/{DELTA}", {"delta": array})
    store.write_tensors(f"{DRAFT}/{SURROGATE}", state)
    store.write_json(PLAN, {"schema_version": SCHEMA_VERSION, "plan": plan, "facts": facts})
    return array, facts


def _optimised(images: ImageSet, held: Tensor, settings: protect.Settings, preset: Preset, progress: Progress) -> Made:
    """Noise of EMN or PUE, its surrogate, and the facts."""
    holdout = images.subset(held)
    optimizer = protect.Optimizer(images.subset(~held), settings)
    checks = _optimise(optimizer, holdout, preset, progress)
    noise = optimizer.levels()
    if settings.mode == "sample-wise":
        whole = torch.empty((len(images), *noise.shape[1:]), dtype=torch.int8, device=noise.device)
        whole[~held], whole[held] = noise, optimizer.noise_for(holdout)
        noise = whole
    facts = _facts(settings, optimizer.protected(), optimizer.surrogate, optimizer.rounds, checks)
    return noise.cpu().numpy(), optimizer.surrogate, facts


def _coded(images: ImageSet, held: Tensor, settings: protect.Settings, preset: Preset, progress: Progress) -> Made:
    """The texture code; the network of the self-check takes the place of a surrogate."""
    progress.start("lay textures", 1)
    scheme = Scheme(code_book(images.classes, settings.seed), settings.epsilon, settings.visibility)
    pixels = images.images.permute(0, 2, 3, 1).cpu().numpy()
    noise = texture(pixels, images.labels.cpu().numpy(), scheme, settings.seed)
    progress.advance()
    progress.finish()
    delta = torch.from_numpy(noise[~held.cpu().numpy()]).to(images.images.device)
    clean = images.subset(~held)
    own = torch.arange(len(clean), device=delta.device)
    protected = ImageSet(protect.apply(clean.images, delta, own), clean.labels, clean.classes)
    check = _check(protected, images.subset(held), settings, settings.seed, preset, progress)
    return noise, check.model, _facts(settings, protected, check.model, 0, [check])


def _optimise(
    optimizer: protect.Optimizer, holdout: ImageSet, preset: Preset, progress: Progress
) -> list[protect.SelfCheck]:
    """Optimise and look; when a fresh network learns too much, go on from what it learnt and look again."""
    rounds = optimizer.settings.rounds
    progress.start("optimise noise", rounds)
    optimizer.run(rounds, progress=progress)
    progress.finish()

    def check() -> protect.SelfCheck:
        seed = optimizer.settings.seed + optimizer.rounds
        return _check(optimizer.protected(), holdout, optimizer.settings, seed, preset, progress)

    checks = [check()]
    if not checks[0].passed:
        progress.start("optimise further", preset.extra_rounds)
        optimizer.run(preset.extra_rounds, teacher=checks[0].model, progress=progress)
        progress.finish()
        checks.append(check())
    return checks


def _check(
    protected: ImageSet, holdout: ImageSet, settings: protect.Settings, seed: int, preset: Preset, progress: Progress
) -> protect.SelfCheck:
    progress.start("self-check", Recipe(epochs=preset.check_epochs).steps(len(protected)))
    check = protect.self_check(
        protected, holdout, settings.surrogate, epochs=preset.check_epochs, seed=seed, progress=progress
    )
    progress.finish(f"{check.accuracy:.1%} on the clean holdout, limit {check.limit:.1%}")
    return check


def _facts(
    settings: protect.Settings,
    protected: ImageSet,
    surrogate: Classifier,
    rounds: int,
    checks: list[protect.SelfCheck],
) -> dict[str, Any]:
    last = checks[-1]
    return {
        "rounds": rounds,
        "surrogate": {
            "name": settings.surrogate,
            "size": protected.size,
            "parameters": parameter_count(surrogate),
            "train_accuracy_protected": accuracy(surrogate, protected),
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
