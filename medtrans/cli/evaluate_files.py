"""`medtrans evaluate` of files: two, two folders of them, or a CSV that lists them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from medtrans.data.predictions import (
    Prediction,
    holds_volumes,
    lists_predictions,
    match_folders,
    read_predictions,
)
from medtrans.errors import UsageError
from medtrans.evaluate.case_scene import Naming
from medtrans.evaluate.files import evaluate_predictions
from medtrans.evaluate.pages import EvaluationPages
from medtrans.evaluate.result import Evaluation
from medtrans.preprocessing.intensity import Profile
from medtrans.report.made import versions
from medtrans.system.progress import say, track


@dataclass(frozen=True)
class Files:
    """What `medtrans evaluate` is given of files.

    Attributes
    ----------
    prediction, reference : Path or None
        Two files on one grid, or two folders of them.
    mask, region : Path or None
        Where the patient is, by default the reference's foreground; and a region of interest.
    window : pair of float or None
        The intensities that become 0 and 1, in the files' unit; None for MR.
    uncertainty : Path or None
        What says how far off the prediction is: a file, or a folder of them.
    """

    prediction: Path | None
    reference: Path | None
    mask: Path | None
    region: Path | None
    window: tuple[float, float] | None
    uncertainty: Path | None = None

    def __post_init__(self) -> None:
        if (self.prediction is None) != (self.reference is None):
            raise UsageError("--prediction and --reference go together.")
        if self.uncertainty is not None and self.prediction is None:
            raise UsageError(
                "--uncertainty goes with --prediction and --reference. A model says itself how far "
                "off it is, and a CSV of predictions has a column for it."
            )
        if self.window is not None and self.window[0] >= self.window[1]:
            low, high = self.window
            raise UsageError(f"--window is its lower end, then its upper, not {low} {high}.")

    @property
    def scale(self) -> Profile | None:
        """The window as what maps intensities."""
        return None if self.window is None else Profile(*self.window)

    @property
    def are_two(self) -> bool:
        """Whether one prediction is scored, and not a cohort of them."""
        return self.prediction is not None and not holds_volumes(self.prediction)

    def listed(self, csv: Path | None, split: str) -> list[Prediction]:
        """List what to score; empty where a model is to be scored instead.

        Parameters
        ----------
        csv : Path or None
            A manifest, or a CSV of predictions.
        split : str
            Which rows of such a CSV are taken, where it has a column for it.

        Raises
        ------
        UsageError
            When the options do not go together, or nothing of two folders does.
        ManifestError
            When the CSV has a problem.
        """
        if self.prediction is not None and self.reference is not None:
            return self._named(self.prediction, self.reference)
        if csv is None:
            raise UsageError("Give --manifest CSV, or --prediction and --reference.")
        if lists_predictions(csv):
            return [
                replace(one, foreground=self.mask, region=one.region or self.region)
                for one in read_predictions(csv, split)
            ]
        if self.mask is not None or self.window is not None:
            raise UsageError(
                "--mask and --window are for files: a model's foreground is found and its window "
                "is its recipe's. Leave them out; --region and a column mask name regions."
            )
        return []

    def _named(self, prediction: Path, reference: Path) -> list[Prediction]:
        if self.are_two:
            return [
                Prediction(
                    prediction.name,
                    prediction,
                    reference,
                    self.mask,
                    self.region,
                    uncertainty=self.uncertainty,
                )
            ]
        if not reference.is_dir():
            raise UsageError(
                f"{prediction} is a folder and {reference} a file: give two files or two folders."
            )
        more = {
            "foreground": self.mask,
            "region": self.region,
            "uncertainty": self.uncertainty,
        }
        found, left_out = match_folders(prediction, reference, more)
        for sentence in left_out:
            say(sentence)
        return found


def score_files(
    listed: Sequence[Prediction], scale: Profile | None, folder: Path | None
) -> Evaluation:
    """Score predictions, and write a page of each case and their index where a folder is named."""
    pages = None
    if folder is not None:
        naming = Naming("", "", {"Versions": versions()})
        pages = EvaluationPages(folder, len(listed), naming)
    with track("evaluating") as update:
        found = evaluate_predictions(listed, scale, update, None if pages is None else pages.add)
    if pages is not None:
        pages.save(found)
    return found
