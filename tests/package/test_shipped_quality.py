"""The shipped model on real brains that it was not trained on: no worse than its card says."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from monai.data import MetaTensor

from medtrans.evaluate.metrics import linear_fit, psnr, unit_scale
from medtrans.evaluate.regions import FOREGROUND
from medtrans.evaluate.scores import Reference
from medtrans.evaluate.texture import checkerboard_ratio
from medtrans.evaluate.uncertainty import Uncertainty, uncertainty_scores
from medtrans.inference.settings import Settings
from medtrans.inference.translator import Translator
from medtrans.preprocessing.foreground import find_foreground
from medtrans.volumes import read_volume
from tests import helpers

_SLAB = np.s_[:, :, 72:84]  # axial slices of the middle of the brain


@pytest.fixture(scope="module")
def shipped() -> Translator:
    return Translator.load("brain_mri", "cpu")


def slab(path: Path) -> MetaTensor:
    volume = read_volume(path)
    return helpers.volume(volume.numpy()[_SLAB].copy(), np.asarray(volume.affine))


def fitted_psnr(image: np.ndarray, truth: np.ndarray, mask: np.ndarray) -> float:
    reference = unit_scale(truth, mask)
    return psnr(linear_fit(unit_scale(image, mask), reference, mask), reference, mask)


@pytest.mark.parametrize(
    ("subject", "mode", "lowest"),
    [
        ("brats-gli-00001", "fidelity", 17.2),
        ("brats-met-00110", "fidelity", 14.8),
        ("brats-met-00110", "realistic", 14.6),
    ],
)
def test_t1_to_t2(
    shipped: Translator, shared_data: Path, subject: str, mode: str, lowest: float
) -> None:
    source, target = (slab(shared_data / f"brain/{subject}/{c}.nii.gz") for c in ("t1", "t2"))
    truth = target.numpy()
    mask = find_foreground(truth)
    made = shipped.translate_volume(source, Settings(task="t1-to-t2", mode=mode)).voxels
    found = fitted_psnr(made, truth, mask)
    assert found > lowest
    assert found > fitted_psnr(source.numpy(), truth, mask) + 0.8
    assert checkerboard_ratio(made, truth, mask) <= 1.2


def test_slices_along_three_axes_and_what_is_known_of_the_error(
    shipped: Translator, shared_data: Path
) -> None:
    """A block of 11 cm of a brain from another site."""
    block = np.s_[64:176, 64:176, 24:136]
    source, target = (
        helpers.volume(volume.numpy()[block].copy(), np.asarray(volume.affine))
        for volume in (
            read_volume(shared_data / f"brain/brats-met-00110/{c}.nii.gz") for c in ("t1", "t2")
        )
    )
    truth = target.numpy()
    mask = find_foreground(truth)
    three, one = (
        shipped.translate_volume(source, Settings(task="t1-to-t2", axes=axes, uncertainty=True))
        for axes in ((), ("axial",))
    )
    assert three.axes == ("axial", "coronal", "sagittal")
    assert fitted_psnr(three.voxels, truth, mask) > fitted_psnr(one.voxels, truth, mask) + 0.1
    assert three.error is not None
    known = Uncertainty(three.error.voxels, three.error.calibration.within)
    found = uncertainty_scores(known, three.voxels, Reference(truth, {FOREGROUND: mask}))
    assert found[FOREGROUND]["uncertainty_auroc"] > 0.75
    assert 0.8 < found[FOREGROUND]["coverage_90"] < 0.99
