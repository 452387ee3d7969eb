"""`medtrans check`: what is odd is named, and what would stop a training is refused."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from medtrans.cli.check import CheckRequest, check_data
from medtrans.cli.recipe import RecipeRequest
from medtrans.config.terms import Task
from medtrans.data.manifest import Manifest, write_manifest
from medtrans.errors import TrainingError
from medtrans.phantom.heads import ScanProtocol, make_subject
from medtrans.training.survey import survey
from medtrans.volumes import nifti

TASK = Task("t1", "t2")


def write(folder: Path, shift_mm: float = 0.0, gain: float = 1.0) -> Path:
    """Four subjects; the last one's T1 is moved, or its T2 brighter."""
    rows = []
    for index in range(4):
        head = make_subject(2, index, ScanProtocol(("t1", "t2"), (40, 50, 40), (4.5, 4.5, 4.5)))
        odd = index == 3
        t1 = np.roll(head.images["t1"], round(shift_mm / 4.5) * odd, axis=1)
        for contrast, image in (("t1", t1), ("t2", head.images["t2"] * (gain if odd else 1))):
            path = f"{index}-{contrast}.nii.gz"
            nifti.save_array(folder / path, image, head.affine)
            rows.append({"subject": str(index), "contrast": contrast, "path": path})
    write_manifest(folder / "in.csv", rows)
    return folder / "in.csv"


def test_sound_data_have_no_warning(tmp_path: Path) -> None:
    found = survey(Manifest.read(write(tmp_path)), [TASK], lambda done, total: None)
    assert found == ([], [])


def test_an_odd_pair_and_an_odd_volume_are_named(tmp_path: Path) -> None:
    path = write(tmp_path, shift_mm=9.0, gain=30.0)
    found = survey(Manifest.read(path), [TASK], lambda done, total: None)
    assert any("3-t1.nii.gz" in w and "mm apart" in w for w in found.warnings)
    assert any("3-t2.nii.gz" in w and "median" in w for w in found.warnings)
    assert all("3-t" in warning for warning in found.warnings)


def test_two_grids_are_refused_and_align_is_named(tmp_path: Path) -> None:
    path = write(tmp_path)
    head = make_subject(2, 0, ScanProtocol(("t1",), (30, 40, 30), (4.5, 4.5, 4.5)))
    nifti.save_array(tmp_path / "0-t1.nii.gz", head.images["t1"], head.affine)
    request = CheckRequest(RecipeRequest((TASK,)), path, 0, "cpu")
    with pytest.raises(TrainingError, match="medtrans align"):
        check_data(request)
