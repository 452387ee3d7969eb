"""What an input is warned about."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from monai.data import MetaTensor

from medtrans.config.terms import Task
from medtrans.errors import FileError
from medtrans.inference.input_checks import require_contrast, warn_of_head, warn_of_labels
from medtrans.preprocessing.foreground import find_foreground
from medtrans.volumes import Source, read_volume
from tests import helpers

T1_TO_T2, MR_TO_CT = Task("t1", "t2"), Task("mr", "ct")


def seen(contrast: str | None, kind: str = "nifti", lowest: float = 0.0) -> MetaTensor:
    volume = helpers.volume(np.array([[[lowest, 100.0]]]))
    source = Source(Path("x"), kind, "", (1, 1, 2), (0.0,) * 16, None)  # type: ignore[arg-type]
    volume.meta["source"] = replace(source, contrast=contrast)
    return volume


@pytest.mark.parametrize(
    ("contrast", "task", "said"),
    [
        (None, T1_TO_T2, False),
        ("t1", T1_TO_T2, False),
        ("mr", T1_TO_T2, False),
        ("t1", MR_TO_CT, False),
        ("t2", T1_TO_T2, True),
        ("t1c", T1_TO_T2, True),
        ("ct", T1_TO_T2, True),
        ("ct", MR_TO_CT, True),
    ],
)
def test_another_contrast_is_said(contrast: str | None, task: Task, said: bool) -> None:
    assert bool(require_contrast(seen(contrast), task)) == said


def test_air_in_hu_shows_a_ct() -> None:
    [warning] = require_contrast(seen(None, lowest=-1000.0), T1_TO_T2)
    assert "ct" in warning
    assert require_contrast(seen(None, lowest=-50.0), T1_TO_T2) == ()


def test_a_dicom_series_that_is_ct_is_refused() -> None:
    with pytest.raises(FileError, match=r"seems to be ct.*--task"):
        require_contrast(seen("ct", "dicom"), T1_TO_T2)
    assert require_contrast(seen("pd", "dicom"), T1_TO_T2)


def test_labels_are_no_image() -> None:
    labels = np.random.default_rng(0).integers(0, 4, (9, 9, 9)).astype(np.float32)
    assert warn_of_labels(helpers.volume(labels))
    assert not warn_of_labels(helpers.volume(labels + 0.5))
    assert not warn_of_labels(helpers.volume(*helpers.head()))


def test_a_head_is_more_than_a_brain() -> None:
    for stripped in (True, False):
        volume = helpers.volume(*helpers.head(skull_stripped=stripped))
        assert bool(warn_of_head(volume, find_foreground(volume.numpy()))) != stripped


@pytest.mark.parametrize("path", ["raw_brain/openms-long-01", "raw_brain/tcga-fg-6692",
                                  "brain/openms-07", "brain/brats-met-00110"])  # fmt: skip
def test_real_heads_and_brains_are_told_apart(shared_data: Path, path: str) -> None:
    volume = read_volume(shared_data / path / "t1.nii.gz")
    found = warn_of_head(volume, find_foreground(volume.numpy()))
    assert bool(found) == path.startswith("raw")
