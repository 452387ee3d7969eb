"""Which predictions there are to score: a CSV, or two folders, of any tool's output.

The CSV has the columns ``subject, prediction, reference`` and, optionally, ``mask, uncertainty,
split, method``; any other column is ignored. Paths are relative to the CSV. In folders, a
prediction and a reference belong together when their paths below the two folders are the same but
for the suffix, or else when their names are.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from medtrans.data.manifest_checks import (
    SPLITS,
    Problem,
    check_files_of,
    column_names,
    describe_unknown,
    join_paths,
    raise_problems,
    read_lines,
    tabulate,
)
from medtrans.errors import ManifestError, UsageError
from medtrans.volumes.source import is_volume_file, split_suffix

REQUIRED = ("subject", "prediction", "reference")
_MAPS = ("mask", "uncertainty")
KNOWN = (*REQUIRED, *_MAPS, "split", "method")
METHOD = "prediction"  # what the method is called where nothing names it
_MOST_NAMES = 5


@dataclass(frozen=True)
class Prediction:
    """One file to score, and what it is scored against.

    Attributes
    ----------
    subject, method : str
    prediction, reference : Path
        On one grid.
    foreground : Path or None
        A volume above 0 in the patient; None to find the foreground.
    region : Path or None
        A volume above 0 in a region of interest.
    uncertainty : Path or None
        A volume that says how far off the prediction is.
    """

    subject: str
    prediction: Path
    reference: Path
    foreground: Path | None = None
    region: Path | None = None
    method: str = METHOD
    uncertainty: Path | None = None

    @property
    def truth(self) -> tuple[Path | None, ...]:
        """The files that it is scored against."""
        return self.reference, self.foreground, self.region


def lists_predictions(csv: Path) -> bool:
    """Whether a CSV names predictions rather than the volumes of a manifest.

    Raises
    ------
    ManifestError
        The file is no CSV.
    """
    header = column_names(read_lines(csv, REQUIRED)[0][1], KNOWN)
    return {"prediction", "reference"} <= set(header)


def read_predictions(csv: Path, split: str) -> list[Prediction]:
    """Read a CSV of predictions.

    Parameters
    ----------
    csv : Path
    split : str
        Which rows are taken, where there is a column `split`.

    Raises
    ------
    ManifestError
        The file is no CSV, has problems (all of them, one line each), or no row of the split.
    """
    lines = read_lines(csv, REQUIRED)
    table = tabulate(column_names(lines[0][1], KNOWN), lines[1:])
    join_paths(table, csv.parent, ("prediction", "reference", *_MAPS))
    raise_problems(csv, list(_problems(table)))
    chosen = table
    if "split" in table:
        chosen = table[table["split"] == split]
        if chosen.empty:
            there = ", ".join(f"{n} {name}" for name, n in Counter(table["split"]).items())
            raise ManifestError(
                f"{csv} lists no prediction of split {split!r}; it has {there}. Name another with "
                "--split."
            )
    return [_prediction(record) for record in chosen.to_dict("records")]


def match_folders(
    predictions: Path, references: Path, more: Mapping[str, Path | None]
) -> tuple[list[Prediction], list[str]]:
    """Find which files of two folders, and of those below them, belong together.

    Parameters
    ----------
    predictions, references : Path
        Folders.
    more : mapping of str to Path or None
        "foreground", "region" and "uncertainty": a folder, whose files are matched to the
        references, or a file for all of them.

    Returns
    -------
    list of Prediction
        By name.
    list of str
        A sentence about what has no counterpart; empty where everything has one.

    Raises
    ------
    UsageError
        When nothing belongs together.
    """
    ours, theirs = _volumes(predictions), _volumes(references)
    names = _matched(ours, theirs)
    if not names:
        raise UsageError(
            f"No file of {predictions} has the name of one of {references} (suffixes aside): "
            f"{_some(ours)}, and {_some(theirs)}. Rename them, or list them in a CSV with the "
            f"columns {','.join(REQUIRED)} and give it with --manifest."
        )
    beside = {what: _beside(path, theirs) for what, path in more.items()}
    pairs = [
        Prediction(
            mine,
            ours[mine],
            theirs[other],
            beside.get("foreground", {}).get(other),
            beside.get("region", {}).get(other),
            uncertainty=beside.get("uncertainty", {}).get(other),
        )
        for mine, other in names.items()
    ]
    left = {
        f"in {predictions}": sorted(ours.keys() - names.keys()),
        f"in {references}": sorted(theirs.keys() - set(names.values())),
    }
    return pairs, [
        f"{len(alone)} of the files {where} have no counterpart and are left out: {_some(alone)}."
        for where, alone in left.items()
        if alone
    ]


def holds_volumes(folder: Path) -> bool:
    """Whether a folder holds files that stand for a volume each; a DICOM series does not."""
    return folder.is_dir() and bool(_volumes(folder))


def _problems(table: pd.DataFrame) -> Iterator[Problem]:
    for name in REQUIRED:
        if name not in table:
            yield 1, f"column {name!r} is missing: add it to {', '.join(table.columns)}"
        else:
            for row in table.index[table[name] == ""]:
                yield row, f"{name} is empty: fill it in, or remove the row"
    if "split" in table:
        for row, value in table.loc[~table["split"].isin(SPLITS), "split"].items():
            yield int(str(row)), describe_unknown("split", value, SPLITS)
    for name in ("prediction", "reference", *_MAPS):
        yield from check_files_of(table, name)


def _prediction(record: Mapping[Hashable, str]) -> Prediction:
    return Prediction(
        record["subject"],
        Path(record["prediction"]),
        Path(record["reference"]),
        region=Path(record["mask"]) if record.get("mask") else None,
        method=record.get("method") or METHOD,
        uncertainty=Path(record["uncertainty"]) if record.get("uncertainty") else None,
    )


def _volumes(folder: Path) -> dict[str, Path]:
    """Find the volumes below a folder, by their path in it without suffix."""
    return {
        path.relative_to(folder).with_name(split_suffix(path)[0]).as_posix(): path
        for path in sorted(folder.rglob("*"))
        if path.is_file() and is_volume_file(path)
    }


def _matched(ours: Iterable[str], theirs: Iterable[str]) -> dict[str, str]:
    """Match names: the whole path, and among the rest the last part, where it stands once."""
    same = set(ours) & set(theirs)
    one, two = (_by_last_part(set(names) - same) for names in (ours, theirs))
    found = {name: name for name in same} | {one[k]: two[k] for k in one.keys() & two.keys()}
    return dict(sorted(found.items()))


def _by_last_part(names: set[str]) -> dict[str, str]:
    counts = Counter(name.rpartition("/")[2] for name in names)
    return {part: name for name in names if counts[part := name.rpartition("/")[2]] == 1}


def _beside(path: Path | None, references: Mapping[str, Path]) -> dict[str, Path]:
    """Give the file that belongs to each reference, by the reference's name."""
    if path is None:
        return {}
    if not holds_volumes(path):
        return dict.fromkeys(references, path)
    there = _volumes(path)
    return {other: there[name] for name, other in _matched(there, references).items()}


def _some(names: Iterable[str]) -> str:
    listed = list(names)
    more = ["…"] if len(listed) > _MOST_NAMES else []
    return ", ".join([*listed[:_MOST_NAMES], *more]) or "none"
