"""Affines: what they say of a grid."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from medtrans.volumes.geometry import is_sheared, orientation, spacing_mm
from tests import helpers


@pytest.mark.parametrize(("order", "signs"), helpers.orientations()[::5])
def test_spacing_and_orientation_follow_the_axes(
    order: tuple[int, ...], signs: tuple[int, ...]
) -> None:
    voxels, affine = np.zeros((3, 4, 5)), np.diag([0.5, 2.0, 3.0, 1.0])
    _, stored = helpers.stored_as(voxels, affine, order, signs)
    assert spacing_mm(stored).tolist() == [[0.5, 2.0, 3.0][axis] for axis in order]
    ends = ("LR", "PA", "IS")
    expected = [ends[axis][sign > 0] for axis, sign in zip(order, signs, strict=True)]
    assert orientation(stored) == "".join(expected)


def test_spacing_of_a_tilted_grid_and_of_a_tensor() -> None:
    tilted = helpers.tilted(np.diag([0.5, 2.0, 3.0, 1.0]))
    assert spacing_mm(tilted) == pytest.approx([0.5, 2.0, 3.0])
    assert spacing_mm(torch.from_numpy(tilted)).tolist() == spacing_mm(tilted).tolist()
    assert not is_sheared(tilted)
