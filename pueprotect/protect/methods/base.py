"""Defines what every method of protection offers, and the registry of methods. No torch until a method is used.

A method is one file here, or a class of another package: an entry point of the group `pueprotect.methods`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib import import_module
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import numpy as np
import numpy.typing as npt

from pueprotect.errors import InputError, did_you_mean
from pueprotect.protect.key import check_key, new_key
from pueprotect.runtime import load_plugin, plugins, unusable

if TYPE_CHECKING:
    from pueprotect.images.folders import ImageFolder
    from pueprotect.learning.device import Machine
    from pueprotect.learning.models import Classifier
    from pueprotect.protect.methods.laying import Originals

Mode = Literal["class-wise", "sample-wise"]
Visibility = Literal["subtle", "standard", "strong"]
Noise = npt.NDArray[np.signedinteger[Any]]  # (classes or N, S, S, 3) levels of 0..255
Pixels = npt.NDArray[np.uint8]
Labels = npt.NDArray[np.int64]
Mask = npt.NDArray[np.bool_]
LARGEST_BUDGET = 127  # levels: the largest signed byte; noise of half the range hides the picture


@dataclass(frozen=True, kw_only=True)
class NoiseSettings:
    """The settings of the noise.

    Methods in closed form use only `epsilon`, `key`, `seed`, `surrogate` and their own dials.

    Attributes:
        mode: one pattern for each class or for each image.
        epsilon: L-infinity budget in levels of 0..255.
        sigma: standard deviation of the weight noise; 0 makes PUE equal to EMN.
        rounds: passes over the training images.
        draws: weight draws averaged within one step; every second one is the previous one with the opposite sign.
        inner_steps: perturbation steps for each visit of an image (sample-wise).
        step_size: length of one perturbation step in levels.
        shuffled: share of the rounds, the first ones, in which each image is exchanged for another of its batch, so
            that only the noise predicts the class.
        surrogate: architecture of the optimised network, or of the self-check where nothing is optimised.
        seed: decides the trainings of the self-check. It is public: no noise may follow from it.
        key: 32 hexadecimal digits, secret; everything random in the noise is a function of it. Drawn unless given.
        visibility: how visible a texture code is where a picture is flat.
    """

    method: str = "pue"
    mode: Mode = "class-wise"
    epsilon: int = 8
    sigma: float = 0.05
    rounds: int = 6
    draws: int = 1
    inner_steps: int = 2
    step_size: float = 0.8
    shuffled: float = 0.0
    surrogate: str = "resnet8"
    seed: int = 0
    key: str = field(default_factory=new_key, repr=False)
    visibility: Visibility = "standard"

    def __post_init__(self) -> None:
        check_key(self.key)
        if not 1 <= self.epsilon <= 255:
            raise InputError(f"--epsilon {self.epsilon}/255 is outside 1/255 .. 255/255.")
        if not 0 <= self.sigma <= 10:
            raise InputError(f"--sigma {self.sigma:g} is outside [0, 10].")
        if self.rounds < 1:
            raise InputError(f"--rounds {self.rounds} is below 1.")
        if not 0 <= self.shuffled <= 1:
            raise InputError(f"A share of {self.shuffled:g} shuffled rounds is outside [0, 1].")
        if self.draws < 1 or self.inner_steps < 1 or self.step_size <= 0:
            raise InputError("draws, inner steps and step size must be positive.")

    @property
    def class_rounds(self) -> int:
        """Rounds in which all images of a class share one pattern; sample-wise, the last third is each image's own."""
        return self.rounds if self.mode == "class-wise" else self.rounds - max(1, self.rounds // 3)


class Made(NamedTuple):
    """Finished noise.

    Attributes:
        noise: (K, S, S, 3) signed integer levels.
        rows: (N,) int64, the row of `noise` for each image.
        network: the surrogate; None where nothing is optimised.
        rounds: passes of the optimisation so far.
    """

    noise: Noise
    rows: Labels
    network: Classifier | None = None
    rounds: int = 0


class Method(ABC):
    """One way to make noise.

    Attributes:
        name: as used on the command line.
        about: what it does, as a verb phrase.
        source: where it was published.
        modes: the supported modes; the first one replaces any other that the user asks for.
        dials: options that only some methods have: `rounds`, `visibility`.
        budget: levels that it always uses instead of `--epsilon`; None where the option decides.
        baseline: whether it is a published method by others, included for comparison.
        checks: multiplies the passes of the preset's self-check.
    """

    name: str
    about: str
    source: str
    modes: tuple[Mode, ...] = ("class-wise", "sample-wise")
    dials: frozenset[str] = frozenset()
    budget: int | None = None
    baseline: bool = False
    checks: int = 1

    def check(self, folder: ImageFolder, settings: NoiseSettings) -> None:
        """Refuse what this method cannot protect, before any picture is decoded.

        Raises:
            InputError: names what is wrong and what to do.
        """
        return

    @abstractmethod
    def make(self, originals: Originals, settings: NoiseSettings, machine: Machine) -> Made:
        """Make the noise of a folder.

        Args:
            originals: working copies of all images, which of them are held out, and how noise is laid on them.
            settings: see `NoiseSettings`.
            machine: does the work. The other ranks of its group wait in `Group.from_leader` and pass what rank 0 sends
                to `assist`.
        """

    def improve(
        self, made: Made, originals: Originals, settings: NoiseSettings, teacher: Classifier, rounds: int,
        machine: Machine,
    ) -> Made | None:  # fmt: skip
        """Go on from finished noise for so many rounds, since a network learnt too much from the release: `teacher`.

        Returns:
            The whole noise, or None where a method has nothing to improve.
        """
        return None

    def assist(self, task: Any, machine: Machine) -> None:
        """Take part on the other ranks while rank 0 is in `make` or `improve`, which sent `task` to them."""
        return

    def advice(self, settings: NoiseSettings) -> list[str]:
        """Warnings about these settings for the user."""
        return []

    def scheme(self, run: Mapping[str, Any]) -> Any:
        """What an attacker can derive from the key in `run.json` of a release; None for a method without a code."""
        return None


# Name -> module of this folder and class, so that the names can be listed without importing the methods.
METHODS = {
    "pue": "error_minimising:PUE",
    "emn": "error_minimising:EMN",
    "hardened": "texture:Hardened",
    "lsp": "lsp:LSP",
    "ops": "ops:OPS",
}
GROUP = "pueprotect.methods"
_REGISTERED: dict[str, type[Method]] = {}


def register(method: type[Method]) -> type[Method]:
    """Class decorator: register a method under its name in this process.

    Raises:
        ValueError: the name is taken.
    """
    if method.name in METHODS or method.name in _REGISTERED:
        raise ValueError(f"a method named {method.name!r} is registered already")
    _REGISTERED[method.name] = method
    return method


def method_names() -> list[str]:
    """The names that `find` accepts: this package's methods, registered ones and plug-ins."""
    return list(dict.fromkeys([*METHODS, *_REGISTERED, *plugins(GROUP)]))


def find(name: str) -> Method:
    """The method registered under `name`.

    Raises:
        InputError: unknown name, or a plug-in that cannot be used; the message names its package.
    """
    offered = plugins(GROUP)
    for taken in offered.keys() & METHODS.keys():
        raise unusable(offered[taken], f"a method named {taken!r} is registered already")
    kind: type[Method]
    if name in METHODS:
        module, _, class_name = METHODS[name].partition(":")
        kind = getattr(import_module(f"pueprotect.protect.methods.{module}"), class_name)
    elif name in offered:
        kind = load_plugin(offered[name])
        if _REGISTERED.get(name, kind) is not kind:  # its own module may have registered it
            raise unusable(offered[name], f"a method named {name!r} is registered already")
    elif name in _REGISTERED:
        kind = _REGISTERED[name]
    else:
        raise InputError(f"--method {name!r} is unknown; {did_you_mean(name, method_names())}")
    return kind()


def scheme_of(run: Mapping[str, Any]) -> Any:
    """`Method.scheme` of the method that made a release; None for a folder of another tool."""
    return find(run["method"]).scheme(run) if run else None
