"""Certifies an opened release: trains surrogates, screens them, and certifies one, next to a clean baseline.

Surrogates and draws take long, so they are stored in the vault (`certify/`) as soon as they are finished. With `resume`
they are used again, and a larger number of draws only adds to the stored ones.
"""

from __future__ import annotations

import math
import time
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from pueprotect.certify.certificate import CertificateSettings, certify, draw_engine
from pueprotect.certify.draws import CALIBRATION_IMAGES, DrawLog, draw
from pueprotect.certify.flags import raised
from pueprotect.certify.stored import Stored, check_online, keep, lowpass, restore
from pueprotect.certify.stress import stress_test
from pueprotect.certify.surrogates import candidates, choose_recipes, needs_sigma, starts_from, train_surrogates
from pueprotect.errors import InputError
from pueprotect.learning.data import ImageSet
from pueprotect.learning.device import Machine, this_machine, versions
from pueprotect.learning.models import Classifier, build
from pueprotect.learning.training import Schedule, accuracy, default_epochs
from pueprotect.learning.weights import weights_digest
from pueprotect.release.opened import OpenedRelease, open_release
from pueprotect.release.records import Certificate, RecipeFigures
from pueprotect.release.vault import CERTIFICATE

SCREENING_DRAWS = 32
SIGMA_KEEPS = 0.7
SIGMA_RANGE = (1e-3, 1.0)
SIGMA_HALVINGS = 7
SIGMA_DRAWS = 16


@dataclass
class Certification:
    """A release to certify, and the surrogates trained so far.

    Trainings are functions of `seed`. `epochs` are the passes of each training; None chooses by the number of images.
    With `resume` what the vault has for the same settings is used again.
    """

    release: OpenedRelease
    seed: int = 0
    epochs: float | None = None
    resume: bool = False
    _models: dict[str, Classifier] = field(default_factory=dict)
    _done: set[str] = field(default_factory=set)

    @property
    def machine(self) -> Machine:
        """Where the work is done; its processes share the draws."""
        return self.release.machine

    def data(self, clean: bool) -> ImageSet:
        """Released images, or their clean originals.

        Raises:
            InputError: the originals are unknown.
        """
        if not clean:
            return self.release.released
        if self.release.originals is None:
            raise InputError(
                "--baseline and --sigma auto need the clean originals, which are known only for pueprotect's own "
                "releases. Leave these options out."
            )
        return self.release.originals

    def surrogate(self, recipe: str, sigma: float, *, clean: bool = False) -> Classifier:
        """The surrogate of a recipe: from the optimisation, from the vault, or trained by rank 0."""
        name = _name(recipe, clean)
        if name not in self._models:
            known = self._online() if recipe == "online" and not clean else None
            self._models[name] = known or self._shared(recipe, sigma, clean)
        return self._models[name]

    def _online(self) -> Classifier | None:
        """The surrogate of the optimisation, on every rank; rank 0 compares it with its first use."""
        model = self.release.online_surrogate()
        if model is not None and self.machine.group.leads:
            check_online(self.release.results, model, self.release.test)
        return model

    def _shared(self, recipe: str, sigma: float, clean: bool) -> Classifier:
        """The weights that rank 0 has stored or trains, on every rank."""
        before, group, release = starts_from(recipe), self.machine.group, self.release
        start = self.surrogate(before, sigma, clean=clean) if before else None
        stored, data, name = None, self.data(clean), _name(recipe, clean)
        if group.leads:
            if self._kept(recipe, sigma, clean) is None:
                schedule = Schedule(epochs=self.epochs or default_epochs(len(data)))
                with group.leader_works():
                    trained = train_surrogates(
                        recipe, release.default_arch, data, release.test, sigma, schedule, seed=self.seed, start=start,
                        progress=self.machine.progress,
                    )  # fmt: skip
                for other, model in trained.items():
                    keep(release.results, _name(other, clean), self._key(other, sigma), model, release.test)
                    self._done.add(_name(other, clean))
            stored = self._kept(recipe, sigma, clean)
        model = build(release.default_arch, data.classes, data.size, seed=0, device=data.device)
        return restore(model, group.from_leader(stored), release.test, name)

    def _kept(self, recipe: str, sigma: float, clean: bool) -> Stored | None:
        """Weights in the vault that this run may use: its own, or with `resume` any of the same settings."""
        name = _name(recipe, clean)
        usable = self.resume or name in self._done
        return self.release.results.kept_weights(name, self._key(recipe, sigma)) if usable else None

    def _key(self, recipe: str, sigma: float) -> dict[str, Any]:
        """Everything that the weights of a recipe depend on."""
        key = {"epochs": self.epochs, "seed": self.seed, "recipe": recipe, "arch": self.release.default_arch}
        key |= versions(self.release.device)
        return key | ({"sigma": sigma} if needs_sigma(recipe) else {})

    def screen(self, recipe: str, settings: CertificateSettings) -> RecipeFigures:
        """A few draws around a recipe's surrogate, independent of those that certify."""
        found = self.certify(recipe, replace(settings, draws=SCREENING_DRAWS), purpose="screen")
        return found.model_copy(update={"screened": True})

    def certify(
        self,
        recipe: str,
        settings: CertificateSettings,
        *,
        clean: bool = False,
        candidates: int = 1,
        purpose: str = "certify",
    ) -> RecipeFigures:
        """The figures of the draws around one recipe's surrogate; the draws are stored in a log for each purpose."""
        release, progress = self.release, self.machine.progress
        model = self.surrogate(recipe, settings.sigma, clean=clean)
        key = {
            "sigma": settings.sigma, "seed": settings.seed, "precision": settings.precision, "device": release.device,
            "surrogate": weights_digest(model), "lowpass": lowpass(model), **versions(release.device),
            **release.digests,
        }  # fmt: skip
        name = _name(recipe, clean) + ("" if purpose == "certify" else f"-{purpose}")
        path = release.results.path(f"certify/{name}.draws") if self.machine.group.leads else None
        log = DrawLog(path, key, images=len(release.test), resume=self.resume)
        verb, what = ("draw around" if purpose == "certify" else purpose), "clean baseline" if clean else recipe
        progress.start(f"{verb} the {what} surrogate", settings.draws)
        found = certify(
            model, recipe, self.data(clean), release.test, settings, candidates=candidates, purpose=purpose,
            log=log, machine=self.machine,
        )  # fmt: skip
        progress.finish(f"median {found.noisy_accuracy.median:.1%}")
        return found


def _name(recipe: str, clean: bool) -> str:
    return recipe + ("-baseline" if clean else "")


def certify_release(
    certification: Certification,
    settings: CertificateSettings,
    recipes: tuple[str, ...],
    *,
    baseline: bool = False,
    stress: bool = False,
) -> Certificate:
    """Train a surrogate by each recipe, find the most learnable one with a few draws, and certify that one.

    The draws that choose are not those that certify, so the level stays alpha, as in Cohen et al., "Certified
    Adversarial Robustness via Randomized Smoothing", ICML 2019. The certificate is stored in the vault.

    `recipes` come from `choose_recipes`. With `baseline` the same recipe is certified on the clean originals too; with
    `stress` the bound is cross-checked on the sphere, see `stress_test`.

    Raises:
        InputError: a baseline is asked for and the originals are unknown; the vault holds parts of other settings.
        CertificateError: the cross-check contradicts the bound.
    """
    began = time.perf_counter()
    release = certification.release
    if baseline:
        certification.data(clean=True)  # refused before any work
    screenings = [certification.screen(recipe, settings) for recipe in recipes] if len(recipes) > 1 else []
    figures = [(one.noisy_accuracy.quantile or 0.0, one.noisy_accuracy.median) for one in screenings]
    chosen = recipes[figures.index(max(figures))] if screenings else recipes[0]
    found = certification.certify(chosen, settings, candidates=candidates(recipes))
    clean = certification.certify(chosen, settings, clean=True) if baseline else None
    model = certification.surrogate(chosen, settings.sigma)
    checked = stress_test(model, found, settings, release, certification.epochs) if stress else None
    flags = raised(
        found, clean, chance=release.chance, images=len(release.test), few_images=release.few_test_images,
        own=release.own,
    )  # fmt: skip
    whole = Certificate(
        **dict(found),
        q=settings.q, sigma=settings.sigma, alpha=settings.alpha, alpha_each=settings.alpha_each,
        joint=settings.joint, seed=settings.seed, precision=settings.precision, max_eta=settings.max_eta,
        holdout_images=len(release.test), classes=len(release.classes), chance=release.chance,
        recipes={one.recipe: one for one in (*screenings, found.model_copy(update={"screened": False}))},
        baseline=clean, stress=checked,
        batch_norm=f"re-estimated for every draw from {CALIBRATION_IMAGES} protected training images",
        flags=flags, seconds=round(time.perf_counter() - began, 2), data_digest=release.digest,
    )  # fmt: skip
    if certification.machine.group.leads:
        release.results.write(CERTIFICATE, whole.as_json())
    return whole


def informative_sigma(certification: Certification) -> float:
    """The largest sigma at which the plain clean baseline keeps SIGMA_KEEPS of its accuracy above chance.

    Found by bisection on a logarithmic scale, on the median of SIGMA_DRAWS draws with the same noise directions for
    every sigma, and rounded down to two digits.

    Raises:
        InputError: the originals are unknown.
    """
    release, machine = certification.release, certification.machine
    model = certification.surrogate("plain", 0.0, clean=True)
    own = accuracy(model, release.test) - release.chance
    low, high = (math.log(edge) for edge in SIGMA_RANGE)
    machine.progress.start("find sigma", SIGMA_HALVINGS)
    for _ in range(SIGMA_HALVINGS):
        middle = (low + high) / 2
        settings = CertificateSettings(sigma=math.exp(middle), seed=certification.seed, draws=SIGMA_DRAWS)
        engine = draw_engine(model, certification.data(clean=True), release.test, settings, purpose="sigma")
        log = DrawLog(None, {})
        draw(engine, log, SIGMA_DRAWS, Machine(group=machine.group))
        kept = float(np.median([correct for correct, _ in log.first(SIGMA_DRAWS)])) / len(release.test)
        low, high = (middle, high) if kept - release.chance >= SIGMA_KEEPS * own else (low, middle)
        machine.progress.advance(note=f"{math.exp(low):.2g}")
    machine.progress.finish()
    digits = 10.0 ** (math.floor(low / math.log(10)) - 1)
    return round(math.floor(math.exp(low) / digits + 1e-9) * digits, 12)


def certify_folder(out: Path, settings: CertificateSettings) -> Certificate:
    """Certify a release of this package with all usual recipes, next to the clean baseline."""
    certification = Certification(open_release(out, machine=this_machine()), settings.seed)
    return certify_release(certification, settings, choose_recipes("worst", own=True), baseline=True)
