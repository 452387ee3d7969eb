"""A model of slices along several axes: which of them a translation is the mean of."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from medtrans.inference.cohort import Result, Unchanged, translate_cohort
from medtrans.inference.jobs import Job
from medtrans.inference.settings import Settings
from medtrans.inference.translator import Translator
from tests import helpers

EVERY = ("axial", "coronal", "sagittal")


@pytest.fixture(scope="module")
def translator(tmp_path_factory: pytest.TempPathFactory) -> Translator:
    pipeline = helpers.tiny_pipeline(slices={"also": ["coronal", "sagittal"]})
    return Translator.load(helpers.save_model(tmp_path_factory.mktemp("m") / "m", pipeline), "cpu")


def run(translator: Translator, job: Job, settings: Settings) -> Result:
    """Translate a job as one of a cohort, which leaves what is there."""
    done = lambda *_: None  # noqa: E731
    [result] = translate_cohort(translator, [job], settings, strict=True, on_done=done)
    return result


def test_fidelity_mode_is_the_mean_of_all(translator: Translator) -> None:
    head = helpers.volume(*helpers.head())
    made = translator.translate_volume(head, Settings())
    asked = translator.translate_volume(head, Settings(axes=EVERY))
    assert made.axes == EVERY
    assert np.array_equal(made.voxels, asked.voxels)
    one = translator.translate_volume(head, Settings(axes=("axial",)))
    assert one.axes == ("axial",)
    assert not np.allclose(one.voxels, made.voxels)


@pytest.mark.parametrize("mode", ["balanced", "realistic"])
def test_the_texture_of_other_modes_is_not_averaged_away(translator: Translator, mode: str) -> None:
    head = helpers.volume(*helpers.head())
    assert translator.translate_volume(head, Settings(mode=mode)).axes == ("axial",)


def test_thick_slices_are_cut_as_they_were_acquired(translator: Translator) -> None:
    voxels, affine = helpers.head()
    thick = helpers.volume(voxels, affine @ np.diag([1, 1, 4, 1]))
    made = translator.translate_volume(thick, Settings())
    assert made.axes == ("axial",)
    assert not any("stretched" in warning for warning in made.warnings)


def test_the_sidecar_says_so_and_a_rerun_knows(translator: Translator, tmp_path: Path) -> None:
    head = helpers.write_nifti(tmp_path / "t1.nii.gz", *helpers.head())
    job = Job(head, out=tmp_path / "o.nii.gz")
    translator.translate_file(job, Settings())
    assert json.loads((tmp_path / "o.json").read_text())["SlicedAlong"] == list(EVERY)
    assert isinstance(run(translator, job, Settings()), Unchanged)
    other = run(translator, job, Settings(axes=("axial",)))
    assert not isinstance(other, Unchanged)
