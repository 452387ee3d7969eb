"""One volume, array to array: prepare it for the networks, and restore what they made of it.

Between the two, `sampling` translates the slices. `prepare` goes down into the space of the
networks, `restore` comes up again by the same way.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from monai.data import MetaTensor

from medtrans.config.terms import Task
from medtrans.diffusion import Steps
from medtrans.inference.input_checks import check_pixels
from medtrans.inference.patient import Brain, find_patient
from medtrans.inference.sampling import Arithmetic, Pass, Sampled, plan_passes
from medtrans.inference.settings import Settings
from medtrans.package.store import ModelPackage
from medtrans.preprocessing.model_space import Placement, to_input_space, to_model_space
from medtrans.preprocessing.slices import plan_slices
from medtrans.volumes.geometry import spacing_mm
from medtrans.volumes.source import Source
from medtrans.volumes.voxels import Mask, Voxels


@dataclass(frozen=True)
class Plan:
    """How a volume will be translated, and what its result needs that is not a voxel of the input.

    Attributes
    ----------
    task : Task
    steps : Steps
    passes : tuple of Pass
        What to sample.
    placement : Placement
        The way back to the input's grid.
    support : array of bool
        Shape (X, Y, Z) of the input: where the output is not background.
    source : Source or None
        Where the input came from; None for an array.
    warnings : tuple of str
        What is unusual about the input, a sentence each.
    brain : Brain or None
        What to say of a brain that was found in a whole head.
    """

    task: Task
    steps: Steps
    passes: tuple[Pass, ...]
    placement: Placement
    support: Mask
    source: Source | None
    warnings: tuple[str, ...]
    brain: Brain | None = None

    @property
    def slices(self) -> int:
        """How many slices a draw samples."""
        return sum(len(one_way.chosen) for one_way in self.passes)


@dataclass(frozen=True)
class Prepared:
    """A volume in the space of the networks.

    Attributes
    ----------
    image : array of float32
        Shape (X, Y, Z), RAS, cropped, in [-1, 1].
    plan : Plan
    """

    image: Voxels
    plan: Plan


@dataclass(frozen=True)
class Translation:
    """A translated volume.

    Attributes
    ----------
    voxels : array of float32
        Shape (X, Y, Z) on the input's grid, in the target's unit.
    spread : array of float32 or None
        Standard deviation over the samples, same shape and unit; None for one sample.
    task : Task
    steps : Steps
    slices : int
        How many slices a draw sampled.
    arithmetic : Arithmetic
        What decided the rounding.
    warnings : tuple of str
    support : array of bool or None
        Shape (X, Y, Z): where the voxels are not background.
    brain : Brain or None
        What to say of a brain that was found in a whole head.
    """

    voxels: Voxels
    spread: Voxels | None
    task: Task
    steps: Steps
    slices: int
    arithmetic: Arithmetic
    warnings: tuple[str, ...]
    support: Mask | None = None
    brain: Brain | None = None


def prepare(
    volume: MetaTensor, package: ModelPackage, settings: Settings, mask: Mask | None = None
) -> Prepared:
    """Check a volume and bring it into the space of a model's networks.

    Parameters
    ----------
    volume : MetaTensor
        Shape (X, Y, Z), in its own orientation and unit.
    package : ModelPackage
    settings : Settings
    mask : array of bool, optional
        Shape (X, Y, Z): where the patient is, instead of the foreground that is found.

    Raises
    ------
    FileError
        When there is nothing to translate, or a DICOM series is of another modality.
    PackageError, UsageError
        When the model cannot do what the settings ask for.
    """
    recipe, task = package.pipeline, package.task(settings.task)
    steps = package.steps(
        settings.mode, settings.residual_steps, settings.noise_steps, settings.eta
    )
    region, brain, warnings = find_patient(volume, package, task, settings, mask)
    scale, target_mm = recipe.contrasts[task.source], recipe.volume.spacing_mm
    whole = to_model_space(volume, region, scale, target_mm)
    plans = plan_slices(recipe.slices, whole.image.shape, settings.axes)
    pixels_mm = spacing_mm(whole.placement.affine).tolist()
    axes = [plan.axis for plan in plans]
    warnings += check_pixels(pixels_mm, axes, recipe.slices.axis, recipe.volume.spacing_mm)
    space = whole.cropped(axes, recipe.volume.divisible)
    passes = tuple(plan_passes(space.image, plans, settings.flips))
    source = volume.meta.get("source")
    plan = Plan(task, steps, passes, space.placement, region.support, source, warnings, brain)
    return Prepared(space.image, plan)


def restore(sampled: Sampled, plan: Plan, package: ModelPackage) -> Translation:
    """Bring draws back to the input's grid and the target's unit, and average them.

    Parameters
    ----------
    sampled : Sampled
        Its draws (X, Y, Z) lie in the space of the networks.
    plan : Plan
        Of the volume that was prepared.
    package : ModelPackage
    """
    profile = package.profiles[plan.task.target]
    background = package.pipeline.contrasts[plan.task.target].background
    draws = sampled.draws
    mean = draws[0] if len(draws) == 1 else np.mean(draws, axis=0)
    voxels = profile.restore(to_input_space(mean, plan.placement))
    voxels[~plan.support] = background
    spread = None
    if len(draws) > 1:
        deviation = np.std(draws, axis=0, ddof=1)
        spread = to_input_space(deviation, plan.placement, outside=0)
        spread *= np.float32((profile.high - profile.low) / 2)
        spread[~plan.support] = 0
    return Translation(
        voxels,
        spread,
        plan.task,
        plan.steps,
        plan.slices,
        sampled.arithmetic,
        plan.warnings,
        plan.support,
        plan.brain,
    )
