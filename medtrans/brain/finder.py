"""Where the brain is in a whole head, or a sentence that says why it cannot be told."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from scipy import ndimage
from skimage.filters import threshold_otsu

from medtrans.brain.grid import Coarse, coarsen, refine
from medtrans.brain.network import BRAIN_AT, FRAME, GRID_MM, scaled, trained_network
from medtrans.errors import FileError
from medtrans.system.workers import map_on_single_threads
from medtrans.volumes.geometry import spacing_mm
from medtrans.volumes.voxels import Mask, Voxels

_LOOKS = 3
_CAP_MM, _DEPTH_MM = 120.0, 72.0  # below the crown: the upper head, and the middle of the brain
_LITRES = (0.9, 2.0)  # of an adult's brain
_STRAY = 0.1  # of the brain: what else was taken for brain
_SOLID = 0.8  # of the ellipsoid with the same moments; a brain fills 0.9 of it
_DOUBTFUL = 0.4  # of the brain's voxels: neither clearly brain nor clearly not


@dataclass(frozen=True)
class Brain:
    """What is said of a brain that was found.

    Attributes
    ----------
    litres : float
    doubt : float
        Voxels of 3 mm that are neither clearly brain nor clearly not, over the brain's; 0.2 to 0.35
        of heads, 0.45 or more of what has no brain.
    weights_sha256 : str
        Of the network that found it.
    """

    litres: float
    doubt: float
    weights_sha256: str

    @property
    def entries(self) -> dict[str, object]:
        """The entries of a sidecar."""
        return {
            "BrainLitres": round(self.litres, 3),
            "BrainDoubt": round(self.doubt, 3),
            "BrainFinderSHA256": self.weights_sha256,
        }


def find_brain(voxels: Voxels, affine: npt.NDArray[np.float64]) -> tuple[Mask, Brain]:
    """Find the brain in a whole head; its mask (X, Y, Z), and what to say of it.

    Parameters
    ----------
    voxels : array of float32
        Shape (X, Y, Z), any contrast and unit.
    affine : array of float64
        Shape (4, 4): voxel to RAS mm.

    Raises
    ------
    FileError
        When it is not certain where the brain is, or that there is one.
    """
    coarse = coarsen(voxels, affine, GRID_MM)
    share = brain_share(coarse)
    inside = _largest(share > 0.5)
    _require_certain(share, inside)
    kept = np.where(ndimage.binary_dilation(inside), share, 0)
    kept[ndimage.binary_fill_holes(inside) & ~inside] = 1
    mask = refine(kept, coarse, affine, voxels.shape)
    litres = int(mask.sum()) * float(np.prod(spacing_mm(affine))) / 1e6
    return mask, Brain(litres, doubt(share, inside), trained_network()[1])


def brain_share(coarse: Coarse) -> Voxels:
    """Return how much of each voxel (X, Y, Z) is brain, 0 to 1; the same on any CPU's threads.

    The network has learnt where in its frame a brain lies: a first look is centred by the crown,
    the second by what the first one found.
    """
    image = scaled(coarse.voxels)
    share = _look(image, _below_crown(image))
    for _ in range(_LOOKS - 1):
        inside = _largest(share > 0.5)
        if inside.any():
            share = _look(image, np.argwhere(inside).mean(axis=0))
    return share


def _look(image: Voxels, middle: npt.NDArray[np.float64]) -> Voxels:
    """Ask the network about a volume (X, Y, Z) and its mirror image; 0 beyond its frame.

    `middle` is put where brains lay in training.
    """
    frame = np.zeros(FRAME, np.float32)
    start = np.rint(middle - BRAIN_AT).astype(int)  # of the frame, in the image
    low, high = np.maximum(start, 0), np.minimum(start + FRAME, image.shape)
    here = tuple(slice(a, b) for a, b in zip(low, high, strict=True))
    there = tuple(slice(a, b) for a, b in zip(low - start, high - start, strict=True))
    frame[there] = image[here]
    shown = torch.from_numpy(frame)[None, None]

    def call(x: torch.Tensor) -> torch.Tensor:
        with torch.inference_mode():
            logits: torch.Tensor = trained_network()[0](x)
            return logits.sigmoid()[0, 0]

    one, other = map_on_single_threads(call, [shown, shown.flip(2)], 1)
    share = np.zeros(image.shape, np.float32)
    share[here] = ((one + other.flip(0)) / 2).numpy()[there]
    return share


def _below_crown(image: Voxels) -> npt.NDArray[np.float64]:
    """Guess where the middle of the brain is: voxels below the top of the head, in its middle."""
    points = np.argwhere(image >= threshold_otsu(image.ravel()) / 2)
    top = np.percentile(points[:, 2], 99.9)
    cap = points[points[:, 2] > top - _CAP_MM / GRID_MM]
    middle = (cap.min(axis=0) + cap.max(axis=0)) / 2
    return np.array([middle[0], middle[1], top - _DEPTH_MM / GRID_MM])


def _require_certain(share: Voxels, inside: Mask) -> None:
    """Refuse what is not shaped like one brain, or was no clear decision."""
    litres = int(inside.sum()) * GRID_MM**3 / 1e6
    lowest, highest = _LITRES
    if litres < lowest / 10:
        fault = "no brain was found"
    elif not lowest <= litres <= highest:
        fault = f"what looks like a brain has {litres:.2f} litres"
    elif (share > 0.5).sum() - inside.sum() > _STRAY * inside.sum():
        fault = "more than one part of it looks like a brain"
    elif solidity(inside) < _SOLID:
        fault = "what looks like a brain does not have the shape of one"
    elif doubt(share, inside) > _DOUBTFUL:
        fault = "it is not clear where the brain ends"
    else:
        return
    raise FileError(
        "The input is no stripped brain before a masked background, as the model expects, and "
        f"{fault}. "
        "Give a mask of the brain with --brain MASK; or translate the input as it is, with "
        "--brain none."
    )


def solidity(inside: Mask) -> float:
    """Return the volume of a mask (X, Y, Z) over that of the ellipsoid with the same moments."""
    points = np.argwhere(inside)
    spread = np.linalg.det(np.cov(points, rowvar=False))
    return float(len(points) / (4 / 3 * np.pi * np.sqrt(125 * spread))) if spread > 0 else 0.0


def doubt(share: Voxels, inside: Mask) -> float:
    """Return the voxels of which 0.1 to 0.9 is brain, over the brain's; its surface counts, too."""
    return float(((share > 0.1) & (share < 0.9)).sum() / max(int(inside.sum()), 1))


def _largest(mask: Mask) -> Mask:
    labels, count = ndimage.label(mask)
    if count <= 1:
        return mask
    return np.asarray(labels == np.bincount(labels.ravel())[1:].argmax() + 1)
