"""Opens the report in a real browser: console errors, width, contrast and names."""

import html
import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
from helpers import PAGE_POLICY, RecordedRelease, run_command

BROWSER = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
pytestmark = pytest.mark.skipif(BROWSER is None, reason="no Chromium is installed")
# Added to a copy of the page without its content security policy, which forbids scripts.
PROBE = """
<script>
function channel(v) { v /= 255; return v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4; }
function luminance(c) { return 0.2126 * channel(c[0]) + 0.7152 * channel(c[1]) + 0.0722 * channel(c[2]); }
function rgb(text) { return text.match(/[\\d.]+/g).map(Number); }
function behind(node) {
  for (; node; node = node.parentElement) {
    const c = rgb(getComputedStyle(node).backgroundColor);
    if (c.length < 4 || c[3] > 0) return c;
  }
  return [255, 255, 255];
}
const poor = [];
const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
while (walker.nextNode()) {
  const parent = walker.currentNode.parentElement;
  if (!walker.currentNode.data.trim() || ["SCRIPT", "TITLE"].includes(parent.tagName.toUpperCase())) continue;
  const style = getComputedStyle(parent);
  const ink = rgb(parent.tagName === "text" ? style.fill : style.color);
  const [a, b] = [luminance(ink), luminance(behind(parent))].sort((x, y) => y - x);
  const ratio = (a + 0.05) / (b + 0.05);
  if (ratio < 4.5) poor.push(walker.currentNode.data.trim().slice(0, 40) + " " + ratio.toFixed(2));
}
const wide = [...document.querySelectorAll("body *")].filter(
  (e) => !e.closest(".scroll, svg") && e.getBoundingClientRect().right > document.documentElement.clientWidth + 1);
const found = {
  width: window.innerWidth, scroll: document.documentElement.scrollWidth, poor: poor,
  wide: wide.map((e) => e.tagName + "." + e.className),
  smallest: Math.min(...[...document.querySelectorAll("svg text")].map((e) => e.getBoundingClientRect().height)),
  unnamed: [...document.querySelectorAll("img:not([alt]), svg:not([aria-label]), [tabindex]:not([aria-label])")].length,
  pictures: [...document.images].filter((i) => i.complete && i.naturalWidth > 0).length, images: document.images.length,
  page: getComputedStyle(document.body).backgroundColor,
};
parent.document.title = "FOUND" + JSON.stringify(found);
</script>
"""


def written(evidence: RecordedRelease, *words: str) -> Path:
    place = evidence.vault.parent
    (place / "policy.yaml").write_text(PAGE_POLICY)
    done = run_command("report", evidence.out, "--out", place / "page.html", "--policy", place / "policy.yaml", *words)
    assert done.code == 0, done.stderr
    return place / "page.html"


@pytest.fixture
def page(evidence: RecordedRelease) -> Path:
    return written(evidence)


def browse(page: Path, place: Path, width: int) -> tuple[str, list[str]]:
    """The document after loading, and the console messages."""
    words = [str(BROWSER), "--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage",
             f"--user-data-dir={place / 'profile'}", f"--window-size={width},900", "--enable-logging=stderr",
             "--v=0", "--dump-dom", page.as_uri()]  # fmt: skip
    done = subprocess.run(words, capture_output=True, text=True, timeout=120, check=True)
    return done.stdout, [line for line in done.stderr.splitlines() if "CONSOLE" in line]


@pytest.mark.parametrize("words", [(), ("--with-originals",)])
def test_the_page_loads_without_console_messages(
    words: tuple[str, ...], evidence: RecordedRelease, tmp_path: Path
) -> None:
    document, said = browse(written(evidence, *words), tmp_path, 1280)
    assert said == []
    assert "Fails the policy" in document


def test_console_messages_are_captured(tmp_path: Path) -> None:
    bad = tmp_path / "bad.html"
    bad.write_text("<!doctype html><title>t</title><script>nothing.here()</script>")
    assert any("ReferenceError" in line for line in browse(bad, tmp_path, 400)[1])


def probed(text: str, width: int, theme: str, place: Path) -> dict[str, Any]:
    """What the probe finds on a page of this width."""
    text = re.sub(r"<meta http-equiv=[^>]*>", "", text)
    text = text.replace('<html lang="en">', f'<html lang="en" data-theme="{theme}">')
    inner = html.escape(text.replace("</body>", PROBE + "</body>"))
    # A frame, because a window is never narrower than 500 pixels.
    frame = f'<iframe style="width:{width}px;height:900px;border:0" srcdoc="{inner}"></iframe>'
    (place / "probe.html").write_text(f"<!doctype html><meta charset=utf-8><title>t</title>{frame}")
    document, said = browse(place / "probe.html", place, 1400)
    assert said == []
    title = re.search(r"<title>FOUND(.*?)</title>", document, re.DOTALL)
    assert title is not None
    found: dict[str, Any] = json.loads(html.unescape(title[1]))
    return found


@pytest.mark.parametrize("theme", ["light", "dark"])
@pytest.mark.parametrize("width", [390, 1280])
def test_the_page_is_readable(width: int, theme: str, page: Path, tmp_path: Path) -> None:
    text = page.read_text().replace("out fails ", "out fails " + "x" * 200)
    found = probed(text, width, theme, tmp_path)
    assert found["width"] == width
    assert found["scroll"] <= width
    assert found["wide"] == [], "nothing but tables may scroll sideways"
    assert found["poor"] == []
    assert found["unnamed"] == 0
    assert found["smallest"] >= 10, "pixels"
    assert found["pictures"] == found["images"] > 10
    assert found["page"] == ("rgb(255, 255, 255)" if theme == "light" else "rgb(20, 23, 26)")


def test_the_probe_finds_planted_faults(page: Path, tmp_path: Path) -> None:
    spoilt = page.read_text().replace("--soft: #4d5661", "--soft: #bbbbbb")
    spoilt = spoilt.replace("<main>", '<main><div style="width:800px">wide</div><img src="data:,">')
    found = probed(spoilt, 390, "light", tmp_path)
    assert found["poor"] != []
    assert "DIV." in found["wide"]
    assert found["unnamed"] == 1
    assert found["pictures"] < found["images"]
