"""Where the patient is in an input: marked by the user, stripped already, or a brain in a head."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from monai.data import MetaTensor

from medtrans.brain.finder import Brain as Brain  # noqa: PLC0414 - `volume` takes it from here
from medtrans.brain.finder import find_brain
from medtrans.config.terms import Task
from medtrans.errors import FileError
from medtrans.inference.input_checks import LARGEST_BRAIN_L, check_input, labels_in
from medtrans.inference.settings import Settings
from medtrans.package.store import ModelPackage
from medtrans.preprocessing.foreground import Region, find_region, region_within
from medtrans.volumes.geometry import spacing_mm
from medtrans.volumes.voxels import Mask, Voxels


class Patient(NamedTuple):
    """What is known of an input before it is translated.

    Attributes
    ----------
    region : Region
        Where the patient is.
    brain : Brain or None
        What to say of a brain that was found in a whole head.
    warnings : tuple of str
        What is unusual about the input, a sentence each.
    """

    region: Region
    brain: Brain | None
    warnings: tuple[str, ...]


def find_patient(
    volume: MetaTensor, package: ModelPackage, task: Task, settings: Settings, mask: Mask | None
) -> Patient:
    """Check an input and find what is to be translated in it.

    Parameters
    ----------
    volume : MetaTensor
        Shape (X, Y, Z), in its own orientation and unit.
    package : ModelPackage
        Where its recipe says that it takes brains, and its training volumes had their background
        masked out, the brain of a whole head is found.
    task : Task
    settings : Settings
    mask : array of bool or None
        Shape (X, Y, Z): where the patient is; it goes before all that could be found.

    Raises
    ------
    FileError
        When there is nothing to translate, or it is not certain where the brain is.
    """
    voxels, grid_mm = volume.numpy(), spacing_mm(np.asarray(volume.affine))
    region, brain = find_region(voxels, grid_mm, package.pipeline.volume, mask), None
    searched = package.of_stripped_brains and mask is None and settings.brain == "auto"
    if searched and not _is_stripped(region, float(np.prod(grid_mm))):
        _require_image(voxels)
        found, brain = find_brain(voxels, np.asarray(volume.affine))
        region = region_within(found, grid_mm, package.pipeline.volume)
    warnings = check_input(volume, task, region, brains_only=package.masked_background)
    return Patient(region, brain, warnings)


def _is_stripped(region: Region, voxel_mm3: float) -> bool:
    litres = int(region.foreground.sum()) * voxel_mm3 / 1e6
    return region.masked and litres <= LARGEST_BRAIN_L


def _require_image(voxels: Voxels) -> None:
    count = labels_in(voxels)
    if count is not None:
        raise FileError(
            f"The input holds {count} different values, as a label map does, so that no brain is "
            "looked for in it. Name an image; or translate it as it is, with --brain none."
        )
