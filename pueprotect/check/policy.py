"""What a policy file may say: sections of limits, and waivers.

Unknown keys, wrong types and values out of range are errors. The part of each description after its colon names the
allowed values; the reader's messages quote it.
"""

from __future__ import annotations

from datetime import date
from typing import Annotated, Literal, Self, TypeVar

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, model_validator

from pueprotect.audit.suites import SUITES

Share = Annotated[float, Field(ge=0, le=1)]


class _Section(BaseModel):
    """Unknown keys are errors; each description ends, after a colon, in the allowed values."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False, defer_build=True)


_Rules = TypeVar("_Rules", bound=_Section)


class CertifyRules(_Section):
    """Limits on the certificate; `q`, `eta`, `alpha` and `bound` say which of its figures count."""

    q: Annotated[
        float | None,
        Field(gt=0, lt=1, description="share of classifiers that the bound must cover: a number between 0 and 1"),
    ] = None
    eta: Annotated[
        float | None, Field(ge=0, description="L2 radius of the bound, by default the largest recorded: 0 or more")
    ] = None
    alpha: Annotated[
        float, Field(gt=0, lt=0.5, description="largest failure probability that counts: a number between 0 and 0.5")
    ] = 0.01
    bound: Annotated[
        Literal["holdout", "population"],
        Field(description="of accuracy on the clean holdout, or on what it was drawn from: holdout or population"),
    ] = "holdout"
    max_learnability: Annotated[Share | None, Field(description="largest bound that passes: a number from 0 to 1")] = (
        None
    )
    min_draws: Annotated[
        int | None, Field(ge=1, description="fewest draws behind the bound: a whole number from 1")
    ] = None
    min_baseline: Annotated[
        Share | None, Field(description="the clean baseline's bound must reach this: a number from 0 to 1")
    ] = None

    @model_validator(mode="after")
    def _limits_something(self) -> Self:
        return _limiting(self, "max_learnability", "min_draws", "min_baseline")


class AttackRules(_Section):
    """Limits on one attack."""

    max_accuracy: Annotated[
        Share | None, Field(description="highest clean accuracy that passes: a number from 0 to 1")
    ] = None
    max_recovered: Annotated[
        Share | None, Field(description="largest recovered share that passes: a number from 0 to 1")
    ] = None


class AuditRules(AttackRules):
    """Limits on every attack of a suite, and on single attacks."""

    suite: Annotated[
        Literal[tuple(SUITES)] | None,  # type: ignore[valid-type]
        Field(description=f"attacks that must be recorded: one of {', '.join(SUITES)}"),
    ] = None
    attacks: Annotated[
        dict[str, AttackRules], Field(description="own limits of single attacks: attack names with limits")
    ] = {}
    min_epochs: Annotated[float | None, Field(gt=0, description="shortest training that counts: a number above 0")] = (
        None
    )
    min_clean_accuracy: Annotated[
        Share | None, Field(description="what the clean line must reach: a number from 0 to 1")
    ] = None

    @model_validator(mode="after")
    def _limits_something(self) -> Self:
        limits = ("suite", "max_accuracy", "max_recovered", "attacks", "min_epochs", "min_clean_accuracy")
        return _limiting(self, *limits)

    def limits_of(self, attack: str) -> dict[str, float]:
        """The limits of one attack by their names; its own replace the common ones."""
        common = {name: getattr(self, name) for name in AttackRules.model_fields}
        own = self.attacks[attack].model_dump(exclude_none=True) if attack in self.attacks else {}
        return {name: limit for name, limit in (common | own).items() if limit is not None}


class ImageRules(_Section):
    """Limits on the released files."""

    min_coverage: Annotated[
        Share | None, Field(description="share of the files in the folder that are protected: a number from 0 to 1")
    ] = None
    max_linf: Annotated[
        int | None, Field(ge=0, le=255, description="largest change of a pixel: whole levels from 0 to 255")
    ] = None
    min_ssim: Annotated[
        float | None, Field(ge=-1, le=1, description="similarity of every measured file: a number from -1 to 1")
    ] = None

    @model_validator(mode="after")
    def _limits_something(self) -> Self:
        return _limiting(self, "min_coverage", "max_linf", "min_ssim")


def _as_date(value: object) -> object:
    """A date that was quoted in the file; anything else is left to the strict check."""
    try:
        return date.fromisoformat(value) if isinstance(value, str) else value
    except ValueError:
        return value


class Waiver(_Section):
    """A failing or unmeasured rule that is accepted for a while."""

    rule: Annotated[
        str, Field(min_length=1, pattern=r"^(certify|audit|images)(\.|$)", description="name of a rule or of a group "
                   "of them: one that starts with certify, audit or images, such as audit.jpeg")
    ]  # fmt: skip
    reason: Annotated[str, Field(min_length=1, pattern=r"\S", description="why: a sentence")]
    expires: Annotated[
        date, BeforeValidator(_as_date), Field(description="last day of the waiver: a date such as 2027-01-31")
    ]

    def covers(self, rule: str) -> bool:
        """Whether this is a waiver of `rule` or of a group that it belongs to."""
        return rule == self.rule or rule.startswith(self.rule + ".")


class Policy(_Section):
    """A policy file."""

    version: Annotated[Literal[1], Field(description="version of the policy's format: 1")]
    certify: Annotated[CertifyRules | None, Field(description="limits on the certificate: a section of keys")] = None
    audit: Annotated[AuditRules | None, Field(description="limits on the attacks: a section of keys")] = None
    images: Annotated[ImageRules | None, Field(description="limits on the files: a section of keys")] = None
    waivers: Annotated[
        tuple[Waiver, ...], Field(strict=False, description="accepted failures: a list of rule, reason and expires")
    ] = ()


def _limiting(section: _Rules, *names: str) -> _Rules:
    if not any(getattr(section, name) not in (None, {}) for name in names):
        raise ValueError(f"sets no limit; add one of {', '.join(names)}")
    return section
