"""The words of the field that everything else is written in: contrast, task, mode, axis, stage."""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from typing import Literal, NamedTuple, cast, get_args

from medtrans.errors import UsageError

Contrast = Literal["t1", "t1c", "t2", "flair", "pd", "mr", "ct"]
CONTRASTS: tuple[Contrast, ...] = get_args(Contrast)
Mode = Literal["fidelity", "balanced", "realistic"]
MODES: tuple[Mode, ...] = get_args(Mode)
DEFAULT_MODE: Mode = "fidelity"
Axis = Literal["sagittal", "coronal", "axial"]
AXIS_NAMES: tuple[Axis, ...] = get_args(Axis)
BrainSearch = Literal["auto", "none"]
BRAIN_SEARCHES: tuple[BrainSearch, ...] = get_args(BrainSearch)
Kind = Literal["nifti", "dicom", "itk", "mgh"]  # of files
StageName = Literal["noise", "residual"]
STAGES: tuple[StageName, ...] = get_args(StageName)
StageChoice = Literal["all", "noise", "residual"]
STAGE_CHOICES: tuple[StageChoice, ...] = get_args(StageChoice)


class Task(NamedTuple):
    """A translation from one contrast to another, spelt `t1-to-t2`."""

    source: Contrast
    target: Contrast

    def __str__(self) -> str:
        return f"{self.source}-to-{self.target}"

    @classmethod
    def parse(cls, text: str) -> Task:
        """Read `t1-to-t2`; raises `UsageError` that names the nearest contrast."""
        source, separator, target = text.strip().lower().partition("-to-")
        if not separator:
            raise UsageError(
                f"'{text}' is not a task: a task is SOURCE-to-TARGET, for example t1-to-t2, "
                f"with the contrasts {', '.join(CONTRASTS)}."
            )
        for name in (source, target):
            if name not in CONTRASTS:
                raise UsageError(
                    f"The task '{text}' names an unknown contrast '{name}'"
                    f"{nearest(name, CONTRASTS)}; known are {', '.join(CONTRASTS)}."
                )
        if source == target:
            raise UsageError(f"The task '{text}' has the same source and target contrast.")
        return cls(cast(Contrast, source), cast(Contrast, target))


def nearest(word: str, known: Sequence[str]) -> str:
    """Name the most similar known word, as the end of an error's sentence; empty if none is.

    Parameters
    ----------
    word
        A mistyped word.
    known
        What it could have been.
    """
    close = difflib.get_close_matches(word, known, n=1, cutoff=0.5)
    return f"; did you mean '{close[0]}'?" if close else ""
