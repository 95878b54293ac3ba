"""Says which conditions recorded figures must meet before they count. Pure, no torch.

A low figure shows protection only where the same measurement on unprotected images is high. So the clean baseline, the
length of the trainings, the number of test images and the reasons for doubt (flags) are conditions of every policy. A
condition that is not met makes the check inconclusive, and can be waived by its rule.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from pueprotect.audit.findings import clean_row, judge
from pueprotect.audit.flags import FLAGS as AUDIT_FLAGS
from pueprotect.audit.flags import WEAK, Flag, way_from_chance
from pueprotect.certify.flags import FLAGS as CERTIFICATE_FLAGS
from pueprotect.check.policy import WORST, AuditRules, CertifyRules

if TYPE_CHECKING:
    from pueprotect.check.evidence import Evidence
    from pueprotect.release.audits import AuditRecord, AuditRow
    from pueprotect.release.certificates import Certificate, Point

SMALLEST_RADIUS = 0.2  # of sigma: the smallest radius that `certify` takes by itself
FEW_IMAGES, FEW_PER_CLASS = 500, 20
OTHER_TEST = ("--test", "CLEAN_IMAGES")
LESS_NOISE = ("--sigma", "auto")
OWN_FLAGS = {
    "test-overlap": Flag("Test images are among the released ones.", "Give others with --test."),
    "incomplete-record": Flag("Chance or the number of test images is not recorded.", "Run the audit again."),
}

# Flags that void a figure, each with options of the command that cures it.
OF_CERTIFICATE: dict[str, tuple[str, ...]] = {
    "weak-baseline": LESS_NOISE,
    "small-holdout": OTHER_TEST,
    "surrogate-unfitted": (),
    "bound-at-chance": OTHER_TEST,
    "unanswered-draws": LESS_NOISE,
    "test-overlap": OTHER_TEST,
}
OF_AUDIT: dict[str, tuple[str, ...]] = {
    "no-clean-line": (),
    "weak-clean-line": (),
    "clean-line-not-converged": (),
    "small-test": OTHER_TEST,
    "test-overlap": OTHER_TEST,
    "incomplete-record": (),
}
OF_ATTACK = ("under-trained", "diverged", "failed")


@dataclass(frozen=True)
class Condition:
    """Something that must hold before figures count.

    Attributes:
        rule: its name, such as `certify.baseline`.
        met: whether it holds.
        reason: one sentence without its full stop.
        cure: options of the command that measures again so that it holds; None where no command can.
    """

    rule: str
    met: bool
    reason: str
    observed: float | None = None
    limit: float | None = None
    comparison: Literal["at most", "at least"] | None = None
    cure: tuple[str, ...] | None = ()


def reaches(rule: str, observed: float | None, limit: float, reason: str, cure: tuple[str, ...] = ()) -> Condition:
    """An amount that must reach its limit; `reason` says what it is, and an unknown amount does not count."""
    text = f"{reason} {f'{observed:g}' if observed is not None else 'unknown'}, at least {limit:g} wanted"
    return Condition(rule, observed is not None and observed >= limit, text, observed, limit, "at least", cure)


def stays_below(
    rule: str, observed: float | None, limit: float, reason: str, cure: tuple[str, ...] | None
) -> Condition:
    """An amount that must not exceed its limit; `reason` says what it is, and an unknown amount does not count."""
    text = f"{reason} {f'{observed:g}' if observed is not None else 'unknown'}, the limit {limit:g}"
    return Condition(rule, observed is not None and observed <= limit, text, observed, limit, "at most", cure)


def bound_of(rules: CertifyRules, point: Point | None) -> float | None:
    """The bound at one radius that the policy limits."""
    if point is None:
        return None
    return point.population if rules.bound == "population" else point.certified_learnability


def certificate_conditions(rules: CertifyRules, found: Certificate, *, own: bool) -> Iterator[Condition]:
    """What the certificate of these files must be like; `own` is for a release made by pueprotect."""
    made, wanted = found.surrogate_recipe, rules.recipe
    same = made == wanted or (made == WORST and wanted != "pst")
    yield Condition(
        "certify.recipe", same, f"the certificate is of the recipe {made or 'unknown'}, the policy asks for {wanted}"
    )
    longer = ("--epochs", f"{rules.min_epochs:g}")
    yield reaches("certify.min_epochs", found.epochs, rules.min_epochs, "epochs of the surrogates:", longer)
    why = "certifications of these files (the best of many may be luck):"
    yield stays_below("certify.max_looks", found.looks, rules.max_looks, why, () if found.looks is None else None)
    yield _baseline(rules, found, own)
    if rules.eta is None:
        least, largest = SMALLEST_RADIUS * found.sigma, found.at(None)
        yield reaches("certify.eta", largest.eta if largest else None, least, "the largest radius of the certificate:")
    if rules.min_draws is not None:
        yield reaches("certify.min_draws", found.draws, rules.min_draws, "draws behind the bound:")
    if rules.max_sigma is not None:
        cure = (_sigma(rules), f"{rules.max_sigma:g}")
        yield stays_below("certify.max_sigma", found.sigma, rules.max_sigma, "sigma of the weight noise:", cure)
    if rules.min_test_images is not None:
        images = found.holdout_images
        yield reaches("certify.min_test_images", images, rules.min_test_images, "clean images:", OTHER_TEST)
    for flag, remedy in OF_CERTIFICATE.items():
        if flag in found.flags:
            again = ("--epochs", f"{2 * found.epochs:g}") if flag == "surrogate-unfitted" and found.epochs else remedy
            again = (_sigma(rules), "auto") if remedy == LESS_NOISE else again
            text = _text(CERTIFICATE_FLAGS.get(flag) or OWN_FLAGS[flag])
            yield Condition(f"certify.flags.{flag}", False, text, cure=again)


def _sigma(rules: CertifyRules) -> str:
    """The option that sets the weight noise in the units of the policy."""
    return "--relative-sigma" if rules.relative else "--sigma"


def _baseline(rules: CertifyRules, found: Certificate, own: bool) -> Condition:
    """The clean originals must have a bound clearly above chance, and above the limit that the release must meet."""
    rule = "certify.baseline"
    if found.baseline is None:
        why = "the certificate has no clean baseline, without which a low bound may only mean too much weight noise"
        if own:
            return Condition(rule, False, why)
        return Condition(rule, False, f"{why}; no originals are known here, so waive it or protect anew", cure=None)
    floor = max(way_from_chance(found.chance, WEAK), rules.max_learnability or 0.0)
    bound = bound_of(rules, found.baseline.at(rules.eta))
    if bound is None:
        return Condition(rule, False, "the clean baseline has no bound at this radius", None, floor, "at least")
    reason = f"the bound on the clean originals is {bound:.1%}, "
    if bound > floor:
        return Condition(rule, True, reason + f"above {floor:.1%}", bound, floor, "at least")
    reason += f"not above {floor:.1%}, so unprotected images would pass too; use less weight noise or a lower limit"
    return Condition(rule, False, reason, bound, floor, "at least", (_sigma(rules), "auto"))


def audit_conditions(rules: AuditRules, evidence: Evidence) -> Iterator[Condition]:
    """What the recorded attacks on these files must be like; at least one is recorded."""
    records = evidence.fresh
    shortest = min(records, key=lambda record: record.key.epochs)
    cure: tuple[str, ...] = ("--attack", shortest.key.attack, "--epochs", f"{rules.min_epochs:g}")
    why = f"value of --epochs behind {_name(shortest)}:"
    yield reaches("audit.min_epochs", shortest.key.epochs, rules.min_epochs, why, cure)
    if rules.min_seeds > 1:
        fewest = min(evidence.runs.values(), key=_seeds)
        cure = ("--seeds", str(rules.min_seeds))
        yield reaches("audit.min_seeds", _seeds(fewest), rules.min_seeds, f"seeds of {_name(fewest[0])}:", cure)
    if rules.min_test_images is not None:
        least = min(records, key=lambda record: record.test_images or 0)
        why = f"clean images behind {_name(least)}:"
        yield reaches("audit.min_test_images", least.test_images, rules.min_test_images, why, OTHER_TEST)
    yield from _clean_line(rules, evidence)
    for rule, doubt in _doubts(evidence).items():
        names = f" ({', '.join(dict.fromkeys(doubt.concerned))})" if doubt.concerned else ""
        text = _text(AUDIT_FLAGS.get(doubt.flag) or OWN_FLAGS[doubt.flag])
        yield Condition(f"audit.flags.{rule}", False, text + names, cure=doubt.cure)


def _clean_line(rules: AuditRules, evidence: Evidence) -> Iterator[Condition]:
    """Training on the clean originals must end above the limit of each attack, or unprotected images would pass."""
    pairs = []
    for record in evidence.fresh:
        limit, line = rules.limits_of(record.key.attack).get("max_accuracy"), evidence.clean_line(record)
        if limit is not None and line is not None and line.result.accuracy is not None:
            pairs.append((line.result.accuracy, limit))
    if not pairs:  # without a clean line a flag is raised
        return
    clean, limit = min(pairs, key=lambda pair: pair[0] - pair[1])
    reason = f"plain training on the clean originals reaches {clean:.1%}, "
    if clean > limit:
        yield Condition("audit.clean_line", True, reason + f"above {limit:.1%}", clean, limit, "at least")
        return
    reason += f"not above {limit:.1%}, so unprotected images would pass too; train longer, or lower the limit"
    yield Condition("audit.clean_line", False, reason, clean, limit, "at least", _longer(evidence.clean_lines))


@dataclass
class _Doubt:
    flag: str
    cure: tuple[str, ...] | None
    concerned: list[str]


def _doubts(evidence: Evidence) -> dict[str, _Doubt]:
    """The raised flags that void figures by their rules; those that concern some attacks alone end in their names."""
    found: dict[str, _Doubt] = {}
    concerned: dict[str, dict[str, tuple[str, ...] | None]] = {}  # flag -> attack -> cure
    classes = len(evidence.run.get("classes", ()))
    for (attack, _), runs in evidence.runs.items():
        lines = [line for record in runs if (line := evidence.clean_line(record)) and not line.result.failed]
        chance = runs[0].chance
        clean = clean_row([line.result for line in lines], chance or 0.0) if lines else None
        row = judge([record.result for record in runs], clean, chance or 0.0)
        for flag in _of_figures(runs, clean, classes):
            cure = OF_AUDIT[flag] or (_longer(evidence.clean_lines) if clean else ())
            curable = evidence.own or flag != "no-clean-line"
            concerned.setdefault(flag, {})[attack] = cure if curable else None
        failed = ["failed"] if row.failed and not {"failed", "diverged"} & set(row.flags) else []
        for flag in (*row.flags, *failed):
            if flag in OF_ATTACK:
                again = _longer(runs) if flag == "under-trained" else ("--seed", str(runs[-1].key.seed + 1))
                doubt = found.setdefault(f"{flag}.{attack}", _Doubt(flag, ("--attack", attack, *again), []))
                doubt.concerned.append(_name(runs[0]))
    for flag, cures in concerned.items():
        everywhere = cures.keys() == evidence.rows_by_attack.keys()
        rules = (
            {"": next(iter(cures.values()))} if everywhere else {f".{attack}": cure for attack, cure in cures.items()}
        )
        found |= {flag + attack: _Doubt(flag, cure, []) for attack, cure in rules.items()}
    return found


def _of_figures(runs: Sequence[AuditRecord], clean: AuditRow | None, classes: int) -> list[str]:
    """The flags of the test images and of the clean line behind the runs of one attack."""
    least = min(record.test_images or 0 for record in runs)
    written = {flag for record in runs for flag in (*record.result.flags, *(record.model_extra or {}).get("flags", ()))}
    raised = {
        "incomplete-record": any(record.chance is None or record.test_images is None for record in runs),
        "no-clean-line": clean is None,
        "small-test": least < max(FEW_IMAGES, FEW_PER_CLASS * classes),
    }
    of_clean = clean.flags if clean else ()
    return [flag for flag in OF_AUDIT if raised.get(flag) or flag in written or flag in of_clean]


def _longer(records: Sequence[AuditRecord]) -> tuple[str, ...]:
    """The option with twice the passes of the longest of some trainings."""
    return ("--epochs", f"{2 * max(record.key.epochs for record in records):g}")


def _seeds(runs: Sequence[AuditRecord]) -> int:
    return len({record.key.seed for record in runs})


def _name(record: AuditRecord) -> str:
    return f"{record.key.attack} ({record.key.arch})"


def _text(flag: Flag) -> str:
    """Cause and remedy as one sentence without its full stop."""
    return f"{flag.cause.removesuffix('.')}; {flag.remedy[0].lower()}{flag.remedy[1:].removesuffix('.')}"
