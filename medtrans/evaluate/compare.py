"""A model on the subjects of a manifest's split, beside the baselines."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from medtrans.config.terms import Task
from medtrans.data.manifest import Manifest, Pair
from medtrans.errors import ManifestError
from medtrans.evaluate.baselines import ToneCurve, fit_tone_curve, tone_mapped
from medtrans.evaluate.cases import Case, read_cases, window_of
from medtrans.evaluate.result import Evaluation
from medtrans.evaluate.scores import score_regions
from medtrans.evaluate.table import OnCase, Row, rows_of, silent, table_of
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

    Returns
    -------
    Evaluation
        Its table has a row per pair, method and region: what `score_regions` gives.
    """
    pipeline = translator.package.pipeline
    task = translator.package.task(all_settings[0].task if all_settings else None)
    pairs = manifest.require_pairs(*task, split)
    if left_out := manifest.left_out(*task, split):
        say(left_out)
    _require_masks(manifest, pairs)
    train = manifest.pairs(*task, "train")
    curve = fit_tone_curve(read_cases(train), task, pipeline) if train else None
    rows: list[Row] = []
    for done, case in enumerate(read_cases(pairs), start=1):
        truth = case.reference(pipeline, task, region)
        entry = case.pair.source
        names = {"subject": entry.subject, "session": entry.session, "task": str(task)}
        for method, predicted in _predictions(case, task, translator, all_settings, curve):
            rows += rows_of({**names, "method": method}, score_regions(predicted, truth))
        on_case(done, len(pairs))
    return Evaluation(table_of(rows), window_of(pipeline, task))


def _require_masks(manifest: Manifest, pairs: list[Pair]) -> None:
    """Refuse masks that are not there before hours are spent; raises `ManifestError`."""
    gone = [str(pair.mask) for pair in pairs if pair.mask is not None and not pair.mask.exists()]
    if gone:
        raise ManifestError(
            f"{manifest.path} names masks that are not there: {', '.join(gone)}. Correct the paths "
            "in its column mask, or leave them empty."
        )


def _predictions(
    case: Case,
    task: Task,
    translator: Translator,
    all_settings: list[Settings],
    curve: ToneCurve | None,
) -> Iterator[tuple[str, Voxels]]:
    yield "identity", case.source.numpy()
    if curve is not None:
        yield "tone curve", tone_mapped(case, curve, task, translator.package.pipeline)
    for settings in all_settings:
        asked = replace(settings, task=str(task))
        yield settings.mode, translator.translate_volume(case.source, asked).voxels
