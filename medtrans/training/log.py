"""What training writes while it runs: CSV always, TensorBoard when it is installed, pictures."""

from __future__ import annotations

import csv
import importlib.util
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
    """

    def __init__(self, folder: Path, step: int) -> None:
        self.folder = folder
        self.board = _tensorboard(folder / "tensorboard")
        self.columns: dict[str, list[str]] = {}  # of an older version's file, those stay
        for name in ("training", "validation"):
            if kept := _drop_rows_after(self._csv(name), step):
                self.columns[name] = kept[0]

    def training(self, step: int, values: Mapping[str, float]) -> None:
        """Write a row of training.csv."""
        self._row("training", step, values)

    def validation(self, step: int, outcome: Outcome) -> None:
        """Write a row of validation.csv, and a picture of what was predicted."""
        self._row("validation", step, outcome.scores)
        if outcome.rows:
            pictures = make_folder(self.folder / "pictures")
            save_grid(pictures / f"{step:07d}.png", outcome.rows, outcome.captions, scale=2)

    def close(self) -> None:
        """Close TensorBoard's file, if there is one."""
        if self.board is not None:
            self.board.close()

    def _csv(self, name: str) -> Path:
        return self.folder / f"{name}.csv"

    def _row(self, name: str, step: int, values: Mapping[str, float]) -> None:
        path = self._csv(name)
        columns = self.columns.get(name)
        with output_errors(path), path.open("a", newline="", encoding="utf-8") as file:
            writer = csv.writer(file)
            if columns is None:
                columns = self.columns[name] = ["step", *values]
                writer.writerow(columns)
            texts = {"step": str(step), **{k: f"{value:.6g}" for k, value in values.items()}}
            writer.writerow([texts.get(column, "") for column in columns])
        if self.board is not None:
            with output_errors(self.folder / "tensorboard"):
                for key, value in values.items():
                    self.board.add_scalar(f"{name}/{key}", value, step)


def _tensorboard(folder: Path) -> _Board | None:
    if importlib.util.find_spec("tensorboard") is None:
        return None
    from torch.utils.tensorboard import SummaryWriter

    board: _Board = SummaryWriter(str(folder))
    return board


def _drop_rows_after(path: Path, step: int) -> list[list[str]]:
    """Rewrite a CSV without later rows, or those that a killed process left half-written."""
    if not path.exists():
        return []
    with path.open(newline="", encoding="utf-8") as file:
        rows = list(csv.reader(file))
    kept = [
        row
        for number, row in enumerate(rows)
        if not number or (len(row) == len(rows[0]) and row[0].isdigit() and int(row[0]) <= step)
    ]
    with replacing(path) as partial, partial.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows(kept)
    return kept
