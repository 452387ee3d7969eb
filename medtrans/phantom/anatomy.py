"""The shapes of the phantom's head: nested tissues as signed distances in millimetres.

Axes are RAS with the head's centre near the origin. Every size is invented to look like an
adult head; nothing here is measured from a person. All random numbers are drawn whatever the
grid, so a subject's head is the same at every resolution.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.ndimage import map_coordinates
from scipy.spatial.transform import Rotation

from medtrans.volumes.voxels import Voxels

Axes = Sequence[npt.NDArray[np.float64]]
Layer = tuple[str, Voxels]
Triple = tuple[float, float, float]

_BOX_MM = 320.0  # the random fields repeat, mirrored, beyond this
_CRANIUM: Triple = (0, -6, 6)
_LATTICE_MM = np.arange(-120.0, 121.0, 4.0)


def smooth_field(rng: np.random.Generator, axes_mm: Axes, shortest_mm: float) -> Voxels:
    """Draw a random field of unit variance, band-limited to one octave of wavelengths.

    Parameters
    ----------
    rng : Generator
        Advanced by a number of draws that does not depend on the grid.
    axes_mm : three arrays
        Coordinates along each axis, shapes (X,), (Y,), (Z,).
    shortest_mm : float
        The shortest wavelength; the longest is twice that.

    Returns
    -------
    ndarray of float32, shape (X, Y, Z)
    """
    highest = 2 * _BOX_MM / shortest_mm  # cosine mode k has the wavelength 2 box / k
    modes = np.arange(int(highest) + 1)
    radius = np.sqrt(sum(k**2 for k in np.meshgrid(modes, modes, modes, sparse=True)))
    band = (radius <= highest) & (radius >= highest / 2)
    weights = rng.standard_normal(band.shape) * band
    power = np.where(modes == 0, 1.0, 0.5)  # mean square of each cosine
    weights /= np.sqrt(np.einsum("ijk,i,j,k->", weights**2, power, power, power))
    field = weights.astype(np.float32)
    for axis in axes_mm:  # contracts the first axis and appends the new one: x, y, z in turn
        basis = np.cos(np.pi * np.outer(modes, axis / _BOX_MM + 0.5)).astype(np.float32)
        field = np.tensordot(field, basis, axes=(0, 0))
    return np.ascontiguousarray(field)


def _field(values: npt.ArrayLike) -> Voxels:
    return np.asarray(values, np.float32)


@dataclass(frozen=True)
class _Frame:
    """Where each voxel lies in the coordinates of an upright, undeformed head, in mm."""

    x: Voxels
    y: Voxels
    z: Voxels

    def ellipsoid(self, centre: Triple, radii: Triple, *, paired: bool = False) -> Voxels:
        """Distance to the surface, positive inside, exact on it; `paired` mirrors it in x."""
        x = np.abs(self.x) if paired else self.x
        parts = zip((x, self.y, self.z), centre, radii, strict=True)
        radius = np.sqrt(sum(((p - c) / r) ** 2 for p, c, r in parts))
        return _field((1 - radius) * float(np.cbrt(np.prod(radii))))

    def rod(self, radius: float, top: float, lean: float = 0.12) -> Voxels:
        """Distance to an upright rod behind the centre, below `top`: brainstem and spine."""
        across = np.hypot(self.x, self.y + 22 - lean * (self.z + 30))
        return _field(np.minimum(radius - across, top - self.z))


def _pose(rng: np.random.Generator, axes_mm: Axes) -> _Frame:
    """Tilt and shift the head by a few degrees and mm, and bend it smoothly."""
    rotation = Rotation.from_euler("xyz", rng.normal(0, 3, 3), degrees=True).as_matrix()
    shift = rng.normal(0, 1.5, 3)
    moved = [axis - offset for axis, offset in zip(axes_mm, shift, strict=True)]
    grid = np.meshgrid(*(axis.astype(np.float32) for axis in moved), indexing="ij", sparse=True)
    coordinates = []
    for row in rotation.astype(np.float32):
        straight = row[0] * grid[0] + row[1] * grid[1] + row[2] * grid[2]
        bend = 1.8 * smooth_field(rng, axes_mm, 110) + 0.6 * smooth_field(rng, axes_mm, 45)
        coordinates.append(straight + bend)
    return _Frame(*coordinates)


class Head:
    """One random head on a grid.

    Parameters
    ----------
    rng : Generator
        The subject's anatomy.
    axes_mm : three arrays
        Voxel centres along each axis, RAS, shapes (X,), (Y,), (Z,).

    Attributes
    ----------
    cavity : ndarray of float32, shape (X, Y, Z)
        Distance to the inside of the skull in mm, positive inside.
    """

    def __init__(self, rng: np.random.Generator, axes_mm: Axes) -> None:
        self._rng = rng
        self._axes_mm = axes_mm
        self._frame = _pose(rng, axes_mm)
        self._scale = np.clip(rng.normal(1, 0.03, 3), 0.94, 1.05)
        self._cerebral = self._ellipsoid(_CRANIUM, (66, 81, 65))
        self.cavity = np.maximum(self._cerebral, self._ellipsoid((0, -42, -36), (50, 38, 30)))
        self._skull_mm = _field(rng.uniform(6, 8) + 0.8 * smooth_field(rng, axes_mm, 60))
        self._cortex_mm = float(rng.uniform(2.6, 3.2))
        self._eyes = self._frame.ellipsoid((31, 76, -32), (12, 12, 12), paired=True)

    def layers(self) -> Iterator[Layer]:
        """Paint from the outside in: the tissue's name, and its distance in mm, positive inside.

        A layer covers what was painted before it. Call it once: it draws random numbers.
        """
        yield from self._outer_head()
        yield from self._skull()
        yield from self._face()
        white = self._white_matter_and_cortex()
        yield "csf", self.cavity
        yield "grey", white + self._cortex_mm
        yield "white", white
        yield from self._deep_structures()
        yield from self._hindbrain()
        yield from self._lesion(white)
        yield "blood", self._sagittal_sinus()

    def _ellipsoid(self, centre: Triple, radii: Triple, *, paired: bool = False) -> Voxels:
        """Draw an ellipsoid of the head, scaled with it."""
        a, b, c = (float(radius * s) for radius, s in zip(radii, self._scale, strict=True))
        return self._frame.ellipsoid(centre, (a, b, c), paired=paired)

    def _outer_head(self) -> Iterator[Layer]:
        rng = self._rng
        scalp_mm, fat_mm = rng.uniform(4.5, 7), rng.uniform(4, 8)
        face = self._ellipsoid((0, 40, -58), (56, 54, 62))
        neck = self._ellipsoid((0, -22, -105), (58, 62, 80))
        flesh = np.maximum(face, neck)
        scalp = self.cavity + self._skull_mm + scalp_mm
        yield "scalp", np.maximum.reduce([scalp, flesh, self._eyes + 3])
        yield "muscle", _field(flesh - fat_mm)

    def _skull(self) -> Iterator[Layer]:
        outer = self.cavity + self._skull_mm
        yield "bone", self._ellipsoid((0, 58, -68), (30, 22, 15))  # upper jaw
        yield "bone", self._frame.rod(21, -66)  # spine
        yield "bone", outer
        middle = 0.24 * self._skull_mm - np.abs(self.cavity + self._skull_mm / 2)
        yield "marrow", np.minimum(middle, self._frame.z + 45)

    def _face(self) -> Iterator[Layer]:
        behind_bone = -(self.cavity + self._skull_mm)
        yield (
            "scalp",
            np.minimum(self._ellipsoid((30, 68, -32), (17, 20, 16), paired=True), behind_bone),
        )
        yield "eye", np.minimum(self._eyes, behind_bone)
        nose = self._ellipsoid((0, 58, -50), (9, 26, 15))
        sinuses = self._ellipsoid((24, 60, -58), (10, 13, 11), paired=True)
        throat = self._ellipsoid((0, 14, -88), (10, 8, 26))
        yield "air", np.minimum(np.maximum.reduce([nose, sinuses, throat]), behind_bone)

    def _white_matter_and_cortex(self) -> Voxels:
        """Distance to white matter under a folded cortex.

        Sulci lie where a random field, stretched along rays from the centre, is zero: so they
        run inwards from the surface, as deep as `depth`.
        """
        rng, frame = self._rng, self._frame
        gap, width = rng.uniform(1.5, 3.5), rng.uniform(0.5, 1.3)
        depth = rng.uniform(13, 18) + 4 * smooth_field(rng, self._axes_mm, 35)
        walls = 5.0 * np.abs(self._folds()) - width
        pial = np.minimum(self._cerebral - gap, np.maximum(walls, self._cerebral - depth))
        core = (1 - np.hypot(frame.y / 46, (frame.z - 6) / 26)) * 35
        pial = np.minimum(pial, np.maximum(np.abs(frame.x) - width, core))  # between hemispheres
        return _field(pial - self._cortex_mm)

    def _folds(self) -> Voxels:
        lattice = smooth_field(self._rng, [_LATTICE_MM] * 3, 22)
        frame = self._frame
        mean_radius = float(np.cbrt(np.prod(np.array((66, 81, 65)) * self._scale)))
        outward = np.maximum(1 - self._cerebral / mean_radius, 0.3) ** -0.55
        points = [
            ((p - c) * outward - _LATTICE_MM[0]) / 4.0
            for p, c in zip((frame.x, frame.y, frame.z), _CRANIUM, strict=True)
        ]
        return _field(map_coordinates(lattice, points, order=1, mode="nearest"))

    def _deep_structures(self) -> Iterator[Layer]:
        size = float(np.exp(self._rng.normal(0, 0.2)))  # of the ventricles
        caudate = self._ellipsoid((17, 10, 16), (6, 20, 9), paired=True)
        putamen = self._ellipsoid((27, 3, 2), (6, 18, 11), paired=True)
        thalamus = self._ellipsoid((11, -14, 3), (9, 15, 9), paired=True)
        yield "deep_grey", np.maximum.reduce([caudate, putamen, thalamus])
        body = self._ellipsoid((11, 2, 17), (6 * size, 30, 8 * size), paired=True)
        horn = self._ellipsoid((20, -32, 8), (5 * size, 17, 8 * size), paired=True)
        third = self._ellipsoid((0, -9, 1), (2.2 * size, 14, 10))
        yield "csf", np.maximum.reduce([body, horn, third])

    def _hindbrain(self) -> Iterator[Layer]:
        frame, inside = self._frame, self.cavity - 1.5
        cerebellum = self._ellipsoid((0, -47, -37), (45, 30, 22))
        leaves = np.cos(2 * np.pi * (frame.z + 0.3 * np.abs(frame.y + 40)) / 8)
        yield "csf", np.minimum(cerebellum + 2.5, self.cavity)  # the tentorium's gap
        yield "grey", np.minimum(cerebellum, inside)
        yield "white", np.minimum(cerebellum - 6 - 3 * leaves, inside)
        yield "csf", np.maximum(frame.rod(13, -24), self._ellipsoid((0, -20, -36), (18, 15, 17)))
        yield "white", np.maximum(frame.rod(8, -8), self._ellipsoid((0, -20, -35), (15, 12, 14)))
        yield "csf", self._ellipsoid((0, -37, -35), (6, 5, 9))  # fourth ventricle

    def _lesion(self, white: Voxels) -> Iterator[Layer]:
        """Paint, in three subjects of five, an enhancing lesion with oedema along white matter."""
        rng, frame = self._rng, self._frame
        direction = rng.normal(size=3)
        direction[2] = abs(direction[2])
        offset = rng.uniform(0.35, 0.62) * direction / np.linalg.norm(direction)
        x, y, z = (float(v) for v in np.array(_CRANIUM) + offset * (66, 81, 65) * self._scale)
        radius, spread = rng.uniform(6, 13), rng.uniform(4, 11)
        ragged = 1.8 * smooth_field(rng, self._axes_mm, 22)
        if rng.uniform() < 0.6:
            blob = frame.ellipsoid((x, y, z), (radius, radius, radius)) + ragged
            yield "oedema", np.minimum(blob + spread, white + 1)
            yield "lesion", np.minimum(blob, self.cavity - 3)

    def _sagittal_sinus(self) -> Voxels:
        frame = self._frame
        shell = np.minimum(self.cavity + 0.5, 5 - self.cavity)
        above = np.maximum(frame.z - 25, -frame.y - 30)
        return _field(np.minimum.reduce([shell, 3.5 - np.abs(frame.x), above, frame.z + 15]))
