import json
from pathlib import Path

from jsonschema import Draft202012Validator
from junitparser import JUnitXml

from pueprotect.check.formats import ANNOTATIONS, CheckReport, as_github, as_json, as_junit, as_sarif, as_text
from pueprotect.check.policy import ImageRules, Policy
from pueprotect.check.policyfile import PolicyFile
from pueprotect.check.verdicts import Verdict

# The official schema as Microsoft ships it with its SARIF tools (npm: @microsoft/sarif-multitool-linux 5.7.0).
SARIF = json.loads((Path(__file__).parents[1] / "data/sarif-2.1.0.json").read_text())
DIGEST = "sha256:" + "0" * 64
PASSED = Verdict("data.digest", True, None, None, "all 60 files are as released")
FAILED = Verdict("audit.pst.max_accuracy", False, 0.6, 0.4, "accuracy of pst is 60.0%, the limit 40.0%", "at most")
UNKNOWN = Verdict("audit.jpeg", None, None, None, "jpeg is not recorded", command="pueprotect audit out --attack jpeg")
WAIVED = Verdict("audit.at.max_accuracy", True, 0.6, 0.4, "at is 60.0%", "at most", waived="known (until 2027-01-31)")
KNOWN = Verdict("images.min_ssim", True, 0.8, 0.9, "a,b:c%.png has\nSSIM 0.8", "at least", known=True)
ALL = (PASSED, FAILED, UNKNOWN, WAIVED, KNOWN)


def reported(*verdicts: Verdict) -> CheckReport:
    lines: dict[tuple[str | int, ...], int] = {("audit",): 3, ("audit", "max_accuracy"): 4, ("images", "min_ssim"): 7}
    file = PolicyFile(Path("my policy.yaml"), Policy(version=1, images=ImageRules(max_linf=8)), "f" * 64, lines)
    return CheckReport(file, "out", DIGEST, verdicts)


def test_text_has_a_line_for_each_rule_and_a_summary() -> None:
    lines = as_text(reported(PASSED, FAILED, UNKNOWN, WAIVED)).splitlines()
    assert [line[:4].strip() for line in lines[:4]] == ["pass", "FAIL", "?", "pass"]
    assert lines[2].endswith("run: pueprotect audit out --attack jpeg")
    assert lines[-1] == "out fails my policy.yaml: of 4 rules 1 failed, 1 inconclusive, 1 waived."


def test_json_carries_outcome_and_digests() -> None:
    data = json.loads(as_json(reported(PASSED, UNKNOWN)))
    assert (data["passed"], data["outcome"], data["data_digest"]) == (False, "inconclusive", DIGEST)
    assert data["verdicts"][1]["command"] == UNKNOWN.command


def test_junit_counts_failures_errors_and_skipped() -> None:
    document = JUnitXml.fromstring(as_junit(reported(*ALL)).encode())
    suite = next(iter(document))
    assert (suite.tests, suite.failures, suite.errors, suite.skipped) == (5, 1, 1, 2)
    cases = {case.name: case for case in suite}
    assert cases.keys() == {verdict.rule for verdict in ALL}
    assert "60.0%" in cases["audit.pst.max_accuracy"].result[0].message
    assert {case.classname for case in suite} == {"pueprotect.data", "pueprotect.audit", "pueprotect.images"}


def test_sarif_fits_the_official_schema() -> None:
    Draft202012Validator.check_schema(SARIF)
    validator = Draft202012Validator(SARIF)
    for report in (reported(*ALL), reported(PASSED), reported()):
        validator.validate(json.loads(as_sarif(report)))
    broken = json.loads(as_sarif(reported(*ALL)))
    broken["runs"][0]["results"][0]["level"] = "fatal"
    assert not validator.is_valid(broken), "the schema must be able to refuse"


def test_sarif_names_the_line_of_the_policy_and_marks_accepted_failures() -> None:
    run = json.loads(as_sarif(reported(*ALL)))["runs"][0]
    by_rule = {result["ruleId"]: result for result in run["results"]}
    assert by_rule.keys() == {verdict.rule for verdict in ALL} - {PASSED.rule}
    assert (by_rule[FAILED.rule]["level"], by_rule[UNKNOWN.rule]["level"]) == ("error", "warning")
    place = by_rule[FAILED.rule]["locations"][0]["physicalLocation"]
    assert place == {"artifactLocation": {"uri": "my%20policy.yaml"}, "region": {"startLine": 4}}
    assert by_rule[WAIVED.rule]["suppressions"][0]["justification"] == WAIVED.waived
    assert by_rule[KNOWN.rule]["baselineState"] == "unchanged"
    assert "suppressions" not in by_rule[FAILED.rule]
    rules = run["tool"]["driver"]["rules"]
    for result in run["results"]:
        assert rules[result["ruleIndex"]]["id"] == result["ruleId"]


def test_annotations_are_escaped_and_stay_within_githubs_limits() -> None:
    lines = as_github(reported(*ALL)).splitlines()
    assert lines[0] == (
        "::error file=my policy.yaml,line=4,title=audit.pst.max_accuracy::accuracy of pst is 60.0%25, the limit 40.0%25"
    )
    assert lines[1].startswith("::warning file=my policy.yaml,line=3,title=audit.jpeg::")
    assert lines[-1].startswith("::notice ")
    odd = Verdict("images.a,b:c", False, 1, 0, "one\ntwo\r%" + "x" * 9000)
    line = as_github(reported(odd)).splitlines()[0]
    assert "title=images.a%2Cb%3Ac::one%0Atwo%0D%25x" in line
    assert len(line) < 4200
    many = [Verdict(f"audit.a{number}", False, 1, 0, "it fails") for number in range(25)]
    errors = [line for line in as_github(reported(*many)).splitlines() if line.startswith("::error ")]
    assert len(errors) == ANNOTATIONS == 10
    assert "16 more rules" in errors[-1]
    assert "audit.a24" in errors[-1]
    ten = as_github(reported(*many[:10]))
    assert "more rules" not in ten
