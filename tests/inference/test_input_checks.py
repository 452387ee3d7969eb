"""What an input is warned about."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from medtrans.config.terms import Contrast, Task
from medtrans.errors import FileError
from medtrans.inference.input_checks import check_input, check_pixels, check_values
from medtrans.inference.settings import Settings
from medtrans.inference.translator import Translator
from medtrans.preprocessing.foreground import find_region
from medtrans.volumes import Source, read_volume
from medtrans.volumes.geometry import spacing_mm
from tests import helpers

T1_TO_T2, MR_TO_CT = Task("t1", "t2"), Task("mr", "ct")


def seen(
    contrast: Contrast | None, task: Task, kind: str = "nifti", lowest: float = 0.0
) -> tuple[str, ...]:
    voxels = np.linspace(lowest, 100.5, 40, dtype=np.float32).reshape(4, 5, 2)
    source = Source(Path("x"), kind, "", (4, 5, 2), (0.0,) * 16, None)  # type: ignore[arg-type]
    return check_values(voxels, task, replace(source, contrast=contrast))


def warned_of_head(volume: helpers.MetaTensor) -> bool:
    grid_mm = spacing_mm(np.asarray(volume.affine))
    region = find_region(volume.numpy(), grid_mm, helpers.tiny_pipeline().volume)
    return any("skull" in w for w in check_input(volume, T1_TO_T2, region, brains_only=True))


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
def test_another_contrast_is_said(contrast: Contrast | None, task: Task, said: bool) -> None:
    assert bool(seen(contrast, task)) == said


def test_air_in_hu_shows_a_ct() -> None:
    [warning] = seen(None, T1_TO_T2, lowest=-1000.0)
    assert "ct" in warning
    assert seen(None, T1_TO_T2, lowest=-50.0) == ()


def test_a_dicom_series_that_is_ct_is_refused() -> None:
    with pytest.raises(FileError, match=r"seems to be ct.*--task"):
        seen("ct", T1_TO_T2, "dicom")
    assert seen("pd", T1_TO_T2, "dicom")


def test_an_array_is_checked_like_a_file() -> None:
    voxels = np.linspace(-1000, 100.5, 40, dtype=np.float32).reshape(4, 5, 2)
    [warning] = check_values(voxels, T1_TO_T2, None)
    assert "ct" in warning


def test_one_value_is_no_image() -> None:
    with pytest.raises(FileError, match="nothing to translate"):
        check_values(np.full((3, 4, 5), 7.0, dtype=np.float32), T1_TO_T2, None)


def test_labels_are_no_image() -> None:
    labels = np.random.default_rng(0).integers(0, 4, (9, 9, 9)).astype(np.float32)
    assert check_values(labels, T1_TO_T2, None)
    assert not check_values(labels + np.float32(0.5), T1_TO_T2, None)
    assert not check_values(helpers.head()[0], T1_TO_T2, None)


def test_a_head_is_more_than_a_brain() -> None:
    for stripped in (True, False):
        assert warned_of_head(helpers.volume(*helpers.head(skull_stripped=stripped))) != stripped


@pytest.mark.parametrize("path", ["raw_brain/openms-long-01", "raw_brain/tcga-fg-6692",
                                  "brain/openms-07", "brain/brats-met-00110"])  # fmt: skip
def test_real_heads_and_brains_are_told_apart(shared_data: Path, path: str) -> None:
    volume = read_volume(shared_data / path / "t1.nii.gz")
    assert warned_of_head(volume) == path.startswith("raw")


class TestPixels:
    @pytest.mark.parametrize(
        ("grid_mm", "axis", "said"),
        [
            ((1, 1, 5), 2, None),
            ((1, 1, 5), 1, "coronal slices have pixels of 1 x 5 mm.*--axes axial"),
            ((1, 1, 5), 0, "sagittal slices have pixels of 1 x 5 mm.*--axes axial"),
            ((5, 1, 1), 2, "axial slices have pixels of 5 x 1 mm.*--axes sagittal"),
            ((1, 1.3, 1), 2, None),
            ((1, 3, 9), 2, "stretched; resample the volume"),
        ],
    )
    def test_stretched_ones_are_said(
        self, grid_mm: tuple[float, ...], axis: int, said: str | None
    ) -> None:
        found = check_pixels(grid_mm, [axis], "axial", (0, 0, 0))
        assert len(found) == (said is not None)
        if said is not None:
            assert re.search(said, found[0])

    def test_those_of_the_training_are_not(self) -> None:
        """A recipe that resamples to long pixels was trained on long pixels."""
        assert check_pixels((1, 3, 2), [2], "axial", (1, 3, 0)) == ()
        [warning] = check_pixels((1, 1, 1), [2], "axial", (1, 3, 0))
        assert "stretched" in warning

    def test_each_axis_that_is_averaged_over(self) -> None:
        found = check_pixels((1, 1, 5), [0, 1, 2], "axial", (0, 0, 0))
        assert [warning.split()[1] for warning in found] == ["sagittal", "coronal"]

    def test_come_with_the_translation(self, identity_model: Path) -> None:
        translator = Translator.load(identity_model, "cpu")
        thick = helpers.volume(helpers.marked_head(), np.diag([1.0, 1.0, 5.0, 1.0]))
        [warning] = translator.translate_volume(thick, Settings(axes=("coronal",))).warnings
        assert "1 x 5 mm" in warning
        assert translator.translate_volume(thick, Settings()).warnings == ()
