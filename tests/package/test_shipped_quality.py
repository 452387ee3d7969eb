"""The shipped model on real brains that it was not trained on: no worse than its card says."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from monai.data import MetaTensor

from medtrans.evaluate.metrics import linear_fit, psnr, unit_scale
from medtrans.evaluate.texture import checkerboard_ratio
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
    assert checkerboard_ratio(made, truth, mask, axis=2) <= 1.4
