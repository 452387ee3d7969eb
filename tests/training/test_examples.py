"""Which volumes the stages read, and along which axes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from medtrans.config.schema import Pipeline
from medtrans.data.manifest import Manifest, write_manifest
from medtrans.package.store import load_package
from medtrans.training.cache import VolumeCache
from medtrans.training.data import StageExamples
from medtrans.training.examples import noise_examples, residual_examples, select_data
from medtrans.training.plan import TrainingPlan
from medtrans.training.run import train
from tests import helpers

ALSO = {"slices": {"also": ["coronal", "sagittal"]}}


class TestSeveralAxes:
    """With `slices.also` both stages read slices along those axes, too."""

    def both(self, cohort: Path, folder: Path, pipeline: Pipeline) -> StageExamples:
        data = select_data(Manifest.read(cohort), pipeline.parsed_tasks, None, 0)
        return residual_examples(data, VolumeCache(folder, pipeline), pipeline)

    def test_each_pair_is_read_along_each(self, cohort: Path, tmp_path: Path) -> None:
        one = self.both(cohort, tmp_path, helpers.tiny_pipeline())
        three = self.both(cohort, tmp_path, helpers.tiny_pipeline(**ALSO))
        assert [e.lead.axis for e in three.train] == [2] * len(one.train) + [1] * len(one.train) + [
            0
        ] * len(one.train)
        assert [e.lead.axis for e in three.val] == [2] * len(one.val)
        for example in three.train[1:]:
            first = three.train[0].volumes["target"].image
            assert np.array_equal(example.volumes["target"].image, first)

    @pytest.mark.parametrize("sees_source", [False, True])
    def test_so_is_each_target_by_the_noise_stage(
        self, cohort: Path, tmp_path: Path, *, sees_source: bool
    ) -> None:
        found = []
        for changes in ({}, ALSO):
            pipeline = helpers.tiny_pipeline(noise={"sees_source": sees_source}, **changes)
            data = select_data(Manifest.read(cohort), pipeline.parsed_tasks, None, 0)
            found.append(noise_examples(data, VolumeCache(tmp_path, pipeline), pipeline))
        one, three = found
        for kind in ("train", "pseudo"):
            axes = [example.lead.axis for example in getattr(three, kind)]
            assert axes == [axis for axis in (2, 1, 0) for _ in getattr(one, kind)]
        assert bool(three.pseudo) == sees_source
        assert [e.lead.axis for e in three.val] == [2] * len(one.val)

    def test_not_across_thick_slices(self, tmp_path: Path) -> None:
        cohort = helpers.write_cohort(
            tmp_path / "thick", count=1, shape=(24, 28, 6), spacing_mm=(8.0, 8.0, 30.0)
        )
        found = self.both(cohort, tmp_path / "cache", helpers.tiny_pipeline(**ALSO))
        assert {e.lead.axis for e in found.train} == {2}

    def test_a_single_slice_is_read_once(self, tmp_path: Path) -> None:
        voxels, affine = helpers.head()
        rows = [
            {
                "subject": "a",
                "contrast": contrast,
                "path": helpers.write_nifti(
                    tmp_path / f"{contrast}.nii.gz", voxels[:, 12:13], affine
                ),
                "split": "train",
            }
            for contrast in ("t1", "t2")
        ]
        write_manifest(tmp_path / "m.csv", rows)
        recipe = helpers.tiny_pipeline(**ALSO)
        found = self.both(tmp_path / "m.csv", tmp_path / "cache", recipe)
        assert [e.lead.axis for e in found.train] == [1]

    def test_trains(self, cohort: Path, tmp_path: Path) -> None:
        recipe = helpers.tiny_pipeline(**ALSO)
        plan = TrainingPlan(recipe, Manifest.read(cohort), tmp_path / "run", device="cpu")
        assert load_package(train(plan)).pipeline.slices.axes == ("axial", "coronal", "sagittal")
