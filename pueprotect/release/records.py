"""Defines what `protect` records, and the parts that other records share.

Certificates are in `release.certificates` and audits in `release.audits`. Models allow further keys: the contract grows
by adding. No torch.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

Share = Annotated[float, Field(ge=0, le=1)]
Digest = Annotated[str, Field(pattern="^sha256:[0-9a-f]{64}$")]


class Record(BaseModel):
    """Anything written as JSON; more keys may be added."""

    # One run of a command uses few of these models: each is built when it is first used.
    model_config = ConfigDict(extra="allow", frozen=True, defer_build=True)

    def as_json(self) -> dict[str, Any]:
        """Plain JSON values."""
        return self.model_dump(mode="json", by_alias=True)


class ManifestRow(BaseModel):
    """One released image.

    Attributes:
        path: POSIX path below the released folder; `source_path` is below the source folder.
        class_name: its label; `class` in JSON.
        split: the surrogate and the noise were fitted on `train`; the originals of `holdout` measure the result.
        source_sha256: lower-case hex digest of the original file; `released_sha256` is of the released file.
        linf: largest difference in levels (0..255), if measured; likewise `psnr` in dB and `ssim`, at most 1.
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


class Realised(Record):
    """How far the release is from the originals, as read back: levels of 0..255, mean dB and mean SSIM."""

    linf_max: int
    psnr_mean: float
    ssim_mean: float


class Changed(Record):
    """How far one released file is from its original."""

    path: str
    linf: int | None
    psnr: float | None
    ssim: float | None


class Surrogate(Record):
    """The network of the optimisation, or of the self-check where nothing is optimised."""

    name: str
    size: int
    parameters: int
    train_accuracy_protected: Share


class SelfCheck(Record):
    """What a fresh network learnt from the released files, before they were published.

    Attributes:
        limit: the accuracy that passes: near chance, and at most half way to `clean_accuracy`.
        attempts: the accuracies of all checks.
        networks: what each network of the last check learnt; the best one counts.
        clean_accuracy: what the same training gives on the originals; None where it was not measured.
    """

    arch: str
    epochs: float
    accuracy: Share
    chance: Share
    limit: Share
    passed: bool
    attempts: list[Share] = []
    clean_accuracy: Share | None = None
    networks: list[Share] = []


class NoiseFacts(Record):
    """Facts about the noise in a draft.

    Attributes:
        rounds: passes of the optimisation so far.
        clean_accuracy: what a network learns from the originals; None until it was measured.
        surrogate: None until a check.
        checks: of the files written with the key `written`.
    """

    rounds: int = 0
    clean_accuracy: Share | None = None
    surrogate: Surrogate | None = None
    checks: list[SelfCheck] = []
    written: str | None = None


class LeftOut(Record):
    """A picture that is not in the release, and the reason."""

    path: str
    reason: str


class Protect(Record):
    """Output of `pueprotect protect --json`; figures of a release that was refused are null."""

    schema_version: Literal[1] = 1
    images: int
    classes: int
    class_counts: dict[str, int] = {}
    train_images: int
    holdout_images: int
    method: str
    mode: str
    epsilon: Share
    rounds: int = 0
    realised: Realised | None = None
    surrogate: Surrogate
    self_check: SelfCheck
    seconds: dict[str, float]
    vault: str
    data_digest: Digest | None = None
    skipped: list[LeftOut] = []
    file_growth: float | None = None
    jpeg: dict[str, int | float] | None = None
    worst: list[Changed] = []


class RunRecord(Record):
    """`run.json` of a vault: the result of `protect`, and all that is needed to repeat it."""

    schema_version: Literal[1]
    settings: dict[str, Any]
    seed: int
    environment: dict[str, str]
    classes: list[str]
    split: dict[str, float]
    timings: dict[str, float]
    manifest_sha256: str
    data_digest: Digest


class TestOverlap(Record):
    """Test images that nearly equal a training image: how many, and the first pairs of (test, training) paths."""

    __test__ = False  # no test class for pytest

    images: int
    first: list[tuple[str, str]]
