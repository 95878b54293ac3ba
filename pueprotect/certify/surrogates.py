"""Trains the networks that certificates are drawn around, each by a recipe.

A bound on learnability is only as honest as its surrogate, and recipes differ: the network left by the optimisation may
certify least, and one trained under the certificate's weight noise, stopped early, most. So several recipes are
offered; a few draws around each show which is the most learnable, and that one is certified.
"""

from __future__ import annotations

import copy
import math
import statistics
from dataclasses import replace

from torch import Tensor, nn

from pueprotect.audit.attacks import Target, find
from pueprotect.audit.attacks.base import Run
from pueprotect.certify.draws import Workers, calibration_images
from pueprotect.errors import InputError
from pueprotect.learning.data import ImageSet
from pueprotect.learning.draw_engine import DrawEngine, deviations
from pueprotect.learning.models import ARCHITECTURES, Classifier, build
from pueprotect.learning.training import Schedule, Sigma, train
from pueprotect.learning.weights import trainable
from pueprotect.runtime import SILENT, Progress, child_seed

RECIPES = {
    "online": "the network left by the optimisation of the noise (the paper's)",
    "plain": "trained from scratch on the released files",
    "weight-noise": "trained from scratch on the released files under the certificate's weight noise",
    "weight-noise-early": "the same, stopped where draws around it are the most accurate on the clean images",
    "weight-noise-tuned": "trained plainly, then fine-tuned under the certificate's weight noise",
    "pst": "trained on the released files by progressive staged training",
}
WORST = tuple(name for name in RECIPES if name != "pst")
PROBES = 10  # networks that early stopping measures
PROBE_DRAWS = 5
TUNED = 0.25  # of the passes, after as many as `plain` has
TUNED_RATE = 0.5  # of the peak learning rate


def choose_recipes(wanted: str, own: bool) -> tuple[str, ...]:
    """The recipes behind a value of --surrogate-recipe.

    Raises:
        InputError: unknown, or `online` for a folder that pueprotect did not make.
    """
    if wanted == "worst":
        return WORST if own else tuple(name for name in WORST if name != "online")
    if wanted not in RECIPES:
        raise InputError(f"--surrogate-recipe {wanted!r} is not one of worst, {', '.join(RECIPES)}.")
    if wanted == "online" and not own:
        raise InputError("--surrogate-recipe online needs pueprotect's own release; use worst, plain or weight-noise.")
    return (wanted,)


def needs_sigma(recipe: str) -> bool:
    """Whether the training depends on the certificate's weight noise."""
    return recipe not in ("plain", "pst")


def candidates(recipes: tuple[str, ...]) -> int:
    """The number of networks that are compared on the clean images.

    Early stopping looks after the first pass and at most PROBES times more.
    """
    return sum(PROBES + 1 if recipe == "weight-noise-early" else 1 for recipe in recipes)


def starts_from(recipe: str) -> str | None:
    """The recipe whose surrogate this one is fine-tuned from."""
    return "plain" if recipe == "weight-noise-tuned" else None


def train_surrogates(
    recipe: str,
    arch: str,
    data: ImageSet,
    test: ImageSet,
    sigma: float,
    training: Schedule,
    *,
    seed: int,
    relative: bool = False,
    start: Classifier | None = None,
    progress: Progress = SILENT,
) -> dict[str, Classifier]:
    """Train a surrogate by a recipe of `RECIPES`; `pst` is the attack of that name.

    `online` cannot be repeated without the optimisation. As a baseline on clean images it is trained as the
    optimisation does: plainly first, then under the weight noise.

    `data` are released or clean training images. The clean images `test` only decide where `weight-noise-early` stops.
    `sigma` is the certificate's weight noise, with `relative` in root mean squares of each tensor. `start` is the
    surrogate of `starts_from(recipe)` and is not changed; None trains it first. Everything random is a function of
    `seed`. Progress gets one piece of work for each training. The result also holds surrogates of other recipes that
    the same training gave.
    """
    if recipe == "pst":
        attack, target = find("pst"), Target(data, arch, training, seed)
        progress.start("train the pst surrogate", attack.steps(target))
        trained = attack.train(Run(target, test, progress))
        progress.finish()
        return {recipe: trained}
    family = "weight-noise" if recipe == "weight-noise-early" else recipe
    model = build(arch, data.classes, data.size, seed=seed, purpose=f"surrogate-{family}", device=data.device)
    best: Best | None = None

    def noise(done: float) -> Sigma:
        wanted = recipe != "online" or done > 0.3
        return deviations(trainable(model), sigma, relative) if wanted else 0.0

    if recipe == "weight-noise-tuned":
        if start is None:
            start = train_surrogates("plain", arch, data, test, sigma, training, seed=seed, progress=progress)["plain"]
        model = copy.deepcopy(start)
        rate = TUNED_RATE * (training.lr or ARCHITECTURES[arch].lr)
        training = replace(training, epochs=TUNED * training.epochs, lr=rate)
    elif family == "weight-noise":
        best = Best(data, test, sigma, seed, relative=relative, every=max(1, math.ceil(training.epochs / PROBES)))
    progress.start(f"train the {family} surrogate", training.steps(len(data)))
    train(
        model, data, training, seed=child_seed(seed, family), deviations=None if recipe == "plain" else noise,
        on_epoch=best.look if best else None, progress=progress,
    )  # fmt: skip
    progress.finish()
    if best is None:
        return {recipe: model}
    early = copy.deepcopy(model)
    early.load_state_dict(best.state)
    return {"weight-noise": model, "weight-noise-early": early}


class Best:
    """Early stopping: keeps the weights around which a few draws are the most accurate on the clean images `test`.

    BatchNorm statistics of the draws come from `data`, the training images. The draws are functions of `seed`, the same
    for every network; a network is measured after every `every` passes.
    """

    def __init__(
        self, data: ImageSet, test: ImageSet, sigma: float, seed: int, every: int, *, relative: bool = False
    ) -> None:
        self.relative = relative
        self.data, self.test, self.sigma, self.seed, self.every = data, test, sigma, seed, every
        self.passes, self.score = 0, -1
        self.state: dict[str, Tensor] = {}

    def look(self, model: nn.Module) -> None:
        """Measure the network after each pass, or every few."""
        self.passes += 1
        if self.passes % self.every and self.state:
            return
        engine = DrawEngine(
            model, self.test.images, self.test.labels, calibration_images(self.data, self.seed),
            sigma=deviations(trainable(model), self.sigma, self.relative), seed=child_seed(self.seed, "early"),
        )  # fmt: skip
        counts = Workers(engine, PROBE_DRAWS).counts(list(range(PROBE_DRAWS)))
        score = statistics.median_low(right for right, _ in counts)
        if score > self.score:
            self.score = score
            self.state = {name: value.clone() for name, value in model.state_dict().items()}
