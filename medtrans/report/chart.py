"""A chart of curves as SVG, in the colours of the page that it stands on."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from html import escape
from typing import NamedTuple

Points = Sequence[tuple[float, float]]

_WIDTH, _HEIGHT = 400, 220  # as wide as a phone, so that letters stay as large as they are there
_LEFT, _RIGHT, _TOP, _BOTTOM = 54, 10, 10, 26
_MOST_POINTS = 200  # of a curve; more are averaged
_MOST_TICKS = 6


class Chart(NamedTuple):
    """Curves over one axis.

    Attributes
    ----------
    title : str
    curves : mapping
        Name -> (x, y), x rising; what is not finite is left out.
    logarithmic : bool
        Of the y axis, where all values are above 0.
    unit : str
        Of y.
    """

    title: str
    curves: Mapping[str, Points]
    logarithmic: bool = False
    unit: str = ""


def draw_chart(chart: Chart) -> str:
    """Draw a chart as HTML; nothing where there are no points."""
    curves = {name: _finite(points) for name, points in chart.curves.items()}
    values = [y for points in curves.values() for _, y in points]
    if not values:
        return ""
    logarithmic = chart.logarithmic and min(values) > 0
    across = _Axis(0.0, max(x for points in curves.values() for x, _ in points) or 1.0)
    up = _Axis.of([math.log10(y) if logarithmic else y for y in values], logarithmic)
    paths = [
        _curve(number, points, across, up)
        for number, points in enumerate(curves.values())
        if points
    ]
    last = ", ".join(f"{name} {points[-1][1]:.4g}" for name, points in curves.items() if points)
    return (
        f'<figure class="chart"><figcaption><b>{escape(chart.title)}</b> {_legend(chart, curves)}'
        f'</figcaption><svg viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img" '
        f'aria-label="{escape(f"{chart.title}; last: {last}")}">'
        f"{_across(across)}{_up(up)}{''.join(paths)}</svg></figure>"
    )


class _Axis(NamedTuple):
    """From where to where an axis goes, in exponents of ten where it is logarithmic."""

    low: float
    high: float
    logarithmic: bool = False

    @classmethod
    def of(cls, values: Sequence[float], logarithmic: bool = False) -> _Axis:
        low, high = min(values), max(values)
        margin = (high - low) * 0.04 or abs(high) * 0.1 or 1.0
        return cls(low - margin, high + margin, logarithmic)

    def place(self, value: float, start: float, end: float) -> float:
        at = math.log10(value) if self.logarithmic else value
        return start + (end - start) * (at - self.low) / (self.high - self.low)

    def ticks(self) -> list[float]:
        """Choose round values."""
        if self.logarithmic:
            return _decades(10**self.low, 10**self.high)
        return _round_values(self.low, self.high)


def _round_values(low: float, high: float) -> list[float]:
    rough = (high - low) / _MOST_TICKS
    size = 10.0 ** math.floor(math.log10(rough))
    step = next(size * factor for factor in (1, 2, 5, 10) if size * factor >= rough)
    return [step * n for n in range(math.ceil(low / step), math.floor(high / step) + 1)]


def _decades(low: float, high: float) -> list[float]:
    """Choose 1, 2, 5 times powers of ten; only the powers where those are many."""
    first, last = math.floor(math.log10(low)), math.ceil(math.log10(high))
    for factors in ((1, 2, 5), (1,)):
        found = [f * 10.0**e for e in range(first, last + 1) for f in factors]
        inside = [value for value in found if low <= value <= high]
        if 1 < len(inside) <= _MOST_TICKS:
            return inside
    return (
        _round_values(low, high) if len(inside) < 2 else inside[:: -(-len(inside) // _MOST_TICKS)]
    )


def _finite(points: Points) -> list[tuple[float, float]]:
    """Leave out what is not finite, and average neighbours of many."""
    kept = [(x, y) for x, y in points if math.isfinite(y)]
    size = -(-len(kept) // _MOST_POINTS)
    if size <= 1:
        return kept
    parts = [kept[i : i + size] for i in range(0, len(kept), size)]
    return [(part[-1][0], sum(y for _, y in part) / len(part)) for part in parts]


def _curve(number: int, points: Points, across: _Axis, up: _Axis) -> str:
    placed = [
        (across.place(x, _LEFT, _WIDTH - _RIGHT), up.place(y, _HEIGHT - _BOTTOM, _TOP))
        for x, y in points
    ]
    kind = f"curve c{number % 4}"
    dots = "".join(f'<circle class="{kind}" cx="{x:.1f}" cy="{y:.1f}" r="2.5"/>' for x, y in placed)
    line = " ".join(f"{x:.1f},{y:.1f}" for x, y in placed)
    return f'<polyline class="{kind}" points="{line}"/>' + (dots if len(placed) <= 30 else "")


def _across(axis: _Axis) -> str:
    marks = []
    for value in axis.ticks():
        x = axis.place(value, _LEFT, _WIDTH - _RIGHT)
        marks.append(
            f'<text x="{x:.1f}" y="{_HEIGHT - 8}" text-anchor="middle">{_short(value)}</text>'
        )
    return "".join(marks)


def _up(axis: _Axis) -> str:
    marks = []
    for value in axis.ticks():
        y = axis.place(value, _HEIGHT - _BOTTOM, _TOP)
        marks.append(
            f'<line x1="{_LEFT}" x2="{_WIDTH - _RIGHT}" y1="{y:.1f}" y2="{y:.1f}"/>'
            f'<text x="{_LEFT - 6}" y="{y + 4:.1f}" text-anchor="end">{value:.4g}</text>'
        )
    return "".join(marks)


def _short(value: float) -> str:
    """Spell a number of steps: 20k."""
    return f"{value / 1000:g}k" if abs(value) >= 1000 else f"{value:g}"


def _legend(chart: Chart, curves: Mapping[str, Points]) -> str:
    entries = []
    for number, (name, points) in enumerate(curves.items()):
        last = f"{points[-1][1]:.4g} {chart.unit}".rstrip() if points else "-"
        label = "" if name == chart.title.lower() else f"{name} "
        entries.append(f'<span class="key c{number % 4}">{escape(label)}{escape(last)}</span>')
    return " ".join(entries)
