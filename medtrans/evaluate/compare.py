"""A model on the subjects of a manifest's split, beside the baselines."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from medtrans.config.terms import Task
from medtrans.data.manifest import Manifest
from medtrans.evaluate.baselines import (
    BASELINES,
    IDENTITY,
    TONE_CURVE,
    ToneCurve,
    fit_tone_curve,
    tone_mapped,
)
from medtrans.evaluate.cases import Case, read_cases, window_of
from medtrans.evaluate.compared import Compared, OnCompared
from medtrans.evaluate.result import Evaluation
from medtrans.evaluate.table import OnCase, Row, rows_of, silent, table_of
from medtrans.evaluate.uncertainty import Uncertainty, score_all
from medtrans.inference.settings import Settings
from medtrans.inference.translator import Translator
from medtrans.system.progress import say
from medtrans.volumes.voxels import Voxels


def evaluate_model(
    translator: Translator,
    manifest: Manifest,
    split: str,
    all_settings: list[Settings],
    region: Path | None = None,
    on_case: OnCase = silent,
    on_compared: OnCompared | None = None,
) -> Evaluation:
    """Score a model in several settings, and the baselines, on every pair of a split.

    The tone curve is fitted on the train split. MR volumes are compared on the scale of their own
    foreground's 99.5th percentile, and again after a least-squares linear fit; volumes with a
    fixed window (CT) on the window's scale.

    Parameters
    ----------
    translator : Translator
    manifest : Manifest
    split : str
    all_settings : list of Settings
        A method each, named by its mode; all of one task. Without any, only baselines are scored.
    region : Path, optional
        A region of interest for every pair for which the manifest names none.
    on_case : callable, optional
    on_compared : callable, optional
        Given each case with what was predicted of it, before the next is read.

    Returns
    -------
    Evaluation
        Its table has a row per pair, method and region: what `score_all` gives.
    """
    pipeline = translator.package.pipeline
    task = translator.package.task(all_settings[0].task if all_settings else None)
    pairs = manifest.require_pairs(*task, split)
    if left_out := manifest.left_out(*task, split):
        say(left_out)
    manifest.require_masks(pairs)
    train = manifest.pairs(*task, "train")
    curve = fit_tone_curve(read_cases(train), task, pipeline) if train else None
    rows: list[Row] = []
    for done, case in enumerate(read_cases(pairs), start=1):
        truth = case.reference(pipeline, task, region)
        entry, predicted, its_rows = case.pair.source, dict[str, Voxels](), list[Row]()
        uncertain: dict[str, Uncertainty] = {}
        names = {"subject": entry.subject, "session": entry.session, "task": str(task)}
        for method, voxels, map_ in _predictions(case, task, translator, all_settings, curve):
            scores = score_all(voxels, truth, map_)
            its_rows += rows_of({**names, "method": method}, scores)
            if on_compared is not None and method not in BASELINES:
                predicted[method] = voxels
                uncertain |= {} if map_ is None else {method: map_}
        if on_compared is not None:
            name = " ".join(filter(None, (entry.subject, entry.session)))
            found = Compared(name, case.source, case.target, truth, predicted, its_rows, uncertain)
            on_compared(found)
        rows += its_rows
        on_case(done, len(pairs))
    return Evaluation(table_of(rows), window_of(pipeline, task))


def _predictions(
    case: Case,
    task: Task,
    translator: Translator,
    all_settings: list[Settings],
    curve: ToneCurve | None,
) -> Iterator[tuple[str, Voxels, Uncertainty | None]]:
    yield IDENTITY, case.source.numpy(), None
    if curve is not None:
        yield TONE_CURVE, tone_mapped(case, curve, task, translator.package.pipeline), None
    for settings in all_settings:
        asked = replace(settings, task=str(task), uncertainty=True)
        made = translator.translate_volume(case.source, asked)
        error = made.error
        known = None if error is None else Uncertainty(error.voxels, error.calibration.within)
        yield settings.mode, made.voxels, known
