import base64
import io
import json
from datetime import date
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers import PAGE_POLICY, Command, RecordedRelease
from PIL import Image

from pueprotect.check.evidence import read_evidence
from pueprotect.check.formats import CheckReport
from pueprotect.check.policy import Policy
from pueprotect.check.policyfile import PolicyFile
from pueprotect.check.report.page import bars, render
from pueprotect.images.decode import decode_rgb

DIGEST = "sha256:" + "0" * 64


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


def page_of(evidence: RecordedRelease, command: Command, *words: object) -> str:
    target = evidence.vault.parent / "page.html"
    policy = evidence.vault.parent / "policy.yaml"
    policy.write_text(PAGE_POLICY)
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
        screened = [
            point | {"certified_learnability": None, "population": None, "rank": None} for point in data["curve"]
        ]
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
    gates = {bar.row.attack: bar.gate for bar in bars(read_evidence(evidence.out), check)}
    assert gates["standard"] == pytest.approx(0.3 + 0.5 * (0.9 - 0.3))
    assert gates["pst"] == 0.4, "the tighter one"


def test_bars_are_sorted_and_have_no_gate_without_a_policy(evidence: RecordedRelease) -> None:
    found = bars(read_evidence(evidence.out), None)
    assert [bar.row.attack for bar in found[:3]] == ["pst", "recovery", "weight-noise"]
    assert {bar.row.attack for bar in found[3:]} == {"class-mean", "colour", "jpeg-10", "standard"}
    assert found[0].clean == 0.9
    assert found[0].gate is None


def test_an_attack_has_one_bar_for_all_its_seeds(evidence: RecordedRelease, command: Command) -> None:
    data = json.loads((evidence.vault / "audit/pst-resnet8.json").read_text())
    data["key"]["seed"], data["result"]["accuracy"] = 1, 0.65
    (evidence.vault / "audit/seed-1").mkdir()
    (evidence.vault / "audit/seed-1/pst-resnet8.json").write_text(json.dumps(data))
    (bar,) = (bar for bar in bars(read_evidence(evidence.out), None) if bar.row.attack == "pst")
    assert bar.row.accuracy == pytest.approx((0.45 + 0.65) / 2)
    assert bar.row.recovered == pytest.approx((0.25 + 0.35 / 0.6) / 2)
    assert page_of(evidence, command).count("<b>pst</b> (resnet8)") == 1


def test_by_default_only_released_pixels_are_shown(evidence: RecordedRelease, command: Command) -> None:
    text = page_of(evidence, command, "--images", 60)
    page = Page(text)
    assert len(page.images) >= 60
    released = {row.path: decode_rgb(evidence.out / row.path) for row in read_evidence(evidence.out).rows}
    for image in page.images:
        name, _, kind = str(image["alt"]).partition(", ")
        assert kind == "released"
        assert np.array_equal(pixels(str(image["src"])), released[name])
    assert str(evidence.release.src) not in text, "paths may name people and machines"
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


def test_evidence_for_other_files_is_left_out_and_reported(evidence: RecordedRelease, command: Command) -> None:
    other = "sha256:" + "a" * 64
    evidence.edit("audit/pst-resnet8.json", lambda data: data["key"].update(data_digest=other))
    evidence.edit("certificate.json", lambda data: data.update(data_digest=other))
    text = page_of(evidence, command)
    assert "<b>pst</b> (resnet8)" not in text
    assert "Left out, because they are for other files: 1 recorded result." in text
    assert "The recorded certificate is for other files" in text


def test_names_cannot_inject_markup(evidence: RecordedRelease) -> None:
    records = read_evidence(evidence.out)
    records.run["settings"]["<script>alert(1)</script>"] = "<img src=x>"
    text = render(records, None, today=date(2026, 1, 1), images=1)
    assert "<script" not in text
    assert "<img src=x>" not in text
