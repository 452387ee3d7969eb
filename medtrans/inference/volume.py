"""One volume, array to array: prepare it for the networks, and restore what they made of it.

Between the two, `sampling` translates the slices. `prepare` goes down into the space of the
networks, `restore` comes up again by the same way.
"""

from __future__ import annotations

import numpy as np
from monai.data import MetaTensor

from medtrans.inference.inspection import inspect_space
from medtrans.inference.patient import find_patient
from medtrans.inference.plan import ExpectedError, Plan, Prepared, Translation
from medtrans.inference.sampling import Sampled, plan_passes
from medtrans.inference.settings import Settings
from medtrans.package.store import ModelPackage
from medtrans.preprocessing.model_space import to_input_space, to_model_space
from medtrans.preprocessing.slices import fitting_axes, plan_slices
from medtrans.volumes.geometry import spacing_mm
from medtrans.volumes.voxels import Mask, Voxels

__all__ = ["Plan", "Prepared", "Translation", "prepare", "restore"]


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
    UnusualInputError
        When the settings are strict and something is unusual about the input.
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
    shape, grid_mm = whole.image.shape, spacing_mm(whole.placement.affine).tolist()
    usual = fitting_axes(recipe, shape, grid_mm)
    plans = plan_slices(recipe.slices, shape, settings.axes or usual)
    axes = [plan.axis for plan in plans]
    look, warnings = inspect_space(whole, axes, task, package, warnings, strict=settings.strict)
    space = whole.cropped(axes, recipe.volume.divisible)
    passes = tuple(plan_passes(space.image, plans, settings.flips))
    source = volume.meta.get("source")
    plan = Plan(
        task,
        steps,
        passes,
        space.placement,
        region.support,
        source,
        warnings,
        look,
        region.masked,
        brain,
    )
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
        spread = _lengths(np.std(draws, axis=0, ddof=1), plan, package)
    return Translation(
        voxels,
        spread,
        plan.task,
        plan.steps,
        plan.slices,
        sampled.arithmetic,
        plan.warnings,
        plan.look,
        plan.masked,
        plan.support,
        plan.brain,
        _expected_error(sampled, plan, package),
        plan.axes,
    )


def _expected_error(sampled: Sampled, plan: Plan, package: ModelPackage) -> ExpectedError | None:
    if sampled.error is None or package.error is None:
        return None
    return ExpectedError(_lengths(sampled.error, plan, package), package.error.calibration)


def _lengths(values: Voxels, plan: Plan, package: ModelPackage) -> Voxels:
    """Bring lengths on the networks' scale, as of an error, back to the grid and the unit."""
    profile = package.profiles[plan.task.target]
    lengths = to_input_space(values, plan.placement, outside=0)
    lengths *= np.float32((profile.high - profile.low) / 2)
    lengths[~plan.support] = 0
    return lengths
