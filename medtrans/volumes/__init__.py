"""Files to volumes and back: NIfTI, DICOM, MHA and NRRD, exact and guarded.

Importing this package imports no imaging library; reading or writing a file does.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from medtrans.volumes.describe import describe
from medtrans.volumes.files import (
    kind_of,
    read_volume,
    require_goal,
    require_other_file,
    to_volume,
    write_volume,
)
from medtrans.volumes.geometry import require_same_grid, same_grid
from medtrans.volumes.provenance import Provenance
from medtrans.volumes.source import Source, output_path

if TYPE_CHECKING:
    from medtrans.volumes.reader import VolumeReader

__all__ = [
    "Provenance",
    "Source",
    "VolumeReader",
    "describe",
    "kind_of",
    "output_path",
    "read_volume",
    "require_goal",
    "require_other_file",
    "require_same_grid",
    "same_grid",
    "to_volume",
    "write_volume",
]


def __getattr__(name: str) -> type[VolumeReader]:
    """Import `VolumeReader`, which needs MONAI, only when it is asked for."""
    if name == "VolumeReader":
        from medtrans.volumes.reader import VolumeReader

        return VolumeReader
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
