"""Where the brain is in a whole head, or a sentence that says why it cannot be told."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from medtrans.brain import atlas
from medtrans.brain.grid import Coarse, coarsen, refine
from medtrans.brain.register import carry_brain
from medtrans.errors import FileError
from medtrans.volumes.geometry import spacing_mm
from medtrans.volumes.voxels import Mask, Voxels

_LITRES = (0.9, 2.0)  # of an adult's brain
_LEAST_SEEN = 0.9  # of the brain, inside the field of view
LEAST_AGREED = 0.88  # Dice coefficient of what the atlas heads say


@dataclass(frozen=True)
class Brain:
    """What is said of a brain that was found.

    Attributes
    ----------
    litres : float
    agreement : float
        Dice coefficient of what the atlas heads say, each by itself.
    atlas_sha256 : str
    """

    litres: float
    agreement: float
    atlas_sha256: str

    @property
    def entries(self) -> dict[str, object]:
        """The entries of a sidecar."""
        return {
            "BrainLitres": round(self.litres, 3),
            "BrainAgreement": round(self.agreement, 3),
            "BrainAtlasSHA256": self.atlas_sha256,
        }


def find_brain(
    voxels: Voxels, affine: npt.NDArray[np.float64], contrast: str
) -> tuple[Mask, Brain]:
    """Find the brain in a whole head; its mask (X, Y, Z), and what to say of it.

    Parameters
    ----------
    voxels : array of float32
        Shape (X, Y, Z), any unit.
    affine : array of float64
        Shape (4, 4): voxel to RAS mm.
    contrast : str
        What it shows.

    Raises
    ------
    FileError
        When it is not certain where the brain is, or that there is one.
    """
    coarse = coarsen(voxels, affine, atlas.GRID_MM)
    try:
        shares = [carry_brain(coarse, head, contrast) for head in atlas.heads()]
    except RuntimeError:  # SimpleITK's, where a registration runs out of the image
        raise _uncertain("nothing like a head was found in it") from None
    agreement = _dice(shares[0] > 0.5, shares[1] > 0.5)
    _require_certain(coarse, shares, agreement)
    mask = refine(np.mean(shares, axis=0), coarse, affine, voxels.shape)
    litres = int(mask.sum()) * float(np.prod(spacing_mm(affine))) / 1e6
    return mask, Brain(litres, agreement, atlas.sha256())


def _require_certain(coarse: Coarse, shares: Sequence[Voxels], agreement: float) -> None:
    """Refuse what the atlas heads do not agree on, or what has not the size of a brain."""
    inside = np.mean(shares, axis=0) > 0.5
    litres, seen = int(inside.sum()) * atlas.GRID_MM**3 / 1e6, inside & coarse.seen
    lowest, highest = _LITRES
    if not lowest <= litres <= highest:
        raise _uncertain(f"what looks like a brain has {litres:.2f} litres")
    if agreement < LEAST_AGREED:
        raise _uncertain("it is not clear where the brain is")
    if seen.sum() < _LEAST_SEEN * inside.sum():
        raise _uncertain("a part of the brain seems to lie outside the field of view")


def _uncertain(fault: str) -> FileError:
    return FileError(
        f"The input is not skull-stripped, as the model expects, and {fault}. Give a mask of the "
        "brain with --brain MASK; or translate the input as it is, with --brain none."
    )


def _dice(one: Mask, other: Mask) -> float:
    return 2 * int((one & other).sum()) / max(int(one.sum()) + int(other.sum()), 1)
