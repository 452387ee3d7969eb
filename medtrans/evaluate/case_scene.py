"""The volumes and the curves of a scored case, to look at."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import NamedTuple

from monai.data import MetaTensor

from medtrans.evaluate.compared import Compared
from medtrans.evaluate.uncertainty import absolute_error, sparsification
from medtrans.report.chart import Chart
from medtrans.report.layers import error_layer, like
from medtrans.report.scene import Layer, Scene, arrange
from medtrans.volumes.contrast import in_hu


class Naming(NamedTuple):
    """What an evaluation is of, and what is to be said of how it was made.

    Attributes
    ----------
    source, target : str
        Names of contrasts; empty where they are not known.
    facts : mapping
        What made the predictions.
    """

    source: str
    target: str
    facts: Mapping[str, object]


def scene_of(case: Compared, naming: Naming) -> Scene:
    """Arrange source, predictions, the real image, and what the first prediction is wrong by.

    Where no source is known, the real image leads.
    """
    return arrange(list(_layers(case, naming)))


def charts_of(case: Compared) -> list[Chart]:
    """Draw what an uncertainty map finds of the errors, for each method that has one."""
    inside = case.truth.foreground
    charts = []
    for method, known in case.uncertain.items():
        error = absolute_error(case.predicted[method], case.truth)[inside]
        found = sparsification(known.voxels[inside], error)
        percent = (100 * found.taken_out).tolist()
        curves = {
            "by the uncertainty": list(zip(percent, found.by_map.tolist(), strict=True)),
            "at best": list(zip(percent, found.at_best.tolist(), strict=True)),
        }
        title = f"Mean error, {method}, of the voxels left when the most uncertain % are taken out"
        charts.append(Chart(title, curves))
    return charts


def _layers(case: Compared, naming: Naming) -> Iterator[Layer]:
    unit = _unit(case.target)
    reference = Layer("reference", f"Reference {naming.target}".strip(), case.target, unit)
    if case.source is None:
        yield reference
    else:
        yield Layer("source", f"Source {naming.source}", case.source, _unit(case.source))
    several = len(case.predicted) > 1
    for method, voxels in case.predicted.items():
        name = f"SYNTHETIC {naming.target}".strip() if not several else f"SYNTHETIC, {method}"
        yield Layer("synthetic", name, like(case.target, voxels), unit)
    if case.source is not None:
        yield reference
    method, first = next(iter(case.predicted.items()))
    error = error_layer(first, case.target, unit, case.truth.foreground)
    yield error._replace(name=f"Error, {method}" if several else error.name)
    if (known := case.uncertain.get(method)) is not None:
        name = f"Uncertainty, {method}" if several else "Uncertainty"
        yield Layer("uncertainty", name, like(case.target, known.voxels), unit)


def _unit(volume: MetaTensor) -> str:
    return "HU" if in_hu(float(volume.min())) else ""
