"""Where predictions are scored."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from medtrans.errors import FileError, GeometryError
from medtrans.evaluate.regions import FOREGROUND, REGION, WHOLE, regions_of
from medtrans.preprocessing.foreground import find_foreground
from tests import helpers


@pytest.fixture
def image() -> np.ndarray:
    return helpers.head("t2")[0]


def mask_file(path: Path, mask: np.ndarray) -> Path:
    return helpers.write_nifti(path, mask.astype(np.uint8), helpers.head("t2")[1])


def test_found_and_whole(image: np.ndarray) -> None:
    regions = regions_of(helpers.volume(image))
    assert list(regions) == [FOREGROUND, WHOLE]
    assert (regions[FOREGROUND] == find_foreground(image)).all()
    assert regions[WHOLE].all()


def test_files(image: np.ndarray, tmp_path: Path) -> None:
    brain, lesion = image > 0, image > np.percentile(image, 90)
    volume = helpers.volume(image, helpers.head("t2")[1])
    regions = regions_of(
        volume, mask_file(tmp_path / "m.nii.gz", brain), mask_file(tmp_path / "r.nii.gz", lesion)
    )
    assert (regions[FOREGROUND] == brain).all()
    assert (regions[REGION] == lesion).all()


def test_no_lesion_is_no_fault(
    image: np.ndarray, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    volume = helpers.volume(image, helpers.head("t2")[1])
    empty = mask_file(tmp_path / "r.nii.gz", np.zeros(image.shape))
    assert list(regions_of(volume, region=empty)) == [FOREGROUND, WHOLE]
    assert "r.nii.gz is empty" in capsys.readouterr().err


def test_no_patient_is_refused(image: np.ndarray, tmp_path: Path) -> None:
    volume = helpers.volume(image, helpers.head("t2")[1])
    empty = mask_file(tmp_path / "m.nii.gz", np.zeros(image.shape))
    with pytest.raises(FileError, match=r"m\.nii\.gz is empty"):
        regions_of(volume, empty)


@pytest.mark.parametrize("what", ["mask", "region"])
def test_other_grids_are_refused(image: np.ndarray, tmp_path: Path, what: str) -> None:
    volume = helpers.volume(image, helpers.head("t2")[1])
    small = mask_file(tmp_path / "small.nii.gz", np.ones(image[1:].shape))
    with pytest.raises(GeometryError, match=rf"The {what} .*small.nii.gz and the reference"):
        regions_of(volume, **{"mask": {"foreground": small}, "region": {"region": small}}[what])
