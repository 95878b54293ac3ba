import base64
import io
import json
import re
from datetime import date
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import Command, RecordedRelease
from jsonschema import Draft202012Validator
from junitparser import JUnitXml
from PIL import Image

from pueprotect.check.evidence import read_evidence
from pueprotect.check.formats import ANNOTATIONS, CheckReport, as_github, as_json, as_junit, as_sarif, as_text
from pueprotect.check.policy import Policy
from pueprotect.check.policyfile import PolicyFile
from pueprotect.check.report.charts import Level, Series, histogram, line_chart, nice
from pueprotect.check.report.page import bars, render
from pueprotect.check.verdicts import Verdict
from pueprotect.images.decode import decode_rgb

# The official schema as Microsoft ships it with its SARIF tools (npm: @microsoft/sarif-multitool-linux 5.7.0).
SARIF = json.loads((Path(__file__).parent / "data/sarif-2.1.0.json").read_text())
DIGEST = "sha256:" + "0" * 64

PASSED = Verdict("data.digest", True, None, None, "all 60 files are as released")
FAILED = Verdict("audit.pst.max_accuracy", False, 0.6, 0.4, "accuracy of pst is 60.0%, the limit 40.0%", "at most")
UNKNOWN = Verdict("audit.jpeg", None, None, None, "jpeg is not recorded", command="pueprotect audit out --attack jpeg")
WAIVED = Verdict("audit.at.max_accuracy", True, 0.6, 0.4, "at is 60.0%", "at most", waived="known (until 2027-01-31)")
KNOWN = Verdict("images.min_ssim", True, 0.8, 0.9, "a,b:c%.png has\nSSIM 0.8", "at least", known=True)
ALL = (PASSED, FAILED, UNKNOWN, WAIVED, KNOWN)


def reported(*verdicts: Verdict) -> CheckReport:
    lines: dict[tuple[str | int, ...], int] = {("audit",): 3, ("audit", "max_accuracy"): 4, ("images", "min_ssim"): 7}
    file = PolicyFile(Path("my policy.yaml"), Policy(version=1), "f" * 64, lines)
    return CheckReport(file, "out", DIGEST, verdicts)


def test_text_has_a_line_for_each_rule_and_the_sum() -> None:
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
    assert {case.classname for case in suite} == {
        "pueprotect.data",
        "pueprotect.audit",
        "pueprotect.images",
    }


def test_sarif_fits_the_official_schema() -> None:
    Draft202012Validator.check_schema(SARIF)
    validator = Draft202012Validator(SARIF)
    for report in (reported(*ALL), reported(PASSED), reported()):
        validator.validate(json.loads(as_sarif(report)))
    broken = json.loads(as_sarif(reported(*ALL)))
    broken["runs"][0]["results"][0]["level"] = "fatal"
    assert not validator.is_valid(broken), "the schema must be able to refuse"


def test_sarif_points_at_the_policys_line_and_marks_what_is_accepted() -> None:
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


# --- charts ------------------------------------------------------------------------------------------------------


def test_a_chart_says_its_figures_and_escapes_names() -> None:
    chart = line_chart("A & B", [Series("<b>", ((0.0, 0.25), (0.1, 0.5)), "protected")], x_label="eta",
                       levels=[Level("chance", 0.1, "chance")])  # fmt: skip
    assert "&lt;b&gt;: 25.0% at 0, 50.0% at 0.1. chance: 10.0%" in chart
    assert "A &amp; B" in chart
    assert "<b>" not in chart
    heights = [float(y) for y in re.findall(r'cy="([\d.]+)"', chart)]
    bottom = float(re.findall(r'class="grid"[^>]*y1="([\d.]+)"', chart)[0])
    top = float(re.findall(r'class="grid"[^>]*y1="([\d.]+)"', chart)[-1])
    assert (bottom - heights[0]) / (bottom - top) == pytest.approx(0.25, abs=0.01)
    assert (bottom - heights[1]) / (bottom - top) == pytest.approx(0.5, abs=0.01)


def test_a_histogram_shows_shares_of_the_draws() -> None:
    chart = histogram("h", [("protected data", [0.1, 0.1, 0.1, 0.9], "protected")], x_label="accuracy")
    heights = sorted(float(h) for h in re.findall(r'<rect[^>]*height="([\d.]+)"', chart))
    assert len(heights) == 2
    assert heights[1] == pytest.approx(3 * heights[0], rel=0.01)
    assert "4 draws from 10.0% to 90.0%" in chart


@pytest.mark.parametrize(("value", "top"), [(0.44, 0.5), (0.2, 0.2), (1.1, 2), (2.2, 2.5), (6, 10), (31, 50), (0, 1)])
def test_axes_end_at_a_round_figure(value: float, top: float) -> None:
    assert nice(value) == pytest.approx(top)


# --- page --------------------------------------------------------------------------------------------------------


class Page(HTMLParser):
    """Collects what a page refers to and shows."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.links: list[str] = []
        self.images: list[dict[str, str | None]] = []
        self.tags: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        found = dict(attrs)
        self.tags.append(tag)
        self.links += [str(found[name]) for name in ("href", "src", "srcset", "action") if name in found]
        if tag == "img":
            self.images.append(found)


def pixels(uri: str) -> Any:
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(uri.partition(",")[2]))).convert("RGB"))


POLICY_NAME = "policy.yaml"
POLICY = "version: 1\naudit: {suite: quick, max_accuracy: 0.42}\ncertify: {max_learnability: 0.5}\n"


def page_of(evidence: RecordedRelease, command: Command, *words: object) -> str:
    target = evidence.vault.parent / "page.html"
    policy = evidence.vault.parent / "policy.yaml"
    policy.write_text(POLICY)
    done = command("report", evidence.out, "--out", target, "--policy", policy, *words)
    assert done.code == 0, done.stderr
    return target.read_text(encoding="utf-8")


def test_the_page_needs_no_network_and_no_script(evidence: RecordedRelease, command: Command) -> None:
    text = page_of(evidence, command)
    page = Page(text)
    assert all(link.startswith(("data:", "#")) for link in page.links)
    assert not {"script", "iframe", "object", "embed"} & set(page.tags)
    assert "url(" not in text
    assert "@import" not in text
    assert "default-src 'none'" in text


def test_the_verdict_comes_first_and_the_worst_attack_leads(evidence: RecordedRelease, command: Command) -> None:
    text = page_of(evidence, command)
    body = text[text.index("<body>") :]
    assert body.index("Fails the policy") < body.index("<main>")
    assert f"out fails {POLICY_NAME}: of " in body
    order = [body.index(f"<b>{name}</b> (resnet8)") for name in ("pst", "recovery", "weight-noise", "standard")]
    assert order == sorted(order)
    for words in ("42.0 %", "recovered 25.0 %", "Alarm quotient q", "ACM of each stage", "clean share alone",
                  "Accuracy of the drawn classifiers", "not a maximum over attackers",
                  evidence.release.outcome.data["data_digest"]):  # fmt: skip
        assert words in body, words


def test_the_certificate_shows_the_bound_of_the_population_and_only_drawn_curves(
    evidence: RecordedRelease, command: Command
) -> None:
    def change(data: Any) -> None:
        for point in data["curve"]:
            point["population"] = 0.613
        screened = [point | {"certified_learnability": None, "population": None} for point in data["curve"]]
        data["recipes"]["online"] = data["recipes"]["plain"] | {"recipe": "online", "curve": screened}

    evidence.edit("certificate.json", change)
    text = page_of(evidence, command)
    assert "<td>42.0 %</td><td>61.3 %</td><td>80.0 %</td>" in text
    assert '<i class="population"></i>protected, for the population' in text
    assert '<i class="other"></i>protected' not in text, "a screened network has no curve"
    assert "online (screened)" in text
    assert "plain (counts)" in text


def test_reasons_for_doubt_are_explained_once(evidence: RecordedRelease, command: Command) -> None:
    for name in ("pst", "colour"):
        evidence.attack(name, flags=["under-trained"])
    evidence.edit("certificate.json", lambda data: data.update(flags=["weak-baseline", "of-a-later-version"]))
    text = page_of(evidence, command)
    assert text.count("<li><b>under-trained</b>: The attack did not even fit its own training images") == 1
    assert "<li><b>weak-baseline</b>: The clean baseline itself is near chance" in text
    assert "<li><b>of-a-later-version</b></li>" in text


def test_recovery_is_drawn_against_the_certified_curve(evidence: RecordedRelease, command: Command) -> None:
    points = {"before": 0.3, "eta 0": 0.31, "eta 2": 0.47, "eta 0.5": 0.36, "clean share alone": 0.5}
    evidence.edit("audit/recovery-resnet8.json", lambda data: data["result"]["details"].update(points=points))
    text = page_of(evidence, command)
    (said,) = (line for line in text.split("aria-label=") if line.startswith('"Recovery by radius'))
    assert "recovery: 31.0% at 0, 36.0% at 0.5, 47.0% at 2." in said
    assert "certified around the plain surrogate: 42.0% at 0, 42.0% at 0.003." in said
    assert "clean share alone: 50.0%. chance: 30.0%" in said


def test_a_limit_on_the_recovered_share_is_a_line_between_chance_and_clean(evidence: RecordedRelease) -> None:
    policy = Policy.model_validate(
        {"version": 1, "audit": {"max_recovered": 0.5, "attacks": {"pst": {"max_accuracy": 0.4}}}}
    )
    check = CheckReport(PolicyFile(Path("p"), policy, "", {}), "out", DIGEST, ())
    gates = {bar.attack: bar.gate for bar in bars(read_evidence(evidence.out), check)}
    assert gates["standard"] == pytest.approx(0.3 + 0.5 * (0.9 - 0.3))
    assert gates["pst"] == 0.4, "the tighter one"


def test_bars_are_sorted_and_know_their_gate(evidence: RecordedRelease) -> None:
    found = bars(read_evidence(evidence.out), None)
    assert [bar.attack for bar in found[:3]] == ["pst", "recovery", "weight-noise"]
    assert {bar.attack for bar in found[3:]} == {"class-mean", "colour", "jpeg-10", "standard"}
    assert found[0].clean == 0.9
    assert found[0].gate is None


def test_by_default_only_released_pixels_are_shown(evidence: RecordedRelease, command: Command) -> None:
    text = page_of(evidence, command, "--images", 60)
    page = Page(text)
    assert len(page.images) >= 60
    released = {row.path: decode_rgb(evidence.out / row.path) for row in read_evidence(evidence.out).rows}
    for image in page.images:
        name, _, kind = str(image["alt"]).partition(", ")
        assert kind == "released"
        assert np.array_equal(pixels(str(image["src"])), released[name])
    assert str(evidence.release.src) not in text, "paths name people and machines"
    assert "--with-originals" not in text


def test_with_originals_the_noise_is_ten_times_the_difference(evidence: RecordedRelease, command: Command) -> None:
    text = page_of(evidence, command, "--with-originals", "--images", 1)
    assert "do not publish" in text
    assert (evidence.vault.parent / "page.html").stat().st_mode & 0o077 == 0
    shown = {str(image["alt"]).partition(", ")[2]: pixels(str(image["src"])) for image in Page(text).images[:3]}
    assert shown.keys() == {"original", "released", "noise ten times amplified"}
    name = str(Page(text).images[0]["alt"]).partition(", ")[0]
    assert np.array_equal(shown["original"], decode_rgb(evidence.release.src / name))
    gap = shown["released"].astype(int) - shown["original"].astype(int)
    assert np.abs(gap).max() > 0
    assert np.array_equal(shown["noise ten times amplified"], np.clip(128 + 10 * gap, 0, 255))


def test_evidence_of_other_bytes_is_left_out_and_said(evidence: RecordedRelease, command: Command) -> None:
    other = "sha256:" + "a" * 64
    evidence.edit("audit/pst-resnet8.json", lambda data: data["key"].update(data_digest=other))
    evidence.edit("certificate.json", lambda data: data.update(data_digest=other))
    text = page_of(evidence, command)
    assert "<b>pst</b> (resnet8)" not in text
    assert "1 recorded results speak of other files" in text
    assert "The recorded certificate speaks of other files" in text


def test_a_release_without_evidence_has_a_page_too(evidence: RecordedRelease, command: Command) -> None:
    (evidence.vault / "certificate.json").unlink()
    for path in (evidence.vault / "audit").iterdir():
        path.unlink()
    done = command("report", evidence.out)
    assert done.code == 0
    text = (evidence.vault / "report.html").read_text()
    assert "No certificate is recorded" in text
    assert "No attack is recorded" in text
    assert "No verdict" in text
    assert (evidence.vault / "report.html").stat().st_mode & 0o077 == 0


def test_names_cannot_smuggle_markup(evidence: RecordedRelease) -> None:
    records = read_evidence(evidence.out)
    records.run["settings"]["<script>alert(1)</script>"] = "<img src=x>"
    text = render(records, None, today=date(2026, 1, 1), images=1)
    assert "<script" not in text
    assert "<img src=x>" not in text


def test_changed_files_have_no_report(evidence: RecordedRelease, command: Command) -> None:
    (evidence.out / "cat/000.png").write_bytes(b"x")
    done = command("report", evidence.out)
    assert done.code == 3
    assert "pueprotect verify" in done.stderr
