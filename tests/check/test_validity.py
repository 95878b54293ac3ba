import json
from dataclasses import replace
from typing import Any

import pytest
from helpers import FIGURES, RecordedRelease

from pueprotect.audit import flags as audit_flags
from pueprotect.certify import flags as certify_flags
from pueprotect.certify.certificate import usual_radii
from pueprotect.check import validity
from pueprotect.check.evidence import read_evidence
from pueprotect.check.policy import AuditRules, CertifyRules
from pueprotect.check.validity import Condition, audit_conditions, certificate_conditions, reaches, stays_below
from pueprotect.release.audits import AuditRecord


@pytest.mark.parametrize(("observed", "met"), [(15.0, True), (14.9, False), (16.0, True), (None, False)])
def test_an_amount_may_reach_its_limit_and_an_unknown_one_does_not_count(observed: float | None, met: bool) -> None:
    found = reaches("rule", observed, 15.0, "epochs:", ("--epochs", "15"))
    assert found == Condition(
        "rule", met, f"epochs: {'unknown' if observed is None else f'{observed:g}'}, at least 15 wanted", observed,
        15.0, "at least", ("--epochs", "15"),
    )  # fmt: skip


@pytest.mark.parametrize(("observed", "met"), [(3, True), (4, False), (0, True), (None, False)])
def test_an_amount_may_not_exceed_its_limit_and_an_unknown_one_does_not_count(observed: int | None, met: bool) -> None:
    found = stays_below("rule", observed, 3, "looks:", None)
    assert (found.met, found.observed, found.comparison, found.cure) == (met, observed, "at most", None)
    assert found.reason == f"looks: {'unknown' if observed is None else observed}, the limit 3"


def of_certificate(evidence: RecordedRelease, *, own: bool = True, **rules: Any) -> dict[str, Condition]:
    found = read_evidence(evidence.out).certificate
    assert found is not None
    made = CertifyRules.model_validate({"eta": 0.003, "max_learnability": 0.5} | rules)
    return {condition.rule: condition for condition in certificate_conditions(made, found, own=own)}


def of_audit(evidence: RecordedRelease, **rules: Any) -> dict[str, Condition]:
    made = AuditRules.model_validate({"max_accuracy": 0.5} | rules)
    return {condition.rule: condition for condition in audit_conditions(made, read_evidence(evidence.out))}


def test_good_evidence_meets_every_condition(evidence: RecordedRelease) -> None:
    assert {rule for rule, condition in of_certificate(evidence).items() if condition.met} == {
        "certify.recipe", "certify.min_epochs", "certify.max_looks", "certify.baseline",
    }  # fmt: skip
    assert {rule: condition.met for rule, condition in of_audit(evidence).items()} == {
        "audit.min_epochs": True, "audit.clean_line": True,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("made", "wanted", "met"),
    [("worst", "worst", True), ("plain", "plain", True), ("worst", "plain", True), ("worst", "pst", False),
     ("plain", "worst", False), ("plain", "online", False), (None, "worst", False), (None, "plain", False)],
)  # fmt: skip
def test_the_most_learnable_recipe_stands_for_those_it_was_chosen_among(
    made: str | None, wanted: str, met: bool, evidence: RecordedRelease
) -> None:
    evidence.edit("certificate.json", lambda data: data.update(surrogate_recipe=made))
    assert of_certificate(evidence, recipe=wanted)["certify.recipe"].met is met


@pytest.mark.parametrize(("bound", "met"), [(0.4399, False), (0.4401, True), (0.8, True)])
def test_the_baseline_must_lie_a_fifth_of_the_way_above_chance(
    bound: float, met: bool, evidence: RecordedRelease
) -> None:
    """Chance is 0.3."""

    def change(data: Any) -> None:
        for point in data["baseline"]["curve"]:
            point.update(certified_learnability=bound, population=bound)

    evidence.edit("certificate.json", change)
    found = of_certificate(evidence, max_learnability=0.4)["certify.baseline"]
    assert (found.met, found.observed, found.limit) == (met, bound, pytest.approx(0.44))
    assert of_certificate(evidence, max_learnability=bound)["certify.baseline"].met is False, "it passes the limit"


def test_the_bound_that_the_policy_limits_counts_for_the_baseline_too(evidence: RecordedRelease) -> None:
    def change(data: Any) -> None:
        for point in data["baseline"]["curve"]:
            point.update(population=0.95)

    evidence.edit("certificate.json", change)
    assert of_certificate(evidence, bound="population", max_learnability=0.9)["certify.baseline"].met
    assert not of_certificate(evidence, max_learnability=0.9)["certify.baseline"].met


def test_where_no_originals_are_known_no_command_makes_a_baseline(evidence: RecordedRelease) -> None:
    evidence.edit("certificate.json", lambda data: data.update(baseline=None))
    assert of_certificate(evidence)["certify.baseline"].cure == ()
    foreign = of_certificate(evidence, own=False)["certify.baseline"]
    assert foreign.cure is None
    assert "waive it" in foreign.reason


def test_looks_that_were_taken_cannot_be_taken_back(evidence: RecordedRelease) -> None:
    evidence.edit("certificate.json", lambda data: data.update(looks=4))
    assert of_certificate(evidence, max_looks=4)["certify.max_looks"].met
    assert of_certificate(evidence, max_looks=3)["certify.max_looks"].cure is None
    evidence.edit("certificate.json", lambda data: data.update(looks=None))
    unknown = of_certificate(evidence)["certify.max_looks"]
    assert (unknown.met, unknown.cure) == (False, ())


def test_without_a_radius_in_the_policy_the_largest_is_no_smaller_than_the_usual_ones(
    evidence: RecordedRelease,
) -> None:
    assert usual_radii(1.0)[0] == validity.SMALLEST_RADIUS
    found = of_certificate(evidence, eta=None)["certify.eta"]
    assert (found.met, found.observed, found.limit) == (False, 0.003, pytest.approx(0.01))
    assert "certify.eta" not in of_certificate(evidence)


def test_every_flag_that_voids_is_explained() -> None:
    known = {**audit_flags.FLAGS, **certify_flags.FLAGS, **validity.OWN_FLAGS}
    assert {*validity.OF_CERTIFICATE, *validity.OF_AUDIT, *validity.OF_ATTACK} <= known.keys()


@pytest.mark.parametrize("flag", [*validity.OF_CERTIFICATE, "online-unknown", "of-a-later-version"])
def test_a_flag_of_the_certificate_voids_it_if_it_should(flag: str, evidence: RecordedRelease) -> None:
    evidence.edit("certificate.json", lambda data: data.update(flags=[flag]))
    found = of_certificate(evidence).get(f"certify.flags.{flag}")
    if flag in validity.OF_CERTIFICATE:
        assert found is not None
        assert found.met is False
        assert ". " not in found.reason
    else:
        assert found is None


def test_the_remedy_is_in_the_units_of_the_policy(evidence: RecordedRelease) -> None:
    evidence.edit("certificate.json", lambda data: data.update(flags=["weak-baseline"]))
    for relative, option in ((False, "--sigma"), (True, "--relative-sigma")):
        found = of_certificate(evidence, relative=relative, max_sigma=0.01, max_learnability=0.9)
        assert found["certify.flags.weak-baseline"].cure == (option, "auto")
        assert found["certify.baseline"].cure == (option, "auto")
        assert found["certify.max_sigma"].cure == (option, "0.01")


def test_short_schedules_of_an_attack_are_its_own(evidence: RecordedRelease) -> None:
    """Some attacks train for a part of the passes; --epochs counts."""
    evidence.attack("weight-noise", epochs=6.0)
    assert of_audit(evidence, min_epochs=15)["audit.min_epochs"].met
    evidence.record("weight-noise", epochs=14.0)
    found = of_audit(evidence)["audit.min_epochs"]
    assert (found.met, found.observed, found.limit) == (False, 14.0, 15.0)
    assert found.cure == ("--attack", "weight-noise", "--epochs", "15")


@pytest.mark.parametrize(("images", "classes", "raised"), [(500, 10, False), (499, 1, True), (500, 26, True),
                                                            (520, 26, False)])  # fmt: skip
def test_few_test_images_are_few_in_all_or_for_each_class(
    images: int, classes: int, raised: bool, evidence: RecordedRelease
) -> None:
    for path in (evidence.vault / "audit").glob("*.json"):
        evidence.edit(f"audit/{path.name}", lambda data: data.update(test_images=images))
    found = replace(read_evidence(evidence.out), run={"classes": ["x"] * classes})
    rules = {condition.rule for condition in audit_conditions(AuditRules(max_accuracy=0.5), found)}
    assert ("audit.flags.small-test" in rules) is raised


def test_a_short_training_is_told_by_what_it_fitted(evidence: RecordedRelease) -> None:
    evidence.edit("audit/pst-resnet8.json", lambda data: data["result"]["details"].update(train_accuracy=0.5))
    found = of_audit(evidence)
    assert found["audit.flags.under-trained.pst"].cure == ("--attack", "pst", "--epochs", "30")
    assert "(pst (resnet8))" in found["audit.flags.under-trained.pst"].reason
    assert "audit.flags.under-trained.standard" not in found


def test_a_clean_line_that_still_rose_voids_the_audit(evidence: RecordedRelease) -> None:
    passes = [0.1 * n for n in range(1, 10)]
    evidence.edit("audit/clean-line-resnet8.json", lambda data: data["result"]["details"].update(epoch_accuracy=passes))
    assert of_audit(evidence)["audit.flags.clean-line-not-converged"].cure == ("--epochs", "30")


@pytest.mark.parametrize("flags", [("failed",), ("diverged",), ()])
def test_a_failed_attack_is_named_once(flags: tuple[str, ...], evidence: RecordedRelease) -> None:
    evidence.attack("pst", accuracy=None, best_accuracy=None, flags=flags)
    found = [rule for rule in of_audit(evidence) if rule.startswith("audit.flags.")]
    assert found == [f"audit.flags.{flags[0] if flags else 'failed'}.pst"]


def test_flags_of_a_record_count_wherever_they_are(evidence: RecordedRelease) -> None:
    path = evidence.vault / "audit/pst-resnet8.json"
    assert AuditRecord.model_validate_json(path.read_bytes()).model_extra is not None
    evidence.attack("pst", flags=["test-overlap"])
    assert "audit.flags.test-overlap.pst" in of_audit(evidence)
    evidence.attack("pst", flags=[])
    assert "audit.flags.test-overlap.pst" not in of_audit(evidence)
    evidence.edit("audit/pst-resnet8.json", lambda data: data.update(flags=["test-overlap"]))
    assert "audit.flags.test-overlap.pst" in of_audit(evidence)
    for name in FIGURES:
        evidence.attack(name, flags=["test-overlap"])
    assert [rule for rule in of_audit(evidence) if rule.startswith("audit.flags.")] == ["audit.flags.test-overlap"]


def test_a_weak_clean_line_of_other_images_voids_the_attacks_on_them_alone(evidence: RecordedRelease) -> None:
    """An attack on the held-out files has a clean line of its own, with other test images."""
    other = "sha256:" + "5" * 64
    evidence.record("pst", test_digest=other)
    line = json.loads((evidence.vault / "audit/clean-line-resnet8.json").read_text())
    line["key"]["test_digest"], line["result"]["accuracy"] = other, 0.35
    (evidence.vault / "audit/holdout-clean-line-resnet8.json").write_text(json.dumps(line))
    found = of_audit(evidence, max_accuracy=None, max_recovered=0.5)
    assert [rule for rule in found if rule.startswith("audit.flags.")] == ["audit.flags.weak-clean-line.pst"]
    assert of_audit(evidence, attacks={"pst": {"max_accuracy": 0.3}})["audit.clean_line"].met
    assert not of_audit(evidence)["audit.clean_line"].met


def test_the_clean_line_is_compared_with_the_largest_limit(evidence: RecordedRelease) -> None:
    rules = {"max_accuracy": 0.5, "attacks": {"pst": {"max_accuracy": 0.9}}}
    found = of_audit(evidence, **rules)["audit.clean_line"]
    assert (found.met, found.observed, found.limit) == (False, 0.9, 0.9)
    rules["attacks"] = {"pst": {"max_accuracy": 0.89}}
    assert of_audit(evidence, **rules)["audit.clean_line"].met
    assert "audit.clean_line" not in of_audit(evidence, max_accuracy=None, max_recovered=0.5)
