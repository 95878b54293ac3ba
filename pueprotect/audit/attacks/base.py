"""Defines what an attack must implement, runs and measures attacks, and keeps their registry.

An attack implements `train` and nothing else. It gets the released files and what its `needs` promise, and returns a
network. It passes intermediate networks to `Run.epoch` and `Run.observe`, which return nothing. The base class measures
accuracy on clean test images, so no attack grades itself. A `filter` that needs no labels is part of what the attacker
runs: test images go through it too, and accuracy on test images as they are is recorded as well.
"""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from pueprotect.errors import InputError, did_you_mean
from pueprotect.learning.data import ImageSet
from pueprotect.learning.device import at_once
from pueprotect.learning.models import Classifier, build
from pueprotect.learning.training import Schedule, accuracy, count_correct
from pueprotect.protect.methods.texture import Scheme
from pueprotect.release.audits import AS_THEY_ARE, AttackResult
from pueprotect.runtime import SILENT, Progress, generator, load_plugin, plugins, unusable

NOTHING = "nothing"
CLEAN_SHARE = "a clean share"
HELD_OUT = "the held-out files"
KNOWLEDGE = "knowledge of the protection"
MISSING = {
    CLEAN_SHARE: "clean training images: run it on a release made by pueprotect with its originals in place",
    HELD_OUT: "held-out files: run it without --test on a release made by pueprotect with its originals in place",
    KNOWLEDGE: "a code book: run it on a release of --method hardened that has its vault",
}
TRAINING_SAMPLE = 1000
CHUNK = 4096  # images of 32 x 32 pixels filtered at once

Filter = Callable[[Tensor], Tensor]  # a few images, (N, 3, H, W) uint8 -> the same shape and type


@dataclass(frozen=True)
class Target:
    """What the attacker has; everything random is a function of `seed`.

    Attributes:
        released: training images as decoded from the released files.
        clean_share: clean labelled training images for attacks that need them, else None.
        etas: radii of the recovery attack, ascending.
        originals: the clean images of `released`, if known. No attacker has them: attacks behind a filter use them to
            measure what clean data gives behind the same filter.
        scheme: how the release was protected, for attacks with that knowledge, else None.
        places: place of each image of `released` among all files of the release; None where these are all of them.
    """

    released: ImageSet
    arch: str
    schedule: Schedule
    seed: int
    clean_share: ImageSet | None = None
    etas: tuple[float, ...] = ()
    originals: ImageSet | None = None
    scheme: Scheme | None = None
    places: Sequence[int] | None = None

    def fresh(self) -> Classifier:
        """A newly initialised network of the attacker's architecture."""
        data = self.released
        return build(self.arch, data.classes, data.size, seed=self.seed, purpose="attacker", device=data.device)


@dataclass
class Run:
    """One run of one attack: its target, and what was measured on its networks.

    `filter` is what `Attack.filter` returned for this target; test images went through it. An attack that trains on
    other images than the released ones sets `trained_on`.
    """

    target: Target
    _test: ImageSet
    progress: Progress = SILENT
    filter: Filter | None = None
    flags: list[str] = field(default_factory=list)
    details: dict[str, Any] = field(default_factory=dict)
    trained_on: ImageSet | None = None
    _epoch_counts: list[Tensor] = field(default_factory=list)
    _points: dict[str, Tensor] = field(default_factory=dict)

    def filtered(self, data: ImageSet) -> ImageSet:
        """Images behind the filter of this run."""
        return behind(self.filter, data)

    def epoch(self, model: nn.Module) -> None:
        """Measure the network after a pass; it counts for `best_accuracy`."""
        self._epoch_counts.append(count_correct(model, self._test))

    def observe(self, name: str, model: nn.Module, *, candidate: bool = True) -> None:
        """Measure a further network and record its accuracy under this name.

        Without `candidate` it is for comparison and never counts as the attack's best.
        """
        count = count_correct(model, self._test)
        self._points[name] = count
        if candidate:
            self._epoch_counts.append(count)


def behind(found: Filter | None, data: ImageSet) -> ImageSet:
    """The images behind a filter, a few at a time, so that no float copy of a whole set is made."""
    if found is None:
        return data
    parts = torch.cat([found(part) for part in data.images.split(at_once(CHUNK, data.size))])
    return replace(data, images=parts.contiguous(memory_format=torch.channels_last))


class Attack(ABC):
    """One way to learn from released images.

    Attributes:
        name: as used on the command line.
        about: what the attack does; continues a sentence that starts with its name.
        needs: `nothing`, `a clean share`, `the held-out files` or `knowledge of the protection`. An attack that needs
            the held-out files gets them as `Target.released`, and is measured on the originals of the others.
        cost: time relative to `standard`, measured by examples/benchmarks/audit.py; an audit uses it for its time
            estimate and the order of its attacks.
    """

    name: str
    about: str
    needs: str = NOTHING
    source: str
    cost: float = 1.0

    @abstractmethod
    def train(self, run: Run) -> Classifier:
        """Learn from `run.target` and return the final network."""

    def schedule(self, target: Target) -> Schedule:
        """The schedule that this attack trains with."""
        return target.schedule

    def steps(self, target: Target) -> int:
        """Parts of progress that `train` reports."""
        return self.schedule(target).steps(len(target.released))

    def filter(self, target: Target) -> Filter | None:
        """The filter of all training and test images before the network; None for no filter."""
        return None

    def lacks(self, clean_share: bool, scheme: bool, held_out: bool = True) -> str:
        """What this attack needs and does not get, as one sentence; empty when it can run."""
        if {CLEAN_SHARE: clean_share, KNOWLEDGE: scheme, HELD_OUT: held_out}.get(self.needs, True):
            return ""
        return f"The attack {self.name} needs {MISSING[self.needs]}, or leave it out."

    def run(self, target: Target, test: ImageSet, progress: Progress = SILENT, label: str = "") -> AttackResult:
        """Train on `target` and measure on clean `test` images, which the attacker never sees.

        `label` names the work in `progress`; by default it is the attack and its network.

        Raises:
            InputError: the target lacks what the attack needs.
        """
        if why := self.lacks(target.clean_share is not None, target.scheme is not None):
            raise InputError(why)
        began = time.perf_counter()
        found = self.filter(target)
        run = Run(target, behind(found, test), progress, found)
        progress.start(label or f"attack {self.name} ({target.arch})", self.steps(target))
        model = self.train(run)
        final = accuracy(model, run._test)
        if found is not None:
            run._points[AS_THEY_ARE] = count_correct(model, test)
        epochs = [int(count) / len(test) for count in run._epoch_counts]
        points = {name: int(count) / len(test) for name, count in run._points.items()}
        diverged = not all(bool(parameter.isfinite().all()) for parameter in model.parameters())
        data = run.trained_on or target.released
        sample = data.drawn(TRAINING_SAMPLE, target.seed, "train-accuracy")
        run.details["train_accuracy"] = accuracy(model, sample)
        progress.finish(f"{final:.1%} on clean test images")
        return AttackResult(
            attack=self.name, arch=target.arch, accuracy=None if diverged else final,
            best_accuracy=None if diverged else max([final, *epochs]), epochs=self.schedule(target).epochs,
            seconds=time.perf_counter() - began, flags=(*run.flags, "diverged") if diverged else tuple(run.flags),
            details=run.details | {"epoch_accuracy": epochs} | ({"points": points} if points else {}),
        )  # fmt: skip


REGISTRY: dict[str, Attack] = {}
Registered = TypeVar("Registered", bound=Attack | type[Attack])


def register(attack: Registered) -> Registered:
    """Make an attack known by its name; works as a class decorator too.

    Raises:
        ValueError: the name is taken.
    """
    if attack.name in REGISTRY:
        raise ValueError(f"an attack named {attack.name!r} is registered already")
    REGISTRY[attack.name] = attack() if isinstance(attack, type) else attack
    return attack


def register_plugins() -> None:
    """Register the attacks of other packages: entry points of the group `pueprotect.attacks`.

    Raises:
        InputError: one cannot be imported or takes a name that is registered; the message names the package.
    """
    for plugin in plugins("pueprotect.attacks").values():
        attack = load_plugin(plugin)
        if type(REGISTRY.get(attack.name)) is attack:
            continue  # registered by its own module
        try:
            register(attack)
        except ValueError as error:
            raise unusable(plugin, error) from error


def find(name: str) -> Attack:
    """The attack registered under `name`.

    Raises:
        InputError: unknown name; the message offers the nearest ones.
    """
    if name not in REGISTRY:
        raise InputError(f"Unknown attack {name!r}; {did_you_mean(name, REGISTRY)} All: pueprotect attacks.")
    return REGISTRY[name]


def clean_share(originals: ImageSet | None, fraction: float, seed: int) -> ImageSet | None:
    """A stratified share of the clean training images in random order, at least one for each class."""
    if originals is None:
        return None
    order = torch.randperm(len(originals), generator=generator(seed, "clean-share")).to(originals.images.device)
    ordered = originals.labels[order]
    classes = [order[ordered == label] for label in range(originals.classes)]
    chosen = torch.cat([members[: max(1, round(fraction * len(members)))] for members in classes])
    mixed = torch.randperm(len(chosen), generator=generator(seed, "clean-share-order")).to(chosen.device)
    return originals.subset(chosen[mixed])
