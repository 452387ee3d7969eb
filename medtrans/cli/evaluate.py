"""`medtrans evaluate`: a model beside its baselines, or files of any tool against real images."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from medtrans.cli.evaluate_files import Files
from medtrans.cli.scores import headlines, headlines_of_regions, require_files, write_files
from medtrans.config.terms import MODES, Mode
from medtrans.data.manifest import Manifest
from medtrans.errors import UsageError
from medtrans.evaluate.compare import evaluate_model
from medtrans.evaluate.files import evaluate_predictions
from medtrans.evaluate.result import Evaluation, Result
from medtrans.inference.settings import Settings
from medtrans.inference.translator import Translator
from medtrans.system.devices import tune_process
from medtrans.system.progress import say, track

__all__ = ["EvaluateRequest", "Evaluated", "Files", "evaluate"]


@dataclass(frozen=True)
class EvaluateRequest:
    """The arguments of `medtrans evaluate`.

    Attributes
    ----------
    manifest : Path or None
        The CSV with the pairs, or the predictions, to score.
    model, device : str
    task : str or None
        None for the model's default.
    split : str
        "train", "val" or "test".
    modes : tuple of str
        Empty for all that the model has.
    files : Files
        What to score instead of a model.
    out : Path or None
        Folder for the tables.
    seed : int
    overwrite : bool
        Replace files in `out` that medtrans did not write.
    """

    manifest: Path | None
    model: str
    device: str
    task: str | None
    split: str
    modes: tuple[Mode, ...]
    files: Files
    out: Path | None
    seed: int
    overwrite: bool = False

    def __post_init__(self) -> None:
        if self.files.prediction and (self.manifest or self.task or self.modes):
            raise UsageError(
                "--prediction and --reference score files: leave out --manifest, --task and --mode."
            )


@dataclass(frozen=True)
class Evaluated:
    """What was found, whole, and the part of it that a person reads."""

    result: Result
    plain: Result


def evaluate(request: EvaluateRequest) -> Evaluated:
    """Score what is asked for, and write the tables where a folder is named."""
    tune_process()
    require_files(request.out, overwrite=request.overwrite)
    listed = request.files.listed(request.manifest, request.split)
    if not listed:
        return _evaluate_model(request)
    with track("evaluating") as update:
        found = evaluate_predictions(listed, request.files.scale, update)
    return _of_one(request, found) if request.files.are_two else _of_cohort(request, found, {})


def _evaluate_model(request: EvaluateRequest) -> Evaluated:
    assert request.manifest is not None  # `Files.listed` has seen to it
    cohort = Manifest.read(request.manifest)
    if not cohort.split_is_stated:
        say(
            f"{request.manifest} has no split column, so medtrans chose: {cohort.summary()}. "
            "Subjects that the model was trained on may be among those scored."
        )
    translator = Translator.load(request.model, request.device)
    modes = request.modes or (MODES if translator.package.noise is not None else MODES[:1])
    settings = [Settings(mode=mode, seed=request.seed, task=request.task) for mode in modes]
    with track("evaluating") as update:
        found = evaluate_model(
            translator, cohort, request.split, settings, request.files.region, update
        )
    return _of_cohort(request, found, {"model": translator.package.name, "split": request.split})


def _of_cohort(request: EvaluateRequest, found: Evaluation, facts: Result) -> Evaluated:
    facts = _files(request) | facts
    result = facts | found.of_cohort()
    if request.out is not None:
        write_files(request.out, found, result)
    table = {"mean over n subjects [95 % interval]": headlines(found.summary)}
    return Evaluated(result, facts | table | {"scale": result["scale"]["normalisation"]})


def _of_one(request: EvaluateRequest, found: Evaluation) -> Evaluated:
    result = found.of_one() | _files(request)
    if request.out is not None:
        write_files(request.out, found, result)
    plain = {k: v for k, v in result.items() if k not in ("regions", "scale")}
    scale = result["scale"]["normalisation"]
    return Evaluated(
        result, plain | {"other regions": headlines_of_regions(result), "scale": scale}
    )


def _files(request: EvaluateRequest) -> Result:
    return {} if request.out is None else {"scores": str(request.out / "scores.csv")}
