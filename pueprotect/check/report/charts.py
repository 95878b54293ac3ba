"""Draws charts as inline SVG. Colours are classes of the page's style sheet.

Each chart has a title and a label with its figures in words, for screen readers.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise

from markupsafe import Markup

WIDTH, HEIGHT = 400.0, 250.0
LEFT, RIGHT, TOP, BOTTOM = 42.0, 20.0, 12.0, 40.0
TICKS = 5


@dataclass(frozen=True)
class Series:
    """A named line: (x, y) points, ascending in x; `style` is a class of the style sheet."""

    name: str
    points: tuple[tuple[float, float], ...]
    style: str
    marks: bool = True


@dataclass(frozen=True)
class Level:
    """A line across a chart at one value."""

    name: str
    y: float
    style: str


@dataclass(frozen=True)
class _Frame:
    """Maps data coordinates of one chart to those of the picture."""

    x_low: float
    x_high: float
    y_high: float

    def x(self, value: float) -> float:
        span = self.x_high - self.x_low or 1.0
        return LEFT + (value - self.x_low) / span * (WIDTH - LEFT - RIGHT)

    def y(self, value: float) -> float:
        return HEIGHT - BOTTOM - min(value, self.y_high) / self.y_high * (HEIGHT - TOP - BOTTOM)

    def across(self, style: str, y: float) -> Markup:
        return _line(style, LEFT, WIDTH - RIGHT, self.y(y), self.y(y))

    def upright(self, style: str, x: float) -> Markup:
        return _line(style, self.x(x), self.x(x), TOP, HEIGHT - BOTTOM)

    def axes(self, x_label: str, x_ticks: Iterable[float], percent: bool) -> list[Markup]:
        parts = []
        for step in range(TICKS + 1):
            value = self.y_high * step / TICKS
            parts.append(self.across("grid", value))
            label = f"{100 * value:.0f} %" if percent else f"{value:.3g}"
            parts.append(_text(LEFT - 5, self.y(value) + 4, label, "end"))
        parts += [_text(self.x(tick), HEIGHT - BOTTOM + 15, f"{tick:g}", "middle") for tick in x_ticks]
        parts.append(_text((LEFT + WIDTH - RIGHT) / 2, HEIGHT - 6, x_label, "middle"))
        return parts


def line_chart(
    title: str,
    series: Sequence[Series],
    *,
    x_label: str,
    levels: Sequence[Level] = (),
    y_high: float = 1.0,
    percent: bool = True,
    alarms: Sequence[float] = (),
) -> Markup:
    """Lines over a common x axis; `alarms` are x positions of vertical lines."""
    xs = [x for one in series for x, _ in one.points]
    frame = _Frame(min(xs, default=0.0), max(xs, default=1.0), y_high)
    parts = frame.axes(x_label, _ticks(xs), percent)
    parts += [frame.upright("alarm", x) for x in alarms]
    parts += [frame.across(level.style, level.y) for level in levels]
    for one in series:
        path = " ".join(f"{frame.x(x):.1f},{frame.y(y):.1f}" for x, y in one.points)
        parts.append(Markup('<polyline class="line {}" points="{}"/>').format(one.style, path))
        for x, y in one.points if one.marks else ():
            mark = Markup('<circle class="mark {}" cx="{:.1f}" cy="{:.1f}" r="3"/>')
            parts.append(mark.format(one.style, frame.x(x), frame.y(y)))
    said = [f"{one.name}: {_said(one.points, percent)}" for one in series]
    said += [f"{level.name}: {_figure(level.y, percent)}" for level in levels]
    return _svg(title, ". ".join(said), parts)


def histogram(
    title: str, groups: Sequence[tuple[str, Sequence[float], str]], *, x_label: str, levels: Sequence[Level] = ()
) -> Markup:
    """Shares of the draws in 25 bins of accuracy from 0 to 1; `levels` are vertical lines here.

    A group is a name, its accuracies and a class of the style sheet.
    """
    bins = 25
    shares = []
    for _, values, _ in groups:
        counts = [0] * bins
        for value in values:
            counts[min(bins - 1, int(value * bins))] += 1
        shares.append([count / max(1, len(values)) for count in counts])
    frame = _Frame(0.0, 1.0, nice(max((max(share) for share in shares), default=0.0)))
    parts = frame.axes(x_label, (), percent=True)
    parts += [_text(frame.x(step / 5), HEIGHT - BOTTOM + 15, f"{20 * step} %", "middle") for step in range(6)]
    width = (WIDTH - LEFT - RIGHT) / bins / max(1, len(groups))
    for number, ((_, _, style), share) in enumerate(zip(groups, shares, strict=True)):
        for index, value in enumerate(share):
            if value:
                left, height = frame.x(index / bins) + number * width, HEIGHT - BOTTOM - frame.y(value)
                bar = Markup('<rect class="fill {}" x="{:.1f}" y="{:.1f}" width="{:.1f}" height="{:.1f}"/>')
                parts.append(bar.format(style, left, frame.y(value), width, height))
    parts += [frame.upright(level.style, level.y) for level in levels]
    said = [f"{name}: {len(v)} draws from {min(v):.1%} to {max(v):.1%}" for name, v, _ in groups if v]
    said += [f"{level.name}: {level.y:.1%}" for level in levels]
    return _svg(title, ". ".join(said), parts)


def nice(value: float) -> float:
    """The smallest of 0.1, 0.2, 0.25, 0.5, 1, 2, ... that is not below `value`, for an axis with even labels."""
    if value <= 0:
        return 1.0
    power = 10.0 ** math.floor(math.log10(value))
    return next(step * power for step in (1, 2, 2.5, 5, 10) if step * power >= value * (1 - 1e-9))


def _ticks(xs: Sequence[float]) -> list[float]:
    """The x values themselves if there are at most seven and none is too near another, else round figures."""
    found = sorted(set(xs))
    apart = all(12 * (right - left) > found[-1] - found[0] for left, right in pairwise(found))
    if len(found) <= 7 and apart:
        return found
    step = nice((found[-1] - found[0]) / 6)
    first = math.ceil(found[0] / step)
    return [number * step for number in range(first, math.floor(found[-1] / step + 1e-9) + 1)]


def _line(style: str, x1: float, x2: float, y1: float, y2: float) -> Markup:
    return Markup('<line class="{}" x1="{:.1f}" x2="{:.1f}" y1="{:.1f}" y2="{:.1f}"/>').format(style, x1, x2, y1, y2)


def _text(x: float, y: float, text: str, anchor: str) -> Markup:
    return Markup('<text x="{:.1f}" y="{:.1f}" text-anchor="{}">{}</text>').format(x, y, anchor, text)


def _figure(value: float, percent: bool) -> str:
    return f"{value:.1%}" if percent else f"{value:.3g}"


def _said(points: Sequence[tuple[float, float]], percent: bool) -> str:
    if not points:
        return "no figure"
    if len(points) <= 8:
        return ", ".join(f"{_figure(y, percent)} at {x:g}" for x, y in points)
    low, high = min(y for _, y in points), max(y for _, y in points)
    ends = f"from {_figure(points[0][1], percent)} to {_figure(points[-1][1], percent)}"
    return f"{ends}, between {_figure(low, percent)} and {_figure(high, percent)}"


def _svg(title: str, description: str, parts: Iterable[Markup]) -> Markup:
    return Markup('<svg viewBox="0 0 {:.0f} {:.0f}" role="img" aria-label="{}: {}"><title>{}</title>{}</svg>').format(
        WIDTH, HEIGHT, title, description, title, Markup("").join(parts)
    )
