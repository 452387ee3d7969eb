"""The tables that `medtrans evaluate` writes."""

from __future__ import annotations

import json
from pathlib import Path

import pandas as pd

from medtrans.evaluate.result import Evaluation, Result
from medtrans.system.atomic import make_folder, replacing
from medtrans.version import __version__
from medtrans.volumes.marks import require_marked

# How a file of ours begins.
_MARKS = {
    "scores.csv": b"subject,task,method,",
    "summary.csv": b"task,method,region,score,subjects,",
    "evaluation.json": b'{"evaluated_by": "medtrans ',
}


def require_files(out: Path | None, *, overwrite: bool) -> None:
    """Make the folder, and refuse to replace a file in it that is not ours.

    Raises
    ------
    OutputError
    """
    if out is not None:
        make_folder(out)
        for name, mark in _MARKS.items():
            require_marked([out / name], mark, overwrite=overwrite)


def write_files(out: Path, found: Evaluation, result: Result) -> None:
    """Write the scores, their summary and the result; raises `OutputError`."""
    write_scores(out / "scores.csv", found.table)
    write_scores(out / "summary.csv", found.summary)
    with replacing(out / "evaluation.json") as partial:
        whole = {"evaluated_by": f"medtrans {__version__}", **result}
        partial.write_text(json.dumps(whole) + "\n", encoding="utf-8")


def write_scores(path: Path, table: pd.DataFrame) -> None:
    """Write a table as a CSV; raises `OutputError` when it cannot be written."""
    with replacing(path) as partial:
        table.to_csv(partial, index=False)
