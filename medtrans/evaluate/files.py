"""Files of any tool against real images on the same grid."""

from __future__ import annotations

from collections.abc import Sequence

from medtrans.data.predictions import Prediction
from medtrans.evaluate.regions import regions_of
from medtrans.evaluate.result import Evaluation
from medtrans.evaluate.scores import Reference, array_axis, score_regions
from medtrans.evaluate.table import OnCase, Row, rows_of, silent, table_of
from medtrans.preprocessing.intensity import Profile
from medtrans.preprocessing.slices import AXES
from medtrans.system.progress import say
from medtrans.volumes import read_volume, require_same_grid
from medtrans.volumes.contrast import in_hu


def evaluate_predictions(
    predictions: Sequence[Prediction], window: Profile | None = None, on_case: OnCase = silent
) -> Evaluation:
    """Score predictions; the axial direction is taken for that of their slices.

    Parameters
    ----------
    predictions : sequence of Prediction
        Those of one reference that follow each other share what is measured of it.
    window : Profile, optional
        The fixed intensity range that becomes [0, 1], as for CT; None for MR.
    on_case : callable, optional

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
    last: Prediction | None = None
    for done, one in enumerate(predictions, start=1):
        if last is None or one.truth != last.truth:
            volume = read_volume(one.reference)
            regions = regions_of(volume, one.foreground, one.region)
            axis = array_axis(volume, AXES["axial"])
            truth = Reference(volume.numpy(), regions, window, axis)
            if window is None and in_hu(float(truth.voxels.min())):
                say(_LOOKS_LIKE_CT.format(one.reference))
        last, predicted = one, read_volume(one.prediction)
        what = f"The prediction {one.prediction} and the reference {one.reference}"
        require_same_grid(predicted, volume, what)
        names = {"subject": one.subject, "session": "", "task": "", "method": one.method}
        rows += rows_of(names, score_regions(predicted.numpy(), truth))
        on_case(done, len(predictions))
    return Evaluation(table_of(rows), window)


_LOOKS_LIKE_CT = "The reference {} looks like CT, in HU: score it on a window, --window -1000 2000."
