"""Renders the report as one HTML file: no script, no network, light and dark, printable.

By default the page shows released files only, and nothing in it helps to undo the protection. `with_originals` adds
originals and the noise, and the page says that it must stay private.
"""

from __future__ import annotations

import base64
import io
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import date
from itertools import chain, pairwise, zip_longest
from pathlib import Path
from statistics import mean
from typing import Any

import numpy as np
import numpy.typing as npt
from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup
from PIL import Image

from pueprotect.audit.flags import FLAGS
from pueprotect.certify.flags import FLAGS as CERTIFICATE_FLAGS
from pueprotect.check.evidence import Evidence
from pueprotect.check.formats import CheckReport
from pueprotect.check.policy import AuditRules
from pueprotect.check.report.charts import Level, Series, histogram, line_chart, nice
from pueprotect.check.verdicts import OUTCOMES
from pueprotect.images.decode import decode_rgb
from pueprotect.release.audits import CLEAN_SHARE_ALONE, PST_ALARM, AuditRecord, AuditRow
from pueprotect.release.certificates import Certificate, RecipeFigures
from pueprotect.release.digests import sha256_of
from pueprotect.release.records import ManifestRow
from pueprotect.runtime import VERSION

Pixels = npt.NDArray[np.uint8]

SIDE = 192
NOISE_GAIN = 10
WORST = 8
PST = ("pst", "pst-colour")
BALL = "eta "  # the recovery attack names its result within a radius so


@dataclass(frozen=True)
class Picture:
    """Data URIs of one released file; the original and the noise only with originals."""

    path: str
    released: str
    original: str | None = None
    noise: str | None = None


@dataclass(frozen=True)
class Bar:
    """One attack; `gate` is the largest accuracy that the policy passes."""

    row: AuditRow
    clean: float | None
    chance: float | None
    gate: float | None


def render(
    evidence: Evidence, check: CheckReport | None, *, today: date, with_originals: bool = False, images: int = 12
) -> str:
    """Render the page.

    Args:
        evidence: its files must be as released.
        check: the verdict at the top, if there is a policy.
        today: for the header.
        with_originals: also show originals and the noise x 10.
        images: how many pictures.

    Raises:
        ImageError: a released file cannot be decoded.
    """
    loader = PackageLoader("pueprotect.check.report", ".")
    environment = Environment(
        loader=loader, autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters["percent"] = percent
    certificate = evidence.certificate
    if stale := certificate is not None and certificate.data_digest != evidence.digest:
        certificate = None
    worst = sorted((row for row in evidence.rows if row.ssim is not None), key=lambda row: row.ssim or 0.0)[:WORST]
    firsts = [runs[0] for runs in evidence.runs.values()]
    details = [(record, record.result.details) for record in firsts]
    return environment.get_template("template.html").render(
        name=evidence.out.resolve().name,
        today=today,
        version=VERSION,
        evidence=evidence,
        check=check,
        outcome=OUTCOMES[check.code] if check else None,
        certificate=certificate,
        stale_certificate=stale,
        curve=_curve(certificate, check) if certificate else None,
        surrogates=_surrogates(certificate) if certificate else (),
        draws=_draws(certificate) if certificate else None,
        certificate_flags=CERTIFICATE_FLAGS,
        audit_flags=FLAGS,
        bars=bars(evidence, check),
        stale_attacks=sum(record.key.data_digest != evidence.digest for record in evidence.audit),
        pst=[_pst(record) for record, found in details if record.key.attack in PST and found.get("trace")],
        points=[(record, _radii(record, certificate)) for record, found in details if found.get("points")],
        pictures=[picture(evidence, row, with_originals) for row in _spread(evidence.rows, images)],
        with_originals=with_originals,
        worst_files=[(row, picture(evidence, row, False)) for row in worst],
        measured=sum(row.ssim is not None for row in evidence.rows),
        settings=_settings(evidence),
    )


def percent(value: float | None) -> str:
    """0.123 -> 12.3 %; a dash where unknown."""
    return "\N{EN DASH}" if value is None else f"{100 * value:.1f} %"


def bars(evidence: Evidence, check: CheckReport | None) -> list[Bar]:
    """Every fresh attack with a figure, the mean over its seeds, the most damaging first."""
    rules = check.file.policy.audit if check else None
    found = []
    for runs in evidence.runs.values():
        record = runs[0]
        shares = [share for run in runs if (share := evidence.recovered(run)) is not None]
        row = AuditRow.over([run.result for run in runs], mean(shares) if len(shares) == len(runs) else None)
        if not row.failed:
            line = evidence.clean_line(record)
            clean = line.result.accuracy if line else None
            found.append(Bar(row, clean, record.chance, _gate(rules, record, clean) if rules else None))
    return sorted(found, key=lambda bar: (-(bar.row.accuracy or 0.0), bar.row.attack, bar.row.arch))


def _gate(rules: AuditRules, record: AuditRecord, clean: float | None) -> float | None:
    """The tighter of the two limits on an attack, as an accuracy."""
    limits = rules.limits_of(record.key.attack)
    accuracies = [limits["max_accuracy"]] if "max_accuracy" in limits else []
    if "max_recovered" in limits and clean is not None and record.chance is not None:
        accuracies.append(record.chance + limits["max_recovered"] * (clean - record.chance))
    return min(accuracies, default=None)


def _curve(certificate: Certificate, check: CheckReport | None) -> tuple[Markup, list[tuple[str, str]]]:
    """The certified bounds of protected data and of the clean baseline by radius, and the legend (style, name)."""
    rules = check.file.policy.certify if check else None

    def line(name: str, figures: RecipeFigures, style: str, bound: str = "certified_learnability") -> Series:
        points = ((p.eta, getattr(p, bound)) for p in figures.curve if getattr(p, bound) is not None)
        return Series(name, tuple(sorted(points)), style)

    others = ((name, figures) for name, figures in certificate.recipes.items() if name != certificate.recipe)
    series = [line(f"protected, {name} surrogate", figures, "other") for name, figures in others]
    series.append(line(f"protected, {certificate.recipe} surrogate", certificate, "protected"))
    series.append(line("protected, for the population", certificate, "population", "population"))
    if certificate.baseline:
        series.append(line("clean baseline", certificate.baseline, "clean"))
    levels = [Level("chance", certificate.chance, "chance")]
    if rules and rules.max_learnability is not None:
        levels.append(Level("policy's limit", rules.max_learnability, "gate"))
    drawn = [one for one in series if one.points]  # screened recipes have no bound
    chart = line_chart("Certified learnability by radius", drawn, x_label="radius eta (L2)", levels=levels)
    return chart, _legend(*drawn, *levels)


def _surrogates(certificate: Certificate) -> list[tuple[str, RecipeFigures]]:
    """Every surrogate by its label; the one that counts and the clean baseline come last."""
    found: list[tuple[str, RecipeFigures]] = []
    for name, figures in certificate.recipes.items():
        if name != certificate.recipe:
            certified = any(point.certified_learnability is not None for point in figures.curve)
            found.append((name if certified else f"{name} (screened)", figures))
    found.append((f"{certificate.recipe} (counts)", certificate))
    return found + ([("clean baseline", certificate.baseline)] if certificate.baseline else [])


def _draws(certificate: Certificate) -> Markup | None:
    """The histogram of the accuracies behind the certificate; None if it was not recorded."""
    groups = []
    for figures, style in ((certificate, "protected"), (certificate.baseline, "clean")):
        if figures and (found := figures.noisy_accuracy.histogram):
            middles = [(low + high) / 2 for low, high in pairwise(found.edges)]
            values = [middle for middle, draws in zip(middles, found.draws, strict=True) for _ in range(draws)]
            groups.append((f"{style} data", values, style))
    if not groups:
        return None
    chance = Level("chance", certificate.chance, "chance")
    return histogram("Accuracy of the drawn classifiers", groups, x_label="clean accuracy of a draw", levels=[chance])


def _pst(record: AuditRecord) -> dict[str, Any]:
    """Charts of one staged training: activation clusters, the alarm's quotient and accuracy."""
    log = record.result.details["trace"]
    stages = list(log[0]["acm"])
    alarms = [float(entry["step"]) for entry in log if entry["alarm"]]

    def line(name: str, values: Iterable[float], style: str) -> Series:
        points = zip((float(entry["step"]) for entry in log), values, strict=True)
        return Series(name, tuple(points), style, marks=False)

    def over_steps(title: str, series: Sequence[Series], *levels: Level) -> Markup:
        top = nice(max((y for one in series for _, y in one.points), default=1.0))
        return line_chart(
            title, series, x_label="training step", y_high=top, percent=False, alarms=alarms, levels=levels
        )

    acm = [line(stage, (entry["acm"][stage] for entry in log), f"stage{n % 4}") for n, stage in enumerate(stages)]
    quotient = line("q", (float(entry["ratio"]) for entry in log), "protected")
    passes = enumerate(record.result.details.get("epoch_accuracy", ()), start=1)
    accuracy = Series("accuracy", tuple((float(number), value) for number, value in passes), "protected", marks=False)
    shown = line_chart(
        "Accuracy on clean test images", [accuracy], x_label="pass over the images, repeats included",
        levels=_chance(record),
    )  # fmt: skip
    return {
        "attack": record.key.attack,
        "arch": record.key.arch,
        "alarms": len(alarms),
        "stages": len(stages),
        "acm": over_steps("ACM of each stage", acm),
        "q": over_steps("Alarm quotient q", [quotient], Level("alarm", PST_ALARM, "gate")),
        "accuracy": shown if accuracy.points else None,
    }


def _legend(*lines: Series | Level) -> list[tuple[str, str]]:
    return [(line.style, line.name) for line in lines]


def _chance(record: AuditRecord) -> list[Level]:
    return [Level("chance", record.chance, "chance")] if record.chance is not None else []


def _radii(record: AuditRecord, certificate: Certificate | None) -> tuple[Markup, list[tuple[str, str]]] | None:
    """The accuracy of fine-tuning by radius with the certified curve, and the legend; None without radii."""
    points = record.result.details["points"]
    balls = [(float(name.removeprefix(BALL)), value) for name, value in points.items() if name.startswith(BALL)]
    if not balls:
        return None
    series = [Series(record.key.attack, tuple(sorted(balls)), "other")]
    bounds = [(p.eta, p.certified_learnability) for p in certificate.curve] if certificate else []
    certified = tuple(sorted((eta, bound) for eta, bound in bounds if bound is not None))
    if certificate and certified:
        series.append(Series(f"certified around the {certificate.recipe} surrogate", certified, "protected"))
    levels = [Level(CLEAN_SHARE_ALONE, points[CLEAN_SHARE_ALONE], "clean")] if CLEAN_SHARE_ALONE in points else []
    levels += _chance(record)
    chart = line_chart("Recovery by radius", series, x_label="radius eta (L2)", levels=levels)
    return chart, _legend(*series, *levels)


def _spread(rows: Sequence[ManifestRow], count: int) -> list[ManifestRow]:
    """The first files of each class in turn."""
    by_class: dict[str, list[ManifestRow]] = {}
    for row in rows:
        by_class.setdefault(row.class_name, []).append(row)
    return [row for row in chain.from_iterable(zip_longest(*by_class.values())) if row is not None][:count]


def picture(evidence: Evidence, row: ManifestRow, with_originals: bool) -> Picture:
    """A thumbnail of a released file; with originals, cut-outs of original, release and noise at native size."""
    after = decode_rgb(evidence.out / row.path)
    if not with_originals:
        image = Image.fromarray(after)
        image.thumbnail((SIDE, SIDE))
        return Picture(row.path, _uri(image))
    source = Path(evidence.run["source"]) / row.source_path
    if not source.is_file() or sha256_of(source) != row.source_sha256:
        return Picture(row.path, _uri(_centre(after)))
    before = decode_rgb(source)
    gap = after.astype(np.int16) - before.astype(np.int16)
    noise = np.clip(128 + NOISE_GAIN * gap, 0, 255).astype(np.uint8)
    return Picture(row.path, *(_uri(_centre(pixels)) for pixels in (after, before, noise)))


def _centre(pixels: Pixels) -> Image.Image:
    """The middle at native size, because scaling would hide the noise."""
    top, left = (max(0, (side - SIDE) // 2) for side in pixels.shape[:2])
    return Image.fromarray(np.ascontiguousarray(pixels[top : top + SIDE, left : left + SIDE]))


def _uri(image: Image.Image) -> str:
    buffer = io.BytesIO()
    image.save(buffer, "PNG", optimize=True)
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode()


def _settings(evidence: Evidence) -> dict[str, dict[str, str]]:
    """The facts needed to repeat the work, without the secret key, and without paths, which may name people."""
    run, certificate = evidence.run, evidence.certificate
    left_out = {"key", "labels", "overwrite", "resume", "workers", "release_anyway"}
    manifest = {"manifest": f"sha256:{run['manifest_sha256']}"} if run else {}
    sections: dict[str, dict[str, Any]] = {
        "Protection": {name: value for name, value in run.get("settings", {}).items() if name not in left_out},
        "Certificate": certificate.model_dump(include={"q", "sigma", "draws", "alpha", "joint"}) if certificate else {},
        "Versions": run.get("environment", {}),
        "Digests": {"released data": evidence.digest} | manifest,
    }
    return {title: {name: str(v) for name, v in values.items()} for title, values in sections.items() if values}
