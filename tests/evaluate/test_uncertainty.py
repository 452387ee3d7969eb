"""What an uncertainty map is worth: known answers for known errors, and the ways it comes in."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from medtrans.data.manifest import Manifest
from medtrans.evaluate.compare import evaluate_model
from medtrans.evaluate.regions import FOREGROUND, WHOLE
from medtrans.evaluate.scores import Reference
from medtrans.evaluate.uncertainty import (
    Uncertainty,
    absolute_error,
    scores_of,
    sparsification,
    uncertainty_scores,
)
from medtrans.inference.settings import Settings
from medtrans.inference.translator import Translator
from medtrans.package.error import Calibration
from medtrans.preprocessing.intensity import Profile
from tests import helpers
from tests.helpers import Run

LAPLACE = Calibration.unseen().within
SHAPE = (12, 14, 10)


def drawn(seed: int = 0, count: int = 20_000) -> tuple[np.ndarray, np.ndarray]:
    """Errors of a Laplace distribution, and their scales."""
    rng = np.random.default_rng(seed)
    scale = rng.uniform(0.5, 20, count).astype(np.float32)
    return scale, rng.exponential(scale).astype(np.float32)


def truth(voxels: np.ndarray, window: Profile | None = None) -> Reference:
    inside = np.zeros(voxels.shape, bool)
    inside[2:-2, 2:-2, 1:-1] = True
    return Reference(voxels, {FOREGROUND: inside, WHOLE: np.ones_like(inside)}, window)


class TestScores:
    def test_errors_themselves_are_the_best_map(self) -> None:
        _, errors = drawn()
        found = scores_of(errors, errors, LAPLACE)
        assert found["uncertainty_spearman"] == pytest.approx(1)
        assert found["uncertainty_auroc"] == pytest.approx(1)
        assert found["uncertainty_ause"] == pytest.approx(0, abs=1e-6)
        assert found["coverage_50"] == 0  # an interval of 0.69 errors holds none

    def test_scales_that_errors_were_drawn_from_hold_their_shares(self) -> None:
        found = scores_of(*drawn(), LAPLACE)
        assert found["coverage_50"] == pytest.approx(0.5, abs=0.01)
        assert found["coverage_90"] == pytest.approx(0.9, abs=0.01)
        assert 0.2 < found["uncertainty_spearman"] < 0.6  # no scale foretells a draw

    def test_a_map_turned_upside_down_is_the_worst(self) -> None:
        _, errors = drawn()
        found = scores_of(-errors + errors.max(), errors, LAPLACE)
        assert found["uncertainty_spearman"] == pytest.approx(-1)
        assert found["uncertainty_auroc"] == pytest.approx(0)

    def test_of_a_flat_map_only_coverage_is_known(self) -> None:
        _, errors = drawn()
        assert set(scores_of(np.ones_like(errors), errors, LAPLACE)) == {
            "coverage_50",
            "coverage_90",
        }

    @given(st.integers(0, 2**32 - 1))
    def test_auroc_is_the_share_of_pairs_in_order(self, seed: int) -> None:
        rng = np.random.default_rng(seed)
        scale = rng.integers(0, 5, 60).astype(np.float32)  # with ties, which count half
        errors = rng.uniform(0, 1, 60).astype(np.float32)
        if np.ptp(scale) == 0:
            return
        bad = errors >= np.quantile(errors, 0.9)
        pairs = np.sign(scale[bad][:, None] - scale[~bad][None]) / 2 + 0.5
        found = scores_of(scale, errors, LAPLACE)["uncertainty_auroc"]
        assert found == pytest.approx(pairs.mean(), abs=1e-6)

    def test_taking_out_leaves_ever_smaller_errors_at_best(self) -> None:
        found = sparsification(*drawn())
        assert found.by_map[0] == found.at_best[0] == pytest.approx(1)
        assert (np.diff(found.at_best) < 0).all()
        assert (found.by_map >= found.at_best - 1e-9).all()
        assert found.area > 0

    def test_the_gain_of_a_reference_without_a_unit_is_no_error(self) -> None:
        rng = np.random.default_rng(0)
        real = rng.uniform(0, 500, SHAPE).astype(np.float32)
        inside = truth(real).foreground
        assert absolute_error(3 * real + 70, truth(real))[inside] == pytest.approx(0, abs=1e-2)
        with_unit = truth(real, Profile(-1000, 2000))
        assert absolute_error(real + 70, with_unit)[inside] == pytest.approx(70, abs=1e-3)

    def test_regions_with_tissue_have_scores(self) -> None:
        rng = np.random.default_rng(0)
        real = rng.uniform(0, 500, SHAPE).astype(np.float32)
        map_ = Uncertainty.of(rng.uniform(1, 2, SHAPE).astype(np.float32))
        found = uncertainty_scores(map_, real + rng.normal(0, 9, SHAPE), truth(real))
        assert set(found) == {FOREGROUND}
        assert "coverage_90" in found[FOREGROUND]


def test_a_model_that_knows_its_error_is_scored_by_it(cohort: Path, tmp_path: Path) -> None:
    pipeline = helpers.linear_pipeline()
    known = helpers.known_error(pipeline)
    model = helpers.save_model(tmp_path / "m", pipeline, identity=True, error=known)
    found = evaluate_model(
        Translator.load(model, "cpu"), Manifest.read(cohort), "test", [Settings()]
    )
    table = found.table[found.table["region"] == FOREGROUND].set_index("method")
    assert 0 <= table.loc["fidelity", "coverage_50"] <= table.loc["fidelity", "coverage_90"] <= 1
    assert np.isnan(table.loc["identity", "coverage_90"])


class TestFiles:
    @pytest.fixture
    def files(self, tmp_path: Path) -> dict[str, Path]:
        voxels, affine = helpers.head()
        rng = np.random.default_rng(0)
        scale = np.full_like(voxels, 10)
        scale[: len(scale) // 2] = 40
        made = voxels + np.where(voxels > 0, rng.laplace(0, scale), 0).astype(np.float32)
        return {
            name: helpers.write_nifti(tmp_path / f"{name}.nii.gz", content, affine)
            for name, content in {"real": voxels, "made": made, "map": scale}.items()
        }

    def test_two_files_and_a_map(self, medtrans: Run, files: dict[str, Path]) -> None:
        arguments = ["--prediction", files["made"], "--reference", files["real"]]
        answer = medtrans("evaluate", *arguments, "--uncertainty", files["map"], "--json")
        assert answer.code == 0, answer.err
        assert answer.json["coverage_90"] == pytest.approx(0.9, abs=0.03)
        assert answer.json["uncertainty_auroc"] > 0.7
        without = medtrans("evaluate", *arguments, "--json").json
        assert "coverage_90" not in without

    def test_a_csv_names_maps_and_a_sidecar_their_intervals(
        self, medtrans: Run, files: dict[str, Path], tmp_path: Path
    ) -> None:
        sidecar = {
            "GeneratedBy": [{"Name": "medtrans"}],
            "IntervalHalfWidths": {"0.5": 0.0, "0.9": 1e6},
        }
        (tmp_path / "map.json").write_text(json.dumps(sidecar))
        row = {"subject": "a", "prediction": "made.nii.gz", "reference": "real.nii.gz"}
        rows = [{**row, "method": "one", "uncertainty": "map.nii.gz"}, {**row, "method": "two"}]
        pd.DataFrame(rows).to_csv(tmp_path / "p.csv", index=False)
        out = tmp_path / "out"
        answer = medtrans("evaluate", "--manifest", tmp_path / "p.csv", "--out", out, "--json")
        assert answer.code == 0, answer.err
        one, two = answer.json["subjects"]
        assert one["coverage_50"] < 0.1
        assert one["coverage_90"] == 1
        assert "coverage_90" not in two
        page = (out / "cases" / "a.html").read_text()
        assert "Uncertainty, one" in page
        assert "most uncertain" in page

    def test_what_is_no_map_is_refused(
        self, medtrans: Run, files: dict[str, Path], tmp_path: Path
    ) -> None:
        voxels, affine = helpers.head()
        below = helpers.write_nifti(tmp_path / "below.nii.gz", voxels - 1e5, affine)
        arguments = ["--prediction", files["made"], "--reference", files["real"]]
        answer = medtrans("evaluate", *arguments, "--uncertainty", below)
        assert answer.code == 2
        assert "below 0" in answer.err
        answer = medtrans("evaluate", "--manifest", "x.csv", "--uncertainty", below)
        assert answer.code == 2
        assert "--uncertainty goes with --prediction" in answer.err
