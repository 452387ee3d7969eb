"""The shipped model's look on real volumes that it was not trained on (docs/look.md)."""

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


def test_wrong_contrasts_are_doubted_and_right_ones_are_not(
    package: ModelPackage, brains: dict[str, MetaTensor]
) -> None:
    doubted = {
        (contrast, source): case.contrast_doubted
        for contrast, volume in brains.items()
        for source, case in looks(package, volume, contrast).items()
    }
    assert len(doubted) == 16
    assert not any(doubted[contrast, contrast] for contrast in CONTRASTS)
    assert sum(doubted.values()) >= 11  # of 12


def test_a_header_that_lies(package: ModelPackage, brains: dict[str, MetaTensor]) -> None:
    upright = looks(package, brains["t1"], "t1")["t1"]
    assert not [w for w in upright.warnings if "lie as its header" in w]
    down = looks(package, turned(brains["t1"], 2), "t1")["t1"]
    assert [w for w in down.warnings if "the top of the head points to the header's inferior" in w]
    # A mirror image is not seen; docs/look.md says so.
    mirrored = looks(package, turned(brains["t1"], 0), "t1")["t1"]
    assert not [w for w in mirrored.warnings if "lie as its header" in w]


def test_what_is_no_brain(
    package: ModelPackage, brains: dict[str, MetaTensor], shared_data: Path
) -> None:
    prostate = shared_data / "dicom" / "prostatex-0000" / "4.000000-t2tsetra-00702"
    head, rng = brains["t1"], np.random.default_rng(0)
    inside = head.numpy() != 0
    noise = helpers.volume(rng.uniform(1, 2, inside.shape) * inside, np.asarray(head.affine))
    for volume in (read_volume(prostate), noise):
        cases = looks(package, volume, "no brain").values()
        assert all(case.warnings for case in cases)
        assert all(case.contrast_doubted for case in cases)
