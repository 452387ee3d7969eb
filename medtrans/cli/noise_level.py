"""`medtrans noise-level`: the curve of the criterion that chooses sigma, and a sweep beside it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd

from medtrans.cli.train import TrainRequest, requested_pipeline
from medtrans.data.manifest import Manifest
from medtrans.errors import UsageError
from medtrans.report.pictures import save_curves
from medtrans.system.atomic import make_folder, replacing
from medtrans.system.devices import tune_process
from medtrans.training.cache import VolumeCache
from medtrans.training.noise_level import measure_noise_level
from medtrans.training.run import TrainingPlan
from medtrans.training.sweep import SWEPT, sweep


def choose_noise_level(
    request: TrainRequest, weight: float, sweep_iterations: int | None
) -> dict[str, Any]:
    """Draw the curve of the noise criterion; with iterations, train models over a grid, too."""
    if not 0 <= weight <= 1:
        raise UsageError(f"--lambda is between 0 and 1, not {weight:g}.")
    manifest, pipeline = Manifest.read(request.manifest), requested_pipeline(request)
    tune_process()
    out = make_folder(request.out)
    cache = VolumeCache(out / "cache", pipeline)
    found = measure_noise_level(pipeline, manifest, cache, request.seed, weight)
    rows = [{"sigma": s, "A": a, "B": b, "J": j} for s, a, b, j in zip(*found, strict=True)]
    _write_rows(out / "noise_level.csv", rows)
    curves = {"A: source and target apart": found.apart, "B: source destroyed": found.destroyed}
    save_curves(out / "noise_level.png", found.sigma, {**curves, "J": found.total}, found.best)
    result = {"sigma": found.best, "lambda": weight, "curve": rows, "folder": str(out)}
    if sweep_iterations is not None:
        plan = TrainingPlan(
            pipeline, manifest, out / "sweep", seed=request.seed, device=request.device
        )
        swept = sweep(plan, SWEPT, sweep_iterations)
        beside = dict(zip(found.sigma, found.total, strict=True))
        swept = [{"sigma": row["sigma"], "J": beside[row["sigma"]], **row} for row in swept]
        _write_rows(out / "sweep.csv", swept)
        result["sweep"] = swept
    return result


def _write_rows(path: Path, rows: list[dict[str, float]]) -> None:
    with replacing(path) as partial:
        pd.DataFrame(rows).to_csv(partial, index=False, float_format="%.6g")
