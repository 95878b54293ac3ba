"""What pueprotect writes as JSON, as models; and the evidence of one release, read without torch.

The models allow further keys: the contract grows by adding. `ARTEFACTS` names them all; their JSON Schemas come from
here and nowhere else.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from pueprotect.errors import InputError, VaultError
from pueprotect.vault import (
    SCHEMA_VERSION,
    ManifestRow,
    Vault,
    Verification,
    data_digest,
    default_vault,
    digest_files,
    verify,
)

CERTIFICATE = "certificate.json"
CLEAN_LINE = "clean-line"

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


class NoisyAccuracy(Artefact):
    """Clean accuracy of the classifiers drawn around a surrogate."""

    mean: Share
    median: Share
    max: Share


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


class DrawsFigures(Artefact):
    """Draws around one surrogate: right answers of each."""

    recipe: str
    counts: list[int]


class DrawsRecord(Artefact):
    """`certify/<recipe>[-baseline].json` of a vault."""

    key: EvidenceKey
    result: DrawsFigures


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
    epochs: float
    seconds: float
    flags: list[str]


class AuditWorst(Artefact):
    """The attack that reached most."""

    attack: str
    arch: str
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
    "certify-draws": DrawsRecord,
    "audit": Audit,
    "audit-record": AuditRecord,
    "check": Check,
    "verify": Verify,
}


@dataclass(frozen=True)
class Line:
    """One attack's figures, as a gate looks at them; None where unknown."""

    attack: str
    arch: str
    accuracy: float | None
    recovered: float | None
    epochs: float


@dataclass(frozen=True)
class Records:
    """The recorded evidence of one release.

    Attributes:
        out: the released folder.
        vault: where the evidence lies.
        own: whether pueprotect made the release, so that a manifest says what it must hold.
        digest: of the released files: as recorded where a manifest is, else as they are.
        difference: how the files differ from the manifest.
        rows: the manifest; empty for a folder that pueprotect did not protect.
        run: `run.json`; empty likewise.
        certificate: of whatever bytes; None when there is none.
        audit: every recorded attack, of whatever bytes, sorted by file name.
    """

    out: Path
    vault: Path
    own: bool
    digest: str
    difference: Verification
    rows: tuple[ManifestRow, ...]
    run: dict[str, Any]
    certificate: Certificate | None
    audit: tuple[AuditRecord, ...]

    @cached_property
    def fresh(self) -> tuple[AuditRecord, ...]:
        """Recorded attacks on these very bytes, without the clean lines."""
        return tuple(r for r in self.audit if r.key.data_digest == self.digest and r.key.attack != CLEAN_LINE)

    @cached_property
    def clean_lines(self) -> tuple[AuditRecord, ...]:
        """Plain trainings on the clean originals of these bytes."""
        return tuple(r for r in self.audit if r.key.data_digest == self.digest and r.key.attack == CLEAN_LINE)

    def clean_line(self, record: AuditRecord) -> AuditRecord | None:
        """The clean line that `record` is compared with: same network, epochs, test images, and seed if there is one.

        An attack with a schedule of its own is compared with the longest clean training.
        """
        lines = [
            line
            for line in self.clean_lines
            if (line.key.arch, line.key.test_digest) == (record.key.arch, record.key.test_digest)
        ]

        def nearness(line: AuditRecord) -> tuple[bool, bool, float]:
            return line.key.epochs == record.key.epochs, line.key.seed == record.key.seed, line.key.epochs

        return max(lines, key=nearness) if lines else None

    @cached_property
    def lines(self) -> tuple[Line, ...]:
        """The fresh attacks with the share that each recovers."""
        return tuple(
            Line(r.key.attack, r.key.arch, r.result.accuracy, self.recovered(r), r.result.epochs) for r in self.fresh
        )

    def recovered(self, record: AuditRecord) -> float | None:
        """(accuracy - chance) / (clean accuracy - chance) within [0, 1]; None where one of them is unknown."""
        line = self.clean_line(record)
        clean = line.result.accuracy if line else None
        chance, accuracy = record.chance, record.result.accuracy
        if clean is None or chance is None or accuracy is None or clean <= chance:
            return None
        return min(1.0, max(0.0, (accuracy - chance) / (clean - chance)))

    def draws(self, name: str) -> DrawsRecord | None:
        """`certify/<name>.json`, when it speaks of these bytes."""
        found = _optional(Vault(self.vault), f"certify/{name}.json", DrawsRecord)
        return found if found and found.key.data_digest == self.digest else None


Model = TypeVar("Model", bound=BaseModel)


def read_records(out: Path, vault: Path | None = None, workers: int = 0) -> Records:
    """Hash the released files and read the evidence in their vault; nothing is decoded.

    Args:
        out: the released folder.
        vault: its vault; None takes `OUT.vault`.
        workers: hashing threads; 0 chooses.

    Raises:
        InputError: no such folder.
        VaultError: no vault, or a file in it is damaged.
    """
    place = vault or default_vault(out)
    if not out.is_dir():
        raise InputError(f"{out} is not a folder; name the released folder.")
    store = Vault.open(place)
    own = store.is_sealed
    run = store.run() if own else {}
    rows = tuple(store.read_manifest()) if own else ()
    if own:
        difference = verify(out, rows, workers)
        digest = data_digest({row.path: row.released_sha256 for row in rows})
    else:
        # Imported here: only a folder of another tool is scanned for images, and that takes numpy and Pillow.
        from pueprotect.images import scan

        difference = Verification((), (), ())
        digest = data_digest(digest_files(out, [entry.path for entry in scan(out).entries], workers))
    names = sorted(path.name for path in (place / "audit").glob("*.json"))
    return Records(
        out=out,
        vault=place,
        own=own,
        digest=digest,
        difference=difference,
        rows=rows,
        run=run,
        certificate=_optional(store, CERTIFICATE, Certificate),
        audit=tuple(_parsed(store, f"audit/{name}", AuditRecord) for name in names),
    )


def _optional(store: Vault, name: str, model: type[Model]) -> Model | None:
    return _parsed(store, name, model) if (store.path / name).is_file() else None


def _parsed(store: Vault, name: str, model: type[Model]) -> Model:
    data = store.read_json(name)
    version = data.get("schema_version", SCHEMA_VERSION)
    if version != SCHEMA_VERSION:
        raise VaultError(
            f"{store.path / name} has schema_version {version!r} and this pueprotect reads {SCHEMA_VERSION}; use the "
            "release that wrote it."
        )
    try:
        return model.model_validate(data)
    except ValidationError as error:
        detail = error.errors()[0]
        where = ".".join(map(str, detail["loc"]))
        raise VaultError(
            f"{store.path / name} does not hold what it should ({where}: {detail['msg']}); run the command that "
            "writes it again."
        ) from error
