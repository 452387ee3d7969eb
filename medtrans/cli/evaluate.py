"""`medtrans evaluate`: a model beside its baselines, or one file against another."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from medtrans.config.terms import MODES, Mode
from medtrans.data.manifest import Manifest
from medtrans.errors import UsageError
from medtrans.evaluate.compare import evaluate_model, summarise
from medtrans.evaluate.scores import evaluate_files
from medtrans.inference.settings import Settings
from medtrans.inference.translator import Translator
from medtrans.system.atomic import make_folder, replacing
from medtrans.system.devices import tune_process
from medtrans.system.progress import say
from medtrans.volumes.marks import require_marked

_MARK = b"subject,task,method,psnr,"  # how our tables of scores begin


@dataclass(frozen=True)
class ModelRequest:
    """The arguments of `medtrans evaluate` for a model.

    Attributes
    ----------
    manifest : Path or None
        The CSV with the pairs to score; needed.
    model, device : str
    task : str or None
        None for the model's default.
    split : str
        "train", "val" or "test".
    modes : tuple of str
        Empty for all that the model has.
    out : Path or None
        Folder for scores.csv.
    seed : int
    overwrite : bool
        Replace a scores.csv that medtrans did not write.
    """

    manifest: Path | None
    model: str
    device: str
    task: str | None
    split: str
    modes: tuple[Mode, ...]
    out: Path | None
    seed: int
    overwrite: bool = False


@dataclass(frozen=True)
class PairRequest:
    """The arguments of `medtrans evaluate` for one file against another.

    Attributes
    ----------
    prediction, reference : Path
        On one grid.
    mask : Path or None
        Where to score; by default the reference's foreground.
    window : pair of float or None
        The intensities that become 0 and 1, in the files' unit; None for MR.
    """

    prediction: Path
    reference: Path
    mask: Path | None
    window: tuple[float, float] | None

    def __post_init__(self) -> None:
        if self.window is not None and self.window[0] >= self.window[1]:
            low, high = self.window
            raise UsageError(f"--window is its lower end, then its upper, not {low} {high}.")


def pair_request(
    files: tuple[Path | None, Path | None],
    mask: Path | None,
    window: tuple[float, float] | None,
    model: ModelRequest,
) -> PairRequest:
    """Make the request for two files; raises `UsageError` for what does not go with them."""
    if model.manifest or model.task or model.modes or model.out:
        raise UsageError(
            "--prediction and --reference score two files: leave out --manifest, --task, --mode "
            "and --out."
        )
    prediction, reference = files
    if prediction is None or reference is None:
        raise UsageError("--prediction and --reference go together.")
    return PairRequest(prediction, reference, mask, window)


def write_scores(path: Path, table: pd.DataFrame) -> None:
    """Write the scores as a CSV; raises `OutputError` when it cannot be written."""
    with replacing(path) as partial:
        table.to_csv(partial, index=False)


def evaluate_manifest(request: ModelRequest) -> dict[str, Any]:
    """Score a model and its baselines on a split."""
    if request.manifest is None:
        raise UsageError("Give --manifest CSV, or --prediction and --reference.")
    scores = None if request.out is None else make_folder(request.out) / "scores.csv"
    require_marked([scores] if scores else [], _MARK, overwrite=request.overwrite)
    cohort = Manifest.read(request.manifest)
    if not cohort.split_is_stated:
        say(
            f"{request.manifest} has no split column, so medtrans chose: {cohort.summary()}. "
            "Subjects that the model was trained on may be among those scored."
        )
    tune_process()
    translator = Translator.load(request.model, request.device)
    modes = request.modes or (MODES if translator.package.noise is not None else MODES[:1])
    settings = [Settings(mode=mode, seed=request.seed) for mode in modes]
    table = evaluate_model(translator, cohort, request.split, request.task, settings)
    if scores is not None:
        write_scores(scores, table)
    return {
        **({} if scores is None else {"scores": str(scores)}),
        "model": translator.package.name,
        "split": request.split,
        "subjects": [_known(row) for row in table.to_dict("records")],
        "mean": summarise(table),
    }


def evaluate_pair(request: PairRequest) -> dict[str, Any]:
    """Score one file against another."""
    return dict(evaluate_files(request.prediction, request.reference, request.mask, request.window))


def _known(row: Mapping[Any, Any]) -> dict[str, Any]:
    """Leave out what a subject has no value for, which a table holds as not a number."""
    return {str(key): value for key, value in row.items() if value == value}  # noqa: PLR0124
