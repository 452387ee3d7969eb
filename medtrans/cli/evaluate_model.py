"""`medtrans evaluate` of a model, beside its baselines."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from medtrans.config.terms import MODES, Mode
from medtrans.data.manifest import Manifest
from medtrans.evaluate.case_scene import Naming
from medtrans.evaluate.compare import evaluate_model
from medtrans.evaluate.pages import EvaluationPages
from medtrans.evaluate.result import Evaluation
from medtrans.inference.settings import Settings
from medtrans.inference.translator import Translator
from medtrans.report.made import contrast_name, versions
from medtrans.system.progress import say, track


@dataclass(frozen=True)
class ModelRequest:
    """Which model is scored, and on what.

    Attributes
    ----------
    model, device : str
    task : str or None
        None for the model's default.
    split : str
        "train", "val" or "test".
    modes : tuple of str
        Empty for all that the model has.
    seed : int
    region : Path or None
        A region of interest for pairs for which the manifest names none.
    """

    model: str
    device: str
    task: str | None
    split: str
    modes: tuple[Mode, ...]
    seed: int
    region: Path | None


def score_model(
    csv: Path, asked: ModelRequest, folder: Path | None
) -> tuple[Evaluation, dict[str, object]]:
    """Score a model on a manifest's pairs; returns what was found, and of what.

    Parameters
    ----------
    csv : Path
        The manifest.
    asked : ModelRequest
    folder : Path or None
        Gets the pages.
    """
    cohort = Manifest.read(csv)
    if not cohort.split_is_stated:
        say(
            f"{csv} has no split column, so medtrans chose: {cohort.summary()}. "
            "Subjects that the model was trained on may be among those scored."
        )
    translator = Translator.load(asked.model, asked.device)
    modes = asked.modes or (MODES if translator.package.noise is not None else MODES[:1])
    settings = [Settings(mode=mode, seed=asked.seed, task=asked.task) for mode in modes]
    pages = None if folder is None else _pages(folder, cohort, asked, translator)
    with track("evaluating") as update:
        found = evaluate_model(
            translator,
            cohort,
            asked.split,
            settings,
            asked.region,
            update,
            None if pages is None else pages.add,
        )
    if pages is not None:
        pages.save(found)
    return found, {"model": translator.package.name, "split": asked.split}


def _pages(
    folder: Path, cohort: Manifest, asked: ModelRequest, translator: Translator
) -> EvaluationPages:
    package = translator.package
    task = package.task(asked.task)
    facts = {
        "Model": package.name,
        "Model SHA256": package.sha256,
        "Task": str(task),
        "Split": asked.split,
        "Seed": asked.seed,
        "Versions": versions(),
    }
    naming = Naming(contrast_name(task.source), contrast_name(task.target), facts)
    return EvaluationPages(folder, len(cohort.pairs(*task, asked.split)), naming)
