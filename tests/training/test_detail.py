"""A run measures how much detail its answers lack, and leaves that in its package."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from scipy import ndimage

from medtrans.config.terms import Task
from medtrans.data.manifest import Manifest
from medtrans.errors import PackageError
from medtrans.inference.sampling import SliceSampler
from medtrans.package.bundle_files import Documents
from medtrans.package.folder import METADATA
from medtrans.package.store import export_package, load_package
from medtrans.preprocessing.detail import amplitudes
from medtrans.training import detail
from medtrans.training.cache import VolumeCache
from medtrans.training.examples import select_data
from medtrans.training.plan import TrainingPlan
from medtrans.training.run import train
from tests import helpers

TASK = Task("t1", "t2")


def gains_of(cohort: Path, out: Path, pairs: int = 1, **options: Any) -> dict[str, Any]:
    plan = TrainingPlan(
        helpers.tiny_pipeline(detail={"pairs": pairs}),
        Manifest.read(cohort),
        out,
        device="cpu",
        **options,
    )
    return dict(load_package(train(plan)).detail)


def test_what_an_estimate_lacks_is_measured(
    cohort: Path, tmp_path: Path, random_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An estimate that is the blurred target: the gains are what the blur took."""
    sampler = SliceSampler(load_package(random_model), torch.device("cpu"))
    pipeline = sampler.package.pipeline
    data = select_data(Manifest.read(cohort), [TASK], None, 0)
    cache = VolumeCache(tmp_path, pipeline)
    [pair] = data.validation_pairs[TASK]
    volumes = cache.get(pair.source), cache.get(pair.target)
    target = volumes[1].image
    blurred = ndimage.gaussian_filter(target, 1.0)
    monkeypatch.setattr(detail, "estimated", lambda *_: blurred)
    [gains] = detail.measured(sampler, {TASK: [volumes]}).values()
    mask = (volumes[0].image > -1) & (target > -1)
    expected = np.divide(amplitudes(target, mask), amplitudes(blurred, mask))
    assert gains == pytest.approx(np.clip(expected, 1, 3))
    assert gains[0] > 1.5


def test_of_several_pairs_the_least_counts(
    cohort: Path, tmp_path: Path, random_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The second pair's estimate is the target: nothing is to be raised."""
    sampler = SliceSampler(load_package(random_model), torch.device("cpu"))
    data = select_data(Manifest.read(cohort), [TASK], None, 0)
    cache = VolumeCache(tmp_path, sampler.package.pipeline)
    [pair] = data.validation_pairs[TASK]
    volumes = cache.get(pair.source), cache.get(pair.target)
    target = volumes[1].image
    answers = iter([ndimage.gaussian_filter(target, 1.0), target])
    monkeypatch.setattr(detail, "estimated", lambda *_: next(answers))
    assert detail.measured(sampler, {TASK: [volumes, volumes]}) == {"t1-to-t2": [1.0] * 4}


def test_a_run_leaves_them_in_its_package(cohort: Path, tmp_path: Path) -> None:
    found = gains_of(cohort, tmp_path / "run")
    assert list(found) == ["t1-to-t2"]
    export_package(tmp_path / "run", tmp_path / "exported", Documents())
    assert load_package(tmp_path / "exported").detail == found


def test_none_are_measured_where_the_recipe_says_so(cohort: Path, tmp_path: Path) -> None:
    assert gains_of(cohort, tmp_path / "run", pairs=0) == {}


def test_without_val_pairs_those_of_the_model_it_starts_from_stay(tmp_path: Path) -> None:
    cohort = helpers.write_cohort(tmp_path / "one", count=1)
    assert gains_of(cohort, tmp_path / "alone") == {}
    known = {"t1-to-t2": (2.0, 1.5, 1.25, 1.0), "t2-to-t1": (1.0, 1.0, 1.0, 1.0)}
    start = helpers.save_model(tmp_path / "start", helpers.tiny_pipeline(), detail=known)
    found = gains_of(cohort, tmp_path / "run", initial=start)
    assert found == {"t1-to-t2": known["t1-to-t2"]}


@pytest.mark.parametrize("gains", [[1.0] * 3, [0.5] * 4, [9.0] * 4, ["much"] * 4, 2.0, None])
def test_gains_that_make_no_sense_are_refused(tmp_path: Path, gains: object) -> None:
    folder = helpers.save_model(tmp_path / "m", helpers.tiny_pipeline())
    metadata = json.loads((folder / METADATA).read_text())
    metadata["medtrans"]["detail"] = {"t1-to-t2": gains}
    (folder / METADATA).write_text(json.dumps(metadata))
    with pytest.raises(PackageError, match="gains of detail"):
        load_package(folder)
