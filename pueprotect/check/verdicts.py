"""Applies a policy to recorded evidence. Pure: reads no files and no clock.

The gates of `certify` and `audit` are policies of one rule. Evidence that is missing or for other files neither passes
nor fails: it is inconclusive, and the verdict names the command that produces it.
"""

from __future__ import annotations

import shlex
import statistics
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from datetime import date
from typing import TYPE_CHECKING, Literal

from pueprotect.audit.suites import SUITES, applicable
from pueprotect.check.policy import WORST, AuditRules, CertifyRules, ImageRules, Policy, Waiver
from pueprotect.check.validity import Condition, audit_conditions, bound_of, certificate_conditions
from pueprotect.errors import ExitCode
from pueprotect.release.vault import default_vault

if TYPE_CHECKING:
    from pueprotect.check.evidence import Evidence
    from pueprotect.release.audits import AuditRow
    from pueprotect.release.certificates import Certificate, RecipeFigures

OUTCOMES = {ExitCode.PASS: "pass", ExitCode.FAIL: "fail", ExitCode.INCONCLUSIVE: "inconclusive"}
DATA = "data.digest"


@dataclass(frozen=True)
class Verdict:
    """One rule applied to one figure.

    Attributes:
        rule: its name, such as `audit.pst.max_accuracy`.
        passed: None where the evidence is missing.
        limit: None for rules without a number.
        reason: one sentence without its full stop.
        command: produces the missing evidence.
        waived: the waiver that turned a failure into a pass.
        known: whether the baseline has the same failure and it is no worse now.
    """

    rule: str
    passed: bool | None
    observed: float | None
    limit: float | None
    reason: str
    comparison: Literal["at most", "at least"] | None = None
    command: str | None = None
    waived: str | None = None
    known: bool = False


def at_most(rule: str, observed: float | None, limit: float, what: str, command: str | None = None) -> Verdict:
    """The verdict on a share that must not exceed its limit; a missing figure is inconclusive."""
    if observed is None:
        return Verdict(rule, None, None, limit, f"{what} is not known", "at most", command)
    passed = observed <= limit
    return Verdict(rule, passed, observed, limit, f"{what} is {observed:.1%}, the limit {limit:.1%}", "at most")


def at_least(rule: str, observed: float | None, limit: float, what: str, command: str | None = None) -> Verdict:
    """The verdict on a share that must reach its limit; a missing figure is inconclusive."""
    if observed is None:
        return Verdict(rule, None, None, limit, f"{what} is not known", "at least", command)
    passed = observed >= limit
    return Verdict(rule, passed, observed, limit, f"{what} is {observed:.1%}, at least {limit:.1%} wanted", "at least")


def exit_code(verdicts: Iterable[Verdict]) -> ExitCode:
    """1 when a rule failed, else 3 when one is inconclusive, else 0."""
    outcomes = [verdict.passed for verdict in verdicts]
    if False in outcomes:
        return ExitCode.FAIL
    return ExitCode.INCONCLUSIVE if None in outcomes else ExitCode.PASS


def judge(policy: Policy, evidence: Evidence, today: date) -> tuple[Verdict, ...]:
    """Apply every rule of `policy` and its waivers to the recorded evidence."""
    verdicts = [_data(evidence)]
    if policy.certify is not None:
        verdicts += _certify(policy.certify, evidence)
    if policy.audit is not None:
        verdicts += _audit(policy.audit, evidence)
    if policy.images is not None:
        verdicts += _images(policy.images, evidence)
    return apply_waivers(verdicts, policy.waivers, today)


def apply_waivers(verdicts: Iterable[Verdict], waivers: Iterable[Waiver], today: date) -> tuple[Verdict, ...]:
    """Pass what valid waivers cover; each expired waiver is a failure of its own."""
    waivers = tuple(waivers)

    def waive(verdict: Verdict) -> Verdict:
        found = next((waiver for waiver in waivers if waiver.expires >= today and waiver.covers(verdict.rule)), None)
        if verdict.passed or found is None:
            return verdict
        return replace(verdict, passed=True, waived=f"{found.reason} (until {found.expires})")

    expired = [
        Verdict(f"waivers.{w.rule}", False, None, None, f"the waiver expired on {w.expires}: renew or remove it")
        for w in waivers
        if w.expires < today
    ]
    return (*map(waive, verdicts), *expired)


def only_regressions(verdicts: Iterable[Verdict], previous: Iterable[Verdict]) -> tuple[Verdict, ...]:
    """Pass failures that an earlier check had too and that are no worse now; missing evidence stays inconclusive."""
    before = {verdict.rule: verdict for verdict in previous}

    def compare(verdict: Verdict) -> Verdict:
        old = before.get(verdict.rule)
        if verdict.passed is not False or old is None or old.passed is not False or _worse(verdict, old.observed):
            return verdict
        return replace(verdict, passed=True, known=True)

    return tuple(map(compare, verdicts))


def _worse(verdict: Verdict, before: float | None) -> bool:
    if verdict.observed is None or before is None:
        return verdict.observed != before
    return verdict.observed > before if verdict.comparison == "at most" else verdict.observed < before


def command_of(name: str, evidence: Evidence, *options: str) -> str:
    """A command line on this release that can be pasted."""
    words = [name, str(evidence.out)]
    if evidence.vault.resolve() != default_vault(evidence.out).resolve():
        words += ["--vault", str(evidence.vault)]
    line = "pueprotect " + shlex.join([*words, *options])
    return line if evidence.own or "--test" in options else f"{line} --test CLEAN_IMAGES"


def counted(number: int, noun: str) -> str:
    """`1 file`, `2 files`."""
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def _data(evidence: Evidence) -> Verdict:
    if not evidence.own:
        return Verdict(DATA, True, None, None, "no manifest: the evidence must be for the files as they are")
    gap = evidence.difference
    if gap.ok:
        files = counted(len(evidence.rows), "file")
        return Verdict(DATA, True, None, None, f"{files}, all as released")
    kinds = {"missing": gap.missing, "added": gap.extra, "changed": gap.changed}
    parts = [f"{len(names)} {kind}, such as {names[0]}" for kind, names in kinds.items() if names]
    reason = (
        f"files are not as released ({'; '.join(parts)}), so the evidence is for other files than these; restore them"
    )
    return Verdict(DATA, None, None, None, reason, command=command_of("verify", evidence))


def certificate_verdict(rules: CertifyRules, found: RecipeFigures, command: str | None = None) -> Verdict:
    """The bound of a certificate that counts, against `max_learnability`."""
    assert rules.max_learnability is not None
    point = found.at(rules.eta)
    what = f"certified learnability at eta {point.eta if point else rules.eta:g}"
    what += " for the population" if rules.bound == "population" else ""
    return at_most("certify.max_learnability", bound_of(rules, point), rules.max_learnability, what, command)


def _certify(rules: CertifyRules, evidence: Evidence) -> Iterator[Verdict]:
    found = evidence.certificate
    options = _certify_options(rules, found, evidence.own)
    command = command_of("certify", evidence, *options)
    if why := _not_counting(rules, found, evidence.digest):
        for name, limit in rules.model_dump(include=set(rules.LIMITS), exclude_none=True).items():
            yield Verdict(f"certify.{name}", None, None, limit, why, command=command)
        return
    assert found is not None
    if rules.max_learnability is not None:
        yield certificate_verdict(rules, found, command)
    if rules.min_baseline is not None:
        bound = bound_of(rules, found.baseline.at(rules.eta) if found.baseline else None)
        yield at_least("certify.min_baseline", bound, rules.min_baseline, "the clean baseline's bound", command)
    for condition in certificate_conditions(rules, found, own=evidence.own):
        again = [*options, *(condition.cure or ())]
        yield _conditional(condition, command_of("certify", evidence, *again))


def _conditional(condition: Condition, command: str) -> Verdict:
    """The verdict on a condition: inconclusive where it is not met, and `command` cures it."""
    cure = None if condition.met or condition.cure is None else command
    return Verdict(
        condition.rule, condition.met or None, condition.observed, condition.limit, condition.reason,
        condition.comparison, cure,
    )  # fmt: skip


def _certify_options(rules: CertifyRules, found: Certificate | None, own: bool) -> list[str]:
    """The options with which the result of `certify` counts."""
    needed = found.at(rules.eta) if found and found.sigma else None
    draws = max(rules.min_draws or 0, (needed.draws_needed or 0) if needed else 0)
    usual = CertifyRules.model_fields
    options = ["--q", f"{rules.q:g}"] if rules.q != usual["q"].default else []
    options += ["--eta", f"{rules.eta:g}"] if rules.eta is not None else []
    options += ["--alpha", f"{rules.alpha:g}"] if rules.alpha != usual["alpha"].default else []
    options += ["--surrogate-recipe", rules.recipe] if rules.recipe != WORST else []
    options += ["--draws", str(draws)] if draws else []
    options += ["--relative-sigma", "auto"] if rules.relative else []
    return options + (["--baseline"] if own else [])


def _not_counting(rules: CertifyRules, found: Certificate | None, digest: str) -> str | None:
    """Why a certificate does not answer what the policy asks; None when it does."""
    if found is None:
        return "no certificate is recorded"
    if found.data_digest != digest:
        return f"the certificate is for other files than these ({found.data_digest[:19]}, here {digest[:19]})"
    if found.q < rules.q:
        return f"the certificate covers q {found.q:g} of the classifiers, the policy asks for {rules.q:g}"
    if found.alpha > rules.alpha:
        return f"the certificate may fail with probability {found.alpha:g}, the policy allows {rules.alpha:g}"
    if (relative := bool(getattr(found, "relative", False))) != rules.relative:
        kinds = {True: "relative to the weights", False: "absolute"}
        return f"the certificate's radii are {kinds[relative]}, the policy's {kinds[rules.relative]}"
    if found.at(rules.eta) is None:
        return f"the certificate does not reach eta {rules.eta:g}"
    return None


def attack_verdicts(rules: AuditRules, rows: Iterable[AuditRow], command: str | None = None) -> Iterator[Verdict]:
    """The limits on one attack against the worst of its `rows`, one for each network and seed.

    The mean over the seeds of a network is never above the largest figure, so that one decides; the reason names both.
    """
    rows = tuple(rows)
    for name, limit in rules.limits_of(rows[0].attack).items():
        field = name.removeprefix("max_")
        worst = max(rows, key=lambda row: (getattr(row, field) is None, getattr(row, field) or 0.0))
        what = f"{'accuracy of' if field == 'accuracy' else 'share recovered by'} {worst.attack} ({worst.arch})"
        seeds = [getattr(row, field) for row in rows if row.arch == worst.arch]
        if len(seeds) > 1 and None not in seeds:
            what += f", mean {statistics.mean(seeds):.1%} and largest of {len(seeds)} seeds,"
        yield at_most(f"audit.{worst.attack}.{name}", getattr(worst, field), limit, what, command)


def _audit(rules: AuditRules, evidence: Evidence) -> Iterator[Verdict]:
    suite = applicable(SUITES[rules.suite], evidence.run.get("method")) if rules.suite else ()
    by_attack = evidence.rows_by_attack
    wanted = tuple(dict.fromkeys((*suite, *rules.attacks, *by_attack)))
    stale = len([r for r in evidence.audit if r.key.data_digest != evidence.digest])
    lacking = [name for name in wanted if name not in by_attack]
    whole = command_of("audit", evidence, *(["--suite", rules.suite] if rules.suite else []), "--resume")
    if not by_attack:
        why = f"all {stale} recorded attacks are for other files than these" if stale else "no attack is recorded"
        yield Verdict("audit.suite", None, 0, len(suite) or None, why, "at least", whole)
        return
    if suite and not set(suite) & set(lacking):
        reason = f"all {len(suite)} attacks of {rules.suite} are recorded"
        yield Verdict("audit.suite", True, len(suite), len(suite), reason, "at least")
    for name in lacking:
        command = whole if name in suite else command_of("audit", evidence, "--attack", name)
        yield Verdict(f"audit.{name}", None, None, None, f"{name} is not recorded for these files", command=command)
    for name, rows in by_attack.items():
        yield from attack_verdicts(rules, rows, command_of("audit", evidence, "--attack", name))
    for condition in audit_conditions(rules, evidence):
        yield _conditional(condition, command_of("audit", evidence, *(condition.cure or ())))
    if rules.min_clean_accuracy is not None:
        known = [line.result.accuracy for line in evidence.clean_lines if line.result.accuracy is not None]
        what, command = "accuracy of plain training on the clean originals", command_of("audit", evidence)
        yield at_least("audit.min_clean_accuracy", min(known, default=None), rules.min_clean_accuracy, what, command)


def _images(rules: ImageRules, evidence: Evidence) -> Iterator[Verdict]:
    if not evidence.own:
        why = "pueprotect did not make this release, so its files have no records"
        for name, limit in rules.model_dump(exclude_none=True).items():
            yield Verdict(f"images.{name}", None, None, limit, why)
        return
    if rules.min_coverage is not None:
        yield _coverage(rules.min_coverage, evidence)
    if rules.max_linf is not None:
        changed = [(row.linf, row.path) for row in evidence.rows if row.linf is not None]
        linf, path = max(changed, default=(None, ""))
        passed = None if linf is None else linf <= rules.max_linf
        reason = f"{path} differs by {linf} levels, the limit {rules.max_linf}" if path else "no file was measured"
        yield Verdict("images.max_linf", passed, linf, rules.max_linf, reason, "at most")
    if rules.min_ssim is not None:
        measured = [(row.ssim, row.path) for row in evidence.rows if row.ssim is not None]
        ssim, path = min(measured, default=(None, ""))
        passed = None if ssim is None else ssim >= rules.min_ssim
        reason = f"{path} has SSIM {ssim:.4f}, at least {rules.min_ssim:g} wanted" if path else "no file was measured"
        yield Verdict("images.min_ssim", passed, ssim, rules.min_ssim, reason, "at least")


def _coverage(limit: float, evidence: Evidence) -> Verdict:
    """The share of all files, present or missing, that are protected as recorded."""
    gap = evidence.difference
    bare = [row.path for row in evidence.rows if row.linf == 0]  # not one pixel differs
    odd = sorted({*gap.extra, *gap.changed, *gap.missing, *bare})
    total = len(evidence.rows) + len(gap.extra)
    covered = (total - len(odd)) / total if total else 0.0
    verdict = at_least("images.min_coverage", covered, limit, "coverage")
    return replace(verdict, reason=f"{verdict.reason}: {odd[0]} is not protected as recorded") if odd else verdict
