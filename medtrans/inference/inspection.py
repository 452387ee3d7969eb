"""The look at an input in the space of the networks: pixels, and what a model knows."""

from __future__ import annotations

from collections.abc import Sequence

from medtrans.config.terms import Task
from medtrans.errors import UnusualInputError
from medtrans.inference.input_checks import check_pixels
from medtrans.inference.look import Look, look_at
from medtrans.package.store import ModelPackage
from medtrans.preprocessing.model_space import ModelSpace
from medtrans.volumes.geometry import spacing_mm

Warnings = tuple[str, ...]


def inspect_space(
    space: ModelSpace,
    axes: Sequence[int],
    task: Task,
    package: ModelPackage,
    warnings: Warnings,
    *,
    strict: bool,
) -> tuple[Look | None, Warnings]:
    """Look at a volume as the networks will see it.

    Parameters
    ----------
    space : ModelSpace
        Whole.
    axes : sequence of int
        Along which it will be cut.
    task : Task
    package : ModelPackage
    warnings : tuple of str
        What was unusual before.
    strict : bool
        Whether to refuse an unusual input.

    Returns
    -------
    tuple
        The look, None of a model that cannot look, and all warnings.

    Raises
    ------
    UnusualInputError
        When `strict` and there is a warning.
    """
    recipe, pixels_mm = package.pipeline, spacing_mm(space.placement.affine).tolist()
    warnings += check_pixels(pixels_mm, axes, recipe.slices.axis, recipe.volume.spacing_mm)
    look = None
    if package.look is not None:
        look = look_at(space.image, pixels_mm, task, recipe.parsed_tasks, package.look)
        warnings += look.unusual
    if strict and warnings:
        raise UnusualInputError(
            f"The input is unusual: {'. Also, '.join(warnings)}. Without --strict it is "
            "translated, with a warning."
        )
    return look, warnings
