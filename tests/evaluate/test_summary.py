"""Means over subjects, with intervals where there are enough of them."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from scipy.stats import bootstrap

from medtrans.evaluate.summary import interval, summarise


def table(values: dict[str, float | None], **names: str) -> pd.DataFrame:
    first = {"task": "t1-to-t2", "method": "fidelity", "region": "foreground"} | names
    return pd.DataFrame([{"subject": s, **first, "psnr": v} for s, v in values.items()])


def only(found: pd.DataFrame) -> dict[str, object]:
    [row] = found.to_dict("records")
    return row


class TestInterval:
    def test_is_scipys_for_every_score(self) -> None:
        values = np.random.default_rng(0).normal(25, 2, (3, 12))
        low, high = interval(values)
        for row, one, other in zip(values, low, high, strict=True):
            expected = bootstrap(
                (row,), np.mean, method="percentile", n_resamples=9999,
                random_state=np.random.default_rng(0),
            ).confidence_interval  # fmt: skip
            assert (one, other) == pytest.approx((expected.low, expected.high))

    @pytest.mark.parametrize("count", [1, 2])
    def test_of_too_few(self, count: int) -> None:
        assert np.isnan(interval(np.zeros((2, count)))).all()

    def test_of_equal_values(self) -> None:
        low, high = interval(np.full((1, 3), 2.5))
        assert (low, high) == (2.5, 2.5)

    def test_covers_the_mean_of_normal_values(self) -> None:
        low, high = interval(np.random.default_rng(0).normal(0, 1, (60, 30)))
        assert 0.85 <= np.mean((low < 0) & (high > 0)) <= 1


class TestSummary:
    def test_mean_and_count(self) -> None:
        row = only(summarise(table({"a": 20, "b": 30, "c": 22})))
        assert row["mean"] == pytest.approx(24)
        assert row["subjects"] == 3
        assert 20 <= row["low"] < 24 < row["high"] <= 30

    def test_two_subjects_have_no_interval(self) -> None:
        row = only(summarise(table({"a": 20, "b": 30})))
        assert row["subjects"] == 2
        assert np.isnan(row["low"])
        assert np.isnan(row["high"])

    def test_a_subject_without_the_score_is_not_counted(self) -> None:
        row = only(summarise(table({"a": 20, "b": None, "c": 30, "d": 40})))
        assert (row["subjects"], row["mean"]) == (3, 30)

    def test_scores_of_other_subjects_keep_their_place(self) -> None:
        scores = table({"a": 20, "b": None, "c": 30, "d": 40})
        scores["ssim"] = [0.1, 0.2, 0.3, 0.4]
        scores["mae"] = [1.0, None, 2.0, 3.0]
        found = summarise(scores)
        assert found["score"].tolist() == ["psnr", "ssim", "mae"]
        assert found["subjects"].tolist() == [3, 4, 3]
        assert found["mean"].tolist() == pytest.approx([30, 0.25, 2])
        assert (found["low"] < found["mean"]).all()

    def test_a_score_that_nobody_has_is_left_out(self) -> None:
        assert summarise(table({"a": None})).empty

    def test_sessions_are_one_subject(self) -> None:
        """Scans of one person tell less than as many persons do."""
        twice = pd.concat([table({"a": 20}), table({"a": 30}), table({"b": 35})])
        twice["session"] = ["one", "two", "one"]
        row = only(summarise(twice))
        assert (row["subjects"], row["mean"]) == (2, 30)

    def test_regions_and_methods_stay_apart_and_in_order(self) -> None:
        both = pd.concat(
            [
                table({"a": 1}, method=method, region=region)
                for method in ("tone curve", "fidelity")
                for region in ("whole", "foreground")
            ]
        )
        found = summarise(both)[["method", "region"]].to_numpy().tolist()
        assert found == both[["method", "region"]].to_numpy().tolist()
