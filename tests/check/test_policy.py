from datetime import date
from typing import Any, get_args

import pytest
from pydantic import ValidationError

from pueprotect.certify.certificate import CertificateSettings
from pueprotect.certify.surrogates import RECIPES
from pueprotect.check.policy import WORST, AuditRules, CertifyRules, Policy, Recipe, Waiver
from pueprotect.learning.training import default_epochs


@pytest.mark.parametrize(
    ("section", "values"),
    [("certify", {"q": 0.9}), ("certify", {"eta": 0.1, "alpha": 0.05}), ("audit", {}), ("audit", {"attacks": {}}),
     ("certify", {"recipe": "plain", "min_epochs": 20, "max_looks": 3}), ("audit", {"min_seeds": 3}), ("images", {})],
)  # fmt: skip
def test_a_section_that_limits_nothing_is_refused(section: str, values: dict[str, Any]) -> None:
    with pytest.raises(ValidationError, match="sets no limit"):
        Policy.model_validate({"version": 1, section: values})


def test_a_policy_without_a_rule_is_refused() -> None:
    waiver = {"rule": "audit", "reason": "known", "expires": date(2027, 1, 31)}
    for values in ({}, {"waivers": [waiver]}):
        with pytest.raises(ValidationError, match="sets no limit; add one of certify, audit, images"):
            Policy.model_validate({"version": 1} | values)


def test_a_silent_policy_asks_for_what_the_commands_do_by_themselves() -> None:
    rules = CertifyRules(max_learnability=0.5)
    settings = CertificateSettings()
    assert (rules.q, rules.alpha, rules.recipe) == (settings.q, settings.alpha, WORST)
    shortest = min(default_epochs(10**power) for power in range(1, 8))
    assert rules.min_epochs == AuditRules(max_accuracy=0.5).min_epochs == shortest
    assert rules.max_looks == 10


def test_a_policy_may_name_every_recipe() -> None:
    assert set(get_args(Recipe)) == {WORST, *RECIPES}


@pytest.mark.parametrize(
    "wrong",
    [{"version": 2}, {"audit": {"max_accuracy": 1.1}}, {"audit": {"max_accuracy": "0.5"}}, {"images": {"linf": 8}},
     {"certify": {"min_draws": 0}}, {"certify": {"min_draws": 10, "q": 1.0}},
     {"certify": {"min_draws": 10, "recipe": "best"}}, {"certify": {"min_draws": 10, "max_sigma": 0}},
     {"certify": {"min_draws": 10, "min_epochs": 0}}, {"certify": {"min_draws": 10, "max_looks": 0}},
     {"audit": {"suite": "quick", "min_seeds": 0}}, {"audit": {"suite": "quick", "min_test_images": 0}},
     {"audit": {"suite": "nightly"}},
     {"images": {"min_ssim": float("nan")}}],
)  # fmt: skip
def test_unknown_keys_wrong_types_and_values_out_of_range_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        Policy.model_validate({"version": 1} | wrong)


def test_the_limits_of_an_attack_are_the_common_ones_unless_it_has_its_own() -> None:
    rules = AuditRules.model_validate(
        {"max_accuracy": 0.5, "max_recovered": 0.4, "attacks": {"pst": {"max_accuracy": 0.3}, "jpeg": {}}}
    )
    assert rules.limits_of("standard") == rules.limits_of("jpeg") == {"max_accuracy": 0.5, "max_recovered": 0.4}
    assert rules.limits_of("pst") == {"max_accuracy": 0.3, "max_recovered": 0.4}
    assert AuditRules(suite="quick").limits_of("pst") == {}, "no limit, which is not a limit of None"


def test_a_policy_cannot_be_changed_once_it_is_read() -> None:
    policy = Policy.model_validate({"version": 1, "images": {"max_linf": 8}})
    with pytest.raises(ValidationError, match="frozen"):
        policy.images.max_linf = 99  # type: ignore[union-attr, misc]


@pytest.mark.parametrize(
    ("rule", "covered"),
    [("audit.pst", True), ("audit.pst.max_accuracy", True), ("audit.pst-colour", False), ("audit", False)],
)
def test_a_waiver_covers_its_rule_and_the_rules_below_it(rule: str, covered: bool) -> None:
    waiver = Waiver.model_validate({"rule": "audit.pst", "reason": "known", "expires": "2027-01-31"})
    assert waiver.expires == date(2027, 1, 31), "a quoted date is a date"
    assert waiver.covers(rule) is covered


@pytest.mark.parametrize("change", [{"rule": "data.digest"}, {"reason": "  "}, {"expires": "soon"}, {"until": 1}])
def test_a_waiver_needs_a_rule_of_the_policy_a_reason_and_a_date(change: dict[str, Any]) -> None:
    good = {"rule": "audit", "reason": "known", "expires": date(2027, 1, 31)}
    assert Waiver.model_validate(good).covers("audit.pst")
    with pytest.raises(ValidationError):
        Waiver.model_validate(good | change)
