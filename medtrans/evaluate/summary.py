"""Scores over subjects: means, with bootstrap intervals and the number of subjects beside each."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.stats import bootstrap

from medtrans.evaluate.table import score_names

LEVEL = 0.95
FEWEST_SUBJECTS = 3  # an interval of fewer would mean nothing
_RESAMPLES = 9999
_NUMBERS_AT_ONCE = 2_000_000  # bounds the memory
_SEED = 0  # the same subjects are drawn for every score
_BY = ["task", "method", "region"]


def summarise(table: pd.DataFrame) -> pd.DataFrame:
    """Average scores over subjects.

    Parameters
    ----------
    table : DataFrame
        One row per subject (and session), task, method and region; columns that are not names are
        scores. A subject's sessions are averaged first.

    Returns
    -------
    DataFrame
        One row per task, method, region and score, in the table's order: `subjects` that have the
        score, their `mean`, and `low` and `high`, the ends of the interval; not a number where
        there are fewer than three subjects.
    """
    return pd.DataFrame(_rows(table), columns=[*_BY, "score", "subjects", "mean", "low", "high"])


def interval(values: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Give the 95 % bootstrap interval (percentile) of the mean of every row.

    Parameters
    ----------
    values : array of float
        Shape (scores, subjects); the same subjects are drawn for every score.

    Returns
    -------
    low, high : array of float
        Shape (scores,); not a number where there are fewer than three subjects.
    """
    scores, subjects = values.shape
    if subjects < FEWEST_SUBJECTS:
        return np.full(scores, np.nan), np.full(scores, np.nan)
    found = bootstrap(
        (values,),
        np.mean,
        axis=-1,
        confidence_level=LEVEL,
        n_resamples=_RESAMPLES,
        method="percentile",
        batch=max(1, _NUMBERS_AT_ONCE // values.size),
        random_state=np.random.default_rng(_SEED),
    ).confidence_interval
    return found.low, found.high


def _rows(table: pd.DataFrame) -> Iterator[dict[str, Any]]:
    names = score_names(table)
    for key, rows in table.groupby(_BY, sort=False):
        subjects = rows.groupby("subject", sort=False)[names].mean()
        found: dict[str, dict[str, float]] = {}
        for part in _by_subjects(subjects):
            found |= _means(part)
        for name in (name for name in names if name in found):
            yield {**dict(zip(_BY, key, strict=True)), "score": name, **found[name]}


def _by_subjects(scores: pd.DataFrame) -> Iterator[pd.DataFrame]:
    """Split a table (subjects, scores) by who has a score: each part is complete, none empty."""
    names: dict[tuple[bool, ...], list[str]] = {}
    for name in scores.columns:
        names.setdefault(tuple(scores[name].notna()), []).append(name)
    for have, columns in names.items():
        if any(have):
            yield scores.loc[list(have), columns]


def _means(scores: pd.DataFrame) -> dict[str, dict[str, float]]:
    """Average a complete table (subjects, scores)."""
    values = scores.to_numpy(np.float64).T
    low, high = interval(values)
    return {
        name: {"subjects": len(scores), "mean": float(row.mean()), "low": one, "high": other}
        for name, row, one, other in zip(
            scores.columns, values, low.tolist(), high.tolist(), strict=True
        )
    }
