"""A scene in few bytes: what the page's viewer unpacks in the browser.

Voxels become whole numbers: 0 where the background was set by software, else a step above the
lowest value shown. Their bytes are compressed (zlib, which browsers inflate) and spelt in base64.
"""

from __future__ import annotations

import base64
import zlib
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from medtrans.report.scene import MAPS, Scene, Shown, grid_of
from medtrans.volumes.geometry import RAS_LABELS

MAX_BYTES = 9_500_000  # compressed; a third more in base64
_MOST_VOXELS = 24_000_000  # of all layers: more hardly fit, so no more are compressed
_BITS = (12, 10, 8)  # of a voxel: the most that fit
_REACH = (1.0, 3.0)  # widths of the window, below and above it, that are kept
_PLANE_NAMES = ("sagittal", "coronal", "axial")
_SAMPLED = 8  # every eighth plane tells how well the others compress
_EFFORT = 6  # of zlib; 9 takes six times as long for 2 %


class Packed(NamedTuple):
    """What the viewer reads.

    Attributes
    ----------
    facts : dict
        JSON: the grid, and each layer's name, window and scale.
    voxels : list of str
        For each layer; x runs fastest, towards the patient's left, then y towards the back, then z
        downwards: planes lie as `pictures.upright` turns them.
    steps : tuple of int
        Along each RAS axis: 2 where every second voxel was kept.
    """

    facts: dict[str, object]
    voxels: list[str]
    steps: tuple[int, ...]


def pack(scene: Scene, max_bytes: int = MAX_BYTES) -> Packed:
    """Pack a scene into so many bytes: with fewer grey levels, then fewer voxels, if need be.

    Parameters
    ----------
    scene : Scene
    max_bytes : int
        Of all layers, compressed.
    """
    steps = _thinned(scene, (1, 1, 1), _MOST_VOXELS)
    while True:
        thinned = scene.every(steps)
        for bits in _BITS:
            if _estimate(thinned, bits) <= max_bytes or max(thinned.shape) <= 1:
                layers = [_Coded.of(shown, bits) for shown in thinned.shown]
                packed = [layer.compressed() for layer in layers]
                if sum(map(len, packed)) <= max_bytes or max(thinned.shape) <= 1:
                    texts = [base64.b64encode(data).decode("ascii") for data in packed]
                    return Packed(_facts(thinned, layers), texts, steps)
        share = max_bytes / _estimate(thinned, _BITS[-1])
        voxels = len(thinned.shown) * thinned.foreground.size
        steps = _thinned(scene, steps, int(voxels * min(share, 0.95)))


def _estimate(scene: Scene, bits: int) -> float:
    """Compressed bytes of a scene, told from some of its planes."""
    some = scene.every((1, 1, min(_SAMPLED, scene.shape[2])))
    taken = sum(len(_Coded.of(shown, bits).compressed()) for shown in some.shown)
    return taken * scene.foreground.size / some.foreground.size


def _thinned(scene: Scene, steps: tuple[int, ...], most: int) -> tuple[int, ...]:
    """Leave out more along the axis whose voxels are closest, until so many voxels are left."""
    chosen, shape, spacing_mm = list(steps), np.array(scene.shape), grid_of(scene)
    while len(scene.shown) * int(np.prod(left := -(-shape // chosen))) > most and left.max() > 1:
        chosen[int(np.argmin(np.where(left > 1, spacing_mm * chosen, np.inf)))] += 1
    return tuple(chosen)


class _Coded(NamedTuple):
    """A layer as whole numbers: `first + (code - 1) * step` is its value, 0 is blank."""

    shown: Shown
    codes: npt.NDArray[np.uint16]
    first: float
    step: float
    bits: int

    @classmethod
    def of(cls, shown: Shown, bits: int) -> _Coded:
        voxels, (low, high), (least, most) = shown.voxels, shown.window, shown.extremes
        below, above = (reach * (high - low) for reach in _REACH)
        first, last = max(least, low - below), min(most, high + above)
        codes = 2**bits - 2
        if last - first <= codes and np.array_equal(voxels, np.rint(voxels)):
            first, step = float(np.ceil(first)), 1.0
        else:
            step = max(last - first, 1e-30) / codes
        numbers = np.rint((voxels.astype(np.float64) - first) / step).clip(0, codes) + 1
        numbers[shown.blank] = 0
        return cls(shown, numbers.astype(np.uint16), first, step, bits)

    def compressed(self) -> bytes:
        """Compress the codes, laid out as they are shown; all the high bytes come first."""
        flat = np.ascontiguousarray(self.codes[::-1, ::-1, ::-1].transpose(2, 1, 0)).ravel()
        low = (flat & 255).astype(np.uint8).tobytes()
        high = b"" if self.bits <= 8 else (flat >> 8).astype(np.uint8).tobytes()
        return zlib.compress(high + low, _EFFORT)

    def facts(self) -> dict[str, object]:
        """Say what the viewer needs to turn codes into values and grey levels."""
        layer, blank, (least, most) = self.shown.layer, self.shown.blank, self.shown.extremes
        last = self.first + self.step * (int(self.codes.max()) - 1)
        return {
            "role": layer.role,
            "name": layer.name,
            "unit": layer.unit,
            "map": layer.role in MAPS,
            "window": [float(v) for v in self.shown.window],
            "bits": self.bits,
            "first": self.first,
            "step": self.step,
            "blank": float(self.shown.voxels[blank][0]) if blank.any() else None,
            "cut": [least < self.first, most > last + self.step],
        }


def _facts(scene: Scene, layers: list[_Coded]) -> dict[str, object]:
    turned = np.diag([-1.0, -1.0, -1.0, 1.0])
    turned[:3, 3] = np.array(scene.shape) - 1
    return {
        "size": list(scene.shape),
        "spacing": grid_of(scene).tolist(),
        "start": [n - 1 - c for n, c in zip(scene.shape, scene.centre, strict=True)],
        "ends": ["".join(reversed(pair)) for pair in RAS_LABELS],
        "planes": [_PLANE_NAMES[axis] for axis in scene.planes],
        "mm": (scene.affine @ turned)[:3].tolist(),
        "voxel": (scene.from_scene @ turned)[:3].tolist(),
        "layers": [layer.facts() for layer in layers],
    }
