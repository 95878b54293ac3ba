"""Certifies an opened release: trains surrogates, screens them, and certifies one, next to a clean baseline.

Surrogates and draws take long, so they are stored in the vault (`certify/`) as soon as they are finished. With `resume`
they are used again, and a larger number of draws only adds to the stored ones. Every certificate is recorded as a look
at the released bytes before its result is known, and alpha is shared by all looks, see `looks`.
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
from pueprotect.certify.looks import LOOKS, Looks
from pueprotect.certify.reach import recovery_distance
from pueprotect.certify.stored import Stored, check_online, keep, lowpass, restore
from pueprotect.certify.stress import stress_test
from pueprotect.certify.surrogates import candidates, choose_recipes, needs_sigma, starts_from, train_surrogates
from pueprotect.errors import InputError
from pueprotect.learning.data import ImageSet
from pueprotect.learning.device import Machine, this_machine, versions
from pueprotect.learning.models import Classifier, build
from pueprotect.learning.training import Schedule, accuracy, default_epochs
from pueprotect.learning.weights import weights_digest
from pueprotect.release.certificates import Certificate, RecipeFigures
from pueprotect.release.opened import OpenedRelease, open_release
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
    With `resume` what the vault has for the same settings is used again. `sigmas` is the number of values among which
    sigma was chosen on the clean images.
    """

    release: OpenedRelease
    seed: int = 0
    epochs: float | None = None
    resume: bool = False
    sigmas: int = 1
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

    def surrogate(self, recipe: str, sigma: float, *, relative: bool = False, clean: bool = False) -> Classifier:
        """The surrogate of a recipe: from the optimisation, from the vault, or trained by rank 0."""
        name = _name(recipe, clean)
        if name not in self._models:
            known = self._online() if recipe == "online" and not clean else None
            self._models[name] = known or self._shared(recipe, sigma, relative, clean)
        return self._models[name]

    def _online(self) -> Classifier | None:
        """The surrogate of the optimisation, on every rank; rank 0 compares it with its first use."""
        model = self.release.online_surrogate()
        if model is not None and self.machine.group.leads:
            check_online(self.release.results, model, self.release.test)
        return model

    def _shared(self, recipe: str, sigma: float, relative: bool, clean: bool) -> Classifier:
        """The weights that rank 0 has stored or trains, on every rank."""
        before, group, release = starts_from(recipe), self.machine.group, self.release
        start = self.surrogate(before, sigma, relative=relative, clean=clean) if before else None
        stored, data, name = None, self.data(clean), _name(recipe, clean)
        if group.leads:
            key = self._key(recipe, sigma, relative)
            if self._kept(name, key) is None:
                schedule = Schedule(epochs=self.passes(clean))
                with group.leader_works():
                    trained = train_surrogates(
                        recipe, release.default_arch, data, release.test, sigma, schedule, seed=self.seed,
                        relative=relative, start=start, progress=self.machine.progress,
                    )  # fmt: skip
                for other, model in trained.items():
                    keep(release.results, _name(other, clean), key | {"recipe": other}, model, release.test)
                    self._done.add(_name(other, clean))
            stored = self._kept(name, key)
        model = build(release.default_arch, data.classes, data.size, seed=0, device=data.device)
        return restore(model, group.from_leader(stored), release.test, name)

    def passes(self, clean: bool = False) -> float:
        """Passes of each surrogate's training."""
        return self.epochs or default_epochs(len(self.data(clean)))

    def _kept(self, name: str, key: dict[str, Any]) -> Stored | None:
        """Weights in the vault that this run may use: its own, or with `resume` any of the same settings."""
        usable = self.resume or name in self._done
        return self.release.results.kept_weights(name, key) if usable else None

    def _key(self, recipe: str, sigma: float, relative: bool) -> dict[str, Any]:
        """Everything that the weights of a recipe depend on."""
        key = {"epochs": self.epochs, "seed": self.seed, "recipe": recipe, "arch": self.release.default_arch}
        key |= versions(self.release.device)
        return key | ({"sigma": sigma, "relative": relative} if needs_sigma(recipe) else {})

    def draws_key(self, settings: CertificateSettings) -> dict[str, Any]:
        """Everything that draws depend on, except the surrogate."""
        return {
            "sigma": settings.sigma, "relative": settings.relative, "seed": settings.seed,
            "precision": settings.precision, "device": self.release.device, **versions(self.release.device),
            **self.release.digests,
        }  # fmt: skip

    def candidates(self, recipes: tuple[str, ...]) -> int:
        """The number of networks among which one is chosen on the clean images, for `bounds.population_plan`.

        Recipes and early stopping, for each sigma of a search. The self-check of `protect` looked at the holdout after
        each of its k attempts; as k was not fixed before, that counts k (k + 1).
        """
        attempts = len(self.release.run.get("self_check", {}).get("attempts", ()))
        return candidates(recipes) * self.sigmas * max(1, attempts * (attempts + 1))

    def look(
        self, settings: CertificateSettings, recipes: tuple[str, ...], chosen: str | None = None
    ) -> tuple[CertificateSettings, dict[str, Any]]:
        """The settings with the number of this look at the released bytes, and its key.

        Before the work, without the `chosen` recipe, the number is the one to expect.
        """
        key = self.draws_key(settings) | {
            "q": settings.q, "etas": list(settings.etas), "draws": settings.draws, "alpha": settings.alpha,
            "joint": settings.joint, "epochs": self.passes(), "surrogate_recipe": _wanted(recipes),
            "candidates": self.candidates(recipes),
        }  # fmt: skip
        if chosen is not None:
            key |= self._centre(self.surrogate(chosen, settings.sigma, relative=settings.relative))
        group = self.machine.group
        number = group.from_leader(self.looks.number(key) if group.leads else None)
        return replace(settings, look=number), key

    @property
    def looks(self) -> Looks:
        """The recorded looks at the released bytes."""
        return Looks(self.release.results.vault.path / LOOKS, self.release.digest)

    def _centre(self, model: Classifier) -> dict[str, Any]:
        return {"surrogate": weights_digest(model), "lowpass": lowpass(model)}

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
        key: dict[str, Any] | None = None,
    ) -> RecipeFigures:
        """The figures of the draws around one recipe's surrogate; the draws are stored in a log for each purpose.

        `key` is that of the look, which is recorded when the draws are finished, before anything about them is told.
        """
        release, progress = self.release, self.machine.progress
        model = self.surrogate(recipe, settings.sigma, relative=settings.relative, clean=clean)
        about = self.draws_key(settings) | self._centre(model)
        name = _name(recipe, clean) + ("" if purpose == "certify" else f"-{purpose}")
        path = release.results.path(f"certify/{name}.draws") if self.machine.group.leads else None
        log = DrawLog(path, about, images=len(release.test), resume=self.resume)
        verb, what = ("draw around" if purpose == "certify" else purpose), "clean baseline" if clean else recipe
        progress.start(f"{verb} the {what} surrogate", settings.draws)
        found = certify(
            model, recipe, self.data(clean), release.test, settings, candidates=candidates, purpose=purpose,
            log=log, machine=self.machine,
        )  # fmt: skip
        if key is not None and self.machine.group.leads:
            self.looks.record(key)
        progress.finish(f"median {found.noisy_accuracy.median:.1%}")
        return found


def _wanted(recipes: tuple[str, ...]) -> str:
    """The value of --surrogate-recipe."""
    return recipes[0] if len(recipes) == 1 else "worst"


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

    The draws that choose are not those that certify, so choosing costs no alpha, as in Cohen et al., "Certified
    Adversarial Robustness via Randomized Smoothing", ICML 2019. The look is recorded and the certificate stored in the
    vault; `settings.look` is set here.

    `recipes` come from `choose_recipes`. With `baseline` the same recipe is certified on the clean originals too; with
    `stress` the bound is cross-checked on the sphere, see `stress_test`.

    Raises:
        InputError: a baseline is asked for and the originals are unknown; the vault holds parts of other settings, or
            another run has it.
        CertificateError: the cross-check contradicts the bound.
    """
    if baseline:
        certification.data(clean=True)  # refused before any work
    with certification.release.in_use():
        return _certified(certification, settings, recipes, baseline=baseline, stress=stress)


def _certified(
    certification: Certification, settings: CertificateSettings, recipes: tuple[str, ...], *, baseline: bool,
    stress: bool,
) -> Certificate:  # fmt: skip
    """See `certify_release`; this run has the vault."""
    began = time.perf_counter()
    release = certification.release
    screenings = [certification.screen(recipe, settings) for recipe in recipes] if len(recipes) > 1 else []
    figures = [(one.noisy_accuracy.quantile or 0.0, one.noisy_accuracy.median) for one in screenings]
    chosen = recipes[figures.index(max(figures))] if screenings else recipes[0]
    settings, key = certification.look(settings, recipes, chosen)
    found = certification.certify(chosen, settings, candidates=certification.candidates(recipes), key=key)
    clean = certification.certify(chosen, settings, clean=True) if baseline else None
    model = certification.surrogate(chosen, settings.sigma, relative=settings.relative)
    checked = stress_test(model, found, settings, release, certification.epochs) if stress else None
    flags = raised(
        found, clean, chance=release.chance, images=len(release.test), few_images=release.few_test_images,
        own=release.own, overlap=release.overlap is not None,
    )  # fmt: skip
    moved = checked.recovery_distance if checked else None
    group, looks = certification.machine.group, certification.looks
    spent, count = group.from_leader((looks.alpha_spent, len(looks.keys)))
    whole = Certificate(
        **dict(found),
        q=settings.q, sigma=settings.sigma, relative=settings.relative, joint=settings.joint, seed=settings.seed,
        alpha=settings.alpha, alpha_each=settings.alpha_each, alpha_spent=spent, look=settings.look, looks=count,
        precision=settings.precision, max_eta=settings.max_eta, surrogate_recipe=_wanted(recipes),
        epochs=certification.passes(), holdout_images=len(release.test), classes=len(release.classes),
        chance=release.chance,
        recipes={one.recipe: one for one in (*screenings, found.model_copy(update={"screened": False}))},
        baseline=clean, stress=checked,
        recovery_distance=recovery_distance(release.results) if moved is None else moved,
        batch_norm=f"re-estimated for every draw from {CALIBRATION_IMAGES} protected training images",
        flags=flags, seconds=round(time.perf_counter() - began, 2), data_digest=release.digest,
        test_overlap=release.overlap,
    )  # fmt: skip
    if group.leads:
        release.results.write(CERTIFICATE, whole.as_json())
    return whole


def informative_sigma(certification: Certification, *, relative: bool = False) -> float:
    """The largest sigma at which the plain clean baseline keeps SIGMA_KEEPS of its accuracy above chance.

    Found by bisection on a logarithmic scale, on the median of SIGMA_DRAWS draws with the same noise directions for
    every sigma, and rounded down to two digits. The search is counted in `certification.sigmas`.

    Raises:
        InputError: the originals are unknown.
    """
    release, machine = certification.release, certification.machine
    certification.data(clean=True)  # refused before any work
    with release.in_use():
        model = certification.surrogate("plain", 0.0, clean=True)
    own = accuracy(model, release.test) - release.chance
    low, high = (math.log(edge) for edge in SIGMA_RANGE)
    machine.progress.start("find sigma", SIGMA_HALVINGS)
    for _ in range(SIGMA_HALVINGS):
        middle = (low + high) / 2
        settings = CertificateSettings(
            sigma=math.exp(middle), relative=relative, seed=certification.seed, draws=SIGMA_DRAWS
        )
        engine = draw_engine(model, certification.data(clean=True), release.test, settings, purpose="sigma")
        log = DrawLog(None, {})
        draw(engine, log, SIGMA_DRAWS, Machine(group=machine.group))
        kept = float(np.median([correct for correct, _ in log.first(SIGMA_DRAWS)])) / len(release.test)
        low, high = (middle, high) if kept - release.chance >= SIGMA_KEEPS * own else (low, middle)
        machine.progress.advance(note=f"{math.exp(low):.2g}")
    machine.progress.finish()
    certification.sigmas = 2**SIGMA_HALVINGS
    digits = 10.0 ** (math.floor(low / math.log(10)) - 1)
    return round(math.floor(math.exp(low) / digits + 1e-9) * digits, 12)


def certify_folder(out: Path, settings: CertificateSettings) -> Certificate:
    """Certify a release of this package with all usual recipes, next to the clean baseline."""
    certification = Certification(open_release(out, machine=this_machine()), settings.seed)
    return certify_release(certification, settings, choose_recipes("worst", own=True), baseline=True)
