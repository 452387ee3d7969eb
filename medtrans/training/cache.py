"""Preprocessed volumes on disk, from which slices are read at random.

Each volume is preprocessed once and kept as one .npy file in slice order, opened as a memory map:
reading a patch touches only its pages, workers share the system's page cache, and no volume
has to fit in memory.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple, TypedDict

import numpy as np
from numpy.typing import NDArray

from medtrans.config.schema import Pipeline
from medtrans.data.manifest import Entry
from medtrans.errors import UnreadableFileError
from medtrans.preprocessing.foreground import find_region
from medtrans.preprocessing.intensity import Profile
from medtrans.preprocessing.model_space import ModelSpace, to_model_space
from medtrans.preprocessing.slices import SlicePlan, cut, neighbours, occupied, plan_slices
from medtrans.system.atomic import make_folder, replacing
from medtrans.volumes import read_volume
from medtrans.volumes.geometry import spacing_mm
from medtrans.volumes.parts import files_of
from medtrans.volumes.source import unreadable_on_error

# In each process. A map keeps its file open, of which a process may have as few as 256; to map one
# anew takes 0.3 ms, augmenting what is read from it 1.4 ms.
_MOST_OPEN = 96
_FORMAT = 1  # raise when the files' meaning changes, so that old ones are made anew


class Grid(NamedTuple):
    """A voxel grid: shape (X, Y, Z) and affine (4, 4), voxel to RAS mm."""

    shape: tuple[int, int, int]
    affine: NDArray[np.float64]


@dataclass(frozen=True)
class CachedVolume:
    """One preprocessed volume.

    Attributes
    ----------
    path : Path
        A .npy file of float32, shape (slices, height, width), in [-1, 1].
    shape : tuple of int
        (slices, height, width).
    box : tuple of slice bounds
        ((top, bottom), (left, right)) of the foreground in-plane, ends exclusive.
    occupied : tuple of int
        The slices that have foreground, ascending.
    profile : Profile
        What the intensities were mapped with.
    affine : tuple of tuple of float
        Shape (4, 4): voxel to RAS mm, of the preprocessed volume before cutting.
    axis : int
        Which RAS axis it was cut along.
    masked : bool
        Whether the input's background was masked out, as in a skull-stripped volume.
    """

    path: Path
    shape: tuple[int, int, int]
    box: tuple[tuple[int, int], tuple[int, int]]
    occupied: tuple[int, ...]
    profile: Profile
    affine: tuple[tuple[float, ...], ...]
    axis: int
    masked: bool

    @property
    def in_plane_mm(self) -> tuple[float, float]:
        """Size of a voxel along a slice's rows and columns, in mm."""
        spacing = spacing_mm(np.array(self.affine))
        down, across = np.delete(spacing, self.axis).tolist()
        return down, across

    @property
    def grid(self) -> Grid:
        """The preprocessed volume's grid in RAS."""
        slices, *plane = self.shape
        plane.insert(self.axis, slices)
        return Grid((plane[0], plane[1], plane[2]), np.array(self.affine))

    @property
    def image(self) -> NDArray[np.float32]:
        """The whole volume (X, Y, Z), RAS; raises `UnreadableFileError` as `patch` does."""
        return np.ascontiguousarray(np.moveaxis(self._voxels(), 0, self.axis))

    def patch(
        self, index: int, corner: tuple[int, int], size: tuple[int, int], context: int
    ) -> NDArray[np.float32]:
        """Read slice `index` with its neighbours; what lies outside the volume is background.

        Parameters
        ----------
        index : int
        corner : (top, left)
            May be negative.
        size : (height, width)
        context : int
            Neighbours on each side.

        Returns
        -------
        array of float32
            Shape (2 * context + 1, height, width).

        Raises
        ------
        UnreadableFileError
            When the file is gone or damaged.
        """
        rows = neighbours(index, self.shape[0], context)
        out = np.full((len(rows), *size), -1, dtype=np.float32)
        bounds = [_overlap(c, s, n) for c, s, n in zip(corner, size, self.shape[1:], strict=True)]
        (y0, y1), (x0, x1) = bounds
        inside = np.s_[y0 - corner[0] : y1 - corner[0], x0 - corner[1] : x1 - corner[1]]
        voxels = self._voxels()
        for row, position in enumerate(rows):
            out[row][inside] = voxels[position, y0:y1, x0:x1]
        return out

    def _voxels(self) -> NDArray[np.float32]:
        try:
            voxels = _opened(self.path, self.path.stat().st_mtime_ns)
        except (OSError, ValueError):
            voxels = None
        if voxels is None or voxels.shape != self.shape:
            raise UnreadableFileError(
                f"{self.path}: the prepared volume is gone, damaged or cannot be read. Delete it "
                "if it is there, and go on with --resume: it is prepared again."
            )
        return voxels


class _Index(TypedDict):
    """The .json beside a volume's .npy: `CachedVolume` without its path."""

    shape: list[int]
    box: list[list[int]]
    occupied: list[int]
    profile: list[float]
    affine: list[list[float]]
    axis: int
    masked: bool


class VolumeCache:
    """A folder of preprocessed volumes, filled on demand.

    Parameters
    ----------
    folder : Path
    pipeline : Pipeline
        Volumes preprocessed by a different recipe live beside each other under other names.
    """

    def __init__(self, folder: Path, pipeline: Pipeline) -> None:
        self.folder = folder
        self.pipeline = pipeline

    def has(self, entry: Entry) -> bool:
        """Whether the entry's volume is already prepared."""
        return _is_whole(self._stem(entry))

    def get(self, entry: Entry) -> CachedVolume:
        """Return the preprocessed volume of a manifest's entry, preparing it when missing.

        Raises
        ------
        FileError
            When the file cannot be read, or holds nothing to translate.
        """
        stem = self._stem(entry)
        if not _is_whole(stem):
            self._prepare(entry, stem)
        index = json.loads(stem.with_suffix(".json").read_text(encoding="utf-8"))
        return _from_json(stem.with_suffix(".npy"), index)

    def _stem(self, entry: Entry) -> Path:
        return self.folder / f"{entry.contrast}-{self._key(entry)}"

    def _key(self, entry: Entry) -> str:
        """Hash what the preprocessed voxels depend on, every file of the volume among it."""
        facts = [
            _FORMAT,
            str(entry.path.resolve()),
            _states(entry.path),
            self.pipeline.volume.model_dump(),
            self.pipeline.slices.axis,
            self.pipeline.contrasts[entry.contrast].model_dump(),
            *([entry.sha256] if entry.sha256 else []),
            *([f"series {entry.series}"] if entry.series else []),
        ]
        return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()[:20]

    def _prepare(self, entry: Entry, stem: Path) -> None:
        entry.verify()
        volume = read_volume(entry.path, series=entry.series)
        recipe, grid_mm = self.pipeline.volume, spacing_mm(np.asarray(volume.affine))
        region = find_region(volume.numpy(), grid_mm, recipe)
        scale = self.pipeline.contrasts[entry.contrast]
        space = to_model_space(volume, region, scale, recipe.spacing_mm)
        image = space.image
        [plan] = plan_slices(self.pipeline.slices, image.shape)
        make_folder(self.folder)
        with replacing(stem.with_suffix(".npy")) as partial, partial.open("wb") as file:
            np.save(file, np.ascontiguousarray(cut(image, plan)))
        index = _describe(space, plan, masked=region.masked)
        with replacing(stem.with_suffix(".json")) as partial:
            partial.write_text(json.dumps(index), encoding="utf-8")


def _is_whole(stem: Path) -> bool:
    """Whether a prepared volume's files are there; the index is written last."""
    return all(stem.with_suffix(suffix).is_file() for suffix in (".json", ".npy"))


def _states(path: Path) -> list[tuple[str, int, int]]:
    """Name, size and time of the last change of every file that a volume is read from."""
    with unreadable_on_error(path):
        states = [(file.name, file.stat()) for file in files_of(path)]
    return [(name, state.st_size, state.st_mtime_ns) for name, state in states]


def _describe(space: ModelSpace, plan: SlicePlan, *, masked: bool) -> _Index:
    image, mask = space.image, space.margin
    flat = np.asarray(cut(mask, plan).any(axis=0))
    spans = [np.flatnonzero(flat.any(axis=other)) for other in (1, 0)]
    return {
        "shape": list(cut(image, plan).shape),
        "box": [[int(span[0]), int(span[-1]) + 1] for span in spans],
        "occupied": occupied(image, plan),
        "profile": [space.profile.low, space.profile.high],
        "affine": space.placement.affine.tolist(),
        "axis": plan.axis,
        "masked": masked,
    }


def _from_json(path: Path, index: _Index) -> CachedVolume:
    top, left = index["box"]
    slices, height, width = index["shape"]
    return CachedVolume(
        path,
        (slices, height, width),
        ((top[0], top[1]), (left[0], left[1])),
        tuple(index["occupied"]),
        Profile(*index["profile"]),
        tuple(tuple(row) for row in index["affine"]),
        index["axis"],
        index["masked"],
    )


@lru_cache(maxsize=_MOST_OPEN)
def _opened(path: Path, _modified_ns: int) -> NDArray[np.float32]:
    """Map a .npy file; the last ones stay mapped, since mapping takes longer than reading."""
    voxels: NDArray[np.float32] = np.load(path, mmap_mode="r")
    return voxels.view(np.ndarray)  # slicing a memmap costs several times as much


def _overlap(corner: int, size: int, limit: int) -> tuple[int, int]:
    start = min(max(corner, 0), limit)
    return start, max(min(corner + size, limit), start)
