"""`medtrans evaluate`: a model beside its baselines, or one file against another."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from medtrans.config.terms import MODES
from medtrans.data.manifest import Manifest
from medtrans.errors import UsageError
from medtrans.evaluate.compare import evaluate_files, evaluate_model, summarise
from medtrans.inference.settings import Settings
from medtrans.inference.translator import Translator
from medtrans.system.atomic import make_folder
from medtrans.system.devices import tune_process
from medtrans.system.progress import say


def evaluate_manifest(
    model: str,
    manifest: Path | None,
    task: str | None,
    split: str,
    modes: list[str] | None,
    out: Path | None,
    seed: int,
    device: str,
) -> dict[str, Any]:
    """Score a model and its baselines on a split."""
    if manifest is None:
        raise UsageError("Give --manifest CSV, or --prediction and --reference.")
    scores = None if out is None else make_folder(out) / "scores.csv"
    cohort = Manifest.read(manifest)
    if not cohort.split_is_stated:
        say(
            f"{manifest} has no split column, so medtrans chose: {cohort.summary()}. Subjects that "
            "the model was trained on may be among those scored."
        )
    tune_process()
    translator = Translator.load(model, device)
    supported = MODES if translator.package.noise is not None else MODES[:1]
    settings = [Settings(mode=m, seed=seed) for m in modes or supported]  # type: ignore[arg-type]
    table = evaluate_model(translator, cohort, split, task, settings)
    if scores is not None:
        table.to_csv(scores, index=False)
    return {
        **({} if scores is None else {"scores": str(scores)}),
        "model": translator.package.name,
        "split": split,
        "subjects": [_known(row) for row in table.to_dict("records")],
        "mean": summarise(table),
    }


def evaluate_pair(
    prediction: Path | None,
    reference: Path | None,
    mask: Path | None,
    window: tuple[float, float] | None,
    others: Iterable[Any] = (),
) -> dict[str, Any]:
    """Score one file against another; `others` are arguments that this has no use for."""
    if any(others):
        raise UsageError(
            "--prediction and --reference score two files: leave out --manifest, --task, --mode "
            "and --out."
        )
    if prediction is None or reference is None:
        raise UsageError("--prediction and --reference go together.")
    if window is not None and window[0] >= window[1]:
        raise UsageError(f"--window is its lower end, then its upper, not {window[0]} {window[1]}.")
    return dict(evaluate_files(prediction, reference, mask, window))


def _known(row: Mapping[Any, Any]) -> dict[str, Any]:
    """Leave out what a subject has no value for, which a table holds as not a number."""
    return {str(key): value for key, value in row.items() if value == value}  # noqa: PLR0124
