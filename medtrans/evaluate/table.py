"""The table of scores: one row per subject, task, method and region."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Protocol

import pandas as pd

from medtrans.evaluate.scores import Scores

FIRST = ["subject", "task", "method"]  # what a table begins with
NAMES = [*FIRST, "session", "region"]  # columns that are no scores

Row = dict[str, str | float]


class OnCase(Protocol):
    """Told how many cases are done, and of how many."""

    def __call__(self, done: int, total: int) -> None: ...


def silent(done: int, total: int) -> None:
    """Tell nobody."""


def rows_of(names: Mapping[str, str], scores: Mapping[str, Scores]) -> Iterable[Row]:
    """Make a row for each region of a prediction, beside the `names` of what was predicted."""
    return [{**names, "region": region, **found} for region, found in scores.items()]


def table_of(rows: Iterable[Row]) -> pd.DataFrame:
    """Make the table; without the column `session` where no row has one."""
    table = pd.DataFrame(rows)
    names = [*FIRST, *(name for name in NAMES[len(FIRST) :] if table[name].any())]
    return table[[*names, *score_names(table)]]


def score_names(table: pd.DataFrame) -> list[str]:
    """List the columns of a table that are scores."""
    return [name for name in table.columns if name not in NAMES]
