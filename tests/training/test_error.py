"""A model learns how far off it is: what it is taught by, when it is not, and what it then says."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from scipy import ndimage
from scipy.stats import spearmanr

from medtrans.config.schema import Pipeline
from medtrans.data.manifest import Manifest, write_manifest
from medtrans.networks.unet import residual_network
from medtrans.package.error import Calibration, KnownError
from medtrans.package.store import load_package
from medtrans.training.cache import VolumeCache
from medtrans.training.data import StageExamples
from medtrans.training.error import Taught, learnt, seen_errors
from medtrans.training.examples import residual_examples, select_data
from medtrans.training.plan import TrainingPlan
from medtrans.training.run import train
from tests import helpers

CPU = torch.device("cpu")


def recipe(iterations: int, **changes: Any) -> Pipeline:
    return helpers.tiny_pipeline(error={"iterations": iterations}, **changes)


def examples(cohort: Path, folder: Path, pipeline: Pipeline) -> StageExamples:
    data = select_data(Manifest.read(cohort), pipeline.parsed_tasks, None, 0)
    return residual_examples(data, VolumeCache(folder, pipeline), pipeline)


def identity(pipeline: Pipeline) -> Taught:
    """A residual stage that gives back the source."""
    return Taught.of(pipeline, residual_network(pipeline, 0).state_dict(), CPU, 0)


def noisy_where_bright(folder: Path) -> Path:
    """Write a manifest of a train and a val subject."""
    rows = []
    for number, split in enumerate(("train", "val")):
        rng = np.random.default_rng(number)
        source = ndimage.gaussian_filter(rng.normal(size=helpers.SHAPE), 2)
        source = 100 + 50 * source / np.abs(source).max()
        scale = np.where(source > np.median(source), 12, 1)
        for contrast, voxels in (("t1", source), ("t2", source + rng.laplace(0, scale))):
            path = folder / f"{number}-{contrast}.nii.gz"
            framed = np.pad(voxels, 2).astype(np.float32)
            helpers.write_nifti(path, framed, np.diag([8.0, 8, 8, 1]))
            rows.append(
                {"subject": f"s{number}", "contrast": contrast, "path": path, "split": split}
            )
    write_manifest(folder / "m.csv", rows)
    return folder / "m.csv"


def run(cohort: Path, out: Path, pipeline: Pipeline, **options: Any) -> KnownError | None:
    plan = TrainingPlan(pipeline, Manifest.read(cohort), out, device="cpu", **options)
    return load_package(train(plan)).error


def test_tells_where_errors_are_on_a_subject_that_taught_it_nothing(
    tmp_path: Path,
) -> None:
    """What is bright in the source is noisy in the target."""
    pipeline = recipe(200, network={"channels": [8, 8]})
    pipeline = pipeline.model_copy(
        update={"error": pipeline.error.model_copy(update={"width": 1.0, "learning_rate": 1e-2})}
    )
    cohort = noisy_where_bright(tmp_path)
    taught, found = identity(pipeline), examples(cohort, tmp_path / "cache", pipeline)
    [(answers, errors)] = seen_errors(taught, learnt(taught, found.train), found.val)
    assert spearmanr(answers, errors)[0] > 0.1  # of ten thousand voxels: chance is 0.01


def test_is_the_same_each_time(cohort: Path, tmp_path: Path) -> None:
    pipeline = recipe(3)
    found = examples(cohort, tmp_path, pipeline)
    first, second = (learnt(identity(pipeline), found.train).state_dict() for _ in range(2))
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_the_gain_of_a_real_image_without_a_unit_is_no_error(
    cohort: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pipeline = recipe(1)
    taught, found = identity(pipeline), examples(cohort, tmp_path, pipeline)
    network = learnt(taught, found.train)
    [example] = found.val
    same = type(example)(
        {"source": example.volumes["source"], "target": example.volumes["source"]},
        example.contexts,
        example.label,
    )
    [(_, errors)] = seen_errors(taught, network, [same])
    assert errors == pytest.approx(np.zeros_like(errors), abs=1e-5)


class TestRun:
    def test_leaves_it_in_the_package(self, cohort: Path, tmp_path: Path) -> None:
        known = run(cohort, tmp_path / "run", recipe(4))
        assert known is not None
        assert known.calibration.subjects == 1
        assert known.calibration != Calibration.unseen()

    def test_without_val_pairs_it_says_so(
        self, tmp_path: Path, capfd: pytest.CaptureFixture[str]
    ) -> None:
        cohort = helpers.write_cohort(tmp_path / "one", count=1)
        known = run(cohort, tmp_path / "run", recipe(4))
        assert known is not None
        assert known.calibration == Calibration.unseen()
        assert "No val pairs" in capfd.readouterr().err

    def test_without_val_pairs_it_takes_over_what_is_known(
        self, cohort: Path, tmp_path: Path
    ) -> None:
        first = run(cohort, tmp_path / "first", recipe(4))
        model = tmp_path / "first" / "model"
        one = helpers.write_cohort(tmp_path / "one", count=1)
        second = run(one, tmp_path / "second", recipe(4), initial=model)
        assert first is not None
        assert second is not None
        assert second.calibration == first.calibration

    @pytest.mark.parametrize(("iterations", "pairs"), [(0, None), (4, 0)], ids=["recipe", "pairs"])
    def test_is_left_out(
        self, cohort: Path, tmp_path: Path, iterations: int, pairs: int | None
    ) -> None:
        assert run(cohort, tmp_path / "run", recipe(iterations), pairs=pairs) is None

    def test_stays_with_a_residual_stage_that_is_kept(self, cohort: Path, tmp_path: Path) -> None:
        first = run(cohort, tmp_path / "first", recipe(4))
        model = tmp_path / "first" / "model"
        second = run(cohort, tmp_path / "second", recipe(4), pairs=0, initial=model)
        assert first is not None
        assert second is not None
        assert second.entries == first.entries
