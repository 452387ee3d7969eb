"""A model beside the baselines, on the pairs of a manifest."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from medtrans.data.manifest import Manifest
from medtrans.errors import ManifestError
from medtrans.evaluate.compare import evaluate_model
from medtrans.evaluate.scores import score
from medtrans.inference.settings import Settings
from medtrans.inference.translator import Translator
from medtrans.preprocessing.foreground import find_foreground
from medtrans.preprocessing.intensity import Profile
from medtrans.training.run import TrainingPlan, train
from medtrans.volumes import read_volume
from tests import helpers


def foreground(table: pd.DataFrame) -> pd.DataFrame:
    return table[table["region"] == "foreground"].set_index("method")


def test_rows_for_baselines_and_modes(random_model: Path, cohort: Path) -> None:
    translator = Translator.load(random_model, "cpu")
    translator.sampler.precision = torch.float32
    settings = [Settings(mode="fidelity"), Settings(mode="realistic")]
    told: list[tuple[int, int]] = []
    table = evaluate_model(
        translator, Manifest.read(cohort), "train", settings, on_case=lambda *n: told.append(n)
    ).table
    methods = ["identity", "tone curve", "fidelity", "realistic"]
    assert table["method"].tolist() == [method for method in methods for _ in range(2)]
    assert table["region"].tolist() == ["foreground", "whole"] * 4
    assert set(table["subject"]) == {"sub-001"}
    assert set(table["task"]) == {"t1-to-t2"}
    assert told == [(1, 1)]
    scores = foreground(table)
    numbers = scores.drop(columns=["subject", "task", "region"])
    assert np.isfinite(numbers.to_numpy(float)).all()
    # On the subject that it was fitted to, no linear map of the source can be better.
    assert scores.loc["tone curve", "psnr_fit"] > scores.loc["identity", "psnr_fit"]


def test_the_task_that_is_scored_is_the_task_that_is_translated(tmp_path: Path) -> None:
    manifest = helpers.write_cohort(tmp_path / "data", 1, contrasts=("t1", "t2", "flair"))
    recipe = helpers.tiny_pipeline("base", tasks=["t1-to-t2", "t1-to-flair"])
    translator = Translator.load(helpers.save_model(tmp_path / "model", recipe), "cpu")
    cases = Manifest.read(manifest)
    table = evaluate_model(translator, cases, "train", [Settings(task="t1-to-flair")]).table
    [pair] = cases.pairs("t1", "flair", "train")
    source, target = read_volume(pair.source.path), read_volume(pair.target.path).numpy()
    expected = {
        task: score(
            translator.translate_volume(source, Settings(task=task)).voxels,
            target,
            find_foreground(target),
        )["psnr"]
        for task in ("t1-to-t2", "t1-to-flair")
    }
    assert expected["t1-to-t2"] != pytest.approx(expected["t1-to-flair"], abs=1e-4)
    found = foreground(table).loc["fidelity", "psnr"]
    assert found == pytest.approx(expected["t1-to-flair"], abs=1e-6)


def test_a_split_without_pairs(identity_model: Path, tmp_path: Path) -> None:
    manifest = helpers.write_cohort(tmp_path, 1)
    with pytest.raises(ManifestError, match="no pair"):
        evaluate_model(Translator.load(identity_model, "cpu"), Manifest.read(manifest), "test", [])


class TestRegion:
    """A region of interest: the manifest's, or one for all."""

    def with_masks(self, folder: Path, row: str) -> Path:
        """Write two test subjects; the first has a mask in the row of one of its contrasts."""
        manifest = helpers.write_cohort(folder, 2)
        lines = manifest.read_text().replace(",val", ",train").replace(",train", ",test")
        header, *rows = lines.splitlines()
        named = [
            f"{line},lesion.nii.gz" if line.startswith(f"sub-001,{row}") else f"{line},"
            for line in rows
        ]
        manifest.write_text("\n".join([f"{header},mask", *named]) + "\n")
        return manifest

    def write_mask(self, path: Path, manifest: Path) -> np.ndarray:
        target = read_volume(manifest.parent / "sub-001" / "t2.nii.gz")
        mask = target.numpy() > np.percentile(target.numpy(), 95)
        helpers.write_nifti(path, mask.astype(np.uint8), np.asarray(target.affine))
        return mask

    @pytest.mark.parametrize("row", ["t1", "t2"])
    def test_of_the_manifest(self, identity_model: Path, tmp_path: Path, row: str) -> None:
        manifest = self.with_masks(tmp_path, row)
        mask = self.write_mask(tmp_path / "lesion.nii.gz", manifest)
        translator = Translator.load(identity_model, "cpu")
        table = evaluate_model(translator, Manifest.read(manifest), "test", []).table
        rows = table[table["region"] == "region"]
        assert rows["subject"].tolist() == ["sub-001"]
        source, target = (read_volume(tmp_path / "sub-001" / f"{c}.nii.gz") for c in ("t1", "t2"))
        scaled = [np.clip(v.numpy(), 0, 1000) / 1000 for v in (source, target)]
        assert rows["mae"].item() == pytest.approx(
            np.abs(scaled[0][mask] - scaled[1][mask]).mean(), rel=1e-5
        )

    def test_one_for_all(self, identity_model: Path, tmp_path: Path) -> None:
        manifest = helpers.write_cohort(tmp_path, 2)
        manifest.write_text(manifest.read_text().replace(",val", ",test"))
        mask = tmp_path / "r.nii.gz"
        self.write_mask(mask, manifest)
        translator = Translator.load(identity_model, "cpu")
        table = evaluate_model(translator, Manifest.read(manifest), "test", [], mask).table
        assert table["region"].tolist()[:3] == ["foreground", "whole", "region"]

    def test_that_is_not_there(self, identity_model: Path, tmp_path: Path) -> None:
        manifest = self.with_masks(tmp_path, "t2")
        with pytest.raises(ManifestError, match=r"masks that are not there: .*lesion\.nii\.gz"):
            evaluate_model(
                Translator.load(identity_model, "cpu"), Manifest.read(manifest), "test", []
            )


def test_ct_is_scored_on_its_window_and_in_hu(tmp_path: Path) -> None:
    manifest = helpers.write_cohort(
        tmp_path / "data", contrasts=("mr", "ct"), shape=(16, 16, 8), skull_stripped=True
    )
    recipe = helpers.tiny_pipeline("mr-to-ct")
    plan = TrainingPlan(
        recipe, Manifest.read(manifest), tmp_path / "run", device="cpu", stages="residual"
    )
    translator = Translator.load(train(plan), "cpu")
    assert translator.package.profiles["ct"] == Profile(-1000, 2000)
    found = evaluate_model(translator, plan.manifest, "test", [Settings()])
    scores = foreground(found.table)
    assert found.window == Profile(-1000, 2000)
    assert scores.loc["tone curve", "mae"] < 0.2
    assert scores.loc["tone curve", "mae_hu"] == pytest.approx(
        3000 * scores.loc["tone curve", "mae"], rel=0.01
    )
