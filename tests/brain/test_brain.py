"""Where the brain is in a whole head."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from scipy.ndimage import binary_fill_holes

from medtrans.brain import finder, network
from medtrans.brain.grid import Coarse, coarsen, refine
from medtrans.errors import FileError
from medtrans.phantom.heads import ScanProtocol, make_subject
from medtrans.volumes.files import load
from tests import helpers

STEP_MM = 3.0
SMALL = ScanProtocol(contrasts=("t1", "flair"), shape=(56, 64, 60), spacing_mm=(3.5, 3.5, 3.5))


def ball(
    shape: tuple[int, ...], affine: np.ndarray, centre_mm: tuple[float, ...], radius: float
) -> np.ndarray:
    index = np.stack(np.meshgrid(*map(np.arange, shape), indexing="ij"))
    world = np.einsum("ij,jxyz->ixyz", affine[:3, :3], index) + affine[:3, 3, None, None, None]
    return np.linalg.norm(world - np.reshape(centre_mm, (3, 1, 1, 1)), axis=0) < radius


@pytest.mark.parametrize("spacing", [(1.0, 1.0, 1.0), (0.7, 0.7, 5.0), (4.0, 4.0, 4.0)])
def test_a_shape_comes_back_from_the_coarse_grid(spacing: tuple[float, ...]) -> None:
    shape = tuple(round(130 / step) for step in spacing)
    affine = helpers.tilted(np.diag([-spacing[0], spacing[1], spacing[2], 1.0]))
    affine[:3, 3] = -affine[:3, :3] @ (np.array(shape) / 2) + [5, -3, 8]
    inside = ball(shape, affine, (5, -3, 8), 45)
    coarse = coarsen(100 * inside.astype(np.float32), affine, STEP_MM)
    found = refine(coarse.voxels / 100, coarse, affine, shape)
    assert 2 * (found & inside).sum() / (found.sum() + inside.sum()) > 0.97
    assert coarse.seen.any()
    assert not coarse.seen.all()
    assert coarse.voxels[coarse.seen].max() > 90


def head_of() -> tuple[np.ndarray, np.ndarray]:
    """Draw a ball of 85 mm in 4 mm voxels."""
    affine = np.diag([4.0, 4.0, 4.0, 1.0])
    affine[:3, 3] = [-100, -100, -100]
    return ball((50, 50, 50), affine, (0, 0, 0), 85).astype(np.float32), affine


def answer(
    monkeypatch: pytest.MonkeyPatch, *balls: tuple[tuple[float, ...], float], unclear: float = 1.0
) -> None:
    """Let the network say balls, and `unclear` instead of 1 in them."""

    def said(coarse: Coarse) -> np.ndarray:
        parts = [ball(coarse.voxels.shape, coarse.affine, *one) for one in balls]
        return np.float32(unclear) * np.any(parts, axis=0)

    monkeypatch.setattr(finder, "brain_share", said)


def test_what_the_network_says_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    answer(monkeypatch, ((0, 0, 10), 67), ((0, 0, -80), 8))
    voxels, affine = head_of()
    mask, brain = finder.find_brain(voxels, affine)
    inside = ball(mask.shape, affine, (0, 0, 10), 67)
    assert 2 * (mask & inside).sum() / (mask.sum() + inside.sum()) > 0.98
    assert not mask[..., :10].any()  # the smaller part is none of the brain
    assert brain.litres == pytest.approx(mask.sum() * 4**3 / 1e6)
    assert brain.entries["BrainFinderSHA256"] == network.trained_network()[1]
    assert brain.entries["BrainDoubt"] == 0


def hollow(monkeypatch: pytest.MonkeyPatch, outer: float, inner: float) -> None:
    def said(coarse: Coarse) -> np.ndarray:
        parts = [ball(coarse.voxels.shape, coarse.affine, (0, 0, 0), r) for r in (outer, inner)]
        return (parts[0] & ~parts[1]).astype(np.float32)

    monkeypatch.setattr(finder, "brain_share", said)


def test_a_hole_is_filled(monkeypatch: pytest.MonkeyPatch) -> None:
    hollow(monkeypatch, 67, 12)
    assert finder.find_brain(*head_of())[0][25, 25, 25]


def test_a_shell_does_not_have_the_shape_of_a_brain(monkeypatch: pytest.MonkeyPatch) -> None:
    hollow(monkeypatch, 80, 60)
    with pytest.raises(FileError, match="not have the shape"):
        finder.find_brain(*head_of())


@pytest.mark.parametrize(
    ("balls", "unclear", "said"),
    [
        ([], 1.0, "no brain was found"),
        ([((0, 0, 0), 50)], 1.0, r"0\.5\d litres"),
        ([((0, 0, 0), 80)], 1.0, r"2\.1\d litres"),
        ([((0, 0, 25), 62), ((0, 0, -75), 30)], 1.0, "more than one part"),
        ([((0, 0, 0), 66)], 0.8, "not clear where the brain ends"),
    ],
)
def test_what_is_not_certain_is_refused(
    monkeypatch: pytest.MonkeyPatch,
    balls: list[tuple[tuple[float, ...], float]],
    unclear: float,
    said: str,
) -> None:
    answer(monkeypatch, *balls, unclear=unclear)
    with pytest.raises(FileError, match=f"{said}.*--brain MASK.*--brain none"):
        finder.find_brain(*head_of())


@pytest.mark.parametrize("contrast", ["t1", "flair"])
def test_the_brain_of_a_phantom_is_found(contrast: str) -> None:
    head = make_subject(3, 0, SMALL)
    brain = make_subject(3, 0, replace(SMALL, skull_stripped=True))
    inside = binary_fill_holes(brain.images[contrast] > 0)
    mask, _ = finder.find_brain(head.images[contrast], head.affine)
    assert 2 * (mask & inside).sum() / (mask.sum() + inside.sum()) > 0.9


def test_a_single_slice_has_no_brain() -> None:
    slice_ = np.random.default_rng(0).random((100, 120, 1)).astype(np.float32)
    with pytest.raises(FileError, match="no brain was found"):
        finder.find_brain(slice_, np.diag([2.0, 2.0, 1.0, 1.0]))


def test_noise_has_no_brain() -> None:
    noise = np.random.default_rng(0).standard_normal((50, 55, 50)).astype(np.float32)
    with pytest.raises(FileError, match="--brain MASK"):
        finder.find_brain(noise, np.diag([4.0, 4.0, 4.0, 1.0]))


def test_a_mirrored_head_has_the_mirrored_brain() -> None:
    head = make_subject(3, 0, SMALL)
    coarse = coarsen(head.images["t1"], head.affine, STEP_MM)
    mirrored = replace(coarse, voxels=coarse.voxels[::-1].copy())
    there, back = finder.brain_share(coarse), finder.brain_share(mirrored)[::-1]
    assert np.abs(there - back).max() < 1e-4


@pytest.mark.parametrize("contrast", ["t1", "flair"])
def test_a_real_brain_is_found(shared_data: Path, contrast: str) -> None:
    image = load(shared_data / "raw_brain" / "openms-long-01" / f"{contrast}.nii.gz", None, None)
    mask, brain = finder.find_brain(image.voxels, image.affine)
    assert brain.litres == pytest.approx(1.31, rel=0.1)  # litres of the data set's mask
    assert mask.shape == image.voxels.shape


def test_a_prostate_has_no_brain(shared_data: Path) -> None:
    [series] = (shared_data / "dicom" / "prostatex-0000").glob("*t2tsetra*")
    image = load(series, None, None)
    with pytest.raises(FileError, match="--brain MASK"):
        finder.find_brain(image.voxels, image.affine)
