"""Formats the result of `check` as text, JSON, JUnit, SARIF 2.1.0 and GitHub annotations."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any
from urllib.parse import quote

from pueprotect.check.policyfile import PolicyFile
from pueprotect.check.verdicts import OUTCOMES, Verdict, exit_code
from pueprotect.errors import ExitCode
from pueprotect.release.vault import SCHEMA_VERSION
from pueprotect.runtime import VERSION

ANNOTATIONS = 10  # GitHub drops further annotations of a kind from one step without a message
LONGEST_MESSAGE = 4000
WORDS = {ExitCode.PASS: "passes", ExitCode.FAIL: "fails", ExitCode.INCONCLUSIVE: "is inconclusive under"}
MARKS = {True: "pass", False: "FAIL", None: "?"}


@dataclass(frozen=True)
class CheckReport:
    """All verdicts of one check in the order of the rules, with the folder as named and the digest of its files."""

    file: PolicyFile
    out: str
    digest: str
    verdicts: tuple[Verdict, ...]

    @property
    def code(self) -> ExitCode:
        """The exit code."""
        return exit_code(self.verdicts)

    @property
    def summary(self) -> str:
        """One sentence: the outcome, and how many rules have which."""
        counts = {
            "failed": sum(verdict.passed is False for verdict in self.verdicts),
            "inconclusive": sum(verdict.passed is None for verdict in self.verdicts),
            "waived": sum(verdict.waived is not None for verdict in self.verdicts),
            "failed before and are no worse": sum(verdict.known for verdict in self.verdicts),
        }
        parts = ", ".join(f"{count} {what}" for what, count in counts.items() if count)
        rules = len(self.verdicts)
        detail = f"of {rules} rules {parts}." if parts else f"all {rules} rules hold."
        return f"{self.out} {WORDS[self.code]} {self.file.path}: {detail}"


def as_json(report: CheckReport) -> str:
    """One JSON object, see `schemas.Check`."""
    data = {
        "schema_version": SCHEMA_VERSION,
        "passed": report.code == ExitCode.PASS,
        "outcome": OUTCOMES[report.code],
        "data_digest": report.digest,
        "policy_sha256": report.file.sha256,
        "verdicts": [asdict(verdict) for verdict in report.verdicts],
    }
    return json.dumps(data, indent=2, ensure_ascii=False, allow_nan=False) + "\n"


def remark(verdict: Verdict) -> str:
    """The reason, with the waiver or the command to run."""
    text = verdict.reason
    if verdict.waived:
        text += f"; waived: {verdict.waived}"
    if verdict.known:
        text += "; failed before and is no worse"
    if verdict.command and not verdict.waived:
        text += f"; run: {verdict.command}"
    return text


def as_text(report: CheckReport) -> str:
    """One line without colours for each rule, then the summary."""
    width = max((len(verdict.rule) for verdict in report.verdicts), default=0)
    lines = [f"{MARKS[verdict.passed]:4}  {verdict.rule:{width}}  {remark(verdict)}" for verdict in report.verdicts]
    return "\n".join([*lines, report.summary]) + "\n"


def as_junit(report: CheckReport) -> str:
    """One test case for each rule: failures, errors where inconclusive, skipped where waived."""
    from junitparser import Error, Failure, JUnitXml, Skipped, TestCase, TestSuite

    suite = TestSuite("pueprotect check")
    suite.add_property("data_digest", report.digest)
    for verdict in report.verdicts:
        case = TestCase(verdict.rule, classname=f"pueprotect.{verdict.rule.partition('.')[0]}", time=0.0)
        text = remark(verdict)
        if verdict.waived or verdict.known:
            case.result = [Skipped(text)]
        elif not verdict.passed:
            case.result = [Error(text, "inconclusive") if verdict.passed is None else Failure(text, "policy")]
        suite.add_testcase(case)
    document = JUnitXml("pueprotect")
    document.add_testsuite(suite)
    xml = document.tostring()  # type: ignore[no-untyped-call]  # the one method that junitparser does not type
    text = xml.decode("utf-8") if isinstance(xml, bytes) else str(xml)
    return text if text.startswith("<?xml") else f'<?xml version="1.0" encoding="utf-8"?>\n{text}\n'


def as_sarif(report: CheckReport) -> str:
    """SARIF 2.1.0: a result for each rule that did not pass by itself, located at its line of the policy."""
    ids = list(dict.fromkeys(verdict.rule for verdict in report.verdicts))
    path = report.file.path
    uri = path.resolve().as_uri() if path.is_absolute() else quote(path.as_posix())
    results: list[dict[str, Any]] = []
    for verdict in report.verdicts:
        if verdict.passed and not verdict.waived and not verdict.known:
            continue
        place = {"artifactLocation": {"uri": uri}, "region": {"startLine": report.file.line_of(verdict.rule)}}
        result: dict[str, Any] = {
            "ruleId": verdict.rule,
            "ruleIndex": ids.index(verdict.rule),
            "kind": "fail",
            "level": "warning" if verdict.passed is None else "error",
            "message": {"text": remark(verdict)},
            "locations": [{"physicalLocation": place}],
            "partialFingerprints": {"rule/v1": verdict.rule},
        }
        if verdict.waived:
            result["suppressions"] = [{"kind": "external", "status": "accepted", "justification": verdict.waived}]
        if verdict.known:
            result["baselineState"] = "unchanged"
        results.append(result)
    rules = [{"id": name, "shortDescription": {"text": f"Rule {name} of the policy."}} for name in ids]
    run = {
        "tool": {"driver": {"name": "pueprotect", "version": VERSION, "rules": rules}},
        "invocations": [{"executionSuccessful": True, "exitCode": report.code}],
        "results": results,
        "properties": {"data_digest": report.digest},
    }
    data = {"$schema": "https://json.schemastore.org/sarif-2.1.0.json", "version": "2.1.0", "runs": [run]}
    return json.dumps(data, indent=2, ensure_ascii=False) + "\n"


def as_github(report: CheckReport) -> str:
    """Workflow commands: an error for each failure, a warning for each inconclusive rule, and a notice.

    Where there are more than ten of a kind, the tenth names those that are not shown.
    """
    lines = []
    for kind, passed in (("error", False), ("warning", None)):
        found = [verdict for verdict in report.verdicts if verdict.passed is passed]
        shown = found if len(found) <= ANNOTATIONS else found[: ANNOTATIONS - 1]
        lines += [_annotation(kind, report, report.file.line_of(v.rule), v.rule, remark(v)) for v in shown]
        if rest := found[len(shown) :]:
            names = ", ".join(verdict.rule for verdict in rest)
            lines.append(_annotation(kind, report, 1, f"{len(rest)} more rules", names))
    lines.append(_annotation("notice", report, 1, "pueprotect check", report.summary))
    return "\n".join(lines) + "\n"


def _annotation(kind: str, report: CheckReport, line: int, title: str, message: str) -> str:
    text = message if len(message) <= LONGEST_MESSAGE else message[: LONGEST_MESSAGE - 3] + "..."
    path, title = (_data(part).replace(":", "%3A").replace(",", "%2C") for part in (report.file.path.as_posix(), title))
    return f"::{kind} file={path},line={line},title={title}::{_data(text)}"


def _data(text: str) -> str:
    return text.replace("%", "%25").replace("\r", "%0D").replace("\n", "%0A")


FORMATS: dict[str, Callable[[CheckReport], str]]
FORMATS = {"text": as_text, "json": as_json, "junit": as_junit, "sarif": as_sarif, "github": as_github}
