"""The attack contract and the registry.

An attack implements `train` and nothing else. It gets the released files and what its `needs` promise. It returns a
network, and shows intermediate ones to `Run.epoch` and `Run.observe`, which return nothing. The base class evaluates
on clean test images, so no attack grades itself. A `filter` of the images that needs no labels is part of what the
attacker runs: test images go through it too, and the figure on test images as they are is recorded as well.
"""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from pueprotect.errors import InputError, did_you_mean
from pueprotect.learning.data import ImageSet
from pueprotect.learning.models import Classifier, build
from pueprotect.learning.training import Schedule, accuracy, count_correct
from pueprotect.protect.methods.texture import Scheme
from pueprotect.release.records import AS_THEY_ARE, AttackResult
from pueprotect.runtime import SILENT, Progress, generator, load_plugin, plugins, unusable

NOTHING = "nothing"
CLEAN_SHARE = "a clean share"
KNOWLEDGE = "knowledge of the protection"
TRAINING_SAMPLE = 1000
CHUNK = 4096  # images filtered at once

Filter = Callable[[Tensor], Tensor]  # a few images, (N, 3, H, W) uint8 -> the same shape and type


@dataclass(frozen=True)
class Target:
    """What the attacker holds.

    Attributes:
        released: training images as decoded from the released files.
        arch: the attacker's architecture.
        schedule: the attacker's training schedule.
        seed: everything random is a function of it.
        clean_share: clean labelled training images, for attacks that need them; else None.
        etas: radii of the recovery attack, ascending.
        originals: the clean images of `released`, if known. No attacker holds them: attacks behind a filter measure
            on them what clean data gives behind the same filter.
        scheme: how the release was protected, for attackers who know it; else None.
    """

    released: ImageSet
    arch: str
    schedule: Schedule
    seed: int
    clean_share: ImageSet | None = None
    etas: tuple[float, ...] = ()
    originals: ImageSet | None = None
    scheme: Scheme | None = None

    def fresh(self) -> Classifier:
        """A newly initialised network of the attacker's architecture."""
        return build(
            self.arch, self.released.classes, self.released.size, seed=self.seed, purpose="attacker",
            device=self.released.device,
        )  # fmt: skip


@dataclass
class Run:
    """One run of one attack: its target, and where its networks are shown.

    An attack that trains on other images than the released ones says so in `trained_on`. `filter` is what
    `Attack.filter` returned for this target: test images went through it.
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
        """Show the network after a pass; its accuracy goes into `best_accuracy`."""
        self._epoch_counts.append(count_correct(model, self._test))

    def observe(self, name: str, model: nn.Module, *, candidate: bool = True) -> None:
        """Show a further network whose accuracy belongs into the result under this name.

        Without `candidate` it is recorded for comparison and never counts as the attack's best.
        """
        count = count_correct(model, self._test)
        self._points[name] = count
        if candidate:
            self._epoch_counts.append(count)


def behind(found: Filter | None, data: ImageSet) -> ImageSet:
    """The images behind a filter, a few at a time, so that no float copy of a whole set is made."""
    if found is None:
        return data
    parts = torch.cat([found(part) for part in data.images.split(CHUNK)])
    return replace(data, images=parts.contiguous(memory_format=torch.channels_last))


class Attack(ABC):
    """One way to learn from released images.

    Attributes:
        name: as used on the command line.
        about: what the attack does; continues a sentence that starts with its name.
        needs: `nothing`, `a clean share` or `knowledge of the protection`.
        source: where it was published.
        cost: time relative to `standard`, measured by examples/benchmarks/audit.py; the time estimate and the
            order of an audit rest on it.
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
        """What happens to every image, of training and test, before the network; None for nothing."""
        return None

    def lacks(self, clean_share: bool, scheme: bool) -> str:
        """What this attack needs and does not get, as one sentence; empty when it can run."""
        if self.needs == CLEAN_SHARE and not clean_share:
            return (
                f"The attack {self.name} needs clean training images: run it on a release made by pueprotect whose "
                "originals are still in place, or leave it out."
            )
        if self.needs == KNOWLEDGE and not scheme:
            return (
                f"The attack {self.name} needs a code book to know: run it on a release of --method hardened that has "
                "its vault, or leave it out."
            )
        return ""

    def run(self, target: Target, test: ImageSet, progress: Progress = SILENT, label: str = "") -> AttackResult:
        """Train and evaluate on clean test images.

        Args:
            target: what the attacker holds.
            test: clean images that the attacker never sees.
            progress: reports training steps.
            label: how the work is called in `progress`; by default the attack and its network.

        Raises:
            InputError: the attack needs what the target does not hold.
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
        every = max(1, len(data) // TRAINING_SAMPLE)
        run.details["train_accuracy"] = accuracy(model, data.subset(slice(None, None, every)))
        progress.finish(f"{final:.1%} on clean test images")
        return AttackResult(
            attack=self.name,
            arch=target.arch,
            accuracy=None if diverged else final,
            best_accuracy=None if diverged else max([final, *epochs]),
            epochs=self.schedule(target).epochs,
            seconds=time.perf_counter() - began,
            flags=(*run.flags, "diverged") if diverged else tuple(run.flags),
            details=run.details | {"epoch_accuracy": epochs} | ({"points": points} if points else {}),
        )


REGISTRY: dict[str, Attack] = {}
Registered = TypeVar("Registered", bound=Attack | type[Attack])


def register(attack: Registered) -> Registered:
    """Make an attack known by its name; a class decorator too.

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
        InputError: unknown name; the nearest ones are offered.
    """
    if name not in REGISTRY:
        raise InputError(f"Unknown attack {name!r}; {did_you_mean(name, REGISTRY)} All: pueprotect attacks.")
    return REGISTRY[name]


def clean_share(originals: ImageSet | None, fraction: float, seed: int) -> ImageSet | None:
    """A stratified share of the clean training images, at least one for each class."""
    if originals is None:
        return None
    order = torch.randperm(len(originals), generator=generator(seed, "clean-share")).to(originals.images.device)
    ordered = originals.labels[order]
    picked = [
        members[: max(1, round(fraction * len(members)))]
        for members in (order[ordered == label] for label in range(originals.classes))
    ]
    return originals.subset(torch.cat(picked))
