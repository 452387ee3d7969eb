"""`medtrans evaluate`: a model beside its baselines, or files of any tool against real images."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from medtrans.cli.evaluate_files import Files, score_files
from medtrans.cli.evaluate_model import ModelRequest, score_model
from medtrans.cli.scores import require_files, write_files
from medtrans.config.terms import Mode
from medtrans.errors import UsageError
from medtrans.evaluate.headlines import headlines, headlines_of_regions
from medtrans.evaluate.result import Evaluation, Result
from medtrans.report.index import INDEX, require_pages
from medtrans.system.devices import tune_process

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
        Folder for the tables and the pages.
    seed : int
    pages : bool
        Write pages to look at, too.
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
    pages: bool = True
    overwrite: bool = False

    def __post_init__(self) -> None:
        if self.files.prediction and (self.manifest or self.task or self.modes):
            raise UsageError(
                "--prediction and --reference score files: leave out --manifest, --task and --mode."
            )

    @property
    def folder(self) -> Path | None:
        """Where the pages go, if there are to be any."""
        return self.out if self.pages else None


@dataclass(frozen=True)
class Evaluated:
    """What was found, whole, and the part of it that a person reads."""

    result: Result
    plain: Result


def evaluate(request: EvaluateRequest) -> Evaluated:
    """Score what is asked for, and write tables and pages where a folder is named."""
    tune_process()
    require_files(request.out, overwrite=request.overwrite)
    if request.folder is not None:
        require_pages(request.folder, overwrite=request.overwrite)
    listed = request.files.listed(request.manifest, request.split)
    if not listed:
        return _of_model(request)
    found = score_files(listed, request.files.scale, request.folder)
    return _of_one(request, found) if request.files.are_two else _of_cohort(request, found, {})


def _of_model(request: EvaluateRequest) -> Evaluated:
    assert request.manifest is not None  # `Files.listed` has seen to it
    asked = ModelRequest(
        request.model,
        request.device,
        request.task,
        request.split,
        request.modes,
        request.seed,
        request.files.region,
    )
    found, facts = score_model(request.manifest, asked, request.folder)
    return _of_cohort(request, found, facts)


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
    if request.out is None:
        return {}
    page = {} if request.folder is None else {"page": str(request.folder / INDEX)}
    return {"scores": str(request.out / "scores.csv"), **page}
