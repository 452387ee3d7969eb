"""One model for twelve tasks against twelve models: a table and a picture.

`python -m benchmarks.translation.unified --manifest brain.csv`; writes unified.csv and
docs/pictures/unified.png. Fidelity mode, all pairs; the unified model takes four times the
iterations of one single-task model, a third of what the twelve take together. `--longer TASKS` adds
rows of single-task models that take as many as the unified one.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import pandas as pd
import torch

from benchmarks.translation.cells import trained
from benchmarks.translation.cohorts import HERE, Changes, Cohort, CohortData
from benchmarks.translation.methods import Predict, drdd_predict
from benchmarks.translation.scoring import (
    Scores,
    score_subject,
    slices_of,
    translate_slices,
)
from medtrans.config.recipes import load_pipeline
from medtrans.config.terms import Task
from medtrans.diffusion import Steps
from medtrans.report.pictures import save_grid
from medtrans.training.data import Example, StageExamples
from medtrans.training.stages import residual_stage
from medtrans.volumes.voxels import Voxels

RESULTS = HERE / "unified.csv"
PICTURE = HERE.parents[1] / "docs" / "pictures" / "unified.png"
LONGER_SINGLE = "single x4"
_TIMES = 4  # iterations of the unified model, in those of a single-task model


def main() -> None:
    """Train what is not trained yet, score it and draw it."""
    parser = argparse.ArgumentParser(prog="benchmarks.translation.unified")
    parser.add_argument("--manifest", type=Path, required=True)
    parser.add_argument("--folder", type=Path, default=Path("runs/translation"))
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--longer", help="tasks, with commas")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    if arguments.longer:
        _add_longer(arguments)
        return
    tasks = load_pipeline("brain-unified").parsed_tasks
    every = {"tasks": [str(task) for task in tasks]}
    rows: list[Scores] = []
    tiles = []
    for task in tasks:
        cohort = Cohort("brain", task, arguments.manifest, {})
        models = {
            "single": _model(cohort, {}, str(task), arguments),
            "unified": _model(cohort, every, "unified", arguments),
        }
        rows += _scored(cohort, models, arguments)
        first = CohortData(cohort, cohort.pipeline(), arguments.folder).scored("test")
        tiles.append(_tiles(models, next(first)[1]))
        pd.DataFrame(rows).to_csv(RESULTS, index=False, float_format="%.5g")
    PICTURE.parent.mkdir(parents=True, exist_ok=True)
    half = len(tiles) // 2
    rows_of_two = [left + right for left, right in zip(tiles[:half], tiles[half:], strict=True)]
    save_grid(PICTURE, rows_of_two, 2 * ["source", "single-task", "unified", "target"])
    print(pd.DataFrame(rows).pivot_table("psnr_fit", "task", "model", sort=False).round(2))


def _add_longer(arguments: argparse.Namespace) -> None:
    for name in arguments.longer.split(","):
        cohort = Cohort("brain", Task.parse(name), arguments.manifest, {})
        models = {LONGER_SINGLE: _model(cohort, {}, f"{name} x{_TIMES}", arguments, longer=True)}
        rows = pd.DataFrame(_scored(cohort, models, arguments))
        table = pd.concat([pd.read_csv(RESULTS), rows])
        table.to_csv(RESULTS, index=False, float_format="%.5g")


def _scored(
    cohort: Cohort, models: dict[str, Predict], arguments: argparse.Namespace
) -> list[Scores]:
    """Score models of a task on the test subjects."""
    data = CohortData(cohort, cohort.pipeline(), arguments.folder)
    correlation = data.pipeline.sampling.correlation_length
    return [
        {
            "task": str(cohort.task),
            "model": name,
            "subject": subject,
            **score_subject(predict, example, arguments.seed, correlation),
        }
        for subject, example in data.scored("test")
        for name, predict in models.items()
    ]


def _model(
    cohort: Cohort,
    changes: Changes,
    name: str,
    arguments: argparse.Namespace,
    *,
    longer: bool = False,
) -> Predict:
    pipeline = cohort.pipeline(changes)
    if changes or longer:
        iterations = _TIMES * pipeline.residual.iterations
        pipeline = cohort.pipeline({**changes, "residual": {"iterations": iterations}})
    examples = CohortData(cohort, pipeline, arguments.folder).residual("all", arguments.seed)
    stage = residual_stage(pipeline, StageExamples(examples.train), arguments.seed)
    folder = arguments.folder / "unified" / name / str(arguments.seed)
    network = trained(stage, pipeline, folder, arguments.seed)
    return drdd_predict(network, None, pipeline, cohort.task, Steps(1, 0))


def _tiles(models: dict[str, Predict], example: Example) -> list[Voxels]:
    """Give the middle slice: source, what each model makes of it, target."""
    source, target = slices_of(example, "source"), slices_of(example, "target")
    middle = slice(len(source) // 2, len(source) // 2 + 1)
    made = [translate_slices(predict, source[middle], 0)[0] for predict in models.values()]
    planes = [source[middle][0, source.shape[1] // 2], *made, target[middle][0, 0]]
    return [np.flip((plane.T + 1) / 2, (0, 1)) for plane in planes]


if __name__ == "__main__":
    main()
