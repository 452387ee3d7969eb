"""Short models over a grid of sigma: what the criterion is to be compared with."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from medtrans.config.schema import Pipeline, StageConfig
from medtrans.errors import ManifestError
from medtrans.training.plan import TrainingPlan
from medtrans.training.recipe import with_sigma, with_stages
from medtrans.training.run import train

SWEPT = (0.1, 0.25, 0.5, 1.0)


def sweep(plan: TrainingPlan, grid: Sequence[float], iterations: int) -> list[dict[str, float]]:
    """Train short models over a grid of sigma and say how well they do on the val split.

    Parameters
    ----------
    plan : TrainingPlan
        Its `out` gets one folder a level.
    grid : sequence of float
        Sigmas, on the [-1, 1] scale.
    iterations : int
        Of each stage.

    Returns
    -------
    list of dict
        sigma, and the last validation's scores (PSNR in dB).

    Raises
    ------
    ManifestError
        When there are no val pairs to score.
    """
    if not any(plan.manifest.pairs(*task, "val") for task in plan.pipeline.parsed_tasks):
        raise ManifestError("A sweep needs val pairs: give val subjects in the manifest's split.")
    rows = []
    for sigma in grid:
        out = plan.out / f"sigma-{sigma:g}"
        recipe = _shortened(with_sigma(plan.pipeline, sigma), iterations)
        cache = plan.out.parent / "cache"
        train(replace(plan, pipeline=recipe, out=out, cache=cache, resume=True))
        rows.append({"sigma": sigma, **_last_row(out / "residual" / "validation.csv")})
    return rows


def _shortened(pipeline: Pipeline, iterations: int) -> Pipeline:
    def short(config: StageConfig) -> dict[str, int]:
        return {
            "iterations": iterations,
            "validate_every": iterations,
            "warmup_iterations": min(config.warmup_iterations, iterations // 4),
        }

    # Its models translate nothing else.
    no_look = pipeline.look.model_copy(update={"examples": 0})
    no_error = pipeline.error.model_copy(update={"iterations": 0})
    no_detail = pipeline.detail.model_copy(update={"pairs": 0})
    alone = pipeline.model_copy(update={"look": no_look, "error": no_error, "detail": no_detail})
    return with_stages(alone, short)


def _last_row(path: Path) -> dict[str, float]:
    with path.open(newline="", encoding="utf-8") as file:
        last = list(csv.DictReader(file))[-1]
    return {key: float(value) for key, value in last.items() if key != "step"}
