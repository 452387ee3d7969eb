"""Scores of a model on the subjects of a manifest's split, beside the baselines."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from monai.data import MetaTensor

from medtrans.config.schema import PercentileScale, Pipeline
from medtrans.config.terms import Contrast, Task
from medtrans.data.manifest import Manifest, Pair
from medtrans.evaluate.baselines import ToneCurve
from medtrans.evaluate.metrics import linear_fit, similarity, unit_scale
from medtrans.evaluate.texture import high_frequency_ratio, slice_ratio
from medtrans.inference.settings import Settings
from medtrans.inference.translator import Translator
from medtrans.preprocessing.foreground import find_foreground
from medtrans.preprocessing.intensity import Profile, measure_profile
from medtrans.preprocessing.slices import AXES
from medtrans.system.progress import say
from medtrans.volumes import read_volume, require_same_grid
from medtrans.volumes.contrast import in_hu
from medtrans.volumes.voxels import Mask, Voxels


@dataclass(frozen=True)
class Case:
    """One subject's pair, read."""

    subject: str
    source: MetaTensor
    target: MetaTensor
    mask: Mask


def evaluate_model(
    translator: Translator,
    manifest: Manifest,
    split: str,
    task_name: str | None,
    all_settings: list[Settings],
    on_subject: Callable[[], None] = lambda: None,
) -> pd.DataFrame:
    """Score a model in several settings, and the baselines, on every pair of a split.

    The tone curve is fitted on the train split. MR volumes are compared on the scale of their own
    foreground's 99.5th percentile, and again after a least-squares linear fit; volumes with a
    fixed window (CT) on the window's scale.

    Returns
    -------
    DataFrame
        One row per subject and method: what `score` gives, in the target's foreground.
    """
    pipeline = translator.package.pipeline
    task = translator.package.task(task_name)
    curve = _fit_tone_curve(manifest.pairs(*task, "train"), task, pipeline)
    rows = []
    for case in _cases(manifest.require_pairs(*task, split)):
        for method, predicted in _predictions(case, task, translator, all_settings, curve):
            axis = _axis(case.target, AXES[pipeline.slices.axis])
            scores = score(predicted, case.target.numpy(), case.mask, _window(pipeline, task), axis)
            rows.append({"subject": case.subject, "task": str(task), "method": method, **scores})
        on_subject()
    return pd.DataFrame(rows)


def score(
    predicted: Voxels,
    reference: Voxels,
    mask: Mask,
    window: Profile | None = None,
    axis: int = 2,
) -> dict[str, float]:
    """Compare two volumes in a mask, raw and after a linear fit.

    Parameters
    ----------
    predicted, reference : array of float32
        Shape (X, Y, Z), any intensity unit.
    mask : array of bool
        Shape (X, Y, Z).
    window : Profile, optional
        The fixed intensity window that becomes [0, 1]; None for MR, where each volume's own
        foreground percentile does.
    axis : int
        The arrays' axis along which the prediction was made, slice by slice.

    Returns
    -------
    dict
        psnr, ssim, mae, high_frequency_ratio and, where there is more than one slice, slice_ratio;
        the same after the fit with the suffix `_fit`.
    """
    if window is None:
        raw, truth = unit_scale(predicted, mask), unit_scale(reference, mask)
    else:
        raw, truth = ((window.normalise(v) + 1) * np.float32(0.5) for v in (predicted, reference))
    plain = _scores(raw, truth, mask, axis)
    fitted = _scores(linear_fit(raw, truth, mask), truth, mask, axis)
    return {**plain, **{f"{key}_fit": value for key, value in fitted.items()}}


def evaluate_files(
    prediction: Path,
    reference: Path,
    mask_path: Path | None,
    window: tuple[float, float] | None = None,
) -> dict[str, float]:
    """Score one file against another on the same grid.

    `window` is the fixed intensity range that becomes [0, 1], as for CT; None for MR.
    """
    predicted, truth = read_volume(prediction), read_volume(reference)
    require_same_grid(predicted, truth, "The prediction and the reference")
    if mask_path is None:
        mask = find_foreground(truth.numpy())
    else:
        mask_volume = read_volume(mask_path)
        require_same_grid(mask_volume, truth, "The mask and the reference")
        mask = mask_volume.numpy() > 0
    if window is None and in_hu(float(truth.numpy().min())):
        say("The reference looks like CT, in HU: score it on a window, --window -1000 2000.")
    scale = None if window is None else Profile(*window)
    return score(predicted.numpy(), truth.numpy(), mask, scale, _axis(truth, AXES["axial"]))


def summarise(table: pd.DataFrame) -> list[dict[str, Any]]:
    """Mean over subjects, one row per method, in the table's order."""
    means = table.groupby("method", sort=False).mean(numeric_only=True).reset_index()
    return [{str(k): v for k, v in row.items()} for row in means.to_dict("records")]


def _scores(found: Voxels, truth: Voxels, mask: Mask, axis: int) -> dict[str, float]:
    scores = similarity(found, truth, mask).as_dict()
    scores["high_frequency_ratio"] = high_frequency_ratio(found, truth, mask, axis)
    between = slice_ratio(found, truth, mask, axis)
    return scores if between is None else {**scores, "slice_ratio": between}


def _axis(volume: MetaTensor, ras_axis: int) -> int:
    """Which axis of the stored array runs along this RAS axis, as nearly as any does.

    A single slice lies across its own axis, whatever the recipe says.
    """
    if list(volume.shape).count(1) == 1:
        return list(volume.shape).index(1)
    columns = np.asarray(volume.affine)[:3, :3]
    return int(np.argmax(np.abs(columns[ras_axis]) / np.linalg.norm(columns, axis=0)))


def _cases(pairs: list[Pair]) -> Iterator[Case]:
    for pair in pairs:
        source, target = read_volume(pair.source.path), read_volume(pair.target.path)
        require_same_grid(source, target, f"{pair.source.path} and {pair.target.path}")
        yield Case(pair.source.subject, source, target, find_foreground(target.numpy()))


def _predictions(
    case: Case,
    task: Task,
    translator: Translator,
    all_settings: list[Settings],
    curve: ToneCurve | None,
) -> Iterator[tuple[str, Voxels]]:
    pipeline = translator.package.pipeline
    yield "identity", case.source.numpy()
    if curve is not None:
        unit = _window(pipeline, task) or Profile(0, 1)
        predicted = unit.restore(curve(_normalised(case.source, task.source, pipeline)))
        yield "tone curve", np.where(case.mask, predicted, np.float32(unit.low))
    for settings in all_settings:
        asked = replace(settings, task=str(task))
        yield settings.mode, translator.translate_volume(case.source, asked).voxels


def _fit_tone_curve(pairs: list[Pair], task: Task, pipeline: Pipeline) -> ToneCurve | None:
    def voxels() -> Iterator[tuple[Voxels, Voxels]]:
        for case in _cases(pairs):
            source = _normalised(case.source, task.source, pipeline)
            target = _normalised(case.target, task.target, pipeline)
            yield source[case.mask], target[case.mask]

    return ToneCurve.fit(voxels()) if pairs else None


def _normalised(volume: MetaTensor, contrast: Contrast, pipeline: Pipeline) -> Voxels:
    values = volume.numpy()
    scale = pipeline.contrasts[contrast]
    return measure_profile(values, find_foreground(values), scale).normalise(values)


def _window(pipeline: Pipeline, task: Task) -> Profile | None:
    scale = pipeline.contrasts[task.target]
    return None if isinstance(scale, PercentileScale) else Profile(*scale.window_hu)
