"""Holds the noise of a release while it is made: makes it with its method, checks it, improves it, stores it.

The noise is in the vault's draft. `--resume` reads back what is finished there for the same plan.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch

from pueprotect.errors import InputError, VaultError
from pueprotect.learning.data import PIECE, ImageSet, Labelled, dealt, split
from pueprotect.learning.device import Machine
from pueprotect.learning.models import Classifier, build, parameter_count, state_of
from pueprotect.learning.training import accuracy
from pueprotect.protect.key import is_key
from pueprotect.protect.methods.base import Labels, Made, Mask, Noise, NoiseSettings, find
from pueprotect.protect.methods.laying import Originals
from pueprotect.protect.methods.self_check import LUCK, Learnt, judged, learnable, learnt
from pueprotect.protect.presets import Preset
from pueprotect.release.records import NoiseFacts, SelfCheck, Surrogate
from pueprotect.release.results import tensors
from pueprotect.release.vault import DELTA, DRAFT, RUN, SCHEMA_VERSION, SURROGATE, Vault

PLAN = f"{DRAFT}/plan.json"
ATTEMPTS = 3  # checks of a release, with an improvement between them
NETWORKS = 2  # in each check, since one may learn what another one does not
NETWORKS_APART = 1000  # between their seeds; more than the rounds, which are added too
SELF_CHECK = "self-check"


def kept_key(store: Vault) -> str | None:
    """The key of the vault's draft, or else of its finished release; None where there is no whole one."""
    for name, inside in ((PLAN, ("plan",)), (RUN, ())):
        try:
            found: Any = store.read_json(name)
            for step in (*inside, "settings", "key"):
                found = found[step]
        except (VaultError, LookupError, TypeError):
            continue
        if is_key(found):
            return str(found)
    return None


@dataclass
class NoiseDraft:
    """The noise of one release, in the draft of its vault.

    Attributes:
        plan: all that the noise depends on, as JSON.
        facts: what is known about it.
    """

    store: Vault
    plan: dict[str, Any]
    originals: Originals
    settings: NoiseSettings
    preset: Preset
    machine: Machine
    facts: NoiseFacts = field(default_factory=NoiseFacts)
    _noise: tuple[Noise, Labels] | None = None
    _surrogate: Classifier | None = None
    _teacher: Classifier | None = None
    _released: ImageSet | None = None

    @property
    def arrays(self) -> tuple[Noise, Labels]:
        """The noise (K, S, S, 3) in signed integer levels, and the row of each image (N,) int64."""
        assert self._noise is not None, "made or loaded"
        return self._noise

    def part(self, kept: Mask) -> tuple[Noise, Labels]:
        """The noise and the rows of some images: (N,) bool."""
        noise, rows = self.arrays
        if self.settings.mode == "sample-wise":
            return noise[kept], np.arange(int(kept.sum()))
        return noise, rows[kept]

    def load(self) -> bool:
        """Read back noise that was made by the same plan; false when there is none."""
        try:
            found = self.store.read_json(PLAN)
            if found.get("plan") != self.plan:
                return False
            arrays = self.store.read_tensors(f"{DRAFT}/{DELTA}")
            self._noise = arrays["delta"], arrays["rows"]
            self.facts = facts = NoiseFacts.model_validate(found["facts"])
        except (VaultError, KeyError, ValueError):  # missing or damaged: it is made again
            self._noise = None
            return False
        if facts.rounds and facts.written and len(facts.checks) < ATTEMPTS and not facts.checks[-1].passed:
            # Stopped before it was improved: the network that teaches how is lost, so the check is repeated.
            self.facts = facts.model_copy(update={"checks": facts.checks[:-1], "written": None})
        return True

    def look(self, *, anyway: bool = False) -> None:
        """See what a fresh network learns from the originals, before any noise is made.

        Raises:
            InputError: nothing, so that no check of noise could tell whether it protects; not with `anyway`.
        """
        found = self._learnt(split(self.originals.images, self.originals.held)[1], 0, "look at the originals")
        self.facts = NoiseFacts(clean_accuracy=found.accuracy)
        held = int(self.originals.held.sum())
        if not learnable(found, held) and not anyway:
            self.machine.group.dismiss()
            what, fix = "Nothing can be learnt from these labels", "Check that each folder is a class, or add images"
            if found.chance**held > LUCK:
                what, fix = "The held-out images are too few to see what can be learnt", "Add images"
            raise InputError(
                f"{what}: a network trained on the originals recognises {found.accuracy:.1%} of {held} held-out "
                f"images, and guessing {found.chance:.1%}. {fix}; --release-anyway protects them all the same, but no "
                "check can tell whether that works."
            )

    def make(self) -> None:
        """Make the noise after `look`, and replace an older draft.

        Raises:
            VaultError: the draft cannot be written.
        """
        shutil.rmtree(self.store.path / DRAFT, ignore_errors=True)
        self._keep(find(self.settings.method).make(self.originals, self.settings, self.machine))

    def refused(self, key: str) -> bool:
        """Whether the last check of files written with this `key` failed, and nothing is left to try."""
        facts = self.facts
        return facts.written == key and not facts.checks[-1].passed

    def check(self, key: str, read: Callable[[], ImageSet]) -> SelfCheck:
        """Judge what a fresh network learns from the released training images, which `read` gives.

        A check of files that were written with the same `key` is not repeated.
        """
        facts = self.facts
        if facts.written == key and facts.checks:
            return facts.checks[-1]
        released, arch = read(), self.settings.surrogate
        before, clean, networks = (
            [check.accuracy for check in facts.checks],
            facts.clean_accuracy or 0.0,
            list[Learnt](),
        )
        for number in range(NETWORKS):
            label = "self-check on the released files" + (", another network" if number else "")
            networks.append(self._learnt(released, facts.rounds + NETWORKS_APART * number, label))
            check = judged(networks, clean, arch, self.epochs, before)
            if not check.passed:
                break
        found = max(networks, key=lambda one: one.accuracy)
        surrogate = found.network
        if facts.rounds:
            surrogate = self._surrogate or self._stored()
        else:  # nothing was optimised
            self._write_network(surrogate)
        self._teacher, self._released = found.network, released
        self._record(
            written=key, checks=[*facts.checks, check],
            surrogate=Surrogate(
                name=arch, size=released.size, parameters=parameter_count(surrogate),
                train_accuracy_protected=accuracy(surrogate, released),
            ),
        )  # fmt: skip
        return check

    def improve(self) -> bool:
        """Improve noise that failed its check; false when its method cannot, or has done so often enough."""
        if self._teacher is None or len(self.facts.checks) >= ATTEMPTS:
            return False
        made = find(self.settings.method).improve(
            Made(*self.arrays, None, self.facts.rounds), self._as_released(), self.settings, self._teacher,
            self.preset.extra_rounds, self.machine,
        )  # fmt: skip
        if made is None:
            return False
        self._keep(made)
        return True

    def _as_released(self) -> Originals:
        """The originals with what writing the files did to the training images besides the noise, such as rounding."""
        images, held = self.originals.images, self.originals.held
        shown, laying = (~held).nonzero().flatten(), self.originals.laying
        if self._released is None or len(self._released) != len(shown):  # some files were refused
            return self.originals
        noise, rows = (torch.from_numpy(array) for array in self.arrays)
        changed, place = images.images.clone(), self._released.images
        for part in torch.arange(len(shown), device=shown.device).split(PIECE):
            index = shown[part]
            laid = laying.seen(noise[rows[index.cpu()]].to(place.device).float(), index).permute(0, 3, 1, 2)
            changed[index] = (place[part] - laid).round_().clamp_(0, 255).to(torch.uint8)
        return replace(self.originals, images=replace(images, images=changed))

    @property
    def epochs(self) -> float:
        """Passes of each check."""
        return find(self.settings.method).checks * self.preset.check_epochs

    def _learnt(self, shown: Labelled, number: int, label: str) -> Learnt:
        """Train on all ranks: the other ones are in `assist`."""
        arch, epochs, seed, machine = self.settings.surrogate, self.epochs, self.settings.seed + number, self.machine
        machine.group.from_leader((SELF_CHECK, arch, epochs, seed))
        part, holdout = dealt(shown, machine.group, shown.device), split(self.originals.images, self.originals.held)[0]
        return learnt(part, holdout, arch, epochs=epochs, seed=seed, label=label, machine=machine)

    def _keep(self, made: Made) -> None:
        """Store noise that has no check yet; the noise goes first, so that the facts are never newer."""
        self._noise, self._surrogate = (made.noise, made.rows), made.network
        (self.store.path / PLAN).unlink(missing_ok=True)
        self.store.write_tensors(f"{DRAFT}/{DELTA}", {"delta": made.noise, "rows": made.rows})
        if made.network is not None:
            self._write_network(made.network)
        self._record(rounds=made.rounds, written=None)

    def _write_network(self, network: Classifier) -> None:
        state = {name: value.numpy() for name, value in state_of(network).items()}
        self.store.write_tensors(f"{DRAFT}/{SURROGATE}", state)

    def _stored(self) -> Classifier:
        """The surrogate of an interrupted run."""
        images = self.originals.images
        model = build(self.settings.surrogate, images.classes, images.size, seed=0, device=images.device)
        model.load_state_dict(tensors(self.store, f"{DRAFT}/{SURROGATE}"))
        return model

    def _record(self, **changes: Any) -> None:
        self.facts = self.facts.model_copy(update=changes)
        plan = {"schema_version": SCHEMA_VERSION, "plan": self.plan, "facts": self.facts.as_json()}
        self.store.write_json(PLAN, plan)


def assist(method: str, machine: Machine) -> None:
    """Take part in optimisation and checks on every rank but 0, until rank 0 dismisses the others."""
    used = find(method)
    while (task := machine.group.from_leader(None)) is not None:
        match task:
            case (str(kind), arch, epochs, seed) if kind == SELF_CHECK:
                learnt(dealt(None, machine.group, machine.device.name), None, arch, epochs=epochs, seed=seed,
                       machine=machine)  # fmt: skip
            case _:
                used.assist(task, machine)
