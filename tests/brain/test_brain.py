"""Where the brain is in a whole head."""

from __future__ import annotations

from itertools import cycle
from pathlib import Path

import numpy as np
import pytest

from medtrans.brain import atlas, finder
from medtrans.brain.grid import coarsen, refine
from medtrans.errors import FileError
from medtrans.volumes.files import load
from tests import helpers

STEP_MM = 3.0


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


def head_of(*, radius: float = 66.0, seen_above: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Draw a ball of 85 mm in 4 mm voxels; what is below `seen_above` is not in the volume."""
    affine = np.diag([4.0, 4.0, 4.0, 1.0])
    affine[:3, 3] = [-100, -100, -100]
    voxels = ball((50, 50, 50), affine, (0, 0, 0), 85).astype(np.float32)
    affine[2, 3] += 4 * seen_above
    return voxels[..., seen_above:], affine


def answer(monkeypatch: pytest.MonkeyPatch, *balls: tuple[tuple[float, ...], float]) -> None:
    """Let the atlas heads say one ball each."""
    turns = cycle(balls)

    def carried(head: object, *_: object) -> np.ndarray:
        centre, radius = next(turns)
        return ball(head.voxels.shape, head.affine, centre, radius).astype(np.float32)  # type: ignore[attr-defined]

    monkeypatch.setattr(finder, "carry_brain", carried)


def test_what_the_heads_agree_on_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    answer(monkeypatch, ((0, 0, 20), 67), ((0, 0, 22), 67))
    voxels, affine = head_of()
    mask, brain = finder.find_brain(voxels, affine, "t1")
    expected = ball(voxels.shape, affine, (0, 0, 21), 67)
    assert 2 * (mask & expected).sum() / (mask.sum() + expected.sum()) > 0.97
    assert brain.litres == pytest.approx(mask.sum() * 64e-6)
    assert 0.9 < brain.agreement < 1
    assert brain.entries["BrainAtlasSHA256"] == atlas.sha256()


@pytest.mark.parametrize(
    ("balls", "cut", "said"),
    [
        ((((0, 0, 0), 30), ((0, 0, 0), 30)), 0, "0.11 litres"),
        ((((0, 0, 0), 80), ((0, 0, 0), 80)), 0, r"2\.15 litres"),
        ((((0, 0, 9), 68), ((0, 0, -9), 68)), 0, "not clear where the brain is"),
        ((((0, 0, 0), 66), ((0, 0, 0), 66)), 20, "outside the field of view"),
    ],
)
def test_what_is_not_certain_is_refused(
    monkeypatch: pytest.MonkeyPatch,
    balls: tuple[tuple[tuple[float, ...], float], ...],
    cut: int,
    said: str,
) -> None:
    answer(monkeypatch, *balls)
    with pytest.raises(FileError, match=f"{said}.*--brain MASK.*--brain none"):
        finder.find_brain(*head_of(seen_above=cut), "t1")


def test_a_registration_that_fails_is_a_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(*_: object) -> None:
        raise RuntimeError("ITK ERROR")

    monkeypatch.setattr(finder, "carry_brain", fails)
    with pytest.raises(FileError, match="nothing like a head"):
        finder.find_brain(*head_of(), "t1")


def test_the_shipped_heads() -> None:
    one, two = atlas.heads()
    assert list(one.images) == ["t1", "t2", "flair"]
    assert one.shown_in("flair") == "flair"
    assert one.shown_in("t1c") == "t1"
    litres = [float(head.brain.sum()) * STEP_MM**3 / 1e6 for head in (one, two)]
    assert litres == pytest.approx([1.44, 1.52], abs=0.02)  # as the data set has them


def test_a_real_brain_is_found(shared_data: Path) -> None:
    image = load(shared_data / "raw_brain" / "openms-long-01" / "t1.nii.gz", None, None)
    mask, brain = finder.find_brain(image.voxels, image.affine, "t1")
    assert brain.litres == pytest.approx(1.31, rel=0.07)  # as the data set's mask has it
    assert mask.shape == image.voxels.shape
