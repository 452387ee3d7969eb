"""Known rigid movements, and how near `medtrans align` comes to them: the table of docs/align.md.

python -m benchmarks.registration MANIFEST [--splits val,test] prints it for phantoms and for the
volumes of a manifest whose contrasts lie on one grid. Each volume is moved by its affine, so that
no voxel changes; "thick" averages slabs of 3 and 4 voxels first, along different axes.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
from scipy.spatial.transform import Rotation

from medtrans.data.manifest import Manifest
from medtrans.phantom.heads import ScanProtocol, make_subject
from medtrans.registration.placed import Placed
from medtrans.registration.rigid import register
from medtrans.volumes import read_volume
from medtrans.volumes.geometry import Affine

CONTRASTS = (("t2", "t1"), ("flair", "t1"))  # fixed, moving
MOST_MM, MOST_DEG = 20.0, 15.0
THICK = (3, 4)  # voxels of a slab, of the fixed and the moving image


class Case(NamedTuple):
    """A pair that lies on one grid, before it is moved."""

    name: str
    fixed: Placed
    moving: Placed


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("manifest", type=Path)
    parser.add_argument("--splits", default="val,test")
    asked = parser.parse_args()
    print("| case | moved by mm, deg | error mm, deg | to the unmoved mm, deg |")
    print("|---|---|---|---|")
    rng = np.random.default_rng(11)
    for case in [*phantoms(), *real(asked.manifest, asked.splits.split(","))]:
        true = movement(rng)
        found = register(case.fixed, case.moving._replace(affine=true @ case.moving.affine))
        unmoved = register(case.fixed, case.moving)
        cells = [
            "{:.1f}, {:.1f}".format(*difference(true, np.eye(4), case.fixed)),
            "{:.2f}, {:.2f}".format(*difference(found, true, case.fixed)),
            "{:.2f}, {:.2f}".format(*difference(found, true @ unmoved, case.fixed)),
        ]
        print(f"| {case.name} | {' | '.join(cells)} |", flush=True)


def phantoms() -> Iterator[Case]:
    """Heads and stripped brains of 1.5 mm, thin and thick."""
    for index, stripped in ((0, False), (1, True)):
        protocol = ScanProtocol(("t1", "t2", "flair"), (120, 148, 120), (1.5,) * 3, stripped)
        head = make_subject(5, index, protocol)
        placed = {name: Placed.of(image, head.affine) for name, image in head.images.items()}
        yield from cases(f"phantom {'brain' if stripped else 'head'}", placed)


def real(manifest: Path, splits: list[str]) -> Iterator[Case]:
    """Read the subjects of a manifest."""
    listed = Manifest.read(manifest)
    for split in splits:
        for subject in listed.subjects(split):
            placed = {}
            for entry in listed.entries(split):
                if entry.subject == subject and entry.contrast in ("t1", "t2", "flair"):
                    volume = read_volume(entry.path)
                    placed[entry.contrast] = Placed.of(volume.numpy(), np.asarray(volume.affine))
            yield from cases(subject, placed)


def cases(name: str, placed: dict[str, Placed]) -> Iterator[Case]:
    """Both pairs of contrasts, thin and thick."""
    for fixed, moving in CONTRASTS:
        yield Case(f"{name}, {moving} to {fixed}", placed[fixed], placed[moving])
    thick = slabs(placed["t2"], 1, THICK[0]), slabs(placed["t1"], 2, THICK[1])
    yield Case(f"{name}, t1 to t2, thick", *thick)


def slabs(placed: Placed, axis: int, count: int) -> Placed:
    """Average slabs of so many voxels along an axis."""
    kept = np.arange(placed.voxels.shape[axis] // count * count)

    def averaged(voxels: np.ndarray) -> np.ndarray:
        parts = np.split(np.take(voxels, kept, axis), len(kept) // count, axis)
        return np.concatenate([part.mean(axis, keepdims=True) for part in parts], axis)

    step = np.eye(4)
    step[axis, axis], step[axis, 3] = count, (count - 1) / 2
    voxels = averaged(placed.voxels).astype(np.float32)
    return Placed(voxels, placed.affine @ step, averaged(placed.region) > 0.5)


def movement(rng: np.random.Generator) -> Affine:
    """Draw a shift of up to 20 mm and a turn of up to 15 degrees, along and about any axis."""
    both = rng.normal(size=(2, 3))
    shift, axis = both / np.linalg.norm(both, axis=1, keepdims=True)
    matrix = np.eye(4)
    angle = np.radians(rng.uniform(0.3, 1) * MOST_DEG)
    matrix[:3, :3] = Rotation.from_rotvec(angle * axis).as_matrix()
    matrix[:3, 3] = rng.uniform(0.3, 1) * MOST_MM * shift
    return matrix


def difference(found: Affine, true: Affine, fixed: Placed) -> tuple[float, float]:
    """Distance in mm at the middle of the patient, and angle in degrees."""
    centre = [*fixed.centre_mm, 1]
    turn = found[:3, :3] @ true[:3, :3].T
    return (
        float(np.linalg.norm(((found - true) @ centre)[:3])),
        float(np.degrees(Rotation.from_matrix(turn).magnitude())),
    )


if __name__ == "__main__":
    main()
