"""What the residual stage makes of a volume that is in the space of the networks already."""

from __future__ import annotations

from collections.abc import Sequence

from medtrans.config.terms import Task
from medtrans.diffusion import Steps
from medtrans.inference.sampling import SliceSampler, plan_passes
from medtrans.inference.settings import Settings
from medtrans.preprocessing.model_space import crop_to
from medtrans.preprocessing.slices import fitting_axes, plan_slices
from medtrans.volumes.voxels import Voxels


def estimated(sampler: SliceSampler, task: Task, image: Voxels, grid_mm: Sequence[float]) -> Voxels:
    """Translate a source in fidelity mode; what a training's cache holds, for example.

    Parameters
    ----------
    sampler : SliceSampler
    task : Task
    image : array of float32
        Shape (X, Y, Z), RAS, in [-1, 1]; not all background.
    grid_mm : sequence of float
        Spacing along each axis.

    Returns
    -------
    array of float32
        Shape (X, Y, Z), in [-1, 1].
    """
    recipe = sampler.package.pipeline
    plans = plan_slices(recipe.slices, image.shape, fitting_axes(recipe, image.shape, grid_mm))
    box = crop_to(image > -1, [plan.axis for plan in plans], recipe.volume.divisible)
    cropped = box.apply(image, -1)
    passes = plan_passes(cropped, plans, flips=False)
    steps = Steps(*recipe.sampling.steps("fidelity"))
    [made] = sampler.sample(cropped, passes, task, steps, Settings()).draws
    return box.undo(made, -1)
