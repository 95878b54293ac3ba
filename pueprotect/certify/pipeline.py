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

from pueprotect.certify.certificate import Certificate, CertificateSettings, certify, draw_engine
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
from pueprotect.release.opened import OpenedRelease
from pueprotect.runtime import SILENT, Progress

SCREENING_DRAWS = 32

SIGMA_KEEPS = 0.7
SIGMA_RANGE = (1e-3, 1.0)
SIGMA_HALVINGS = 7
SIGMA_DRAWS = 16


@dataclass
class Certification:
    """One certification at work: what it is about, and where its parts are kept.

    Attributes:
        release: the opened release.
        train: trains the surrogate of a recipe.
        training: what `train` depends on, as plain JSON values.
        resume: take up what is in the vault.
        group: processes that share the draws.
        progress: told of every training and of the draws.
    """

    release: OpenedRelease
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
            return self.release.released
        if self.release.originals is None:
            raise InputError(
                "The clean originals are needed here (--baseline, --sigma auto) and known only for pueprotect's own "
                "releases; leave them out."
            )
        return self.release.originals

    def surrogate(self, recipe: str, sigma: float, *, clean: bool = False) -> Classifier:
        """The surrogate of a recipe: from the optimisation, from the vault, or trained by rank 0."""
        name = _name(recipe, clean)
        if name not in self._models:
            known = self.release.online_surrogate() if recipe == "online" and not clean else None
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
                    self.release.remember_weights(_name(other, clean), self._key(other, sigma), model)
                    self._done.add(_name(other, clean))
            state = self._kept(recipe, sigma, clean)
        data = self.data(clean)
        model = build(self.release.default_arch, data.classes, data.size, seed=0, device=data.device)
        model.load_state_dict(self.group.from_leader(state))
        return model

    def _kept(self, recipe: str, sigma: float, clean: bool) -> dict[str, Tensor] | None:
        """Weights in the vault that this run may use: its own, or with `resume` any of the same settings."""
        name = _name(recipe, clean)
        usable = self.resume or name in self._done
        return self.release.remembered_weights(name, self._key(recipe, sigma)) if usable else None

    def _key(self, recipe: str, sigma: float) -> dict[str, Any]:
        """What a recipe's weights depend on."""
        key = self.training | {"recipe": recipe, "arch": self.release.default_arch}
        return key | ({"sigma": sigma} if needs_sigma(recipe) else {})

    def log(self, name: str, settings: CertificateSettings, model: Classifier) -> DrawLog:
        """The draw log of one surrogate and purpose."""
        if not self.group.leads:
            return DrawLog(None, {})
        release = self.release
        key = {
            "sigma": settings.sigma, "seed": settings.seed, "precision": settings.precision, "device": release.device,
            "surrogate": weights_digest(model), **release.digests,
        }  # fmt: skip
        return DrawLog(release.private(f"certify/{name}.draws"), key, resume=self.resume)

    def screen(self, recipe: str, settings: CertificateSettings) -> Certificate:
        """A few draws around a recipe's surrogate, independent of those that certify."""
        return self.certify(recipe, replace(settings, draws=SCREENING_DRAWS), purpose="screen")

    def certify(
        self,
        recipe: str,
        settings: CertificateSettings,
        *,
        clean: bool = False,
        candidates: int = 1,
        purpose: str = "certify",
    ) -> Certificate:
        """The draws around one recipe's surrogate."""
        model = self.surrogate(recipe, settings.sigma, clean=clean)
        name = _name(recipe, clean)
        log = self.log(name if purpose == "certify" else f"{name}-{purpose}", settings, model)
        verb, what = ("draw around" if purpose == "certify" else purpose), "clean baseline" if clean else recipe
        self.progress.start(f"{verb} the {what} surrogate", settings.draws)
        found = certify(
            model, recipe, self.data(clean), self.release.test, settings, candidates=candidates, purpose=purpose,
            log=log, group=self.group, progress=self.progress,
        )  # fmt: skip
        self.progress.finish(f"median {found.noisy_median:.1%}")
        return found

    def stress(self, found: Certificate, settings: CertificateSettings, recovered: Recovered) -> Stress | None:
        """The cross-check of a certificate of the released files."""
        model = self.surrogate(found.recipe, settings.sigma)
        return stress_test(
            model, found, settings, self.release.released, self.release.test, recovered, group=self.group,
            progress=self.progress,
        )  # fmt: skip


def _name(recipe: str, clean: bool) -> str:
    return recipe + ("-baseline" if clean else "")


def certify_release(
    certification: Certification,
    settings: CertificateSettings,
    recipes: tuple[str, ...],
    *,
    baseline: bool = False,
    stress: Recovered | None = None,
) -> CertificateReport:
    """Train a surrogate by each recipe, find the most learnable one with a few draws, and certify that one.

    The draws that choose are not those that certify, so the level stays alpha (Cohen et al., "Certified Adversarial
    Robustness via Randomized Smoothing", ICML 2019, do the same).

    Args:
        certification: the release and how surrogates are trained.
        settings: see `CertificateSettings`.
        recipes: from `choose_recipes`.
        baseline: certify the same recipe on the clean originals too.
        stress: cross-check the bound on the sphere; gives the weights that the recovery attack reached within a
            radius, or None where it cannot run.

    Raises:
        InputError: a baseline is asked for and the originals are unknown; the vault holds parts of other settings.
        CertificateError: the cross-check contradicts the bound.
    """
    began = time.perf_counter()
    release = certification.release
    if baseline:
        certification.data(clean=True)  # refused before any work
    screenings = tuple(certification.screen(recipe, settings) for recipe in recipes) if len(recipes) > 1 else ()
    chosen = max(screenings, key=lambda one: _upper(one, settings.q)).recipe if screenings else recipes[0]
    found = certification.certify(chosen, settings, candidates=candidates(recipes))
    beside = certification.certify(chosen, settings, clean=True) if baseline else None
    return CertificateReport(
        settings=settings,
        holdout_images=release.holdout_images,
        classes=len(release.classes),
        chance=release.chance,
        certificate=found,
        baseline=beside,
        screenings=screenings,
        stress=certification.stress(found, settings, stress) if stress else None,
        flags=_flags(release, found, beside),
        seconds=time.perf_counter() - began,
        data_digest=release.digest,
    )


def _upper(found: Certificate, q: float) -> tuple[float, float]:
    """What the bound will look at: the q-quantile of the draws."""
    return float(np.quantile(found.counts, q)), found.noisy_median


def informative_sigma(certification: Certification, seed: int) -> float:
    """The largest sigma at which the plain clean baseline keeps SIGMA_KEEPS of its accuracy above chance.

    Found by halving on a logarithmic scale; what it keeps is the median of SIGMA_DRAWS draws, with the same noise
    directions for every sigma. Rounded down to two digits.

    Raises:
        InputError: the originals are unknown.
    """
    release = certification.release
    model = certification.surrogate("plain", 0.0, clean=True)
    own = accuracy(model, release.test) - release.chance
    low, high = (math.log(edge) for edge in SIGMA_RANGE)
    certification.progress.start("find sigma", SIGMA_HALVINGS)
    for _ in range(SIGMA_HALVINGS):
        middle = (low + high) / 2
        settings = CertificateSettings(sigma=math.exp(middle), seed=seed, draws=SIGMA_DRAWS)
        engine = draw_engine(model, certification.data(clean=True), release.test, settings, purpose="sigma")
        log = DrawLog(None, {})
        draw(engine, log, SIGMA_DRAWS, group=certification.group)
        kept = float(np.median([correct for correct, _ in log.first(SIGMA_DRAWS)])) / len(release.test)
        low, high = (middle, high) if kept - release.chance >= SIGMA_KEEPS * own else (low, middle)
        certification.progress.advance(note=f"{math.exp(low):.2g}")
    certification.progress.finish()
    digits = 10.0 ** (math.floor(low / math.log(10)) - 1)
    return round(math.floor(math.exp(low) / digits + 1e-9) * digits, 12)
