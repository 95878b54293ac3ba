"""The noise of one release: made, checked with an attacker's eyes, and kept in the vault's draft."""

from __future__ import annotations

import shutil
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from pueprotect.errors import VaultError
from pueprotect.learning.distributed import ALONE, Group
from pueprotect.learning.models import Classifier, parameter_count, state_of
from pueprotect.learning.training import ImageSet, Labelled, Part, Recipe, count_correct
from pueprotect.protect.methods import error_minimising as protect
from pueprotect.protect.methods.texture import Scheme, code_book, texture
from pueprotect.protect.options import Preset
from pueprotect.release.opened import SURROGATE
from pueprotect.release.vault import DELTA, DRAFT, SCHEMA_VERSION, Vault
from pueprotect.runtime import SILENT, Progress

PLAN = f"{DRAFT}/plan.json"
PIECE = 16384  # images in one message between ranks
CODE_CHECKS = 2  # times the passes of the self-check: networks learn the coarse part of a texture code later than noise

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


def _optimised(
    images: ImageSet, held: Tensor, settings: protect.Settings, preset: Preset, progress: Progress, group: Group
) -> Made:
    """Noise of EMN or PUE, its surrogate, and the facts."""
    holdout, shown = (Part(images, members.nonzero().flatten()) for members in (held, ~held))
    task = group.from_leader((settings, preset, images.classes))
    optimizer, noise, facts = _share(shown, holdout, task, progress, group, images.device)
    if settings.mode == "sample-wise":
        whole = torch.empty((len(images), *noise.shape[1:]), dtype=torch.int8, device=noise.device)
        whole[~held], whole[held] = noise, optimizer.noise_for(holdout)
        noise = whole
    return noise.cpu().numpy(), optimizer.surrogate, facts


def _share(
    clean: Labelled | None,
    holdout: Labelled | None,
    task: tuple[protect.Settings, Preset, int],
    progress: Progress,
    group: Group,
    device: str,
) -> tuple[protect.Optimizer, Tensor, dict[str, Any]]:
    """Every rank's part: optimise with the images that rank 0 deals out; the noise is whole again on all of them."""
    settings, preset, classes = task
    optimizer = protect.Optimizer(_dealt(clean, classes, group, device), settings, group)
    checks = _optimise(optimizer, holdout, preset, progress)
    facts = _facts(settings, optimizer.protected(), optimizer.surrogate, optimizer.rounds, checks, group)
    noise = group.collect(optimizer.levels()) if optimizer.individual else optimizer.levels()
    return optimizer, noise, facts


def _dealt(clean: Labelled | None, classes: int, group: Group, device: str) -> Labelled:
    """This rank's part of the images that rank 0 holds."""
    if group.size == 1:
        assert clean is not None
        return clean
    if clean is None:
        frames, labels = group.deal(None, device), group.deal(None, device)
    else:
        pieces = torch.arange(len(clean), device=device).split(PIECE)
        frames = group.deal((clean.frames(index) for index in pieces), device)
        labels = group.deal(clean.labels.split(PIECE), device)
    return ImageSet(frames.permute(0, 3, 1, 2), labels, classes)


def _coded(images: ImageSet, held: Tensor, settings: protect.Settings, preset: Preset, progress: Progress) -> Made:
    """The texture code; the network of the self-check takes the place of a surrogate."""
    progress.start("lay textures", 1)
    scheme = Scheme(code_book(images.classes, settings.seed), settings.epsilon, settings.visibility)
    pixels = images.images.permute(0, 2, 3, 1).cpu().numpy()
    noise = texture(pixels, images.labels.cpu().numpy(), scheme, settings.seed)
    progress.advance()
    progress.finish()
    holdout, shown = (Part(images, members.nonzero().flatten()) for members in (held, ~held))
    protected = protect.Protected(shown, torch.from_numpy(noise).to(images.images.device), shown.members)
    preset = replace(preset, check_epochs=CODE_CHECKS * preset.check_epochs)
    check = _check(protected, holdout, settings, settings.seed, preset, progress)
    return noise, check.model, _facts(settings, protected, check.model, 0, [check])


def _optimise(
    optimizer: protect.Optimizer, holdout: Labelled | None, preset: Preset, progress: Progress
) -> list[protect.SelfCheck]:
    """Optimise and look; when a fresh network learns too much, go on from what it learnt and look again."""
    rounds = optimizer.settings.rounds
    progress.start("optimise noise", rounds)
    optimizer.run(rounds, progress=progress)
    progress.finish()

    def check() -> protect.SelfCheck:
        seed = optimizer.settings.seed + optimizer.rounds
        return _check(optimizer.protected(), holdout, optimizer.settings, seed, preset, progress, optimizer.group)

    checks = [check()]
    if not checks[0].passed:
        progress.start("optimise further", preset.extra_rounds)
        optimizer.run(preset.extra_rounds, teacher=checks[0].model, progress=progress)
        progress.finish()
        checks.append(check())
    return checks


def _check(
    protected: Labelled,
    holdout: Labelled | None,
    settings: protect.Settings,
    seed: int,
    preset: Preset,
    progress: Progress,
    group: Group = ALONE,
) -> protect.SelfCheck:
    progress.start("self-check", Recipe(epochs=preset.check_epochs).steps(sum(group.gather(len(protected)))))
    check = protect.self_check(
        protected, holdout, settings.surrogate, epochs=preset.check_epochs, seed=seed, group=group, progress=progress
    )
    progress.finish(f"{check.accuracy:.1%} on the clean holdout, limit {check.limit:.1%}")
    return check


def _facts(
    settings: protect.Settings,
    protected: Labelled,
    surrogate: Classifier,
    rounds: int,
    checks: list[protect.SelfCheck],
    group: Group = ALONE,
) -> dict[str, Any]:
    last = checks[-1]
    counts = group.gather((int(count_correct(surrogate, protected)), len(protected)))
    return {
        "rounds": rounds,
        "surrogate": {
            "name": settings.surrogate,
            "size": protected.size,
            "parameters": parameter_count(surrogate),
            "train_accuracy_protected": sum(right for right, _ in counts) / sum(images for _, images in counts),
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
