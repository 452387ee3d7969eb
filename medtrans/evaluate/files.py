"""Files of any tool against real images on the same grid."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from medtrans.data.predictions import Prediction
from medtrans.evaluate.compared import Compared, OnCompared
from medtrans.evaluate.reading import read_prediction, read_truth, read_uncertainty
from medtrans.evaluate.result import Evaluation
from medtrans.evaluate.table import OnCase, Row, rows_of, silent, table_of
from medtrans.evaluate.uncertainty import Uncertainty, score_all
from medtrans.preprocessing.intensity import Profile
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
        volume, truth = read_truth(of_one[0], window)
        predicted, its_rows = dict[str, Voxels](), list[Row]()
        uncertain: dict[str, Uncertainty] = {}
        for one in of_one:
            voxels, map_ = read_prediction(one, volume), read_uncertainty(one, volume)
            names = {"subject": one.subject, "session": "", "task": "", "method": one.method}
            scores = score_all(voxels, truth, map_)
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
