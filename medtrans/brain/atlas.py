"""The heads whose brains are known: atlas.npz, made by `python -m benchmarks.brain.atlas`.

Two adults of the 3D MR image database of multiple sclerosis patients, Ljubljana (CC BY), T1, T2 and
FLAIR at 3 mm, with the data set's brain masks. LICENSE.txt beside the file says how it was made.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np

from medtrans.volumes.voxels import Mask, Voxels

GRID_MM = 3.0
_FILE = Path(__file__).with_name("atlas.npz")


@dataclass(frozen=True)
class Head:
    """One head on an upright grid of `GRID_MM`.

    Attributes
    ----------
    images : dict of str to array of float32
        By contrast, shape (X, Y, Z), RAS.
    seen : dict of str to array of bool
        By contrast, shape (X, Y, Z): inside its field of view.
    brain : array of float32
        Shape (X, Y, Z): the share of brain in each voxel.
    """

    images: dict[str, Voxels]
    seen: dict[str, Mask]
    brain: Voxels

    def shown_in(self, contrast: str) -> str:
        """Choose the contrast to compare with another head's: the same one, or the first."""
        return contrast if contrast in self.images else next(iter(self.images))


@cache
def heads() -> tuple[Head, ...]:
    """Read the shipped heads."""
    with np.load(_FILE) as stored:
        names = [str(name) for name in stored["contrasts"]]
        return tuple(
            Head(
                {n: i.astype(np.float32) for n, i in zip(names, images, strict=True)},
                dict(zip(names, seen, strict=True)),
                brain.astype(np.float32) / 255,
            )
            for images, seen, brain in zip(
                stored["images"], stored["seen"], stored["brains"], strict=True
            )
        )


@cache
def sha256() -> str:
    """Hash the shipped file."""
    return hashlib.sha256(_FILE.read_bytes()).hexdigest()
