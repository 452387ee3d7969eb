"""Layers and scenes of a few voxels."""

from __future__ import annotations

from typing import Any

import numpy as np

from medtrans.report.scene import Layer, Role, Scene, arrange
from tests import helpers

RIGHT, ANTERIOR, SUPERIOR = 9, 9, 7
"""The brightest voxel of `marked`: the block's corner to the patient's right, front and top."""
NAMES: dict[Role, str] = {
    "source": "Source T1",
    "synthetic": "SYNTHETIC T2",
    "reference": "Reference T2",
    "error": "Absolute error",
    "uncertainty": "Uncertainty",
}


def layer(
    voxels: np.ndarray, affine: np.ndarray | None = None, role: Role = "source", unit: str = ""
) -> Layer:
    return Layer(role, NAMES[role], helpers.volume(voxels, affine), unit)


def marked(seed: int = 0) -> np.ndarray:
    """Make a block of tissue in exact 0, (13, 14, 12), brightest in one corner."""
    rng = np.random.default_rng(seed)
    voxels = np.zeros((13, 14, 12), dtype=np.float32)
    voxels[3:10, 3:10, 2:8] = rng.integers(100, 600, (7, 7, 6))
    voxels[RIGHT, ANTERIOR, SUPERIOR] = 900
    return voxels


def scene(*roles: Role, affine: np.ndarray | None = None, **options: Any) -> Scene:
    """Arrange a marked block for each role, each with values of its own."""
    return arrange([layer(marked(i), affine, role, **options) for i, role in enumerate(roles)])
