from collections.abc import Callable
from dataclasses import replace
from datetime import date
from pathlib import Path
from typing import Any

import pytest
from helpers import RecordedRelease
from hypothesis import given
from hypothesis import strategies as st

from pueprotect.check.evidence import Evidence, read_evidence
from pueprotect.check.policy import AuditRules, CertifyRules, Policy, Waiver
from pueprotect.check.verdicts import (
    Verdict,
    apply_waivers,
    at_least,
    at_most,
    attack_verdicts,
    certificate_verdict,
    command_of,
    counted,
    exit_code,
    judge,
    only_regressions,
)
from pueprotect.errors import ExitCode
from pueprotect.release.audits import AuditRow
from pueprotect.release.certificates import Certificate
from pueprotect.release.digests import Verification

TODAY = date(2026, 6, 1)


def row(attack: str, arch: str, accuracy: float, recovered: float | None) -> AuditRow:
    return AuditRow(
        attack=attack, arch=arch, accuracy=accuracy, best_accuracy=accuracy, epochs=15, seconds=1.0, details={},
        recovered=recovered,
    )  # fmt: skip


@pytest.mark.parametrize(("observed", "passed"), [(0.3, True), (0.31, False), (0.0, True), (None, None)])
def test_a_figure_may_reach_its_limit_and_not_exceed_it(observed: float | None, passed: bool | None) -> None:
    verdict = at_most("audit.max_accuracy", observed, 0.3, "accuracy of standard")
    assert verdict.passed is passed
    assert (verdict.rule, verdict.observed, verdict.limit) == ("audit.max_accuracy", observed, 0.3)
    assert verdict.reason.startswith("accuracy of standard is ")


@pytest.mark.parametrize(("observed", "passed"), [(0.3, True), (0.29, False), (1.0, True), (None, None)])
def test_a_figure_may_fall_to_its_limit_and_not_below(observed: float | None, passed: bool | None) -> None:
    assert at_least("images.min_coverage", observed, 0.3, "coverage").passed is passed


@given(st.lists(st.sampled_from([True, False, None])))
def test_a_failure_comes_before_a_missing_figure_and_that_before_a_pass(outcomes: list[bool | None]) -> None:
    code = exit_code(Verdict("rule", outcome, None, 0.5, "") for outcome in outcomes)
    if any(outcome is False for outcome in outcomes):
        assert code == ExitCode.FAIL == 1
    elif any(outcome is None for outcome in outcomes):
        assert code == ExitCode.INCONCLUSIVE == 3
    else:
        assert code == ExitCode.PASS == 0


def verdicts_on(records: Evidence, **sections: Any) -> dict[str, Verdict]:
    policy = Policy.model_validate({"version": 1, **sections})
    return {verdict.rule: verdict for verdict in judge(policy, records, TODAY)}


def test_a_bound_at_a_larger_radius_and_share_counts(evidence: RecordedRelease) -> None:
    def rising(data: Any) -> None:
        for point, bound in zip(data["curve"], (0.3, 0.5), strict=True):
            point.update(certified_learnability=bound, population=bound)

    evidence.edit("certificate.json", rising)
    records = read_evidence(evidence.out)

    def bound(**rules: Any) -> Verdict:
        return verdicts_on(records, certify={"max_learnability": 0.4, **rules})["certify.max_learnability"]

    assert bound(eta=0.0).observed == 0.3
    assert bound(eta=0.001).observed == 0.5, "a smaller radius takes the bound of the next larger one"
    assert bound().observed == 0.5, "without eta the largest radius counts"
    assert bound(eta=0.0, q=0.8).passed is True
    assert bound(eta=0.0).passed is True
    assert bound(eta=0.003).passed is False


@pytest.mark.parametrize(
    ("rules", "part", "command"),
    [
        ({"eta": 0.5}, "does not reach eta 0.5", "--eta 0.5"),
        ({"q": 0.99}, "covers q 0.9", "--q 0.99"),
        ({"alpha": 0.001}, "probability 0.01", "--alpha 0.001"),
    ],
)
def test_a_certificate_that_does_not_answer_the_policys_question_is_inconclusive(
    rules: dict[str, float], part: str, command: str, evidence: RecordedRelease
) -> None:
    found = verdicts_on(read_evidence(evidence.out), certify={"max_learnability": 1.0, **rules})
    verdict = found["certify.max_learnability"]
    assert verdict.passed is None
    assert part in verdict.reason
    assert verdict.command is not None
    assert verdict.command.startswith(f"pueprotect certify {evidence.out}")
    assert command in verdict.command


def test_abstention_names_the_draws_that_are_needed(evidence: RecordedRelease) -> None:
    def abstain(data: Any) -> None:
        data["curve"][-1].update(certified_learnability=None, rank=None, draws_needed=4321)

    evidence.edit("certificate.json", abstain)
    verdict = verdicts_on(read_evidence(evidence.out), certify={"max_learnability": 1.0})["certify.max_learnability"]
    assert verdict.passed is None
    assert verdict.command is not None
    assert "--draws 4321" in verdict.command


def test_a_policy_may_ask_for_the_bound_of_the_population(evidence: RecordedRelease) -> None:
    def populate(data: Any) -> None:
        for curve, figure in ((data["curve"], 0.6), (data["baseline"]["curve"], 0.9)):
            for point in curve:
                point["population"] = figure

    rules = {"max_learnability": 0.5, "min_baseline": 0.85}
    evidence.edit("certificate.json", populate)
    records = read_evidence(evidence.out)
    held = verdicts_on(records, certify=rules)
    assert [held[f"certify.{name}"].observed for name in rules] == [0.42, 0.8]
    held = verdicts_on(records, certify=rules | {"bound": "population"})
    assert [held[f"certify.{name}"].passed for name in rules] == [False, True]
    assert "for the population is 60.0%" in held["certify.max_learnability"].reason
    evidence.edit("certificate.json", lambda data: [point.pop("population") for point in data["curve"]])
    older = verdicts_on(read_evidence(evidence.out), certify=rules | {"bound": "population"})
    assert older["certify.max_learnability"].passed is None, "an older certificate does not have that bound"


def test_draws_and_baseline_must_reach_their_limits(evidence: RecordedRelease) -> None:
    rules = {"min_draws": 1000, "min_baseline": 0.8}
    found = verdicts_on(read_evidence(evidence.out), certify=rules)
    assert found["certify.min_draws"].passed is True
    assert found["certify.min_baseline"].passed is True
    evidence.edit("certificate.json", lambda data: data.update(draws=999, baseline=None))
    found = verdicts_on(read_evidence(evidence.out), certify=rules)
    assert found["certify.min_draws"].passed is None
    assert found["certify.min_baseline"].passed is None
    assert "--baseline" in str(found["certify.min_baseline"].command)


def test_own_limits_replace_common_ones_and_the_worst_network_counts() -> None:
    rules = AuditRules.model_validate({"max_accuracy": 0.5, "attacks": {"pst": {"max_accuracy": 0.3}}})
    lines = [row("pst", "cnn", 0.25, None), row("pst", "resnet8", 0.4, None)]
    (verdict,) = attack_verdicts(rules, lines)
    assert (verdict.rule, verdict.observed, verdict.limit, verdict.passed) == (
        "audit.pst.max_accuracy",
        0.4,
        0.3,
        False,
    )
    assert "resnet8" in verdict.reason
    (verdict,) = attack_verdicts(rules, [row("standard", "cnn", 0.4, None)])
    assert verdict.passed is True


def test_an_unknown_figure_of_one_network_is_not_outvoted_by_another() -> None:
    rules = AuditRules(max_recovered=0.5)
    lines = [row("pst", "cnn", 0.2, None), row("pst", "resnet8", 0.2, 0.1)]
    (verdict,) = attack_verdicts(rules, lines)
    assert verdict.passed is None


def test_a_suite_must_be_complete(evidence: RecordedRelease) -> None:
    whole = verdicts_on(read_evidence(evidence.out), audit={"suite": "quick"})
    assert whole["audit.suite"].passed is True
    (evidence.vault / "audit/pst-resnet8.json").unlink()
    lacking = verdicts_on(read_evidence(evidence.out), audit={"suite": "quick"})
    assert "audit.suite" not in lacking
    assert lacking["audit.pst"].passed is None
    assert lacking["audit.pst"].command == f"pueprotect audit {evidence.out} --suite quick --resume"
    for path in (evidence.vault / "audit").iterdir():
        path.unlink()
    none = verdicts_on(read_evidence(evidence.out), audit={"suite": "quick", "attacks": {"jpeg": {"max_accuracy": 1}}})
    assert [rule for rule in none if rule.startswith("audit")] == ["audit.suite"]
    assert none["audit.suite"].passed is None


def test_a_suite_leaves_out_attacks_on_other_methods(evidence: RecordedRelease) -> None:
    assert "audit.known-code" not in verdicts_on(read_evidence(evidence.out), audit={"suite": "standard-v2"})
    hardened = replace(read_evidence(evidence.out), run={"method": "hardened"})
    assert verdicts_on(hardened, audit={"suite": "standard-v2"})["audit.known-code"].passed is None


def test_short_trainings_and_a_weak_clean_line_do_not_count(evidence: RecordedRelease) -> None:
    rules = {"min_epochs": 15, "min_clean_accuracy": 0.9}
    found = verdicts_on(read_evidence(evidence.out), audit=rules)
    assert found["audit.min_epochs"].passed is True
    assert found["audit.min_clean_accuracy"].passed is True
    evidence.record("pst", epochs=14.0)
    evidence.attack("clean-line", accuracy=0.89)
    found = verdicts_on(read_evidence(evidence.out), audit=rules)
    assert found["audit.min_epochs"].passed is None
    assert "--attack pst --epochs 15" in str(found["audit.min_epochs"].command)
    assert found["audit.min_clean_accuracy"].passed is False


def test_files_that_are_not_protected_lower_the_coverage(evidence: RecordedRelease) -> None:
    rules = {"min_coverage": 1.0}
    assert verdicts_on(read_evidence(evidence.out), images=rules)["images.min_coverage"].passed is True
    (evidence.out / "cat/stray.png").write_bytes((evidence.out / "cat/000.png").read_bytes())
    found = verdicts_on(read_evidence(evidence.out), images=rules)
    assert found["images.min_coverage"].observed == pytest.approx(60 / 61)
    assert found["images.min_coverage"].passed is False
    assert "cat/stray.png" in found["images.min_coverage"].reason
    assert found["data.digest"].passed is None


def test_a_file_without_noise_is_not_covered(evidence: RecordedRelease) -> None:
    records = read_evidence(evidence.out)
    bare = records.rows[0].model_copy(update={"linf": 0})
    changed = replace(records, rows=(bare, *records.rows[1:]))
    assert verdicts_on(changed, images={"min_coverage": 1.0})["images.min_coverage"].passed is False


@pytest.mark.parametrize(("rule", "field", "values", "limit"), [
    ("max_linf", "linf", (8, 9), 8), ("min_ssim", "ssim", (0.9, 0.89), 0.9),
])  # fmt: skip
def test_the_worst_file_decides(
    rule: str, field: str, values: tuple[float, float], limit: float, evidence: RecordedRelease
) -> None:
    records = read_evidence(evidence.out)
    for value, passed in zip(values, (True, False), strict=True):
        rows = tuple(row.model_copy(update={field: value if n == 7 else limit}) for n, row in enumerate(records.rows))
        verdict = verdicts_on(replace(records, rows=rows), images={rule: limit})[f"images.{rule}"]
        assert verdict.passed is passed
    assert rows[7].path in verdict.reason
    unmeasured = tuple(row.model_copy(update={field: None}) for row in records.rows)
    assert verdicts_on(replace(records, rows=unmeasured), images={rule: limit})[f"images.{rule}"].passed is None


def foreign_certificate(evidence: RecordedRelease) -> None:
    evidence.edit("certificate.json", lambda data: data.update(data_digest="sha256:" + "a" * 64))


def foreign_attacks(evidence: RecordedRelease) -> None:
    for path in (evidence.vault / "audit").iterdir():
        evidence.edit(f"audit/{path.name}", lambda data: data["key"].update(data_digest="sha256:" + "a" * 64))


@pytest.mark.parametrize(("spoil", "rule", "command"), [
    (foreign_certificate, "certify.max_learnability", "pueprotect certify"),
    (foreign_attacks, "audit.suite", "pueprotect audit"),
])  # fmt: skip
def test_evidence_for_other_files_is_inconclusive_even_if_it_would_pass(
    spoil: Callable[[RecordedRelease], None], rule: str, command: str, evidence: RecordedRelease
) -> None:
    spoil(evidence)
    sections = {"certify": {"max_learnability": 1.0}, "audit": {"suite": "quick", "max_accuracy": 1.0}}
    found = verdicts_on(read_evidence(evidence.out), **sections)
    assert found[rule].passed is None
    assert "for other files than these" in found[rule].reason
    assert str(found[rule].command).startswith(command)
    assert exit_code(found.values()) == ExitCode.INCONCLUSIVE


def test_a_vault_elsewhere_is_named_in_the_command(evidence: RecordedRelease, tmp_path: Path) -> None:
    moved = evidence.vault.rename(tmp_path / "my vault")
    (moved / "certificate.json").unlink()
    found = verdicts_on(read_evidence(evidence.out, moved), certify={"max_learnability": 1.0})
    assert f"--vault '{moved}'" in str(found["certify.max_learnability"].command)


def waiver(rule: str, expires: date) -> Waiver:
    return Waiver(rule=rule, reason="known", expires=expires)


FAILED = Verdict("audit.jpeg.max_accuracy", False, 0.8, 0.4, "it fails", "at most")


@pytest.mark.parametrize("rule", ["audit.jpeg.max_accuracy", "audit.jpeg", "audit"])
@pytest.mark.parametrize("passed", [False, None])
def test_a_valid_waiver_passes_the_rules_that_it_covers(rule: str, passed: bool | None) -> None:
    verdict = replace(FAILED, passed=passed)
    (found,) = apply_waivers([verdict], [waiver(rule, TODAY)], TODAY)
    assert found.passed is True
    assert found.waived == f"known (until {TODAY})"


@pytest.mark.parametrize("rule", ["audit.jpe", "audit.jpeg.max_recovered", "certify"])
def test_a_waiver_covers_no_other_rule(rule: str) -> None:
    (found,) = apply_waivers([FAILED], [waiver(rule, TODAY)], TODAY)
    assert found == FAILED


def test_an_expired_waiver_fails_even_when_its_rule_passes() -> None:
    passing = replace(FAILED, passed=True)
    for verdict in (passing, FAILED):
        found = apply_waivers([verdict], [waiver("audit.jpeg", date(2026, 5, 31))], TODAY)
        assert found[0] == verdict
        assert (found[1].rule, found[1].passed) == ("waivers.audit.jpeg", False)
        assert exit_code(found) == ExitCode.FAIL


def before(passed: bool | None, observed: float | None, rule: str = FAILED.rule) -> list[Verdict]:
    return [Verdict(rule, passed, observed, 0.4, "")]


@pytest.mark.parametrize(
    ("previous", "passed"),
    [
        (before(False, 0.8), True),
        (before(False, 0.9), True),
        (before(False, 0.79), False),
        (before(True, 0.3), False),
        (before(None, None), False),
        (before(False, 0.8, "audit.pst.max_accuracy"), False),
    ],
)
def test_only_regressions_fail(previous: list[Verdict], passed: bool) -> None:
    (found,) = only_regressions([FAILED], previous)
    assert found.passed is passed
    assert found.known is passed


def test_worse_means_lower_for_a_figure_that_must_be_high() -> None:
    low = Verdict(FAILED.rule, False, 0.2, 0.4, "", "at least")
    assert only_regressions([low], before(False, 0.2))[0].passed is True
    assert only_regressions([low], before(False, 0.3))[0].passed is False


def test_a_baseline_excuses_no_missing_evidence() -> None:
    unknown = replace(FAILED, passed=None, observed=None)
    assert only_regressions([unknown], before(False, 0.9)) == (unknown,)
    assert only_regressions([unknown], before(None, None)) == (unknown,)


# --- whole verdicts: each figure, sentence and command --------------------------------------------------------------


@pytest.mark.parametrize(
    ("judged", "comparison", "limit"),
    [(at_most, "at most", "the limit 30.0%"), (at_least, "at least", "at least 30.0% wanted")],
)
def test_a_share_is_told_with_its_limit(judged: Callable[..., Verdict], comparison: Any, limit: str) -> None:
    known = judged("images.x", 0.3, 0.3, "coverage", "pueprotect x")
    assert known == Verdict("images.x", True, 0.3, 0.3, f"coverage is 30.0%, {limit}", comparison)
    unknown = judged("images.x", None, 0.3, "coverage", "pueprotect x")
    assert unknown == Verdict("images.x", None, None, 0.3, "coverage is not known", comparison, "pueprotect x")


@pytest.mark.parametrize(("number", "text"), [(0, "0 files"), (1, "1 file"), (2, "2 files")])
def test_one_is_no_plural(number: int, text: str) -> None:
    assert counted(number, "file") == text


def test_an_expired_waiver_names_its_day() -> None:
    (found,) = apply_waivers([], [waiver("audit.jpeg", date(2026, 5, 31))], TODAY)
    reason = "the waiver expired on 2026-05-31: renew or remove it"
    assert found == Verdict("waivers.audit.jpeg", False, None, None, reason)


@pytest.mark.parametrize(
    ("now", "earlier", "known"), [(None, None, True), (None, 0.5, False), (0.5, None, False), (0.5, 0.5, True)]
)
def test_a_failure_without_a_figure_is_worse_than_one_with_it(
    now: float | None, earlier: float | None, known: bool
) -> None:
    (found,) = only_regressions([replace(FAILED, observed=now)], before(False, earlier))
    assert (found.passed, found.known) == (known, known)


def test_files_as_released_and_others_are_counted(evidence: RecordedRelease) -> None:
    records = read_evidence(evidence.out)
    same = Verification((), (), ())

    def data(**changes: Any) -> Verdict:
        return verdicts_on(replace(records, **changes), images={"max_linf": 8})["data.digest"]

    assert data() == Verdict("data.digest", True, None, None, "60 files, all as released")
    assert data(rows=records.rows[:1]).reason == "1 file, all as released"
    odd = data(difference=Verification(("a",), ("b", "c"), ("d",)))
    reason = (
        "files are not as released (1 missing, such as a; 2 added, such as b; 1 changed, such as d), so the evidence "
        "is for other files than these; restore them"
    )
    command = f"pueprotect verify {evidence.out}"
    assert odd == Verdict("data.digest", None, None, None, reason, command=command)
    assert "(1 missing, such as a)" in data(difference=replace(same, missing=("a",))).reason
    foreign = data(own=False)
    assert foreign == Verdict(
        "data.digest", True, None, None, "no manifest: the evidence must be for the files as they are"
    )


def certify_commands(records: Evidence, **rules: Any) -> str | None:
    missing = replace(records, certificate=None)
    return verdicts_on(missing, certify={"max_learnability": 0.5, **rules})["certify.max_learnability"].command


def test_the_command_has_the_options_of_the_policy(evidence: RecordedRelease) -> None:
    records, start = read_evidence(evidence.out), f"pueprotect certify {evidence.out}"
    assert certify_commands(records) == f"{start} --baseline"
    assert certify_commands(records, q=0.95) == f"{start} --q 0.95 --baseline"
    assert certify_commands(records, eta=0.01) == f"{start} --eta 0.01 --baseline"
    assert certify_commands(records, alpha=0.001) == f"{start} --alpha 0.001 --baseline"
    assert certify_commands(records, recipe="pst") == f"{start} --surrogate-recipe pst --baseline"
    assert certify_commands(records, relative=True) == f"{start} --relative-sigma auto --baseline"
    assert certify_commands(records, min_draws=7) == f"{start} --draws 7 --baseline"
    foreign = replace(records, own=False)
    assert certify_commands(foreign) == f"{start} --test CLEAN_IMAGES"
    assert command_of("audit", foreign, "--test", "X") == f"pueprotect audit {evidence.out} --test X"
    assert command_of("audit", records, "--seed", "1") == f"pueprotect audit {evidence.out} --seed 1"
    elsewhere = replace(records, vault=evidence.vault / "x")
    assert command_of("audit", elsewhere) == f"pueprotect audit {evidence.out} --vault {evidence.vault / 'x'}"


def test_the_larger_of_the_wanted_and_the_needed_draws_is_in_the_command(evidence: RecordedRelease) -> None:
    def need(data: Any) -> None:
        for point in data["curve"]:
            point.update(draws_needed=44)

    evidence.edit("certificate.json", need)
    records = read_evidence(evidence.out)
    for wanted, draws in ((1001, 1001), (43, 44)):
        found = verdicts_on(records, certify={"min_draws": wanted, "max_sigma": 0.001})
        assert f"--draws {draws} --baseline --sigma 0.001" in str(found["certify.max_sigma"].command)
    evidence.edit("certificate.json", lambda data: [point.update(draws_needed=None) for point in data["curve"]])
    bare = verdicts_on(read_evidence(evidence.out), certify={"max_learnability": 0.5, "max_sigma": 0.001})
    assert bare["certify.max_sigma"].command == f"pueprotect certify {evidence.out} --baseline --sigma 0.001"


def test_why_a_certificate_does_not_count_is_one_sentence(evidence: RecordedRelease) -> None:
    records = read_evidence(evidence.out)
    found = records.certificate
    assert found is not None

    def why(certificate: Certificate | None, **rules: Any) -> str:
        policy = {"max_learnability": 0.5, "min_draws": 10, "eta": 0.003, **rules}
        given = verdicts_on(replace(records, certificate=certificate), certify=policy)
        verdicts = [verdict for rule, verdict in given.items() if rule != "data.digest"]
        assert [(v.rule, v.passed, v.observed, v.limit) for v in verdicts] == [
            ("certify.max_learnability", None, None, 0.5), ("certify.min_draws", None, None, 10),
        ]  # fmt: skip
        assert verdicts[0].reason == verdicts[1].reason
        assert verdicts[0].command == verdicts[1].command
        return verdicts[0].reason

    assert why(None) == "no certificate is recorded"
    other = found.model_copy(update={"data_digest": "sha256:" + "a" * 64})
    assert (
        why(other) == f"the certificate is for other files than these (sha256:aaaaaaaaaaaa, here {records.digest[:19]})"
    )
    assert why(found, q=0.95) == "the certificate covers q 0.9 of the classifiers, the policy asks for 0.95"
    assert why(found, alpha=0.001) == "the certificate may fail with probability 0.01, the policy allows 0.001"
    assert why(found, relative=True) == "the certificate's radii are absolute, the policy's relative to the weights"
    other = Certificate(**(dict(found) | {"relative": True}))
    assert why(other) == "the certificate's radii are relative to the weights, the policy's absolute"
    assert why(found, eta=0.5) == "the certificate does not reach eta 0.5"


def test_the_bound_is_told_with_its_radius(evidence: RecordedRelease) -> None:
    found = read_evidence(evidence.out).certificate
    assert found is not None
    rules = {"max_learnability": 0.5, "eta": 0.001}
    held = certificate_verdict(CertifyRules.model_validate(rules), found)
    reason = "certified learnability at eta 0.003 is 42.0%, the limit 50.0%"
    assert held == Verdict("certify.max_learnability", True, 0.42, 0.5, reason, "at most")
    whole = certificate_verdict(CertifyRules.model_validate(rules | {"bound": "population"}), found)
    assert whole.reason == "certified learnability at eta 0.003 for the population is 42.0%, the limit 50.0%"
    none = certificate_verdict(CertifyRules.model_validate(rules | {"eta": 0.5}), found, "pueprotect x")
    reason = "certified learnability at eta 0.5 is not known"
    assert none == Verdict("certify.max_learnability", None, None, 0.5, reason, "at most", "pueprotect x")


def test_a_condition_names_a_command_only_where_one_helps(evidence: RecordedRelease) -> None:
    evidence.edit("certificate.json", lambda data: data.update(looks=11, epochs=3.0))
    found = verdicts_on(read_evidence(evidence.out), certify={"max_learnability": 0.5, "eta": 0.003, "min_draws": 999})
    start = f"pueprotect certify {evidence.out} --eta 0.003 --draws 999 --baseline"
    assert found["certify.min_epochs"] == Verdict(
        "certify.min_epochs", None, 3.0, 15.0, "epochs of the surrogates: 3, at least 15 wanted", "at least",
        f"{start} --epochs 15",
    )  # fmt: skip
    assert found["certify.max_looks"].passed is None
    assert found["certify.max_looks"].command is None
    draws = "draws behind the bound: 1000, at least 999 wanted"
    assert found["certify.min_draws"] == Verdict("certify.min_draws", True, 1000, 999, draws, "at least")


def test_the_largest_of_several_seeds_decides_and_the_mean_is_told() -> None:
    rules = AuditRules(max_accuracy=0.5, max_recovered=0.5)
    seeds = [row("pst", "cnn", 0.2, 0.1), row("pst", "cnn", 0.6, 0.3), row("pst", "resnet8", 0.5, None)]
    accuracy, recovered = attack_verdicts(rules, seeds, "pueprotect x")
    reason = "accuracy of pst (cnn), mean 40.0% and largest of 2 seeds, is 60.0%, the limit 50.0%"
    assert accuracy == Verdict("audit.pst.max_accuracy", False, 0.6, 0.5, reason, "at most")
    reason = "share recovered by pst (resnet8) is not known"
    assert recovered == Verdict("audit.pst.max_recovered", None, None, 0.5, reason, "at most", "pueprotect x")
    (one,) = attack_verdicts(AuditRules(max_accuracy=0.5), seeds[2:])
    assert one.reason == "accuracy of pst (resnet8) is 50.0%, the limit 50.0%"
    (unknown,) = attack_verdicts(AuditRules(max_recovered=0.5), [row("pst", "cnn", 0.2, None), *seeds[:1]])
    assert unknown.reason == "share recovered by pst (cnn) is not known"


def test_recorded_and_missing_attacks_are_counted(evidence: RecordedRelease) -> None:
    records, start = read_evidence(evidence.out), f"pueprotect audit {evidence.out}"
    whole = verdicts_on(records, audit={"suite": "quick"})["audit.suite"]
    assert whole == Verdict("audit.suite", True, 6, 6, "all 6 attacks of quick are recorded", "at least")
    some = {"suite": "quick", "attacks": {"jpeg": {"max_accuracy": 0.5}}}
    lacking = verdicts_on(records, audit=some)["audit.jpeg"]
    assert lacking == Verdict(
        "audit.jpeg", None, None, None, "jpeg is not recorded for these files", command=f"{start} --attack jpeg"
    )
    none = replace(records, audit=())
    found = verdicts_on(none, audit={"suite": "quick"})["audit.suite"]
    command = f"{start} --suite quick --resume"
    assert found == Verdict("audit.suite", None, 0, 6, "no attack is recorded", "at least", command)
    found = verdicts_on(none, audit={"max_accuracy": 0.5})["audit.suite"]
    assert found == Verdict("audit.suite", None, 0, None, "no attack is recorded", "at least", f"{start} --resume")
    foreign_attacks(evidence)
    found = verdicts_on(read_evidence(evidence.out), audit={"max_accuracy": 0.5})["audit.suite"]
    assert found.reason == f"all {len(records.audit)} recorded attacks are for other files than these"


def test_a_condition_of_the_audit_names_its_command(evidence: RecordedRelease) -> None:
    records = read_evidence(evidence.out)
    found = verdicts_on(records, audit={"max_accuracy": 0.5, "min_seeds": 2})["audit.min_seeds"]
    assert found.command == f"pueprotect audit {evidence.out} --seeds 2"
    lineless = replace(records, audit=records.fresh)
    rules = {"max_accuracy": 0.01, "min_clean_accuracy": 0.9}
    clean = verdicts_on(lineless, audit=rules)["audit.min_clean_accuracy"]
    what = "accuracy of plain training on the clean originals is not known"
    command = f"pueprotect audit {evidence.out}"
    assert clean == Verdict("audit.min_clean_accuracy", None, None, 0.9, what, "at least", command)
    assert verdicts_on(lineless, audit=rules)["audit.pst.max_accuracy"].passed is False


def test_files_of_another_tool_have_no_records(evidence: RecordedRelease) -> None:
    foreign = replace(read_evidence(evidence.out), own=False)
    found = verdicts_on(foreign, images={"max_linf": 8, "min_coverage": 1.0})
    why = "pueprotect did not make this release, so its files have no records"
    assert found["images.max_linf"] == Verdict("images.max_linf", None, None, 8, why)
    assert found["images.min_coverage"] == Verdict("images.min_coverage", None, None, 1.0, why)


def test_the_worst_file_is_told_with_its_figure(evidence: RecordedRelease) -> None:
    records = read_evidence(evidence.out)
    worst = records.rows[7].model_copy(update={"linf": 9, "ssim": 0.5})
    rules = {"max_linf": 8, "min_ssim": 0.6}
    rows = (*(row.model_copy(update={"linf": 8, "ssim": 0.9}) for row in records.rows[:7]), worst)
    found = verdicts_on(replace(records, rows=rows), images=rules)
    reason = f"{worst.path} differs by 9 levels, the limit 8"
    assert found["images.max_linf"] == Verdict("images.max_linf", False, 9, 8, reason, "at most")
    reason = f"{worst.path} has SSIM 0.5000, at least 0.6 wanted"
    assert found["images.min_ssim"] == Verdict("images.min_ssim", False, 0.5, 0.6, reason, "at least")
    blank = tuple(row.model_copy(update={"linf": None, "ssim": None}) for row in records.rows)
    found = verdicts_on(replace(records, rows=blank), images=rules)
    for name, comparison in (("max_linf", "at most"), ("min_ssim", "at least")):
        expected = Verdict(f"images.{name}", None, None, rules[name], "no file was measured", comparison)  # type: ignore[arg-type]
        assert found[f"images.{name}"] == expected


def test_the_first_file_that_is_not_protected_is_named(evidence: RecordedRelease) -> None:
    records = read_evidence(evidence.out)

    def coverage(limit: float = 0.5, **changes: Any) -> Verdict:
        return verdicts_on(replace(records, **changes), images={"min_coverage": limit})["images.min_coverage"]

    whole = coverage()
    assert whole == Verdict(
        "images.min_coverage", True, 1.0, 0.5, "coverage is 100.0%, at least 50.0% wanted", "at least"
    )
    gap = Verification(("m",), ("z", "x", "y"), ("b", "a", "k", "w", "v", "u"))
    found = coverage(difference=gap)
    assert found.reason == "coverage is 84.1%, at least 50.0% wanted: a is not protected as recorded"
    assert found.observed == (63 - 10) / 63
    assert coverage(rows=()).observed == 0.0, "an empty release protects nothing"
