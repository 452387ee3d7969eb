"""The coarse cube of the look: what it keeps of a volume, and what changes nothing in it."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from medtrans.networks.look import STATISTICS, tissue_statistics
from medtrans.preprocessing.coarse import (
    CELLS,
    CHANNELS,
    FINE_MM,
    ORIENTATIONS,
    cells_of,
    fine_cube,
)

EDGE = round(CELLS * 5.0 / FINE_MM)


def ball(
    spacing_mm: tuple[float, float, float], radius_mm: float = 60.0, power: float = 1.0
) -> np.ndarray:
    """A ball whose intensity rises from left to right; -1 outside."""
    shape = [int(np.ceil(2.4 * radius_mm / mm)) for mm in spacing_mm]
    axes = [(np.arange(n) - (n - 1) / 2) * mm for n, mm in zip(shape, spacing_mm, strict=True)]
    x, y, z = np.meshgrid(*axes, indexing="ij")
    rising = 0.05 + 0.9 * ((x / radius_mm + 1) / 2).clip(0, 1) ** power
    return np.where(x**2 + y**2 + z**2 < radius_mm**2, 2 * rising - 1, -1).astype(np.float32)


@pytest.mark.parametrize("spacing_mm", [(1.0, 1.0, 1.0), (1.0, 1.2, 5.0), (4.0, 3.0, 2.5)])
def test_lengths_are_those_of_the_patient(spacing_mm: tuple[float, float, float]) -> None:
    cube = fine_cube(ball(spacing_mm), spacing_mm)
    assert cube.shape == (2, EDGE, EDGE, EDGE)
    litres = float(cube[1].sum()) * FINE_MM**3 / 1e6
    assert litres == pytest.approx(4 / 3 * np.pi * 0.6**3, rel=0.05)
    middle = [float((cube[1].sum(dim=[a for a in range(3) if a != k]) > 0).nonzero().float().mean())
              for k in range(3)]  # fmt: skip
    assert middle == pytest.approx([(EDGE - 1) / 2] * 3, abs=1)


def test_of_a_long_body_the_middle_is_kept() -> None:
    cube = fine_cube(np.zeros((4, 10, 400), np.float32), (5.0, 5.0, 1.0))
    along = cube[1].sum(dim=(0, 1))
    assert (along > 0).all()
    assert not cube[1, :30].any()


def test_a_rising_curve_changes_no_rank_and_a_gain_no_intensity() -> None:
    cube = fine_cube(ball((2.0, 2.0, 2.0)), (2.0, 2.0, 2.0))
    cells = cells_of(cube)
    assert cells.shape == (CHANNELS, CELLS, CELLS, CELLS)
    curved = cells_of(torch.stack([cube[0] ** 2.2, cube[1]]))
    torch.testing.assert_close(curved[:3], cells[:3], atol=0.05, rtol=0)
    assert (curved[3:6] - cells[3:6]).abs().max() > 0.1
    dimmed = cells_of(torch.stack([0.4 * cube[0] + 0.3 * cube[1], cube[1]]))
    torch.testing.assert_close(dimmed, cells, atol=0.05, rtol=0)


def test_an_empty_cube_has_cells() -> None:
    cells = cells_of(torch.zeros(2, EDGE, EDGE, EDGE))
    assert not cells.any()
    assert torch.equal(tissue_statistics(cells), torch.zeros(STATISTICS))


def test_orientations() -> None:
    cells = cells_of(fine_cube(ball((2.5, 2.5, 2.5), power=2.0), (2.5, 2.5, 2.5)))
    marked = torch.arange(27.0).reshape(1, 3, 3, 3)
    turned = {tuple(o.turned(marked).flatten().tolist()) for o in ORIENTATIONS}
    assert len(turned) == len(ORIENTATIONS) == 24
    assert torch.equal(ORIENTATIONS[0].turned(marked), marked)
    for orientation in ORIENTATIONS[::5]:
        # A head's left-right axis is never turned round: the mirror image is the same class.
        assert not orientation.flipped[orientation.axes.index(0)]
        torch.testing.assert_close(
            tissue_statistics(orientation.turned(cells)), tissue_statistics(cells),
            atol=0.05, rtol=0,
        )  # fmt: skip
