"""Everything that pueprotect writes as JSON: `ARTEFACTS` names the models.

Their JSON Schemas come from here and nowhere else. Models allow further keys: the contract grows by adding.
"""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel

from pueprotect.check.verdicts import Verdict
from pueprotect.release.records import Artefact, AuditRecord, Certificate, Digest, ManifestRow, Share


class Realised(Artefact):
    """How far the release is from the originals, as read back: levels of 0..255, dB and mean SSIM."""

    linf_max: int
    psnr_mean: float
    ssim_mean: float


class Surrogate(Artefact):
    """The network of the optimisation."""

    name: str
    size: int
    parameters: int
    train_accuracy_protected: Share


class SelfCheck(Artefact):
    """What a fresh network learnt before anything was released."""

    arch: str
    epochs: float
    accuracy: Share
    chance: Share
    passed: bool


class Protect(Artefact):
    """Output of `pueprotect protect --json`; figures of a release that was refused are null."""

    schema_version: Literal[1]
    images: int
    classes: int
    train_images: int
    holdout_images: int
    method: str
    mode: str
    epsilon: Share
    realised: Realised | None
    surrogate: Surrogate
    self_check: SelfCheck
    seconds: dict[str, float]
    vault: str
    data_digest: Digest | None


class RunRecord(Artefact):
    """`run.json` of a vault."""

    schema_version: Literal[1]
    settings: dict[str, Any]
    seed: int
    environment: dict[str, str]
    classes: list[str]
    split: dict[str, float]
    timings: dict[str, float]
    manifest_sha256: str
    data_digest: Digest


class AuditRow(Artefact):
    """One attack in the output of `audit`."""

    attack: str
    arch: str
    accuracy: Share | None
    best_accuracy: Share | None
    recovered: Share | None
    clean_accuracy_same_filter: Share | None = None
    epochs: float
    seconds: float
    flags: list[str]


class AuditWorst(Artefact):
    """The attack that reached most; null when none ended with a figure."""

    attack: str | None
    arch: str | None
    accuracy: Share | None
    recovered: Share | None


class Audit(Artefact):
    """Output of `pueprotect audit --json`."""

    schema_version: Literal[1]
    suite: str | None
    chance: Share
    clean_accuracy: Share | None
    results: list[AuditRow]
    worst: AuditWorst
    flags: list[str]
    data_digest: Digest


class Check(Artefact):
    """Output of `pueprotect check --format json`, and what `--baseline` reads."""

    schema_version: Literal[1]
    passed: bool
    outcome: Literal["pass", "fail", "inconclusive"]
    data_digest: Digest
    policy_sha256: str
    verdicts: list[Verdict]


class Verify(Artefact):
    """Output of `pueprotect verify --json`."""

    schema_version: Literal[1]
    ok: bool
    files: int
    missing: list[str]
    extra: list[str]
    changed: list[str]


ARTEFACTS: dict[str, type[BaseModel]] = {
    "protect": Protect,
    "run": RunRecord,
    "manifest-row": ManifestRow,
    "certificate": Certificate,
    "audit": Audit,
    "audit-record": AuditRecord,
    "check": Check,
    "verify": Verify,
}
