"""A volume of a manifest, read when it is needed, with what of it is compared."""

from __future__ import annotations

from functools import cached_property

import numpy as np

from medtrans.data.manifest import Entry
from medtrans.registration.placed import Placed
from medtrans.registration.rigid import without_bias_field
from medtrans.volumes import read_volume, require_same_grid
from medtrans.volumes.contrast import in_hu
from medtrans.volumes.parts import files_of
from medtrans.volumes.source import unreadable_on_error
from medtrans.volumes.voxels import Voxels

_SMALL_MASK = 0.1  # of the foreground: a smaller one marks a lesion, not what to register by


class Subject:
    """A volume of the manifest, read when it is needed, and once."""

    def __init__(self, entry: Entry) -> None:
        self.entry = entry

    @cached_property
    def placed(self) -> Placed:
        """The volume; its region is the manifest's mask, or else the patient."""
        self.entry.verify()
        volume = read_volume(self.entry.path, series=self.entry.series)
        placed = Placed.of(volume.numpy(), np.asarray(volume.affine, dtype=np.float64))
        if self.entry.mask is None:
            return placed
        mask = read_volume(self.entry.mask)
        require_same_grid(mask, volume, f"The mask {self.entry.mask} and {self.entry.path}")
        region = mask.numpy() > 0
        is_small = region.sum() < _SMALL_MASK * placed.region.sum()
        return placed if is_small else placed._replace(region=region)

    @cached_property
    def corrected(self) -> Voxels:
        """The voxels without the bias field, where the image has one: not in HU."""
        voxels = self.placed.voxels
        if in_hu(float(voxels.min())):
            return voxels
        return without_bias_field(voxels, self.placed.affine, self.placed.region)

    def state(self) -> list[object]:
        """Name, size and time of the last change of every file of it."""
        paths = [self.entry.path, *([self.entry.mask] if self.entry.mask else [])]
        states: list[object] = []
        for path in paths:
            with unreadable_on_error(path):
                states += [(str(f.resolve()), f.stat().st_size, f.stat().st_mtime_ns)
                           for f in files_of(path)]  # fmt: skip
        return states
