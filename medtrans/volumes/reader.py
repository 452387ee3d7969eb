"""The guarded readers as a MONAI `ImageReader`, for `LoadImage(reader=VolumeReader)`."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from monai.data import ImageReader
from monai.utils.enums import MetaKeys, SpaceKeys

from medtrans.errors import MedtransError
from medtrans.volumes.files import load
from medtrans.volumes.geometry import require_same_grid
from medtrans.volumes.voxels import Loaded

PathLike = str | os.PathLike[str]
Read = Loaded | MedtransError


class VolumeReader(ImageReader):  # type: ignore[misc]  # MONAI is untyped
    """Read one volume through medtrans's guards, in the file's own axis order.

    `LoadImage` hands a file that its reader refuses to every other reader it knows, and one of
    those may accept it. So `read` keeps the refusal, and `get_data` raises it.

    Parameters
    ----------
    series, volume
        As for `medtrans.volumes.read_volume`.
    """

    def __init__(self, series: str | None = None, volume: int | None = None) -> None:
        super().__init__()
        self.series = series
        self.volume = volume

    def verify_suffix(self, filename: object) -> bool:
        """Take every name: the content decides."""
        return True

    def read(self, data: PathLike | Sequence[PathLike], **kwargs: object) -> Read | list[Read]:
        """Read one path, or each of several."""
        if isinstance(data, (str, os.PathLike)):
            return self._read(data)
        return [self._read(path) for path in data]

    def _read(self, path: PathLike) -> Read:
        try:
            return load(Path(path), self.series, self.volume)
        except MedtransError as refusal:
            return refusal

    def get_data(self, img: Read | Sequence[Read]) -> tuple[npt.NDArray[Any], dict[str, Any]]:
        """Voxels (X, Y, Z), or (N, X, Y, Z) of several volumes on one grid, and the meta data.

        MONAI lets no object of ours into the meta data; `read_volume` gives the `Source`.

        Raises
        ------
        MedtransError
            What `read` found.
        """
        images: list[Loaded] = []
        for one in [img] if isinstance(img, (Loaded, MedtransError)) else img:
            if isinstance(one, MedtransError):
                raise one
            images.append(one)
        first = images[0]
        meta: dict[str, Any] = {
            MetaKeys.AFFINE: first.affine.copy(),
            MetaKeys.ORIGINAL_AFFINE: first.affine.copy(),
            MetaKeys.SPATIAL_SHAPE: np.asarray(first.voxels.shape),
            MetaKeys.SPACE: SpaceKeys.RAS,
            MetaKeys.ORIGINAL_CHANNEL_DIM: float("nan") if len(images) == 1 else 0,
            "filename_or_obj": str(first.source.path),
            "source_sha256": first.source.sha256,
        }
        if len(images) == 1:
            return first.voxels, meta
        for other in images[1:]:
            require_same_grid(first, other, f"{first.source.path} and {other.source.path}")
        return np.stack([image.voxels for image in images]), meta
