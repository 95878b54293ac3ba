"""Where certificates and attacks meet: the attack that is a surrogate recipe, and the one that checks a bound."""

from __future__ import annotations

from torch import Tensor

from pueprotect.audit.attacks import Target, find
from pueprotect.audit.attacks.base import Run
from pueprotect.audit.attacks.recovery import recovered
from pueprotect.audit.pipeline import clean_share, default_epochs
from pueprotect.certify.stress import Recovered
from pueprotect.certify.surrogates import Trainer, train_surrogates
from pueprotect.learning.models import Classifier
from pueprotect.learning.training import ImageSet, Recipe
from pueprotect.learning.weights import trainable
from pueprotect.release.opened import Evidence
from pueprotect.runtime import Progress

CLEAN_SHARE = 0.2


def surrogate_trainer(evidence: Evidence, seed: int, epochs: float | None) -> Trainer:
    """A trainer for every recipe; `pst` is the attack of that name."""

    def trainer(
        recipe: str, sigma: float, data: ImageSet, start: Classifier | None, progress: Progress
    ) -> dict[str, Classifier]:
        training = Recipe(epochs=epochs or default_epochs(len(data)))
        if recipe != "pst":
            return train_surrogates(
                recipe, evidence.default_arch, data, evidence.test, sigma, training, seed=seed, start=start,
                progress=progress,
            )  # fmt: skip
        attack, target = find("pst"), Target(data, evidence.default_arch, training, seed)
        progress.start("train the pst surrogate", attack.steps(target))
        model = attack.train(Run(target, evidence.test, progress))
        progress.finish()
        return {recipe: model}

    return trainer


def recovery(evidence: Evidence, seed: int, epochs: float | None, progress: Progress) -> Recovered:
    """The recovery attack from a given network within a radius, on a clean share of the originals."""

    def attack(model: Classifier, eta: float) -> list[Tensor] | None:
        share = clean_share(evidence.originals, CLEAN_SHARE, seed)
        if share is None:
            return None
        training = Recipe(epochs=epochs or default_epochs(len(evidence.released)))
        progress.start(f"recovery attack within eta {eta:g}", training.steps(len(share)))
        reached = recovered(model, share, eta, training, seed=seed, progress=progress)
        progress.finish()
        return trainable(reached)

    return attack
