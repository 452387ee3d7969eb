"""Layers that are made of other layers."""

from __future__ import annotations

import numpy as np
import torch
from monai.data import MetaTensor

from medtrans.preprocessing.foreground import find_foreground
from medtrans.report.scene import Layer
from medtrans.volumes.voxels import Mask, Voxels


def like(volume: MetaTensor, voxels: Voxels) -> MetaTensor:
    """Give voxels (X, Y, Z) the place of a volume of that shape."""
    return MetaTensor(torch.from_numpy(voxels), affine=volume.affine)


def error_layer(predicted: Voxels, truth: MetaTensor, unit: str, mask: Mask | None = None) -> Layer:
    """Show what a synthetic volume is wrong by, in its reference's unit.

    MR values have no unit, so that a gain is no error: it is what is left after a linear fit.

    Parameters
    ----------
    predicted : array of float32
        Shape (X, Y, Z).
    truth : MetaTensor
        Shape (X, Y, Z), on the same grid.
    unit : str
        "HU", or empty for MR.
    mask : array of bool, optional
        Shape (X, Y, Z): where the patient is; by default it is found in `truth`.
    """
    values = truth.numpy()
    inside = find_foreground(values) if mask is None else mask
    fitted, note = predicted, ""
    if not unit:
        fitted, note = _fitted(predicted, values, inside), _FITTED
    error = np.where(inside, np.abs(fitted - values), np.float32(0))
    return Layer("error", "Absolute error", like(truth, error), unit, note)


_FITTED = ", after a linear fit of the synthetic volume to the reference"


def _fitted(predicted: Voxels, truth: Voxels, mask: Mask) -> Voxels:
    if np.ptp(predicted[mask]) == 0:
        return predicted
    slope, shift = np.polyfit(predicted[mask].astype(np.float64), truth[mask], 1)
    fitted: Voxels = (slope * predicted + shift).astype(np.float32)
    return fitted
