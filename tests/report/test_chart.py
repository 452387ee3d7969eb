"""Curves: the right points at the right place, round ticks, nothing that is not finite."""

from __future__ import annotations

import math
import re

import numpy as np
import pytest

from medtrans.report.chart import Chart, draw_chart


def placed(html: str, number: int = 0) -> np.ndarray:
    """The points of a curve, in the chart's own unit: right and down."""
    [line] = re.findall(rf'<polyline class="curve c{number}" points="([^"]*)"', html)
    return np.array([[float(v) for v in point.split(",")] for point in line.split()])


def ticks(html: str, anchor: str) -> dict[str, float]:
    place = "y" if anchor == "end" else "x"
    found = re.findall(rf'<text ([^>]*)text-anchor="{anchor}">([^<]*)</text>', html)
    return {text: float(re.search(rf'{place}="([\d.]+)"', a)[1]) for a, text in found}


def test_points_lie_where_the_ticks_say() -> None:
    html = draw_chart(Chart("T", {"a": [(100, 10.0), (200, 20.0), (400, 15.0)]}))
    points, x, y = placed(html), ticks(html, "middle"), ticks(html, "end")
    assert points[0] == pytest.approx([x["100"], y["10"]], abs=4.1)
    assert points[1, 0] == pytest.approx(x["200"], abs=0.2)
    assert points[1, 1] == pytest.approx(y["20"], abs=4.1)
    assert points[1, 1] < points[2, 1] < points[0, 1]
    assert "0" in x


def test_a_logarithmic_axis() -> None:
    html = draw_chart(Chart("Loss", {"loss": [(0, 1.0), (10, 0.1), (20, 0.01)]}, logarithmic=True))
    down = placed(html)[:, 1]
    assert down[2] - down[1] == pytest.approx(down[1] - down[0], abs=0.2)
    assert {"1", "0.1", "0.01"} <= ticks(html, "end").keys()
    plain = draw_chart(Chart("Loss", {"loss": [(0, 1.0), (10, 0.0)]}, logarithmic=True))
    assert "0.2" in ticks(plain, "end")


@pytest.mark.parametrize("values", [(1e-7, 1e6), (0.9, 0.91), (3.0, 3.0), (1.0, 7.9), (2.1, 4.9)])
@pytest.mark.parametrize("logarithmic", [False, True])
def test_a_few_ticks_whatever_the_range(values: tuple[float, ...], logarithmic: bool) -> None:
    html = draw_chart(Chart("T", {"a": list(enumerate(values))}, logarithmic=logarithmic))
    assert 2 <= len(ticks(html, "end")) <= 8
    assert all(0 <= y <= 220 for y in ticks(html, "end").values())


def test_what_is_not_finite_is_left_out() -> None:
    html = draw_chart(Chart("T", {"a": [(1, math.nan), (2, 5.0), (3, math.inf), (4, 6.0)]}))
    assert len(placed(html)) == 2
    assert "nan" not in html
    assert draw_chart(Chart("T", {"a": [(1, math.nan)], "b": []})) == ""


def test_many_points_are_averaged_and_the_last_is_kept() -> None:
    html = draw_chart(Chart("T", {"a": [(i, float(i % 2)) for i in range(10_000)]}))
    points = placed(html)
    assert 100 <= len(points) <= 200
    assert np.ptp(points[:, 1]) < 1
    assert points[-1, 0] == pytest.approx(390)
    assert len(html) < 6_000


def test_every_curve_has_its_colour_and_last_value() -> None:
    html = draw_chart(Chart("V", {"a<": [(1, 2.0)], "b": [(1, 3.0)], "c": []}, unit="dB"))
    assert re.findall(r'class="key (c\d)">([^<]*)<', html) == [
        ("c0", "a&lt; 2 dB"), ("c1", "b 3 dB"), ("c2", "c -"),
    ]  # fmt: skip
    assert 'aria-label="V; last: a&lt; 2, b 3"' in html
    assert len(placed(html, 1)) == 1
