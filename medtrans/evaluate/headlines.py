"""The few scores that tell most, as a person reads them: on the console and on pages."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

import pandas as pd

from medtrans.evaluate.result import Result

_HEADLINES = ("psnr", "psnr_fit", "ssim", "high_frequency_ratio")
_HEADLINES_CT = ("mae_hu", "bias_bone_hu", "psnr", "ssim")


def headline_scores(scores: Collection[str]) -> tuple[str, ...]:
    """Choose among the names of scores: of a CT those in HU."""
    return _HEADLINES_CT if "mae_hu" in scores else _HEADLINES


def decisive_score(scores: Collection[str]) -> tuple[str, bool]:
    """Name the score by which cases are ordered, and whether a higher one is the better."""
    return ("mae_hu", False) if "mae_hu" in scores else ("psnr_fit", True)


def headlines(summary: pd.DataFrame) -> list[dict[str, Any]]:
    """Give the few scores that tell most: a row a method and region, with intervals.

    Parameters
    ----------
    summary : DataFrame
        As `summarise` gives it.
    """
    chosen = headline_scores(set(summary["score"]))
    table = []
    for (method, region), rows in summary.groupby(["method", "region"], sort=False):
        n = int(rows["subjects"].max())
        found = {row["score"]: _cell(row, n) for row in rows.to_dict("records")}
        named = {"method": method, "region": region, "n": n}
        table.append(named | {name: found.get(name, "-") for name in chosen})
    return table


def headlines_of_regions(result: Result) -> list[dict[str, Any]]:
    """Give the few scores that tell most of one prediction: a row for each further region."""
    chosen = headline_scores(result.keys())
    return [
        {"region": region, **{name: scores[name] for name in chosen if name in scores}}
        for region, scores in result["regions"].items()
    ]


def _cell(row: Mapping[Any, Any], n: int) -> str:
    """Print a mean with its interval; with its own number of subjects where that is not n."""
    mean, low, high, subjects = (row[name] for name in ("mean", "low", "high", "subjects"))
    ends = f" [{low:.4g}, {high:.4g}]" if low == low else ""  # noqa: PLR0124
    return f"{mean:.4g}{ends}" + (f" (n {subjects})" if subjects < n else "")
