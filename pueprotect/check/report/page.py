"""The report as one HTML file: everything inlined, no script, no network, light and dark, printable.

By default it shows released files only; nothing in it helps to undo the protection. `with_originals` adds originals
and the noise, and the page says that it must stay private.
"""

from __future__ import annotations

import base64
import io
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import date
from itertools import chain, pairwise, zip_longest
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup
from PIL import Image

from pueprotect import __version__
from pueprotect.audit.flags import FLAGS
from pueprotect.certify.flags import FLAGS as CERTIFICATE_FLAGS
from pueprotect.check.evidence import Evidence
from pueprotect.check.formats import CheckReport
from pueprotect.check.policy import AuditRules
from pueprotect.check.report.charts import Level, Series, histogram, line_chart, nice
from pueprotect.check.verdicts import OUTCOMES
from pueprotect.images.decode import decode_rgb
from pueprotect.release.digests import sha256_of
from pueprotect.release.records import CLEAN_SHARE_ALONE, AuditRecord, AuditRow, Certificate, ManifestRow, RecipeFigures

Pixels = npt.NDArray[np.uint8]

SIDE = 192
NOISE_GAIN = 10
WORST = 8
PST = ("pst", "pst-colour")
BALL = "eta "  # how the recovery attack names what it reached within a radius


@dataclass(frozen=True)
class Picture:
    """One released file; the other two only with originals. Each is a data URI."""

    path: str
    class_name: str
    released: str
    original: str | None = None
    noise: str | None = None


@dataclass(frozen=True)
class Bar:
    """One attack in the order of damage; `gate` is the accuracy at which the policy fails it."""

    row: AuditRow
    clean: float | None
    chance: float | None
    gate: float | None


def render(
    evidence: Evidence, check: CheckReport | None, *, today: date, with_originals: bool = False, images: int = 12
) -> str:
    """The page.

    Args:
        evidence: the evidence; its files must be as released.
        check: the verdict to put first, if there is a policy.
        today: for the header.
        with_originals: show originals and noise x 10 beside released files.
        images: how many pictures.

    Raises:
        ImageError: a released file cannot be decoded.
    """
    environment = Environment(
        loader=PackageLoader("pueprotect.check.report", "."),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["percent"] = percent
    found = evidence.certificate
    certificate = found if found and found.data_digest == evidence.digest else None
    rows = _spread(evidence.rows, images)
    worst = sorted((row for row in evidence.rows if row.ssim is not None), key=lambda row: row.ssim or 0.0)[:WORST]
    shown = bars(evidence, check)
    return environment.get_template("template.html").render(
        name=evidence.out.resolve().name,
        today=today,
        version=__version__,
        evidence=evidence,
        check=check,
        outcome=OUTCOMES[check.code] if check else None,
        certificate=certificate,
        stale_certificate=found is not None and certificate is None,
        curve=_curve(certificate, check) if certificate else None,
        surrogates=_surrogates(certificate) if certificate else (),
        draws=_draws(certificate) if certificate else None,
        certificate_flags=CERTIFICATE_FLAGS,
        audit_flags=FLAGS,
        bars=shown,
        stale_attacks=sum(record.key.data_digest != evidence.digest for record in evidence.audit),
        pst=[
            _pst(record) for record in evidence.fresh if record.key.attack in PST and record.result.details.get("trace")
        ],
        points=[
            (record, _radii(record, certificate)) for record in evidence.fresh if record.result.details.get("points")
        ],
        pictures=[picture(evidence, row, with_originals) for row in rows],
        with_originals=with_originals,
        worst_files=[(row, picture(evidence, row, False)) for row in worst],
        measured=sum(row.ssim is not None for row in evidence.rows),
        settings=_settings(evidence),
    )


def percent(value: float | None) -> str:
    """0.123 -> 12.3 %; a dash where unknown."""
    return "\N{EN DASH}" if value is None else f"{100 * value:.1f} %"


def bars(evidence: Evidence, check: CheckReport | None) -> list[Bar]:
    """Every fresh attack with a figure, the most damaging first."""
    rules = check.file.policy.audit if check else None
    found = []
    for record in evidence.fresh:
        if record.result.failed:
            continue
        line = evidence.clean_line(record)
        row = AuditRow.over([record.result], evidence.recovered(record))
        gate = _gate(rules, record, line) if rules else None
        found.append(Bar(row, line.result.accuracy if line else None, record.chance, gate))
    return sorted(found, key=lambda bar: (-(bar.row.accuracy or 0.0), bar.row.attack, bar.row.arch))


def _gate(rules: AuditRules, record: AuditRecord, clean: AuditRecord | None) -> float | None:
    """The accuracy at which the tighter of the two limits on an attack lies."""
    limits = rules.limits_of(record.key.attack)
    accuracies = [limits["max_accuracy"]] if "max_accuracy" in limits else []
    top = clean.result.accuracy if clean else None
    if "max_recovered" in limits and top is not None and record.chance is not None:
        accuracies.append(record.chance + limits["max_recovered"] * (top - record.chance))
    return min(accuracies, default=None)


def _curve(certificate: Certificate, check: CheckReport | None) -> tuple[Markup, list[tuple[str, str]]]:
    """Certified bounds of protected data and the clean baseline over the radius, and the legend (style, name)."""
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
    return chart, [(one.style, one.name) for one in drawn] + [(level.style, level.name) for level in levels]


def _surrogates(certificate: Certificate) -> list[tuple[str, RecipeFigures]]:
    """Every network that was looked at; the one that counts and the clean baseline last."""
    found: list[tuple[str, RecipeFigures]] = []
    for name, figures in certificate.recipes.items():
        if name != certificate.recipe:
            certified = any(point.certified_learnability is not None for point in figures.curve)
            found.append((name if certified else f"{name} (screened)", figures))
    found.append((f"{certificate.recipe} (counts)", certificate))
    return found + ([("clean baseline", certificate.baseline)] if certificate.baseline else [])


def _draws(certificate: Certificate) -> Markup | None:
    """The histogram of the accuracies behind the certificate, where it is recorded."""
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
    details = record.result.details
    log = details["trace"]
    steps = [float(entry["step"]) for entry in log]
    stages = list(log[0]["acm"])

    def line(name: str, values: Iterable[float], style: str) -> Series:
        return Series(name, tuple(zip(steps, values, strict=True)), style, marks=False)

    acm = [
        line(stage, (entry["acm"][stage] for entry in log), f"stage{number % 4}") for number, stage in enumerate(stages)
    ]
    quotient = line("q", (float(entry["ratio"]) for entry in log), "protected")
    alarms = [float(entry["step"]) for entry in log if entry["alarm"]]
    accuracy = tuple((float(number), value) for number, value in enumerate(details.get("epoch_accuracy", ()), start=1))
    chance = [Level("chance", record.chance, "chance")] if record.chance is not None else []

    def top(*series: Series) -> float:
        return nice(max((y for one in series for _, y in one.points), default=1.0))

    return {
        "attack": record.key.attack,
        "arch": record.key.arch,
        "alarms": len(alarms),
        "stages": len(stages),
        "acm": line_chart("ACM of each stage", acm, x_label="training step", y_high=top(*acm), percent=False,
                          alarms=alarms),
        "q": line_chart("Alarm quotient q", [quotient], x_label="training step", y_high=top(quotient), percent=False,
                        alarms=alarms, levels=[Level("alarm", 1.5, "gate")]),
        "accuracy": line_chart("Accuracy on clean test images", [Series("accuracy", accuracy, "protected", False)],
                               x_label="pass over the images, repeats included", levels=chance)
        if accuracy
        else None,
    }  # fmt: skip


def _radii(record: AuditRecord, certificate: Certificate | None) -> tuple[Markup, list[tuple[str, str]]] | None:
    """What fine-tuning inside each ball reached beside the certified curve, and the legend; None without balls."""
    points = record.result.details["points"]
    balls = {name: value for name, value in points.items() if name.startswith(BALL)}
    if not balls:
        return None
    reached = tuple(sorted((float(name.removeprefix(BALL)), value) for name, value in balls.items()))
    series = [Series(record.key.attack, reached, "other")]
    bounds = [(p.eta, p.certified_learnability) for p in certificate.curve] if certificate else []
    certified = tuple(sorted((eta, bound) for eta, bound in bounds if bound is not None))
    if certificate and certified:
        series.append(Series(f"certified around the {certificate.recipe} surrogate", certified, "protected"))
    levels = [Level(CLEAN_SHARE_ALONE, points[CLEAN_SHARE_ALONE], "clean")] if CLEAN_SHARE_ALONE in points else []
    levels += [Level("chance", record.chance, "chance")] if record.chance is not None else []
    chart = line_chart("Recovery by radius", series, x_label="radius eta (L2)", levels=levels)
    return chart, [(one.style, one.name) for one in series] + [(level.style, level.name) for level in levels]


def _spread(rows: Sequence[ManifestRow], count: int) -> list[ManifestRow]:
    """The first files of each class in turn."""
    by_class: dict[str, list[ManifestRow]] = {}
    for row in rows:
        by_class.setdefault(row.class_name, []).append(row)
    return [row for row in chain.from_iterable(zip_longest(*by_class.values())) if row is not None][:count]


def picture(evidence: Evidence, row: ManifestRow, with_originals: bool) -> Picture:
    """A released file as a thumbnail; with originals, cut-outs of original, release and noise at native size."""
    after = decode_rgb(evidence.out / row.path)
    if not with_originals:
        return Picture(row.path, row.class_name, _uri(_thumbnail(after)))
    source = Path(evidence.run["source"]) / row.source_path
    if not source.is_file() or sha256_of(source) != row.source_sha256:
        return Picture(row.path, row.class_name, _uri(_centre(after)))
    before = decode_rgb(source)
    gap = after.astype(np.int16) - before.astype(np.int16)
    noise = np.clip(128 + NOISE_GAIN * gap, 0, 255).astype(np.uint8)
    return Picture(row.path, row.class_name, *(_uri(_centre(pixels)) for pixels in (after, before, noise)))


def _thumbnail(pixels: Pixels) -> Image.Image:
    image = Image.fromarray(pixels)
    image.thumbnail((SIDE, SIDE))
    return image


def _centre(pixels: Pixels) -> Image.Image:
    """The middle at native size: scaling would wash the noise out."""
    top, left = (max(0, (side - SIDE) // 2) for side in pixels.shape[:2])
    return Image.fromarray(np.ascontiguousarray(pixels[top : top + SIDE, left : left + SIDE]))


def _uri(image: Image.Image) -> str:
    buffer = io.BytesIO()
    image.save(buffer, "PNG", optimize=True)
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode()


def _settings(evidence: Evidence) -> dict[str, dict[str, str]]:
    """What a reader needs to repeat the work; no paths, which name people and machines."""
    run = evidence.run
    left_out = {"labels", "overwrite", "resume", "workers", "release_anyway"}
    made = {name: str(value) for name, value in run.get("settings", {}).items() if name not in left_out}
    certificate = evidence.certificate
    certified = certificate.model_dump(include={"q", "sigma", "draws", "alpha", "joint"}) if certificate else {}
    digests = {"released data": evidence.digest}
    if run:
        digests["manifest"] = f"sha256:{run['manifest_sha256']}"
    sections = {
        "Protection": made,
        "Certificate": {name: str(value) for name, value in certified.items()},
        "Versions": {name: str(value) for name, value in run.get("environment", {}).items()},
        "Digests": digests,
    }
    return {name: values for name, values in sections.items() if values}
