"""How a manifest CSV becomes a checked table: reading, and every check with its advice.

The table's index is the row as a spreadsheet numbers it (the header is row 1), and a check
yields one (row, what is wrong and what to do) for each problem it sees.
"""

from __future__ import annotations

import csv
import difflib
import io
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path

import pandas as pd

from medtrans.config.terms import CONTRASTS
from medtrans.errors import ManifestError
from medtrans.system.names import is_plain_name

SPLITS = ("train", "val", "test")
REQUIRED_COLUMNS = ("subject", "contrast", "path")
KNOWN_COLUMNS = (*REQUIRED_COLUMNS, "split", "session", "series", "sha256", "mask", "unpaired")

Problem = tuple[int, str]

MAX_BYTES = 1 << 26  # about half a million volumes
_MOST_LINES = 20


def read_table(path: Path, *, check_files: bool) -> pd.DataFrame:
    """Read a CSV into stripped strings, with `path` and `mask` joined to the CSV's folder.

    Parameters
    ----------
    path
        The CSV.
    check_files
        Whether a listed volume that does not exist is a problem.

    Returns
    -------
    DataFrame
        All strings; its index is the row as a spreadsheet numbers it.

    Raises
    ------
    ManifestError
        One sentence when the file is no CSV, else all problems, one line each.
    """
    lines = read_lines(path, REQUIRED_COLUMNS)
    header = column_names(lines[0][1], KNOWN_COLUMNS)
    problems = [*_check_header(path, header), *_check_widths(lines[1:], len(header))]
    table = tabulate(header, lines[1:])
    join_paths(table, path.parent, ("path", "mask"))
    checks = [*_CHECKS, _check_files] if check_files else _CHECKS
    problems += [problem for check in checks for problem in check(table)]
    raise_problems(path, problems)
    return table


def raise_problems(path: Path, problems: Sequence[Problem]) -> None:
    """Raise one error that lists the problems by row, if there are any.

    Parameters
    ----------
    path
        The CSV.
    problems
        Row, and what is wrong with it and what to do.

    Raises
    ------
    ManifestError
    """
    if not problems:
        return
    lines = [f"  row {row}: {text}" for row, text in sorted(problems)]
    hidden = len(lines) - _MOST_LINES
    if hidden > 0:
        lines = [*lines[:_MOST_LINES], f"  and {hidden} more"]
    head = f"{path} has {len(problems)} problem{'s' if len(problems) > 1 else ''}:"
    raise ManifestError("\n".join([head, *lines]))


def describe_unknown(what: str, value: str, known: Sequence[str]) -> str:
    """Say that a word is unknown, which known one is nearest, and which are known.

    Parameters
    ----------
    what
        What the word should be: ``"contrast"``.
    value
        The word.
    known
        The words that could stand there.
    """
    near = _nearest(value, known)
    hint = f"did you mean {near!r}? " if near else ""
    return f"unknown {what} {_short(value)}: {hint}Known are {', '.join(known)}"


# Reading -----------------------------------------------------------------------------------------


Line = tuple[int, list[str]]
"""A line of a CSV: its row as a spreadsheet numbers it, and its stripped cells."""


def read_lines(path: Path, columns: Sequence[str]) -> list[Line]:
    """Read the lines of a CSV that are not blank; the header and at least one more.

    Parameters
    ----------
    path
        The CSV.
    columns
        Those that it must have, for the sentences.

    Raises
    ------
    ManifestError
        The file is no CSV, or lists nothing.
    """
    start = ",".join(columns)
    text = _read_text(path)
    delimiter = max(",;\t", key=text.lstrip().partition("\n")[0].count)
    stream = io.StringIO(text, newline="")
    try:
        raw = list(csv.reader(stream, delimiter=delimiter, skipinitialspace=True))
    except csv.Error as error:
        raise ManifestError(
            f"{path} is not a CSV ({error}): give a table that starts '{start}'."
        ) from error
    stripped = [(row, [cell.strip() for cell in cells]) for row, cells in enumerate(raw, start=1)]
    lines = [(row, cells) for row, cells in stripped if any(cells)]
    if not lines:
        raise ManifestError(
            f"{path} is empty: write a first line '{start}' and one line per volume."
        )
    if len(lines) == 1 and set(column_names(lines[0][1], columns)) & set(columns):
        raise ManifestError(f"{path} lists no volume: add one line per volume below the header.")
    return lines


def _read_text(path: Path) -> str:
    try:
        if path.stat().st_size > MAX_BYTES:
            raise ManifestError(
                f"{path} is larger than the {MAX_BYTES} bytes that medtrans reads of a manifest: "
                "give a CSV that lists volumes."
            )
        content = path.read_bytes()
    except FileNotFoundError:
        raise ManifestError(f"There is no manifest {path}: check the path of the CSV.") from None
    except IsADirectoryError:
        raise ManifestError(f"{path} is a folder: give a CSV that lists its volumes.") from None
    except OSError as error:
        raise ManifestError(f"Cannot read the manifest {path}: {error.strerror}.") from error
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise ManifestError(
            f"{path} is not UTF-8 text (byte {error.start}): save it as 'CSV UTF-8'."
        ) from None
    if "\0" in text:
        raise ManifestError(f"{path} is not text: give a CSV that lists volumes.")
    return text


def tabulate(header: list[str], lines: Sequence[Line]) -> pd.DataFrame:
    """Make a table of strings, indexed by row; cells without a column are left out."""
    width = len(header)
    padded = [(cells + [""] * width)[:width] for _, cells in lines]
    rows = pd.Index([row for row, _ in lines], name="row")
    table = pd.DataFrame(padded, index=rows, columns=pd.Index(header), dtype="str")
    table = table.loc[:, ~table.columns.duplicated()].drop(columns="", errors="ignore")
    for column in {"contrast", "split", "sha256"} & set(table.columns):
        table[column] = table[column].str.lower()
    return table


def join_paths(table: pd.DataFrame, folder: Path, columns: Iterable[str]) -> None:
    """Make the paths of a table relative to a folder, in place; empty cells stay empty."""
    for column in columns:
        if column in table:
            table[column] = [str(folder / cell) if cell else "" for cell in table[column]]


def column_names(header: Iterable[str], known: Sequence[str]) -> list[str]:
    """Fold the case of the columns that mean something here, and leave the others alone."""
    return [cell.lower() if cell.lower() in known else cell for cell in header]


# Checks ------------------------------------------------------------------------------------------


def _check_header(path: Path, header: Sequence[str]) -> Iterator[Problem]:
    unknown = [name for name in header if name and name not in KNOWN_COLUMNS]
    near = {name: _nearest(name, unknown) for name in REQUIRED_COLUMNS if name not in header}
    if len(near) == len(REQUIRED_COLUMNS) and not any(near.values()):
        raise ManifestError(
            f"{path} is not a manifest: its first line should name the columns "
            f"subject, contrast and path, and it reads {_short(','.join(header))}."
        )
    for name, other in near.items():
        remedy = f"rename column {_short(other)}" if other else f"add it to {', '.join(header)}"
        yield 1, f"column {name!r} is missing: {remedy}"
    for name in sorted({name for name in header if name and header.count(name) > 1}):
        yield 1, f"column {_short(name)} is there twice: remove one"


def _check_widths(lines: Sequence[tuple[int, list[str]]], width: int) -> Iterator[Problem]:
    for row, cells in lines:
        if any(cells[width:]):
            yield row, f"{len(cells)} cells under {width} columns: quote values that hold a comma"


def _check_misnamed_split(table: pd.DataFrame) -> Iterator[Problem]:
    """Report a `splits` column: passed over, training would see subjects meant for testing."""
    if "split" not in table:
        for name in table.columns.difference(list(KNOWN_COLUMNS)):
            if _nearest("split", [name]) and table[name].str.lower().isin(SPLITS).any():
                yield 1, f"column {_short(name)} holds splits: rename it to 'split'"


def _check_empty_cells(table: pd.DataFrame) -> Iterator[Problem]:
    remedies = {
        "subject": "write the subject's id",
        "contrast": f"write one of {', '.join(CONTRASTS)}",
        "path": "write the volume's path, relative to this CSV",
        "split": f"write one of {', '.join(SPLITS)}, or remove the column",
    }
    for column, remedy in remedies.items():
        if column in table:
            for row in table.index[table[column] == ""]:
                yield row, f"{column} is empty: {remedy}"


def _check_names(table: pd.DataFrame) -> Iterator[Problem]:
    """Report names that could not be folders of an output: `../x`, `/x`, `a/b`."""
    remedy = "use letters, digits, '-', '_' and spaces, and no '/', '\\' or '..'"
    for column in ("subject", "session"):
        if column in table:
            for row, name in _items(table.loc[table[column] != "", column]):
                if not is_plain_name(name):
                    yield row, f"{column} {_short(name)} is no plain name: {remedy}"


def _check_words(table: pd.DataFrame) -> Iterator[Problem]:
    for column, known in (("contrast", CONTRASTS), ("split", SPLITS)):
        if column in table:
            wrong = table.loc[(table[column] != "") & ~table[column].isin(known), column]
            for row, value in _items(wrong):
                yield row, describe_unknown(column, value, known)


def _check_hashes(table: pd.DataFrame) -> Iterator[Problem]:
    if "sha256" in table:
        wrong = (table["sha256"] != "") & ~table["sha256"].str.fullmatch("[0-9a-f]{64}")
        for row in table.index[wrong]:
            yield row, "sha256 is not 64 hexadecimal digits: correct it or leave it empty"


def _check_duplicates(table: pd.DataFrame) -> Iterator[Problem]:
    if not {"subject", "contrast"} <= set(table.columns):
        return
    filled = table[(table["subject"] != "") & (table["contrast"] != "")]
    keys = [name for name in ("subject", "session", "contrast") if name in table]
    first: dict[tuple[str, ...], int] = {}
    for row, *key in zip(filled.index, *(filled[name] for name in keys), strict=True):
        earlier = first.setdefault(tuple(key), row)
        if earlier != row:
            what = " ".join(_short(part) for part in key if part)
            yield row, f"{what} is already in row {earlier}: remove one, or name their sessions"


def _check_crossing(table: pd.DataFrame) -> Iterator[Problem]:
    if not {"subject", "split"} <= set(table.columns):
        return
    filled = table[(table["subject"] != "") & table["split"].isin(SPLITS)]
    first: dict[str, tuple[str, int]] = {}
    for row, subject, split in zip(filled.index, filled["subject"], filled["split"], strict=True):
        other, earlier = first.setdefault(subject, (split, row))
        if other != split:
            where = f"in {split!r} here and in {other!r} in row {earlier}"
            yield row, f"subject {_short(subject)} is {where}: keep each subject in one split"


def _check_shared_files(table: pd.DataFrame) -> Iterator[Problem]:
    """Report one file or series under two subjects, which could then stand in two splits."""
    if not {"subject", "path"} <= set(table.columns):
        return
    filled = table[(table["subject"] != "") & (table["path"] != "")]
    series = filled.get("series", filled["path"])  # without the column, of no consequence
    first: dict[tuple[str, str], tuple[str, int]] = {}
    for row, subject, path, uid in zip(
        filled.index, filled["subject"], filled["path"], series, strict=True
    ):
        other, earlier = first.setdefault((path, uid), (subject, row))
        if other != subject:
            where = f"{path} is subject {_short(other)}'s in row {earlier}"
            yield row, f"{where}: correct the path or the subject"


def _check_files(table: pd.DataFrame) -> Iterator[Problem]:
    yield from check_files_of(table, "path")


def check_files_of(table: pd.DataFrame, column: str) -> Iterator[Problem]:
    """Report every path of a column that is not there; a missing column has none."""
    if column in table:
        for row, path in _items(table.loc[table[column] != "", column]):
            if not _exists(Path(path)):
                yield row, f"there is no file {path}: correct the path or get the volume"


_CHECKS: list[Callable[[pd.DataFrame], Iterator[Problem]]] = [
    _check_misnamed_split,
    _check_empty_cells,
    _check_names,
    _check_words,
    _check_hashes,
    _check_duplicates,
    _check_crossing,
    _check_shared_files,
]


# Small helpers -----------------------------------------------------------------------------------


def _items(column: pd.Series[str]) -> Iterator[tuple[int, str]]:
    return zip(column.index, column, strict=True)


def _exists(path: Path) -> bool:
    try:
        return path.exists()
    except OSError:  # a name too long, or a folder that may not be entered
        return False


def _nearest(name: str, known: Iterable[str]) -> str:
    folded = {other.lower(): other for other in known}
    close = difflib.get_close_matches(name.lower(), folded, n=1, cutoff=0.6)
    return folded[close[0]] if close else ""


def _short(text: str, most: int = 60) -> str:
    return repr(text if len(text) <= most else text[: most - 1] + "…")
