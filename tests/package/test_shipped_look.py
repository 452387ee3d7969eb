"""The shipped model's look on real volumes that it was not trained on; no worse than docs/look.md."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from monai.data import MetaTensor

from benchmarks.look import Case, cases_of
from medtrans.package.store import ModelPackage, load_package
from medtrans.volumes import read_volume
from tests import helpers

CONTRASTS = ("t1", "t1c", "t2", "flair")


@pytest.fixture(scope="module")
def package() -> ModelPackage:
    return load_package("brain_mri")


@pytest.fixture(scope="module")
def brains(shared_data: Path) -> dict[str, MetaTensor]:
    """The four contrasts of a subject from another site, at 2 mm to be quick."""
    folder = shared_data / "brain" / "brats-met-00110"
    return {contrast: halved(read_volume(folder / f"{contrast}.nii.gz")) for contrast in CONTRASTS}


def halved(volume: MetaTensor) -> MetaTensor:
    affine = np.asarray(volume.affine) @ np.diag([2, 2, 2, 1])
    return helpers.volume(volume.numpy()[::2, ::2, ::2], affine)


def looks(package: ModelPackage, volume: MetaTensor, contrast: str) -> dict[str, Case]:
    """What is found in the task of each source contrast."""
    return {case.task.source: case for case in cases_of(package, volume, contrast)}


def turned(volume: MetaTensor, axis: int) -> MetaTensor:
    """Turn the voxels round along an axis under a header that stays as it is."""
    return helpers.volume(np.flip(volume.numpy(), axis), np.asarray(volume.affine))
