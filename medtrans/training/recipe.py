"""A recipe with other values, as a run works them out."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from medtrans.config.schema import Pipeline, StageConfig
from medtrans.config.terms import STAGES


def with_sigma(pipeline: Pipeline, sigma: float) -> Pipeline:
    """Return the recipe with another sigma, on the [-1, 1] scale."""
    diffusion = pipeline.diffusion.model_copy(update={"sigma": sigma})
    return pipeline.model_copy(update={"diffusion": diffusion})


def with_stages(
    pipeline: Pipeline, changes: Callable[[StageConfig], Mapping[str, int]]
) -> Pipeline:
    """Return the recipe with changes to both stages.

    Parameters
    ----------
    pipeline : Pipeline
    changes : callable
        A stage's config -> the keys that change, with their new values.
    """
    stages: dict[str, StageConfig] = {}
    for name in STAGES:
        config = pipeline.stage(name)
        stages[name] = config.model_copy(update=dict(changes(config)))
    return pipeline.model_copy(update=stages)
