"""How `certify` trains its surrogates: the one place where certificates and attacks meet."""

from __future__ import annotations

from pueprotect.attacks import Target, find
from pueprotect.attacks.base import Run
from pueprotect.audit import default_epochs
from pueprotect.certify import Trainer, train_surrogate
from pueprotect.evidence import Evidence
from pueprotect.models import Classifier
from pueprotect.runtime import Progress
from pueprotect.training import ImageSet, Recipe


def surrogate_trainer(evidence: Evidence, sigma: float, seed: int, epochs: float | None) -> Trainer:
    """A trainer for every recipe; `pst` is the attack of that name."""

    def trainer(recipe: str, arch: str, data: ImageSet, progress: Progress) -> Classifier:
        training = Recipe(epochs=epochs or default_epochs(len(data)))
        if recipe == "pst":
            attack, target = find("pst"), Target(data, arch, training, seed)
            progress.start("train the pst surrogate", attack.steps(target))
            model = attack.train(Run(target, evidence.test, progress))
        else:
            progress.start(f"train the {recipe} surrogate", training.steps(len(data)))
            model = train_surrogate(recipe, arch, data, sigma, training, seed=seed, progress=progress)
        progress.finish()
        return model

    return trainer
