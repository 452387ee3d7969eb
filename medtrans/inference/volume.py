"""One volume, array to array: prepare it for the networks, and restore what they made of it.

Between the two, `sampling` translates the slices. `prepare` goes down into the space of the
networks, `restore` comes up again by the same way.
"""

from __future__ import annotations

import numpy as np
from monai.data import MetaTensor

from medtrans.inference.inspection import inspect_space
from medtrans.inference.patient import find_patient
from medtrans.inference.plan import Plan, Prepared, Translation
from medtrans.inference.sampling import Sampled, plan_passes
from medtrans.inference.settings import Settings
from medtrans.package.store import ModelPackage
from medtrans.preprocessing.model_space import to_input_space, to_model_space
from medtrans.preprocessing.slices import plan_slices
from medtrans.volumes.voxels import Mask

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
    plans = plan_slices(recipe.slices, whole.image.shape, settings.axes)
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
        plan.look,
        plan.masked,
        plan.support,
        plan.brain,
    )
