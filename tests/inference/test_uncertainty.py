"""How far off a translation is: the map beside it, of models that know and of those that do not."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from monai.data import MetaTensor

from medtrans.config.schema import Pipeline
from medtrans.errors import OutputError, UsageError
from medtrans.inference.cohort import Result, Unchanged, translate_cohort
from medtrans.inference.jobs import EXPECTED_ERROR, SPREAD, Job
from medtrans.inference.settings import Settings
from medtrans.inference.translator import Translator
from tests import helpers

ASKED = Settings(uncertainty=True)


@pytest.fixture
def knowing(pipeline: Pipeline, tmp_path: Path) -> Translator:
    """A model that expects an error of a tenth of half the range, 0 ... 1000, everywhere."""
    known = helpers.known_error(pipeline, 0.1)
    return Translator.load(helpers.save_model(tmp_path / "knowing", pipeline, error=known), "cpu")


@pytest.fixture
def head() -> MetaTensor:
    return helpers.volume(*helpers.head())


@pytest.fixture
def head_file(tmp_path: Path) -> Path:
    return helpers.write_nifti(tmp_path / "t1.nii.gz", *helpers.head())


def run(translator: Translator, job: Job) -> Result:
    """Translate a job as one of a cohort, which leaves what is there."""
    done = lambda *_: None  # noqa: E731
    [result] = translate_cohort(translator, [job], Settings(), strict=True, on_done=done)
    return result


def test_is_in_the_unit_of_the_output_and_on_the_grid(
    knowing: Translator, head: MetaTensor
) -> None:
    made = knowing.translate_volume(head, ASKED)
    assert made.error is not None
    inside = head.numpy() > 0
    assert made.error.voxels.shape == made.voxels.shape
    np.testing.assert_allclose(made.error.voxels[inside], 50, rtol=1e-3)
    assert made.support is not None
    assert (made.error.voxels[~made.support] == 0).all()


def test_changes_nothing_else_and_is_not_made_unasked(
    knowing: Translator, head: MetaTensor
) -> None:
    plain, asked = (knowing.translate_volume(head, s) for s in (Settings(), ASKED))
    assert plain.error is None
    assert np.array_equal(plain.voxels, asked.voxels)


def test_is_the_same_whatever_the_batch(pipeline: Pipeline, tmp_path: Path) -> None:
    known = helpers.known_error(pipeline, answered=(0.0, 2.0), seen=(0.0, 2.0))
    model = helpers.save_model(tmp_path / "m", pipeline, error=known)
    translator, head = Translator.load(model, "cpu"), helpers.volume(*helpers.head())
    maps = [
        translator.translate_volume(head, replace(ASKED, batch_size=size)).uncertainty
        for size in (1, 5)
    ]
    assert np.ptp(maps[0]) > 0
    assert np.array_equal(*maps)


def test_progress_counts_it(knowing: Translator, head: MetaTensor) -> None:
    told: list[tuple[int, int]] = []
    knowing.translate_volume(head, ASKED, on_slices=lambda *now: told.append(now))
    assert told[-1][0] == told[-1][1]


def test_file_and_sidecar(knowing: Translator, head_file: Path, tmp_path: Path) -> None:
    job = Job(head_file, out=tmp_path / "o.nii.gz", uncertainty=tmp_path / "map.nii.gz")
    written = knowing.translate_file(job, Settings())
    assert nib.load(job.uncertainty).get_fdata().max() == pytest.approx(50, rel=1e-3)
    entries = json.loads((tmp_path / "map.json").read_text())
    assert entries["Content"] == EXPECTED_ERROR
    assert entries["IntervalHalfWidths"] == {"0.5": 0.7, "0.9": 2.3}
    assert entries["CalibrationSubjects"] == 3
    assert "Content" not in json.loads((tmp_path / "o.json").read_text())
    assert written.translation.uncertainty is not None


def test_two_maps_do_not_share_a_file(knowing: Translator, head_file: Path, tmp_path: Path) -> None:
    shared = tmp_path / "map.nii.gz"
    job = Job(head_file, out=tmp_path / "o.nii.gz", uncertainty=shared, save_mask=shared)
    with pytest.raises(OutputError, match="different names"):
        knowing.translate_file(job, Settings())


def test_a_rerun_leaves_it_until_the_model_expects_another(
    knowing: Translator, pipeline: Pipeline, head_file: Path, tmp_path: Path
) -> None:
    job = Job(head_file, out=tmp_path / "o.nii.gz", uncertainty=tmp_path / "map.nii.gz")
    knowing.translate_file(job, Settings())
    assert isinstance(run(knowing, job), Unchanged)
    (tmp_path / "elsewhere").mkdir()
    model, other = tmp_path / "elsewhere" / "knowing", {0.5: 1.0, 0.9: 3.0}
    helpers.save_model(model, pipeline, error=helpers.known_error(pipeline, within=other))
    again = run(Translator.load(model, "cpu"), job)
    assert not isinstance(again, Unchanged)


def test_a_model_that_does_not_know_gives_the_spread_of_draws(
    random_model: Path, head_file: Path, tmp_path: Path
) -> None:
    translator = Translator.load(random_model, "cpu")
    job = Job(head_file, out=tmp_path / "o.nii.gz", uncertainty=tmp_path / "map.nii.gz")
    with pytest.raises(UsageError, match="--samples"):
        translator.translate_file(job, Settings())
    written = translator.translate_file(job, Settings(samples=2))
    assert written.translation.error is None
    assert json.loads((tmp_path / "map.json").read_text())["Content"] == SPREAD
