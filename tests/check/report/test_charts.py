import re

import pytest

from pueprotect.check.report.charts import Level, Series, histogram, line_chart, nice


def test_a_chart_names_its_figures_in_words_and_escapes_names() -> None:
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
