"""The hospitals' part of the page: one of three left out, whose patients are scored.

`python -m benchmarks.translation.hospitals RESULTS` takes the rows of the cohorts `mrct-without-…`
into hospitals.csv, each patient's mean over seeds, from which the page is made.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pandas as pd

from benchmarks.translation.cohorts import HERE
from benchmarks.translation.scoring import named
from medtrans.evaluate.summary import interval

HOSPITALS = HERE / "hospitals.csv"
_KEYS = ["site", "its_targets", "pairs", "method", "mode", "subject"]
_SCORES = ["psnr_fit", "psnr", "ssim_fit", "mae_fit"]
_PAIRS = ("none", "8 subjects", "32 subjects", "all")
_RIVALS = ("regression l2", "l2 pseudo-first")


class Row(NamedTuple):
    """One line of a table: a method's name, and its cells."""

    name: str
    cells: list[str]


def reduced(results: Path) -> pd.DataFrame:
    """Average the rows of a results file over seeds; one for each patient, method and mode."""
    table = pd.read_csv(results, keep_default_na=False)
    cohort = table.cohort.str.extract(r"mrct-without-(\w)(-targets)?")
    table = table.assign(site=cohort[0], its_targets=cohort[1].notna())
    table = table[table.site.notna()].astype(dict.fromkeys(_SCORES, float))
    means = table.groupby(_KEYS).agg(
        **{score: (score, "mean") for score in _SCORES}, seeds=("seed", "nunique")
    )
    return means.round(4).reset_index()


def tables(path: Path = HOSPITALS) -> Iterator[tuple[str, list[Row]]]:
    """Yield each table's title and its rows: the hospitals together, pairs by pairs.

    The interval is of the mean paired difference to a rival with the same pairs, over patients.
    """
    table = named(pd.read_csv(path, keep_default_na=False))
    for its_targets, arm in table.groupby("its_targets"):
        for pairs in _PAIRS:
            rows = arm[arm.pairs == pairs]
            if rows.empty:
                continue
            hospitals, patients = rows.site.nunique(), rows.subject.nunique()
            seen = "its CT unpaired in training" if its_targets else "nothing of it in training"
            title = f"{seen}; pairs: {pairs} ({hospitals} hospitals, {patients} patients)"
            yield title, [_row(name, of_name, rows) for name, of_name in rows.groupby("name")]


def _row(name: object, of_name: pd.DataFrame, rows: pd.DataFrame) -> Row:
    seeds = of_name.seeds
    counted = str(seeds.min()) if seeds.min() == seeds.max() else f"{seeds.min()}–{seeds.max()}"
    means = [f"{of_name[score].mean():.4g}" for score in _SCORES]
    return Row(str(name), [counted, *means, *(_beside(of_name, rows, r) for r in _RIVALS)])


def _beside(of_name: pd.DataFrame, rows: pd.DataFrame, rival: str) -> str:
    other = rows[rows.method == rival].set_index("subject").psnr_fit
    if other.empty or (of_name.method == rival).all():
        return "–"
    difference = (of_name.set_index("subject").psnr_fit - other).dropna().to_numpy()
    [low], [high] = interval(difference[None])
    return f"{difference.mean():+.2f} [{low:+.2f}, {high:+.2f}]"


if __name__ == "__main__":
    reduced(Path(sys.argv[1])).to_csv(HOSPITALS, index=False)
