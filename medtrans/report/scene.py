"""The volumes of one picture or page: turned to RAS, cut to the patient, with grey levels."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Literal, NamedTuple

import numpy as np
import numpy.typing as npt
from monai.data import MetaTensor
from monai.transforms import Orientation

from medtrans.preprocessing.foreground import constant_background, find_foreground
from medtrans.volumes.geometry import RAS_LABELS, Affine, require_same_grid, spacing_mm
from medtrans.volumes.voxels import Mask, Voxels

Role = Literal["source", "synthetic", "reference", "error", "uncertainty"]
MAPS: tuple[Role, ...] = ("error", "uncertainty")

_SHOWN = (0.5, 99.5)  # percentiles of the foreground: what is shown black, and white
_MARGIN = 6  # voxels of background around the patient
_SMALLEST = 8  # planes thinner than this are left out


class Window(NamedTuple):
    """What is shown black, and white, in the unit of the volume."""

    low: float
    high: float


class Layer(NamedTuple):
    """A volume to look at.

    Attributes
    ----------
    role : str
        "source", "synthetic", "reference"; "error" and "uncertainty" are 0 or more, and in the
        unit of the synthetic volume.
    name : str
        What to call it; a page shows it, so it names no patient.
    volume : MetaTensor
        Shape (X, Y, Z); all layers lie on one grid.
    unit : str
        Of its values; empty where they have none.
    note : str
        What else to say of its values.
    """

    role: Role
    name: str
    volume: MetaTensor
    unit: str = ""
    note: str = ""


class Shown(NamedTuple):
    """A layer of a scene.

    Attributes
    ----------
    layer : Layer
    voxels : array of float32
        Shape (X, Y, Z), RAS, cut to the scene.
    blank : array of bool
        Where software set the background around the patient: shown black, whatever its value.
    window : Window
    """

    layer: Layer
    voxels: Voxels
    blank: Mask
    window: Window

    @property
    def extremes(self) -> tuple[float, float]:
        """Lowest and highest value that is not blank; the window's where all is."""
        values = self.voxels[~self.blank]
        return (float(values.min()), float(values.max())) if values.size else self.window

    def grey(self) -> Voxels:
        """Scale the window to [0, 1]."""
        low, high = self.window
        scaled = (self.voxels - np.float32(low)) / np.float32(high - low)
        return np.where(self.blank, np.float32(0), scaled)


@dataclass(frozen=True)
class Scene:
    """Volumes on one grid, RAS, cut to the patient.

    Attributes
    ----------
    shown : tuple of Shown
    foreground : array of bool
        Shape (X, Y, Z): where the patient is in the first of them.
    affine : array
        Shape (4, 4), voxel of the scene to RAS mm.
    from_scene : array
        Shape (4, 4), voxel of the scene to voxel of the volumes as they are stored.
    centre : tuple of int
        A voxel in the middle of the patient.
    """

    shown: tuple[Shown, ...]
    foreground: Mask
    affine: Affine
    from_scene: Affine
    centre: tuple[int, ...]

    @property
    def shape(self) -> tuple[int, ...]:
        """Voxels along x, y and z."""
        return self.foreground.shape

    @property
    def planes(self) -> list[int]:
        """Which axes to look along: axial, coronal, sagittal, without those whose plane is thin."""
        thickness = {axis: min(self.shape[a] for a in others(axis)) for axis in (2, 1, 0)}
        return [a for a, t in thickness.items() if t >= min(_SMALLEST, max(thickness.values()))]

    def every(self, steps: Sequence[int]) -> Scene:
        """Keep every n-th voxel along each axis, the centre among them."""
        cut = tuple(slice(c % step, None, step) for c, step in zip(self.centre, steps, strict=True))
        placed = np.diag([*steps, 1.0])
        placed[:3, 3] = [window.start for window in cut]
        return replace(
            self,
            shown=tuple(s._replace(voxels=s.voxels[cut], blank=s.blank[cut]) for s in self.shown),
            foreground=self.foreground[cut],
            affine=self.affine @ placed,
            from_scene=self.from_scene @ placed,
            centre=tuple(c // step for c, step in zip(self.centre, steps, strict=True)),
        )


def arrange(layers: Sequence[Layer]) -> Scene:
    """Cut volumes to the patient in the first one, and choose what is black and white in each.

    A synthetic volume in HU is shown in the window of its reference, where there is one. MR
    values have no unit: each MR volume has a window of its own.

    Parameters
    ----------
    layers : sequence of Layer
        The first one's foreground decides what is shown.

    Raises
    ------
    GeometryError
        When they do not lie on one grid.
    FileError
        When all voxels of the first have one value.
    """
    first, whole = layers[0].volume, [_in_ras(layer.volume) for layer in layers]
    for layer, turned in zip(layers[1:], whole[1:], strict=True):
        require_same_grid(turned, whole[0], f"{layer.name} and {layers[0].name}")
    affine = np.asarray(whole[0].affine, dtype=np.float64)
    foreground = find_foreground(whole[0].numpy())
    spans = [np.flatnonzero(foreground.any(axis=others(axis))) for axis in range(3)]
    box = tuple(slice(max(int(s[0]) - _MARGIN, 0), int(s[-1]) + 1 + _MARGIN) for s in spans)
    placed = np.eye(4)
    placed[:3, 3] = [window.start for window in box]
    seen = [_shown(*pair, foreground, box) for pair in zip(layers, whole, strict=True)]
    return Scene(
        shown=_windowed(seen),
        foreground=foreground[box],
        affine=affine @ placed,
        from_scene=np.linalg.inv(np.asarray(first.affine, dtype=np.float64)) @ affine @ placed,
        centre=tuple(int(np.median(s)) - w.start for s, w in zip(spans, box, strict=True)),
    )


def others(axis: int) -> tuple[int, ...]:
    """Name the two axes of the plane across an axis."""
    return tuple(a for a in range(3) if a != axis)


def isotropic(plane: Voxels, axis: int, spacing: npt.NDArray[np.float64]) -> Voxels:
    """Repeat rows or columns so that a millimetre is as long in both directions."""
    across, up = (spacing[a] for a in others(axis))
    step = min(across, up)
    rows = np.round(np.arange(0, plane.shape[0], step / up)).clip(0, plane.shape[0] - 1)
    columns = np.round(np.arange(0, plane.shape[1], step / across)).clip(0, plane.shape[1] - 1)
    return np.ascontiguousarray(plane[np.ix_(rows.astype(int), columns.astype(int))])


def grid_of(scene: Scene) -> npt.NDArray[np.float64]:
    """Spacing of a scene's voxels in mm, shape (3,)."""
    return spacing_mm(scene.affine)


def _in_ras(volume: MetaTensor) -> MetaTensor:
    plain = MetaTensor(volume.as_tensor()[None], affine=volume.affine)
    oriented = Orientation("RAS", labels=RAS_LABELS)(plain)
    return MetaTensor(oriented.as_tensor()[0], affine=oriented.affine)


def _shown(layer: Layer, whole: MetaTensor, foreground: Mask, box: tuple[slice, ...]) -> Shown:
    voxels = whole.numpy()
    value = constant_background(voxels)
    blank = np.zeros_like(foreground) if value is None else (voxels == value) & ~foreground
    if layer.role in MAPS:
        window = _window(np.abs(voxels[foreground]), 0.0)
    else:
        air = None if value is not None or foreground.all() else np.median(voxels[~foreground])
        window = _window(voxels[foreground], None, None if air is None else float(air))
    return Shown(layer, voxels[box], blank[box], window)


def _window(values: Voxels, low: float | None, air: float | None = None) -> Window:
    """Percentiles of the patient; air around the patient is black, unless it is the brighter."""
    lower, upper = (float(v) for v in np.percentile(values, _SHOWN))
    if low is not None:
        lower = low
    elif air is not None and air < float(np.median(values)):
        lower = max(lower, air)
    return Window(lower, upper if upper > lower else lower + 1.0)


def _windowed(seen: Iterable[Shown]) -> tuple[Shown, ...]:
    """Show a synthetic volume in its reference's window, where their values have one unit."""
    layers = tuple(seen)
    truth = {s.layer.unit: s.window for s in layers if s.layer.unit and s.layer.role == "reference"}
    return tuple(
        shown._replace(window=truth.get(shown.layer.unit, shown.window))
        if shown.layer.role == "synthetic"
        else shown
        for shown in layers
    )
