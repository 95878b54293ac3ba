"""Defines what a policy file may say: sections of limits, and waivers.

Unknown keys, wrong types and values out of range are errors. The part of each description after its colon names the
allowed values; error messages quote it.
"""

from __future__ import annotations

from datetime import date
from typing import Annotated, ClassVar, Literal, Self, get_args

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, model_validator

from pueprotect.audit.suites import SUITES
from pueprotect.release.records import Share

Recipe = Literal["worst", "online", "plain", "weight-noise", "weight-noise-early", "weight-noise-tuned", "pst"]
WORST: Recipe = "worst"
SHORTEST = 15.0  # passes that a training has at least where --epochs is not given


class _Section(BaseModel):
    """A part of a policy; one that names `LIMITS` must set at least one of them."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False, defer_build=True)
    LIMITS: ClassVar[tuple[str, ...]] = ()

    @model_validator(mode="after")
    def _limits_something(self) -> Self:
        named = self.model_fields_set.intersection(self.LIMITS)
        if self.LIMITS and not any(getattr(self, name) not in (None, {}) for name in named):
            raise ValueError(f"sets no limit; add one of {', '.join(self.LIMITS)}")
        return self


class CertifyRules(_Section):
    """Limits on the certificate; the other keys say which certificates and which of their figures count."""

    LIMITS = ("max_learnability", "min_draws", "min_baseline")

    q: float = Field(
        default=0.9, gt=0, lt=1, description="share of classifiers that the bound must cover: a number between 0 and 1"
    )
    eta: float | None = Field(
        default=None,
        ge=0,
        description="L2 radius of the bound, by default the largest recorded, which must be at least a fifth of sigma: "
        "0 or more",
    )
    relative: bool = Field(
        default=False,
        description="whether eta and sigma are in root mean squares of each weight tensor, or absolute: true or false",
    )
    alpha: float = Field(
        default=0.01, gt=0, lt=0.5, description="largest failure probability that counts: a number between 0 and 0.5"
    )
    bound: Literal["holdout", "population"] = Field(
        default="holdout",
        description="of accuracy on the clean holdout, or on what it was drawn from: holdout or population",
    )
    recipe: Recipe = Field(
        default=WORST,
        description=f"value of --surrogate-recipe that counts; worst covers all but pst: one of "
        f"{', '.join(get_args(Recipe))}",
    )
    max_learnability: Share | None = Field(default=None, description="largest bound that passes: a number from 0 to 1")
    min_draws: int | None = Field(
        default=None, ge=1, description="fewest draws behind the bound: a whole number from 1"
    )
    min_baseline: Share | None = Field(
        default=None, description="the clean baseline's bound must reach this: a number from 0 to 1"
    )
    max_sigma: float | None = Field(default=None, gt=0, description="largest weight noise that counts: above 0")
    min_epochs: float = Field(
        default=SHORTEST, gt=0, description="fewest passes of the surrogates' training: a number above 0"
    )
    min_test_images: int | None = Field(
        default=None, ge=1, description="fewest clean images behind the bound: a whole number from 1"
    )
    max_looks: int = Field(
        default=10, ge=1, description="most certifications of the same files that count: a whole number from 1"
    )


class AttackRules(_Section):
    """Limits on one attack."""

    max_accuracy: Share | None = Field(
        default=None, description="highest clean accuracy that passes: a number from 0 to 1"
    )
    max_recovered: Share | None = Field(
        default=None, description="largest recovered share that passes: a number from 0 to 1"
    )


class AuditRules(AttackRules):
    """Limits on every attack of a suite, and on single attacks."""

    LIMITS = ("suite", "max_accuracy", "max_recovered", "attacks", "min_epochs", "min_clean_accuracy")

    suite: Literal[tuple(SUITES)] | None = Field(  # type: ignore[valid-type]
        default=None, description=f"attacks that must be recorded: one of {', '.join(SUITES)}"
    )
    attacks: dict[str, AttackRules] = Field(
        default={}, description="own limits of single attacks: attack names with limits"
    )
    min_epochs: float = Field(
        default=SHORTEST, gt=0, description="value of --epochs, the shortest training that counts: a number above 0"
    )
    min_seeds: int = Field(default=1, ge=1, description="fewest seeds of every attack: a whole number from 1")
    min_test_images: int | None = Field(
        default=None, ge=1, description="fewest clean images behind the accuracies: a whole number from 1"
    )
    min_clean_accuracy: Share | None = Field(
        default=None, description="what the clean line must reach: a number from 0 to 1"
    )

    def limits_of(self, attack: str) -> dict[str, float]:
        """The limits of one attack by their names; its own replace the common ones."""
        common = {name: getattr(self, name) for name in AttackRules.model_fields}
        own = self.attacks[attack].model_dump(exclude_none=True) if attack in self.attacks else {}
        return {name: limit for name, limit in (common | own).items() if limit is not None}


class ImageRules(_Section):
    """Limits on the released files."""

    LIMITS = ("min_coverage", "max_linf", "min_ssim")

    min_coverage: Share | None = Field(
        default=None, description="share of the files in the folder that are protected: a number from 0 to 1"
    )
    max_linf: int | None = Field(
        default=None, ge=0, le=255, description="largest change of a pixel: whole levels from 0 to 255"
    )
    min_ssim: float | None = Field(
        default=None, ge=-1, le=1, description="similarity of every measured file: a number from -1 to 1"
    )


def _as_date(value: object) -> object:
    """A date that was quoted in the file; anything else is left to the strict check."""
    try:
        return date.fromisoformat(value) if isinstance(value, str) else value
    except ValueError:
        return value


class Waiver(_Section):
    """A failing or unmeasured rule that is accepted for a while."""

    rule: str = Field(
        min_length=1,
        pattern=r"^(certify|audit|images)(\.|$)",
        description="name of a rule or of a group of them: one that starts with certify, audit or images, such as "
        "audit.jpeg",
    )
    reason: str = Field(min_length=1, pattern=r"\S", description="why: a sentence")
    expires: Annotated[date, BeforeValidator(_as_date)] = Field(
        description="last day of the waiver: a date such as 2027-01-31"
    )

    def covers(self, rule: str) -> bool:
        """Whether this is a waiver of `rule` or of a group that it belongs to."""
        return rule == self.rule or rule.startswith(self.rule + ".")


RULES = ("certify", "audit", "images")


class Policy(_Section):
    """A policy file; it has at least one section of rules."""

    model_config = ConfigDict(json_schema_extra={"anyOf": [{"required": [name]} for name in RULES]})
    LIMITS = RULES

    version: Literal[1] = Field(description="version of the policy's format: 1")
    certify: CertifyRules | None = Field(default=None, description="limits on the certificate: a section of keys")
    audit: AuditRules | None = Field(default=None, description="limits on the attacks: a section of keys")
    images: ImageRules | None = Field(default=None, description="limits on the files: a section of keys")
    waivers: tuple[Waiver, ...] = Field(
        default=(), strict=False, description="accepted failures: a list of rule, reason and expires"
    )
