"""What pueprotect writes as JSON, as models that allow further keys: the contract grows by adding.

`ARTEFACTS` names them all; their JSON Schemas come from here and nowhere else.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from pueprotect.vault import ManifestRow

Share = Annotated[float, Field(ge=0, le=1)]
Digest = Annotated[str, Field(pattern="^sha256:[0-9a-f]{64}$")]


class Artefact(BaseModel):
    """Anything written as JSON; more keys may be added."""

    # Most of these models are not met in one run of a command: each is built when it is first used.
    model_config = ConfigDict(extra="allow", frozen=True, defer_build=True)


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


class Point(Artefact):
    """The bound at one radius; `certified_learnability` is null where it abstains."""

    eta: Annotated[float, Field(ge=0)]
    q_shifted: Share
    rank: int | None
    certified_learnability: Share | None
    draws_needed: int | None
    population: Share | None = None


class Histogram(Artefact):
    """How many draws lie in each of equal bins of accuracy from 0 to 1."""

    edges: list[float]
    draws: list[int]


class NoisyAccuracy(Artefact):
    """Clean accuracy of the classifiers drawn around a surrogate."""

    mean: Share
    median: Share
    max: Share
    histogram: Histogram | None = None


class RecipeFigures(Artefact):
    """The bounds around one surrogate."""

    recipe: str
    surrogate_clean_accuracy: Share
    noisy_accuracy: NoisyAccuracy
    curve: list[Point]

    def at(self, eta: float | None) -> Point | None:
        """The point that speaks of radius `eta`: the nearest from there on, as a larger ball holds a smaller one.

        None asks for the largest radius.
        """
        ordered = sorted(self.curve, key=lambda point: point.eta)
        if eta is None:
            return ordered[-1] if ordered else None
        return next((point for point in ordered if point.eta >= eta - 1e-12), None)


class Certificate(RecipeFigures):
    """`certificate.json` of a vault and output of `pueprotect certify --json`."""

    schema_version: Literal[1]
    q: Share
    sigma: float
    draws: int
    alpha: Share
    joint: bool
    holdout_images: int
    classes: int
    chance: Share
    max_eta: float | None
    recipes: dict[str, RecipeFigures]
    baseline: RecipeFigures | None
    flags: list[str]
    seconds: float
    data_digest: Digest


class EvidenceKey(Artefact):
    """What a piece of evidence speaks of."""

    data_digest: Digest
    test_digest: Digest


class AttackKey(EvidenceKey):
    """An attack and all that its result depends on; `clean-line` is plain training on the clean originals."""

    attack: str
    arch: str
    epochs: float
    seed: int


class AttackFigures(Artefact):
    """Clean test accuracies of one attack; null where training failed."""

    attack: str
    arch: str
    accuracy: Share | None
    best_accuracy: Share | None
    epochs: float
    seconds: float
    flags: list[str]
    details: dict[str, Any]


class AuditRecord(Artefact):
    """`audit/<attack>-<arch>.json` of a vault."""

    key: AttackKey
    result: AttackFigures
    chance: Share | None = None
    test_images: int | None = None


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


class VerdictRecord(Artefact):
    """One rule of a policy; `passed` is null where the evidence does not tell."""

    rule: str
    passed: bool | None
    observed: float | None
    limit: float | None
    reason: str
    comparison: Literal["at most", "at least"] | None = None
    command: str | None = None
    waived: str | None = None
    known: bool = False


class Check(Artefact):
    """Output of `pueprotect check --format json`, and what `--baseline` reads."""

    schema_version: Literal[1]
    passed: bool
    outcome: Literal["pass", "fail", "inconclusive"]
    data_digest: Digest
    policy_sha256: str
    verdicts: list[VerdictRecord]


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
