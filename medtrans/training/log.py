"""What training writes while it runs: CSV always, TensorBoard when it is installed, pictures."""

from __future__ import annotations

import csv
import errno
import importlib.util
import io
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Protocol

from medtrans.report.pictures import save_grid
from medtrans.system.atomic import make_folder, output_errors, replacing
from medtrans.training.validation import Outcome


class _Board(Protocol):
    """What is used of TensorBoard's SummaryWriter."""

    def add_scalar(self, tag: str, scalar_value: float, global_step: int) -> None: ...

    def close(self) -> None: ...


class OnRow(Protocol):
    """Told that a row has been written."""

    def __call__(self, step: int, *, validated: bool) -> None: ...


def _told_nothing(step: int, *, validated: bool) -> None:
    """Do nothing with it."""


class TrainingLog:
    """The log of one stage: training.csv, validation.csv, pictures/, tensorboard/.

    Parameters
    ----------
    folder : Path
        The stage's; it exists.
    step : int
        The step that training goes on from. Rows after it are those of a run that was stopped
        later than its last checkpoint; they are dropped, so that a resumed run's log reads like an
        uninterrupted one's.

    Attributes
    ----------
    on_row : callable
        Told of each row that has been written.
    """

    def __init__(self, folder: Path, step: int) -> None:
        self.folder = folder
        self.on_row: OnRow = _told_nothing
        self.board = _tensorboard(folder / "tensorboard")
        self.columns: dict[str, list[str]] = {}  # of an older version's file, those stay
        for name in ("training", "validation"):
            if kept := _drop_rows_after(self._csv(name), step):
                self.columns[name] = kept[0]

    def training(self, step: int, values: Mapping[str, float]) -> None:
        """Write a row of training.csv."""
        self._row("training", step, values)
        self.on_row(step, validated=False)

    def validation(self, step: int, outcome: Outcome) -> None:
        """Write a row of validation.csv, and a picture of what was predicted."""
        self._row("validation", step, outcome.scores)
        if outcome.rows:
            pictures = make_folder(self.folder / "pictures")
            save_grid(pictures / f"{step:07d}.png", outcome.rows, outcome.captions, scale=2)
        self.on_row(step, validated=True)

    def close(self) -> None:
        """Close TensorBoard's file, if there is one."""
        if self.board is not None:
            with output_errors(self.folder / "tensorboard"):
                self.board.close()

    def _csv(self, name: str) -> Path:
        return self.folder / f"{name}.csv"

    def _row(self, name: str, step: int, values: Mapping[str, float]) -> None:
        rows = []
        if name not in self.columns:
            self.columns[name] = ["step", *values]
            rows.append(self.columns[name])
        texts = {"step": str(step), **{k: f"{value:.6g}" for k, value in values.items()}}
        rows.append([texts.get(column, "") for column in self.columns[name]])
        _append(self._csv(name), rows)
        if self.board is not None:
            with output_errors(self.folder / "tensorboard"):
                for key, value in values.items():
                    self.board.add_scalar(f"{name}/{key}", value, step)


def _tensorboard(folder: Path) -> _Board | None:
    if importlib.util.find_spec("tensorboard") is None:
        return None
    from torch.utils.tensorboard import SummaryWriter

    with output_errors(folder):
        board: _Board = SummaryWriter(str(folder))
    return board


def _append(path: Path, rows: list[list[str]]) -> None:
    """Add rows to a CSV; where they do not fit on the disk, none of them, and not a part of one."""
    text = io.StringIO()
    csv.writer(text).writerows(rows)
    with output_errors(path), path.open("ab", buffering=0) as file:
        size, content = file.tell(), text.getvalue().encode()
        try:
            if file.write(content) < len(content):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        except OSError:
            file.truncate(size)
            raise


def _drop_rows_after(path: Path, step: int) -> list[list[str]]:
    """Rewrite a CSV without later rows, and without one that a power cut left half-written."""
    if not path.exists():
        return []
    with path.open(newline="", encoding="utf-8") as file:
        rows = list(csv.reader(line for line in file if line.endswith("\n")))
    kept = [
        row
        for number, row in enumerate(rows)
        if not number or (len(row) == len(rows[0]) and row[0].isdigit() and int(row[0]) <= step)
    ]
    with replacing(path) as partial, partial.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows(kept)
    return kept
