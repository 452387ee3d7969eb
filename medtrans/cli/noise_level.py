"""`medtrans noise-level`: the curve of the criterion that chooses sigma, and a sweep beside it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from medtrans.cli.recipe import RecipeRequest
from medtrans.data.manifest import Manifest
from medtrans.diffusion import Criterion
from medtrans.errors import UsageError
from medtrans.report.pictures import save_curves
from medtrans.system.atomic import make_folder, replacing
from medtrans.system.devices import tune_process
from medtrans.training.cache import VolumeCache
from medtrans.training.noise_level import measure_noise_level
from medtrans.training.plan import TrainingPlan
from medtrans.training.sweep import SWEPT, sweep
from medtrans.volumes import marks

Row = dict[str, float]
_MARKS = {  # how our own files begin
    "noise_level.csv": b"sigma,A,B,J",
    "sweep.csv": b"sigma,J,",
    "noise_level.png": marks.PNG,
}


@dataclass(frozen=True)
class NoiseLevelRequest:
    """What `medtrans noise-level` is asked for.

    Attributes
    ----------
    recipe : RecipeRequest
    manifest, out : Path
        The CSV to read, and the folder for tables and picture.
    weight : float
        lambda in [0, 1]: the weight of A, source and target apart, against B, source destroyed.
    sweep_iterations : int or None
        Iterations of each stage of the models that are trained over a grid; None trains none.
    seed : int
    device : str
        "auto", "cpu" or "cuda".
    overwrite : bool
        Replace tables and a picture that medtrans did not write.

    Raises
    ------
    UsageError
        When lambda is out of its range.
    """

    recipe: RecipeRequest
    manifest: Path
    out: Path
    weight: float
    sweep_iterations: int | None = None
    seed: int = 0
    device: str = "auto"
    overwrite: bool = False

    def __post_init__(self) -> None:
        if not 0 <= self.weight <= 1:
            raise UsageError(f"--lambda is between 0 and 1, not {self.weight:g}.")


def choose_noise_level(request: NoiseLevelRequest) -> dict[str, object]:
    """Draw the curve of the noise criterion; with iterations, train models over a grid, too.

    Raises
    ------
    ManifestError
        When a contrast has no train volume, or a sweep has no val pairs.
    """
    manifest, pipeline = Manifest.read(request.manifest), request.recipe.load()
    tune_process()
    out = make_folder(request.out)
    for name, mark in _MARKS.items():
        marks.require_marked([out / name], mark, overwrite=request.overwrite)
    cache = VolumeCache(out / "cache", pipeline)
    tasks, seed, weight = pipeline.parsed_tasks, request.seed, request.weight
    criterion = measure_noise_level(tasks, manifest, cache, seed, weight)
    curve = _write_curve(out, criterion)
    result = {"sigma": criterion.best, "lambda": weight, "curve": curve, "folder": str(out)}
    if request.sweep_iterations is None:
        return result
    plan = TrainingPlan(pipeline, manifest, out / "sweep", seed=seed, device=request.device)
    scores = sweep(plan, SWEPT, request.sweep_iterations)
    return {**result, "sweep": _write_sweep(out, scores, criterion)}


def _write_curve(out: Path, criterion: Criterion) -> list[Row]:
    curve = [{"sigma": s, "A": a, "B": b, "J": j} for s, a, b, j in zip(*criterion, strict=True)]
    _write_rows(out / "noise_level.csv", curve)
    lines = {
        "A: source and target apart": criterion.apart,
        "B: source destroyed": criterion.destroyed,
        "J": criterion.total,
    }
    save_curves(out / "noise_level.png", criterion.sigma, lines, criterion.best)
    return curve


def _write_sweep(out: Path, scores: list[Row], criterion: Criterion) -> list[Row]:
    """Write the models' scores with J beside them."""
    total = dict(zip(criterion.sigma, criterion.total, strict=True))
    rows = [{"sigma": row["sigma"], "J": total[row["sigma"]], **row} for row in scores]
    _write_rows(out / "sweep.csv", rows)
    return rows


def _write_rows(path: Path, rows: list[Row]) -> None:
    with replacing(path) as partial:
        pd.DataFrame(rows).to_csv(partial, index=False, float_format="%.6g")
