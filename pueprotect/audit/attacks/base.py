"""The attack contract and the registry.

An attack implements `train` and nothing else. It gets the released files and what its `needs` promise; it hands
back a network, and shows intermediate ones to `Run.epoch` and `Run.observe`, which return nothing. The base class
evaluates on clean test images, so no attack grades itself. A `squeeze` of the images that needs no labels is part
of what the attacker runs: test images get it too, and the figure on test images as they are stands beside.
"""

from __future__ import annotations

import difflib
import time
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from pueprotect.errors import InputError
from pueprotect.learning.data import ImageSet
from pueprotect.learning.models import Classifier, build
from pueprotect.learning.training import Schedule, accuracy, count_correct
from pueprotect.protect.methods.texture import Scheme
from pueprotect.runtime import SILENT, Progress, generator

AS_THEY_ARE = "test images as they are"
CLEAN_BEHIND_IT = "clean images behind the same filter"
KNOWLEDGE = "knowledge of the protection"
TRAINING_SAMPLE = 1000

Filter = Callable[[Tensor], Tensor]


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
        known: the code of the release, for attackers who know the protection; else None.
    """

    released: ImageSet
    arch: str
    schedule: Schedule
    seed: int
    clean_share: ImageSet | None = None
    etas: tuple[float, ...] = ()
    originals: ImageSet | None = None
    known: Scheme | None = None

    def fresh(self) -> Classifier:
        """A newly initialised network of the attacker's architecture."""
        return build(
            self.arch, self.released.classes, self.released.size, seed=self.seed, purpose="attacker",
            device=self.released.device,
        )  # fmt: skip


@dataclass(frozen=True)
class AttackResult:
    """Clean test accuracies of one attack, all in [0, 1].

    Attributes:
        attack: registered name.
        arch: the attacker's architecture.
        accuracy: at the end of training.
        best_accuracy: the best over epochs and candidates, which an attacker with clean validation images would pick.
        epochs: passes over the data asked for.
        seconds: wall time.
        flags: reasons to doubt the figure.
        details: what the attack noted; `train_accuracy` on its own training images without augmentation;
            `epoch_accuracy`; `points`: name -> accuracy of observed networks.
    """

    attack: str
    arch: str
    accuracy: float
    best_accuracy: float
    epochs: float
    seconds: float
    flags: tuple[str, ...]
    details: dict[str, Any]


@dataclass
class Run:
    """One run of one attack: its target, and where its networks are shown.

    An attack that trains on other images than the released ones says so in `trained_on`. `filter` is what the attack
    made of `Attack.filter` for this target: test images went through it.
    """

    target: Target
    _test: ImageSet
    progress: Progress = SILENT
    filter: Filter = field(default=lambda images: images)
    flags: list[str] = field(default_factory=list)
    details: dict[str, Any] = field(default_factory=dict)
    trained_on: ImageSet | None = None
    _epoch_counts: list[Tensor] = field(default_factory=list)
    _points: dict[str, Tensor] = field(default_factory=dict)

    def epoch(self, model: nn.Module) -> None:
        """Show the network after a pass; its accuracy goes into `best_accuracy`."""
        self._epoch_counts.append(count_correct(model, self._test))

    def observe(self, name: str, model: nn.Module, *, candidate: bool = True) -> None:
        """Show a further network whose accuracy belongs into the result under this name.

        Without `candidate` it stands beside the attack for comparison and never counts as its best.
        """
        count = count_correct(model, self._test)
        self._points[name] = count
        if candidate:
            self._epoch_counts.append(count)


class Attack(ABC):
    """One way to learn from released images.

    Attributes:
        name: as used on the command line.
        about: what the attacker does; goes on after "an attacker who".
        needs: `nothing`, `a clean share` or `knowledge of the protection`.
        source: where it was published.
        cost: time relative to `standard`, measured by examples/benchmarks/audit.py; the time estimate and the
            order of an audit rest on it.
    """

    name: ClassVar[str]
    about: ClassVar[str]
    needs: ClassVar[str] = "nothing"
    source: ClassVar[str]
    cost: ClassVar[float] = 1.0

    @abstractmethod
    def train(self, run: Run) -> Classifier:
        """Learn from `run.target` and return the final network."""

    def schedule(self, target: Target) -> Schedule:
        """The schedule that this attack trains with."""
        return target.schedule

    def steps(self, target: Target) -> int:
        """Parts of progress that `train` reports."""
        return self.schedule(target).steps(len(target.released))

    def squeeze(self, images: Tensor) -> Tensor:
        """What happens to every image, of training and test, before the network: (N, 3, H, W) uint8 -> the same."""
        return images

    def filter(self, target: Target) -> Filter:
        """The squeeze of this attack; overridden where it is first found from what the attacker holds."""
        return self.squeeze

    def run(self, target: Target, test: ImageSet, progress: Progress = SILENT, label: str = "") -> AttackResult:
        """Train and evaluate on clean test images.

        Args:
            target: what the attacker holds.
            test: clean images that the attacker never sees.
            progress: reports training steps.
            label: how the work is called in `progress`; by default the attack and its network.

        Raises:
            InputError: the attack needs a clean share and the target has none.
        """
        if self.needs == "a clean share" and target.clean_share is None:
            raise InputError(
                f"The attack {self.name} needs clean training images: run it on a release made by pueprotect whose "
                "originals are still in place, or leave it out."
            )
        if self.needs == KNOWLEDGE and target.known is None:
            raise InputError(
                f"The attack {self.name} needs a code book to know: run it on a release of --method hardened that has "
                "its vault, or leave it out."
            )
        began = time.perf_counter()
        found = self.filter(target)
        squeezed = found(test.images)
        plain = squeezed is test.images
        run = Run(target, test if plain else replace(test, images=squeezed), progress, found)
        progress.start(label or f"attack {self.name} ({target.arch})", self.steps(target))
        model = self.train(run)
        final = accuracy(model, run._test)
        if not plain:
            run._points[AS_THEY_ARE] = count_correct(model, test)
        epochs = [int(count) / len(test) for count in run._epoch_counts]
        points = {name: int(count) / len(test) for name, count in run._points.items()}
        if not all(bool(parameter.isfinite().all()) for parameter in model.parameters()):
            run.flags.append("diverged")
        data = run.trained_on or target.released
        every = max(1, len(data) // TRAINING_SAMPLE)
        run.details["train_accuracy"] = accuracy(model, data.subset(slice(None, None, every)))
        progress.finish(f"{final:.1%} on clean test images")
        return AttackResult(
            attack=self.name,
            arch=target.arch,
            accuracy=final,
            best_accuracy=max([final, *epochs]),
            epochs=self.schedule(target).epochs,
            seconds=time.perf_counter() - began,
            flags=tuple(run.flags),
            details=run.details | {"epoch_accuracy": epochs} | ({"points": points} if points else {}),
        )


REGISTRY: dict[str, Attack] = {}


def register(cls: type[Attack]) -> type[Attack]:
    """Class decorator: make an attack known by its name.

    Raises:
        ValueError: the name is taken.
    """
    if cls.name in REGISTRY:
        raise ValueError(f"an attack named {cls.name!r} is registered already")
    REGISTRY[cls.name] = cls()
    return cls


def find(name: str) -> Attack:
    """The attack registered under `name`.

    Raises:
        InputError: unknown name; the nearest ones are offered.
    """
    if name not in REGISTRY:
        near = difflib.get_close_matches(name, REGISTRY, n=3, cutoff=0.4) or list(REGISTRY)
        raise InputError(f"Unknown attack {name!r}; did you mean {' or '.join(near)}? All: pueprotect attacks.")
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
