"""What an evaluation found, as one object: for --json, for evaluation.json, and for a page."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import pandas as pd

from medtrans.evaluate import metrics
from medtrans.evaluate.regions import FOREGROUND
from medtrans.evaluate.summary import LEVEL, summarise
from medtrans.evaluate.table import NAMES
from medtrans.preprocessing.intensity import Profile
from medtrans.volumes.contrast import TISSUES_HU

Result = dict[str, Any]


@dataclass(frozen=True, eq=False)
class Evaluation:
    """The scores of several methods on several subjects.

    Attributes
    ----------
    table : DataFrame
        One row per subject, task, method and region.
    window : Profile or None
        The fixed intensities that became 0 and 1; None for MR.
    """

    table: pd.DataFrame
    window: Profile | None

    @cached_property
    def summary(self) -> pd.DataFrame:
        """Means over subjects with intervals, as `summarise` gives them."""
        return summarise(self.table)

    def of_cohort(self) -> Result:
        """Describe all of it.

        Returns
        -------
        dict
            subjects: the rows of the foreground; regions: the rows of each other region, by its
            name. mean: the foreground's means, a row a method; summary: all means, with intervals.
            scale: what the numbers mean. What is not defined is left out.
        """
        rows = {name: _records(part) for name, part in self.table.groupby("region", sort=False)}
        means = self.summary[self.summary["region"] == FOREGROUND].groupby("method", sort=False)
        return {
            "subjects": rows.pop(FOREGROUND),
            "mean": [{"method": name, **_means(part)} for name, part in means],
            "regions": rows,
            "summary": _records(self.summary),
            "scale": scale_facts(self.window),
        }

    def of_one(self) -> Result:
        """Describe the scores of one prediction: the foreground's, then the other regions'."""
        scores = {
            row.pop("region"): {name: value for name, value in row.items() if name not in NAMES}
            for row in _records(self.table)
        }
        foreground = scores.pop(FOREGROUND)
        return {**foreground, "regions": scores, "scale": scale_facts(self.window)}


def scale_facts(window: Profile | None) -> dict[str, Any]:
    """State the data range, the normalisation and every other choice behind the numbers."""
    normalisation = (
        f"each volume is divided by the {metrics.UPPER_PERCENTILE}th percentile of its foreground"
        if window is None
        else f"{window.low:g} becomes 0 and {window.high:g} becomes 1; what is beyond is clipped"
    )
    return {
        "data_range": metrics.DATA_RANGE,
        "normalisation": normalisation,
        "fit": "least squares in the foreground, where it is applied",
        "nrmse": f"over the reference's root mean square ({metrics.NRMSE_NORMALISATION})",
        "tissues_hu": {name: list(limits) for name, limits in TISSUES_HU.items()},
        "interval": f"{LEVEL:.0%} percentile bootstrap of the mean over subjects",
    }


def _means(summary: pd.DataFrame) -> dict[str, float]:
    return dict(zip(summary["score"], summary["mean"].tolist(), strict=True))


def _records(table: pd.DataFrame) -> list[dict[str, Any]]:
    return [_known(row) for row in table.to_dict("records")]


def _known(row: Mapping[Hashable, Any]) -> dict[str, Any]:
    """Leave out what there is no value for, which a table holds as not a number or as ""."""
    return {str(k): v for k, v in row.items() if v == v and v != ""}  # noqa: PLR0124
