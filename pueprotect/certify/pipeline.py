"""From an opened release to its certificate: surrogates trained, screened, certified, and set beside a clean baseline.

Everything that takes long is kept in the vault as it ends (`certify/`): surrogates and draws. With `resume` they
are taken up again, and more draws than before only add to those that are there.
"""

from __future__ import annotations

import math
import time
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from torch import Tensor

from pueprotect.certify.certificate import Certificate, Settings, certify, draw_engine
from pueprotect.certify.draws import DrawLog, draw
from pueprotect.certify.report import CertificateReport, _flags
from pueprotect.certify.stress import Recovered, Stress, stress_test
from pueprotect.certify.surrogates import Trainer, candidates, needs_sigma, starts_from
from pueprotect.errors import InputError
from pueprotect.learning.data import ImageSet
from pueprotect.learning.distributed import ALONE, Group
from pueprotect.learning.models import Classifier, build
from pueprotect.learning.training import accuracy
from pueprotect.learning.weights import weights_digest
from pueprotect.release.opened import Evidence
from pueprotect.runtime import SILENT, Progress

SCREENING_DRAWS = 32

SIGMA_KEEPS = 0.7
SIGMA_RANGE = (1e-3, 1.0)
SIGMA_HALVINGS = 7
SIGMA_DRAWS = 16


@dataclass
class Desk:
    """One certification at work: what it is about, and where its parts are kept.

    Attributes:
        evidence: the opened release.
        train: trains the surrogate of a recipe.
        training: what `train` depends on, as plain JSON values.
        resume: take up what is in the vault.
        group: processes that share the draws.
        progress: told of every training and of the draws.
    """

    evidence: Evidence
    train: Trainer
    training: dict[str, Any]
    resume: bool = False
    group: Group = ALONE
    progress: Progress = SILENT
    _models: dict[str, Classifier] = field(default_factory=dict)
    _done: set[str] = field(default_factory=set)

    def data(self, clean: bool) -> ImageSet:
        """Released images, or their clean originals.

        Raises:
            InputError: the originals are unknown.
        """
        if not clean:
            return self.evidence.released
        if self.evidence.originals is None:
            raise InputError(
                "The clean originals are needed here (--baseline, --sigma auto) and known only for pueprotect's own "
                "releases; leave them out."
            )
        return self.evidence.originals

    def surrogate(self, recipe: str, sigma: float, *, clean: bool = False) -> Classifier:
        """The surrogate of a recipe: from the optimisation, from the vault, or trained by rank 0."""
        name = _name(recipe, clean)
        if name not in self._models:
            known = self.evidence.online_surrogate() if recipe == "online" and not clean else None
            self._models[name] = known or self._shared(recipe, sigma, clean)
        return self._models[name]

    def _shared(self, recipe: str, sigma: float, clean: bool) -> Classifier:
        """What rank 0 has or trains, on every rank."""
        before = starts_from(recipe)
        start = self.surrogate(before, sigma, clean=clean) if before else None
        state = None
        if self.group.leads:
            if self._kept(recipe, sigma, clean) is None:
                with self.group.leader_works():
                    trained = self.train(recipe, sigma, self.data(clean), start, self.progress)
                for other, model in trained.items():
                    self.evidence.remember_weights(_name(other, clean), self._key(other, sigma), model)
                    self._done.add(_name(other, clean))
            state = self._kept(recipe, sigma, clean)
        data = self.data(clean)
        model = build(self.evidence.default_arch, data.classes, data.size, seed=0, device=data.device)
        model.load_state_dict(self.group.from_leader(state))
        return model

    def _kept(self, recipe: str, sigma: float, clean: bool) -> dict[str, Tensor] | None:
        """Weights in the vault that this run may use: its own, or with `resume` any of the same settings."""
        name = _name(recipe, clean)
        usable = self.resume or name in self._done
        return self.evidence.remembered_weights(name, self._key(recipe, sigma)) if usable else None

    def _key(self, recipe: str, sigma: float) -> dict[str, Any]:
        """What a recipe's weights depend on."""
        key = self.training | {"recipe": recipe, "arch": self.evidence.default_arch}
        return key | ({"sigma": sigma} if needs_sigma(recipe) else {})

    def log(self, name: str, settings: Settings, model: Classifier) -> DrawLog:
        """The draw log of one surrogate and purpose."""
        if not self.group.leads:
            return DrawLog(None, {})
        evidence = self.evidence
        key = {
            "sigma": settings.sigma, "seed": settings.seed, "precision": settings.precision, "device": evidence.device,
            "surrogate": weights_digest(model), **evidence.digests,
        }  # fmt: skip
        return DrawLog(evidence.private(f"certify/{name}.draws"), key, resume=self.resume)

    def screen(self, recipe: str, settings: Settings) -> Certificate:
        """A few draws around a recipe's surrogate, independent of those that certify."""
        return self.certify(recipe, replace(settings, draws=SCREENING_DRAWS), purpose="screen")

    def certify(
        self, recipe: str, settings: Settings, *, clean: bool = False, candidates: int = 1, purpose: str = "certify"
    ) -> Certificate:
        """The draws around one recipe's surrogate."""
        model = self.surrogate(recipe, settings.sigma, clean=clean)
        name = _name(recipe, clean)
        log = self.log(name if purpose == "certify" else f"{name}-{purpose}", settings, model)
        verb, what = ("draw around" if purpose == "certify" else purpose), "clean baseline" if clean else recipe
        self.progress.start(f"{verb} the {what} surrogate", settings.draws)
        found = certify(
            model, recipe, self.data(clean), self.evidence.test, settings, candidates=candidates, purpose=purpose,
            log=log, group=self.group, progress=self.progress,
        )  # fmt: skip
        self.progress.finish(f"median {found.noisy_median:.1%}")
        return found

    def stress(self, found: Certificate, settings: Settings, recovered: Recovered) -> Stress | None:
        """The cross-check of a certificate of the released files."""
        model = self.surrogate(found.recipe, settings.sigma)
        return stress_test(
            model, found, settings, self.evidence.released, self.evidence.test, recovered, group=self.group,
            progress=self.progress,
        )  # fmt: skip


def _name(recipe: str, clean: bool) -> str:
    return recipe + ("-baseline" if clean else "")


def certify_release(
    desk: Desk,
    settings: Settings,
    recipes: tuple[str, ...],
    *,
    baseline: bool = False,
    stress: Recovered | None = None,
) -> CertificateReport:
    """Train a surrogate by each recipe, find the most learnable one with a few draws, and certify that one.

    The draws that choose are not those that certify, so the level stays alpha (Cohen et al., "Certified Adversarial
    Robustness via Randomized Smoothing", ICML 2019, do the same).

    Args:
        desk: the release and how surrogates are trained.
        settings: see `Settings`.
        recipes: from `choose_recipes`.
        baseline: certify the same recipe on the clean originals too.
        stress: cross-check the bound on the sphere; gives the weights that the recovery attack reached within a
            radius, or None where it cannot run.

    Raises:
        InputError: a baseline is asked for and the originals are unknown; the vault holds parts of other settings.
        CertificateError: the cross-check contradicts the bound.
    """
    began = time.perf_counter()
    evidence = desk.evidence
    if baseline:
        desk.data(clean=True)  # refused before any work
    screenings = tuple(desk.screen(recipe, settings) for recipe in recipes) if len(recipes) > 1 else ()
    chosen = max(screenings, key=lambda one: _upper(one, settings.q)).recipe if screenings else recipes[0]
    found = desk.certify(chosen, settings, candidates=candidates(recipes))
    beside = desk.certify(chosen, settings, clean=True) if baseline else None
    return CertificateReport(
        settings=settings,
        holdout_images=evidence.holdout_images,
        classes=len(evidence.classes),
        chance=evidence.chance,
        certificate=found,
        baseline=beside,
        screenings=screenings,
        stress=desk.stress(found, settings, stress) if stress else None,
        flags=_flags(evidence, found, beside),
        seconds=time.perf_counter() - began,
        data_digest=evidence.digest,
    )


def _upper(found: Certificate, q: float) -> tuple[float, float]:
    """What the bound will look at: the q-quantile of the draws."""
    return float(np.quantile(found.counts, q)), found.noisy_median


def informative_sigma(desk: Desk, seed: int) -> float:
    """The largest sigma at which the plain clean baseline keeps SIGMA_KEEPS of its accuracy above chance.

    Found by halving on a logarithmic scale; what it keeps is the median of SIGMA_DRAWS draws, with the same noise
    directions for every sigma. Rounded down to two digits.

    Raises:
        InputError: the originals are unknown.
    """
    evidence = desk.evidence
    model = desk.surrogate("plain", 0.0, clean=True)
    own = accuracy(model, evidence.test) - evidence.chance
    low, high = (math.log(edge) for edge in SIGMA_RANGE)
    desk.progress.start("find sigma", SIGMA_HALVINGS)
    for _ in range(SIGMA_HALVINGS):
        middle = (low + high) / 2
        settings = Settings(sigma=math.exp(middle), seed=seed, draws=SIGMA_DRAWS)
        engine = draw_engine(model, desk.data(clean=True), evidence.test, settings, purpose="sigma")
        log = DrawLog(None, {})
        draw(engine, log, SIGMA_DRAWS, group=desk.group)
        kept = float(np.median([correct for correct, _ in log.first(SIGMA_DRAWS)])) / len(evidence.test)
        low, high = (middle, high) if kept - evidence.chance >= SIGMA_KEEPS * own else (low, middle)
        desk.progress.advance(note=f"{math.exp(low):.2g}")
    desk.progress.finish()
    digits = 10.0 ** (math.floor(low / math.log(10)) - 1)
    return round(math.floor(math.exp(low) / digits + 1e-9) * digits, 12)
