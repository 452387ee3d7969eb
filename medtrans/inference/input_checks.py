"""Whether an input looks like what a model is for: a sentence for each thing that does not.

`check_values` needs no more than NumPy, so that the command line can refuse an input before it
imports torch; `check_input` is all of it, for files, arrays and MONAI bundles alike.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

import numpy as np

from medtrans.config.terms import Axis, Task
from medtrans.errors import FileError
from medtrans.preprocessing.intensity import require_varied
from medtrans.preprocessing.slices import AXES, elongation, is_near_one
from medtrans.volumes.contrast import in_hu
from medtrans.volumes.geometry import spacing_mm
from medtrans.volumes.source import Source
from medtrans.volumes.voxels import Voxels

if TYPE_CHECKING:
    from monai.data import MetaTensor

    from medtrans.preprocessing.foreground import Region

LARGEST_BRAIN_L = 2.0  # skull-stripped brains have 1.1 to 1.7 litres, whole heads 2.5 or more
_MOST_LABELS = 16  # different whole numbers: an image has hundreds
_SAMPLED = 1_000_000  # voxels are enough to tell
_UNMASKED = (
    "its background is not masked out, as it was in every training volume: what surrounds the "
    "brain would be translated, too; strip the skull first (--brain auto does, for a model of "
    "brains), or give a brain mask with --mask"
)
_SMALL_MASK = 0.1  # of the foreground: a brain is more of its head


def check_input(
    volume: MetaTensor, task: Task, region: Region, *, brains_only: bool
) -> tuple[str, ...]:
    """Say what is unusual about an input, and refuse what cannot be translated.

    Parameters
    ----------
    volume : MetaTensor
        Shape (X, Y, Z), with its `Source` under "source" where it came from a file.
    task : Task
    region : Region
        Where the patient is; found or given.
    brains_only : bool
        Whether the model was trained on skull-stripped brains alone.

    Raises
    ------
    FileError
        As `check_values`.
    """
    voxels = volume.numpy()
    warnings = check_values(voxels, task, volume.meta.get("source"))
    if region.mask_share is not None:
        return (*warnings, *_warn_of_part(region.mask_share))
    return (*warnings, *(_warn_of_head(volume, region) if brains_only else ()))


def check_values(voxels: Voxels, task: Task, source: Source | None) -> tuple[str, ...]:
    """Check what needs the voxels and the header alone.

    Parameters
    ----------
    voxels : array of float32
        Shape (X, Y, Z), in the input's own unit.
    task : Task
    source : Source or None
        Where the voxels came from; None for an array.

    Raises
    ------
    FileError
        When all voxels have one value, or a DICOM series is CT and the task's source is not, or
        the other way round.
    """
    require_varied(voxels)
    return (*_check_contrast(voxels, task, source), *_warn_of_labels(voxels))


def check_pixels(
    grid_mm: Sequence[float], axes: Iterable[int], trained: Axis, trained_mm: Sequence[float]
) -> tuple[str, ...]:
    """Say which slices have pixels that are longer one way than those of the training.

    Parameters
    ----------
    grid_mm : sequence of float
        Spacing along each RAS axis, as the networks see it.
    axes : iterable of int
        Along which the volume is cut; 0 sagittal, 1 coronal, 2 axial.
    trained : Axis
        Along which the model's training volumes were cut.
    trained_mm : sequence of float
        The recipe's spacing; 0 where volumes kept their own, whose pixels are taken for square.
    """
    usual = elongation(trained_mm, AXES[trained])
    stretch = {axis: elongation(grid_mm, axis) / usual for axis in range(3)}
    fitting = min(stretch, key=lambda axis: max(stretch[axis], 1 / stretch[axis]))
    names = {number: name for name, number in AXES.items()}
    remedy = f"cut it along the slices that were acquired, with --axes {names[fitting]}, or "
    if not is_near_one(stretch[fitting]):
        remedy = ""
    return tuple(
        f"its {names[axis]} slices have pixels of {down:.3g} x {across:.3g} mm, which the model "
        f"takes for square ones, so that it sees the patient stretched; {remedy}resample the "
        "volume to equal spacing first"
        for axis in axes
        if not is_near_one(stretch[axis])
        for down, across in [np.delete(grid_mm, axis)]
    )


def _check_contrast(voxels: Voxels, task: Task, source: Source | None) -> tuple[str, ...]:
    stated = None if source is None else source.contrast
    shown = stated or ("ct" if in_hu(float(voxels.min())) else None)
    both = {shown, task.source}
    if shown is None or len(both) == 1 or ("mr" in both and "ct" not in both):
        return ()
    sentence = f"it seems to be {shown}, and {task} expects {task.source}"
    if source is not None and source.kind == "dicom" and "ct" in both:
        raise FileError(f"{source.path}: {sentence}. Choose another --task, --model or --series.")
    return (f"{sentence}; if it is, choose another --task or --model",)


def labels_in(voxels: Voxels) -> int | None:
    """Count the different values of a label map (X, Y, Z); None for an image."""
    flat = voxels.ravel()
    sample = np.unique(flat[:: max(1, flat.size // _SAMPLED)])
    is_map = len(sample) <= _MOST_LABELS and np.array_equal(sample, np.rint(sample))
    return len(sample) if is_map else None


def _warn_of_labels(voxels: Voxels) -> tuple[str, ...]:
    count = labels_in(voxels)
    if count is None:
        return ()
    return (f"it holds {count} different values, as a label map does, and no image",)


def _warn_of_part(share: float) -> tuple[str, ...]:
    """Say when a mask seems to mark a part of the patient rather than the patient."""
    if share >= _SMALL_MASK:
        return ()
    return (
        f"the mask covers {100 * share:.1f} % of the foreground; what is outside is hidden from "
        "the model, which expects a whole head or brain: mark that, and cut the region out after",
    )


def _warn_of_head(volume: MetaTensor, region: Region) -> tuple[str, ...]:
    litres = int(region.foreground.sum()) * np.prod(spacing_mm(np.asarray(volume.affine))) / 1e6
    if litres <= LARGEST_BRAIN_L:
        return () if region.masked else (_UNMASKED,)
    return (
        f"it shows {litres:.1f} litres, as a whole head does, and the model was trained on "
        "skull-stripped volumes; strip the skull first (--brain auto does, for a model of brains), "
        "or give a brain mask with --mask",
    )
