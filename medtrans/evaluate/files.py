"""Files of any tool against real images on the same grid."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from monai.data import MetaTensor

from medtrans.data.predictions import Prediction
from medtrans.errors import FileError
from medtrans.evaluate.compared import Compared, OnCompared
from medtrans.evaluate.regions import regions_of
from medtrans.evaluate.result import Evaluation
from medtrans.evaluate.scores import Reference, array_axis, score_regions
from medtrans.evaluate.table import OnCase, Row, rows_of, silent, table_of
from medtrans.evaluate.uncertainty import Uncertainty, with_uncertainty
from medtrans.package.folder import read_widths
from medtrans.preprocessing.intensity import Profile
from medtrans.preprocessing.slices import AXES
from medtrans.system.progress import say
from medtrans.volumes import read_volume, require_same_grid
from medtrans.volumes.contrast import in_hu
from medtrans.volumes.sidecar import read_sidecar, sidecar_of
from medtrans.volumes.voxels import Voxels


def evaluate_predictions(
    predictions: Sequence[Prediction],
    window: Profile | None = None,
    on_case: OnCase = silent,
    on_compared: OnCompared | None = None,
) -> Evaluation:
    """Score predictions; the axial direction is taken for that of their slices.

    Parameters
    ----------
    predictions : sequence of Prediction
        Those of one subject and reference are scored together, in the order of the first.
    window : Profile, optional
        The fixed intensity range that becomes [0, 1], as for CT; None for MR.
    on_case : callable, optional
    on_compared : callable, optional
        Given each subject with what was predicted of it, before the next is read.

    Returns
    -------
    Evaluation
        As that of `evaluate_model`, with an empty task.

    Raises
    ------
    FileError
        When a file cannot be read, or lies on another grid than its reference.
    """
    rows: list[Row] = []
    done = 0
    for of_one in _by_case(predictions):
        volume, truth = _truth(of_one[0], window)
        predicted, its_rows = dict[str, Voxels](), list[Row]()
        uncertain: dict[str, Uncertainty] = {}
        for one in of_one:
            voxels, map_ = _read(one, volume), _read_uncertainty(one, volume)
            names = {"subject": one.subject, "session": "", "task": "", "method": one.method}
            scores = with_uncertainty(score_regions(voxels, truth), map_, voxels, truth)
            its_rows += rows_of(names, scores)
            if on_compared is not None:
                predicted[one.method] = voxels
                uncertain |= {} if map_ is None else {one.method: map_}
            done += 1
            on_case(done, len(predictions))
        if on_compared is not None:
            name = of_one[0].subject
            on_compared(Compared(name, None, volume, truth, predicted, its_rows, uncertain))
        rows += its_rows
    return Evaluation(table_of(rows), window)


def _by_case(predictions: Sequence[Prediction]) -> Iterable[list[Prediction]]:
    """Put together what is of one subject and scored against the same files."""
    cases: dict[tuple[object, ...], list[Prediction]] = {}
    for one in predictions:
        cases.setdefault((one.subject, *one.truth), []).append(one)
    return cases.values()


def _truth(one: Prediction, window: Profile | None) -> tuple[MetaTensor, Reference]:
    """Read the real image, and measure where it is scored."""
    volume = read_volume(one.reference)
    regions = regions_of(volume, one.foreground, one.region)
    if window is None and in_hu(float(volume.min())):
        say(_LOOKS_LIKE_CT.format(one.reference))
    axis = array_axis(volume, AXES["axial"])
    return volume, Reference(volume.numpy(), regions, window, axis)


def _read(one: Prediction, volume: MetaTensor) -> Voxels:
    predicted = read_volume(one.prediction)
    what = f"The prediction {one.prediction} and the reference {one.reference}"
    require_same_grid(predicted, volume, what)
    voxels: Voxels = predicted.numpy()
    return voxels


def _read_uncertainty(one: Prediction, volume: MetaTensor) -> Uncertainty | None:
    """Read a map, whose intervals its sidecar may state."""
    path = one.uncertainty
    if path is None:
        return None
    read = read_volume(path)
    require_same_grid(read, volume, f"The uncertainty map {path} and the reference {one.reference}")
    voxels = read.numpy()
    if voxels.min() < 0:
        raise FileError(
            f"{path} has values below 0; an uncertainty map says how far off, 0 or more."
        )
    entries = read_sidecar(sidecar_of(path, "nifti")) or {}
    return Uncertainty.of(voxels, read_widths(entries))


_LOOKS_LIKE_CT = "The reference {} looks like CT, in HU: score it on a window, --window -1000 2000."
