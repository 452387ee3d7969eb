"""The intensity profile: how a contrast's values become [-1, 1] and come back."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from medtrans.config.schema import PercentileScale, WindowScale
from medtrans.errors import FileError
from medtrans.volumes.voxels import Mask, Voxels

_LEAST_RANGE = 1e-37  # 2 over it is still a number of 32 bits


@dataclass(frozen=True)
class Profile:
    """A linear map of `low` … `high` onto [-1, 1].

    Attributes
    ----------
    low, high : float
        In the volume's own unit (HU for CT, arbitrary for MR).
    """

    low: float
    high: float

    def normalise(self, values: Voxels) -> Voxels:
        """Map values of any shape to [-1, 1]; what is beyond the profile is clipped."""
        scaled = np.asarray(values, dtype=np.float32) - np.float32(self.low)
        scaled *= np.float32(2 / (self.high - self.low))  # in place: a volume may be large
        scaled -= np.float32(1)
        np.clip(scaled, -1, 1, out=scaled)
        return scaled

    def restore(self, values: Voxels) -> Voxels:
        """Map values of any shape from [-1, 1] to the profile's unit; others are clipped first."""
        share = np.clip(np.asarray(values, dtype=np.float32), -1, 1)
        share += np.float32(1)
        share *= np.float32(0.5)
        share *= np.float32(self.high - self.low)
        share += np.float32(self.low)
        return share


def require_varied(image: Voxels) -> None:
    """Refuse an image (X, Y, Z) of one value alone; raises `FileError`."""
    if image.min() == image.max():
        raise FileError(
            f"All {image.size} voxels have the value {image.flat[0]:g}: there is nothing to "
            "translate. Check that this is the right file."
        )


def measure_profile(image: Voxels, mask: Mask, scale: PercentileScale | WindowScale) -> Profile:
    """Take a volume's profile: the recipe's window, or percentiles of its foreground.

    Parameters
    ----------
    image : array of float32
        Shape (X, Y, Z), in its own unit.
    mask : array of bool
        Shape (X, Y, Z): the foreground.
    scale : PercentileScale or WindowScale

    Raises
    ------
    FileError
        When both percentiles are the same, or nearly so.
    """
    if isinstance(scale, WindowScale):
        return Profile(*scale.window_hu)
    low, high = np.percentile(image[mask], [scale.lower, scale.upper], overwrite_input=True)
    if not high > low:
        raise FileError(
            f"The foreground's {scale.lower:g}th and {scale.upper:g}th percentiles are both "
            f"{low:g}: the image has no contrast to translate."
        )
    if float(high) - float(low) < _LEAST_RANGE:
        raise FileError(
            f"The foreground's values lie within {float(high) - float(low):.2g} of each other, too "
            "near for numbers of 32 bits. Multiply the image by a constant first."
        )
    return Profile(float(low), float(high))


def typical_profile(profiles: Iterable[Profile]) -> Profile:
    """Return the median of a training set's profiles: the scale that outputs are given."""
    table = np.array([(p.low, p.high) for p in profiles])
    low, high = np.median(table, axis=0)
    return Profile(float(low), float(high))
