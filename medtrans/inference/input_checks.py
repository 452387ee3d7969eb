"""Whether an input looks like what a model is for: a sentence for each thing that does not."""

from __future__ import annotations

import numpy as np
from monai.data import MetaTensor

from medtrans.config.terms import Task
from medtrans.errors import FileError
from medtrans.preprocessing.foreground import find_foreground
from medtrans.preprocessing.model_space import spacing_mm
from medtrans.volumes import Source
from medtrans.volumes.contrast import in_hu
from medtrans.volumes.voxels import Mask

_LARGEST_BRAIN_L = 2.0  # skull-stripped brains have 1.1 to 1.7 litres, whole heads 2.5 or more
_MOST_LABELS = 16  # different whole numbers: an image has hundreds
_SAMPLED = 1_000_000  # voxels are enough to tell
_SMALL_MASK = 0.1  # of the foreground: a brain is more of its head


def require_contrast(volume: MetaTensor, task: Task) -> tuple[str, ...]:
    """Say when an input seems to be of another contrast than the task's source.

    Raises
    ------
    FileError
        When a DICOM series is CT and the task's source is not, or the other way round.
    """
    source: Source = volume.meta["source"]
    found = source.contrast or ("ct" if in_hu(float(volume.numpy().min())) else None)
    both = {found, task.source}
    if found is None or len(both) == 1 or ("mr" in both and "ct" not in both):
        return ()
    sentence = f"it seems to be {found}, and {task} expects {task.source}"
    if source.kind == "dicom" and "ct" in both:
        raise FileError(f"{source.path}: {sentence}. Choose another --task, --model or --series.")
    return (f"{sentence}; if it is, choose another --task or --model",)


def warn_of_labels(volume: MetaTensor) -> tuple[str, ...]:
    """Say when an input seems to hold labels rather than intensities."""
    values = volume.numpy().ravel()
    sample = np.unique(values[:: max(1, values.size // _SAMPLED)])
    if len(sample) > _MOST_LABELS or not np.array_equal(sample, np.rint(sample)):
        return ()
    return (f"it holds {len(sample)} different values, as a label map does, and no image",)


def warn_of_region(volume: MetaTensor, mask: Mask) -> tuple[str, ...]:
    """Say when a mask seems to mark a region rather than the patient."""
    share = int(mask.sum()) / max(int(find_foreground(volume.numpy()).sum()), 1)
    if share >= _SMALL_MASK:
        return ()
    return (
        f"the mask covers {100 * share:.1f} % of the foreground; what is outside is hidden from "
        "the model, which expects a whole head or brain: mark that, and cut the region out after",
    )


def warn_of_head(volume: MetaTensor, foreground: Mask) -> tuple[str, ...]:
    """Say when a model of skull-stripped brains is given more than a brain."""
    litres = int(foreground.sum()) * np.prod(spacing_mm(volume)) / 1e6
    if litres <= _LARGEST_BRAIN_L:
        return ()
    return (
        f"it shows {litres:.1f} litres, as a whole head does, and the model was trained on "
        "skull-stripped volumes; strip the skull first, or give a brain mask with --mask",
    )
