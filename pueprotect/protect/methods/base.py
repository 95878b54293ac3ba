"""What a method of protection takes and returns."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from pueprotect.errors import InputError
from pueprotect.learning.data import Labelled
from pueprotect.learning.models import Classifier

Visibility = Literal["subtle", "standard", "strong"]


Method = Literal["pue", "emn", "hardened"]


Mode = Literal["class-wise", "sample-wise"]


@dataclass(frozen=True, kw_only=True)
class NoiseSettings:
    """What the perturbation is optimised for.

    Attributes:
        method: `pue` (under Gaussian weight noise) or `emn` (without); `hardened` is a code in closed form (module
            `texture`), for which `epsilon`, `seed`, `visibility` and the self-check's `surrogate` count alone.
        mode: one pattern for each class or for each image.
        epsilon: L-infinity budget in levels of 0..255.
        sigma: standard deviation of the weight noise; 0 makes PUE equal to EMN.
        rounds: passes over the training images.
        draws: weight draws averaged within one step; every second one is the one before it with the other sign.
        inner_steps: perturbation steps for each visit of an image (sample-wise).
        step_size: length of one perturbation step in levels.
        shuffled: share of the rounds, the first ones, in which each image is exchanged for another of its batch, so
            that the noise alone tells the class.
        surrogate: name of the network.
        seed: everything random is a function of it.
        visibility: how far a texture code yields where a picture is flat.
    """

    method: Method = "pue"
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
    visibility: Visibility = "standard"

    def __post_init__(self) -> None:
        if not 1 <= self.epsilon <= 127:
            raise InputError(f"--epsilon {self.epsilon}/255 is outside 1/255 .. 127/255, what signed bytes hold.")
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

    @property
    def weight_noise(self) -> float:
        """The noise that this method optimises under."""
        return self.sigma if self.method == "pue" else 0.0


def apply(frames: Tensor, delta: Tensor) -> Tensor:
    """Add signed noise on the 8-bit grid.

    Args:
        frames: (N, H, W, 3) uint8.
        delta: (N, H, W, 3) int8 levels.

    Returns:
        (N, H, W, 3) uint8, clipped to 0..255.
    """
    return (frames.short() + delta).clamp_(0, 255).to(torch.uint8)


@dataclass(frozen=True)
class Protected:
    """Images with their noise, which is added whenever some of them are looked at.

    Attributes:
        clean: the images.
        delta: (K, H, W, 3) int8 levels.
        rows: (N,) int64, the row of `delta` that each image gets.
    """

    clean: Labelled
    delta: Tensor
    rows: Tensor

    def __len__(self) -> int:
        return len(self.clean)

    @property
    def labels(self) -> Tensor:
        """(N,) int64 in [0, classes)."""
        return self.clean.labels

    @property
    def classes(self) -> int:
        """Number of classes."""
        return self.clean.classes

    @property
    def size(self) -> int:
        """Height and width in pixels."""
        return self.clean.size

    @property
    def device(self) -> str:
        """Where the images live."""
        return self.clean.device

    def frames(self, index: Tensor) -> Tensor:
        """A copy of the chosen images: (B, H, W, 3) uint8."""
        return apply(self.clean.frames(index), self.delta[self.rows[index]])


Noise = npt.NDArray[np.int8]


Made = tuple[Noise, Classifier, dict[str, Any]]
