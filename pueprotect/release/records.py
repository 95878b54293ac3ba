"""The evidence that a gate reads back from a vault, as models that allow further keys: the contract grows by adding."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

Share = Annotated[float, Field(ge=0, le=1)]
Digest = Annotated[str, Field(pattern="^sha256:[0-9a-f]{64}$")]


class Artefact(BaseModel):
    """Anything written as JSON; more keys may be added."""

    # Most of these models are not met in one run of a command: each is built when it is first used.
    model_config = ConfigDict(extra="allow", frozen=True, defer_build=True)


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


class ManifestRow(BaseModel):
    """One released image.

    Attributes:
        path: POSIX path below the released folder.
        class_name: its label; `class` in JSON.
        split: the surrogate and the noise were fitted on `train`; the originals of `holdout` measure the result.
        source_path: POSIX path below the source folder.
        source_sha256: lower-case hex digest of the original file.
        released_sha256: the same of the released file.
        linf: largest difference in levels (0..255), if measured.
        psnr: in dB, if measured.
        ssim: at most 1, if measured.
    """

    model_config = ConfigDict(frozen=True, validate_by_name=True, validate_by_alias=True, defer_build=True)

    path: str
    class_name: str = Field(validation_alias="class", serialization_alias="class")
    split: Literal["train", "holdout"]
    source_path: str
    source_sha256: str
    released_sha256: str
    linf: int | None = None
    psnr: float | None = None
    ssim: float | None = None
