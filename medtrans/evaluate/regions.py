"""Where a prediction is scored: in the whole image, in the patient, and in a region of interest."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
from monai.data import MetaTensor

from medtrans.errors import FileError
from medtrans.preprocessing.foreground import find_foreground
from medtrans.system.progress import say
from medtrans.volumes import read_volume, require_same_grid
from medtrans.volumes.voxels import Mask

FOREGROUND, WHOLE, REGION = "foreground", "whole", "region"

Regions = Mapping[str, Mask]
"""Masks (X, Y, Z) by name, none of them empty; the foreground is always there, and first."""


def regions_of(
    reference: MetaTensor, foreground: Path | Mask | None = None, region: Path | None = None
) -> Regions:
    """Read or find the regions of a real image.

    Parameters
    ----------
    reference : MetaTensor
        Shape (X, Y, Z), in its own orientation.
    foreground : Path or array of bool, optional
        A volume above 0 in the patient, or that mask (X, Y, Z); without one it is found.
    region : Path, optional
        A volume above 0 where the user looks: a lesion, bone. An empty one is told, and left out.

    Raises
    ------
    FileError
        When a file cannot be read, lies on another grid, or the foreground is empty.
    """
    voxels = reference.numpy()
    regions = {
        FOREGROUND: _foreground(reference, foreground),
        WHOLE: np.ones(voxels.shape, dtype=bool),
    }
    if region is not None:
        chosen = _mask(region, reference, "region")
        if chosen.any():
            regions[REGION] = chosen
        else:
            say(f"The region {region} is empty: its scores are left out.")
    return regions


def _foreground(reference: MetaTensor, given: Path | Mask | None) -> Mask:
    if given is None:
        return find_foreground(reference.numpy())
    if not isinstance(given, Path):
        return given
    mask = _mask(given, reference, "mask")
    if not mask.any():
        raise FileError(
            f"The mask {given} is empty: no voxel is above 0. Give the mask of the patient, or "
            "leave it out."
        )
    return mask


def _mask(path: Path, reference: MetaTensor, what: str) -> Mask:
    volume = read_volume(path)
    require_same_grid(volume, reference, f"The {what} {path} and the reference")
    return np.asarray(volume.numpy() > 0)
