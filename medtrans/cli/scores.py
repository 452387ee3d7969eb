"""The files that `medtrans evaluate` writes, and the few columns that it prints."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd

from medtrans.evaluate.result import Evaluation, Result
from medtrans.system.atomic import make_folder, replacing
from medtrans.version import __version__
from medtrans.volumes.marks import require_marked

# How a file of ours begins.
_MARKS = {
    "scores.csv": b"subject,task,method,",
    "summary.csv": b"task,method,region,score,subjects,",
    "evaluation.json": b'{"evaluated_by": "medtrans ',
}
_HEADLINES = ("psnr", "psnr_fit", "ssim", "high_frequency_ratio")
_HEADLINES_CT = ("mae_hu", "bias_bone_hu", "psnr", "ssim")


def require_files(out: Path | None, *, overwrite: bool) -> None:
    """Make the folder, and refuse to replace a file in it that is not ours.

    Raises
    ------
    OutputError
    """
    if out is not None:
        make_folder(out)
        for name, mark in _MARKS.items():
            require_marked([out / name], mark, overwrite=overwrite)


def write_files(out: Path, found: Evaluation, result: Result) -> None:
    """Write the scores, their summary and the result; raises `OutputError`."""
    write_scores(out / "scores.csv", found.table)
    write_scores(out / "summary.csv", found.summary)
    with replacing(out / "evaluation.json") as partial:
        whole = {"evaluated_by": f"medtrans {__version__}", **result}
        partial.write_text(json.dumps(whole) + "\n", encoding="utf-8")


def write_scores(path: Path, table: pd.DataFrame) -> None:
    """Write a table as a CSV; raises `OutputError` when it cannot be written."""
    with replacing(path) as partial:
        table.to_csv(partial, index=False)


def headlines(summary: pd.DataFrame) -> list[dict[str, Any]]:
    """Give the few scores that tell most: a row a method and region, with intervals.

    Parameters
    ----------
    summary : DataFrame
        As `summarise` gives it.
    """
    chosen = _HEADLINES_CT if "mae_hu" in set(summary["score"]) else _HEADLINES
    table = []
    for (method, region), rows in summary.groupby(["method", "region"], sort=False):
        n = int(rows["subjects"].max())
        found = {row["score"]: _cell(row, n) for row in rows.to_dict("records")}
        named = {"method": method, "region": region, "n": n}
        table.append(named | {name: found.get(name, "-") for name in chosen})
    return table


def headlines_of_regions(result: Result) -> list[dict[str, Any]]:
    """Give the few scores that tell most of one prediction: a row for each further region."""
    chosen = _HEADLINES_CT if "mae_hu" in result else _HEADLINES
    return [
        {"region": region, **{name: scores[name] for name in chosen if name in scores}}
        for region, scores in result["regions"].items()
    ]


def _cell(row: Mapping[Any, Any], n: int) -> str:
    """Print a mean with its interval; with its own number of subjects where that is not n."""
    mean, low, high, subjects = (row[name] for name in ("mean", "low", "high", "subjects"))
    ends = f" [{low:.4g}, {high:.4g}]" if low == low else ""  # noqa: PLR0124
    return f"{mean:.4g}{ends}" + (f" (n {subjects})" if subjects < n else "")
