"""The manifest: a CSV that lists volumes, read into a checked table.

Columns are ``subject, contrast, path`` and, optionally, ``split, session, series, sha256, mask,
unpaired``; any other column is kept and ignored. Paths are relative to the CSV. Every problem of
a file is reported at once, each with its row as a spreadsheet numbers it (the header is row 1).
"""

from __future__ import annotations

import csv
import os
from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import pandas as pd

from medtrans.config.terms import CONTRASTS, Contrast
from medtrans.data.manifest_checks import (
    KNOWN_COLUMNS,
    REQUIRED_COLUMNS,
    SPLITS,
    Problem,
    describe_unknown,
    raise_problems,
    read_table,
)
from medtrans.data.splits import name_hash, split_by_name
from medtrans.errors import ManifestError, UsageError
from medtrans.system.atomic import replacing
from medtrans.volumes.stream import require_sha256, sha256

__all__ = ["CONTRASTS", "SPLITS", "Entry", "Manifest", "Pair", "write_manifest"]


@dataclass(frozen=True)
class Entry:
    """One volume of a manifest; `session` and `sha256` are "" where the manifest names none.

    `series` is the number or UID of a DICOM series, where the path holds several.
    `mask` is a region of interest on the volume's grid, for `medtrans evaluate` and `medtrans
    align`: nothing else reads it, or minds whether it is there. `unpaired` says why the volume must
    not be paired with another; "" where it may.
    """

    subject: str
    session: str
    contrast: Contrast
    path: Path
    split: str
    sha256: str = ""
    mask: Path | None = None
    series: str | None = None
    unpaired: str = ""

    def verify(self) -> None:
        """Refuse a file with another hash than is stated; raises `UnreadableFileError`.

        To be called before the file is read, so that a long list costs nothing at the start.
        """
        if self.sha256:
            require_sha256(self.path, self.sha256)


@dataclass(frozen=True)
class Pair:
    """Source and target volume of one subject in one session."""

    source: Entry
    target: Entry

    @property
    def mask(self) -> Path | None:
        """The region of interest that the manifest names, beside the target or the source."""
        return self.target.mask or self.source.mask

    @property
    def objection(self) -> str:
        """Why the two are not to be used as a pair; "" if they are."""
        return self.source.unpaired or self.target.unpaired


@dataclass(frozen=True, eq=False)
class Manifest:
    """A checked manifest; make one with `Manifest.read`.

    Without a ``split`` column, subjects are split by a hash of their id: as a number in [0, 1)
    it means train below 0.8, val below 0.9, else test. So a new subject does not move the
    others. Where that leaves a split empty, the two cuts in the list of subjects, ordered by
    that number, move just far enough: one subject is train, two are train and val, three or
    more reach all three splits.

    Attributes
    ----------
    path : Path
        The CSV.
    split_is_stated : bool
        Whether it has a ``split`` column.
    """

    path: Path
    _table: pd.DataFrame
    split_is_stated: bool = True

    @classmethod
    def read(cls, csv_path: str | os.PathLike[str], *, check_files: bool = True) -> Manifest:
        """Read and check a CSV.

        A byte order mark, CRLF, semicolons or tabs for commas, blank lines, spaces around
        names, and capitals in column names, contrasts and splits are tolerated.

        Parameters
        ----------
        csv_path : path
        check_files : bool
            Whether a listed volume that does not exist is a problem.

        Raises
        ------
        ManifestError
            The file cannot be read as a CSV, or has problems: all of them, one line each.
        """
        path = Path(csv_path)
        table = read_table(path, check_files=check_files)
        stated = "split" in table
        if not stated:
            table["split"] = table["subject"].map(split_by_name(table["subject"].unique()))
        return cls(path, table, stated)

    @property
    def table(self) -> pd.DataFrame:
        """A copy of the table, all strings: every column, indexed by row, with joined paths."""
        return self._table.copy()

    def entries(self, split: str | None = None, contrast: str | None = None) -> list[Entry]:
        """List the volumes of a split and contrast, by subject, session and contrast.

        Parameters
        ----------
        split, contrast : str, optional
            None for all.

        Raises
        ------
        UsageError
            An unknown split or contrast.
        """
        chosen = self._table
        for column, value, known in (("split", split, SPLITS), ("contrast", contrast, CONTRASTS)):
            if value is not None:
                _require_known(column, value, known)
                chosen = chosen[chosen[column] == value]
        return sorted(map(_entry, chosen.to_dict("records")), key=_entry_order)

    def subjects(self, split: str | None = None) -> list[str]:
        """List the subjects of a split, sorted; None for all splits."""
        return sorted({entry.subject for entry in self.entries(split)})

    def targets(self, contrast: str, split: str | None = "train") -> list[Entry]:
        """List every volume of the target contrast, paired or not: what the noise stage sees.

        Parameters and errors are those of `entries`.
        """
        return self.entries(split, contrast)

    def pairs(
        self, source: str, target: str, split: str | None, limit: int | None = None, seed: int = 0
    ) -> list[Pair]:
        """List source and target volumes of the same subject and session.

        A volume that the manifest says must not be paired (`unpaired`) is in none of them.

        Parameters
        ----------
        source, target : str
            Contrasts.
        split : str or None
            None for all splits.
        limit : int, optional
            How many subjects to keep. `seed` decides which; with the same seed a smaller
            limit keeps a subset of what a larger one keeps.
        seed : int

        Raises
        ------
        UsageError
            An unknown contrast or split, or a negative limit.
        """
        pairs = [pair for pair in self._all_pairs(source, target, split) if not pair.objection]
        kept = chosen_subjects(pairs, limit, seed)
        return [pair for pair in pairs if pair.source.subject in kept]

    def left_out(self, source: str, target: str, split: str | None) -> str:
        """Say which pairs are not used since the manifest says so (`unpaired`); "" if none.

        Parameters and errors are those of `pairs`.
        """
        pairs = [pair for pair in self._all_pairs(source, target, split) if pair.objection]
        if not pairs:
            return ""
        first = pairs[0]
        where = "" if split is None else f" of split {split!r}"
        return (
            f"{len(pairs)} pair(s) of {source} and {target}{where} are left out, as the manifest's "
            f"column unpaired says (subject {first.source.subject}: {first.objection})."
        )

    def _all_pairs(self, source: str, target: str, split: str | None) -> list[Pair]:
        targets = {(entry.subject, entry.session): entry for entry in self.entries(split, target)}
        return [
            Pair(entry, targets[entry.subject, entry.session])
            for entry in self.entries(split, source)
            if (entry.subject, entry.session) in targets
        ]

    def require_pairs(
        self, source: str, target: str, split: str | None, limit: int | None = None, seed: int = 0
    ) -> list[Pair]:
        """Do as `pairs`, but refuse to find none.

        Raises
        ------
        ManifestError
            There is no pair, though `limit` is not 0; the sentence says what there is.
        UsageError
            As for `pairs`.
        """
        pairs = self.pairs(source, target, split, limit, seed)
        if not pairs and limit != 0:
            raise self._lacks(
                f"pair of {source} and {target}",
                split,
                "A pair is both contrasts of one subject with the same session. "
                + f"{self.left_out(source, target, split)} ".lstrip(),
            )
        return pairs

    def require_masks(self, pairs: Iterable[Pair]) -> None:
        """Refuse masks that are not there before hours are spent; raises `ManifestError`."""
        masks = [pair.mask for pair in pairs if pair.mask is not None]
        gone = [str(mask) for mask in masks if not mask.exists()]
        if gone:
            raise ManifestError(
                f"{self.path} names masks that are not there: {', '.join(gone)}. Correct the paths "
                "in its column mask, or leave them empty."
            )

    def require_targets(self, contrast: str, split: str | None = "train") -> list[Entry]:
        """Do as `targets`, but refuse to find none.

        Raises
        ------
        ManifestError
            There is no such volume; the sentence says what there is.
        UsageError
            As for `entries`.
        """
        targets = self.targets(contrast, split)
        if not targets:
            raise self._lacks(f"{contrast} volume", split)
        return targets

    def summary(self) -> str:
        """Say in one line what each split holds: "train: 3 subjects, 3 t1, 2 t2; val: …"."""
        return "; ".join(f"{split}: {self._summarise(split)}" for split in SPLITS)

    def verify(self) -> int:
        """Hash every file that has a ``sha256`` and return how many that were.

        Raises
        ------
        ManifestError
            Files that cannot be read or differ: all of them, one line each.
        """
        if "sha256" not in self._table:
            return 0
        stated = self._table[self._table["sha256"] != ""]
        problems: list[Problem] = []
        for row, path, expected in zip(stated.index, stated["path"], stated["sha256"], strict=True):
            try:
                digest = sha256(Path(path))
            except OSError as error:
                problems.append((row, f"cannot read {path}: {error.strerror}"))
                continue
            if digest != expected:
                problems.append((row, f"{path} has sha256 {digest}, not {expected}: get it again"))
        raise_problems(self.path, problems)
        return len(stated)

    def _summarise(self, split: str) -> str:
        contrasts = [entry.contrast for entry in self.entries(split)]
        subjects = len(self.subjects(split))
        counts = [f"{contrasts.count(name)} {name}" for name in CONTRASTS if name in contrasts]
        return ", ".join([f"{subjects} subject{'' if subjects == 1 else 's'}", *counts])

    def _lacks(self, what: str, split: str | None, explanation: str = "") -> ManifestError:
        where = "" if split is None else f" in split {split!r}"
        return ManifestError(
            f"{self.path} has no {what}{where}. {explanation}Found: {self.summary()}. "
            "Add volumes, or correct the columns."
        )


def chosen_subjects(pairs: Iterable[Pair], limit: int | None, seed: int = 0) -> set[str]:
    """Choose which subjects' pairs are kept when there are to be fewer.

    Parameters
    ----------
    pairs : iterable of Pair
    limit : int or None
        How many subjects; None for all.
    seed : int
        Decides which; with the same seed a smaller limit keeps a subset of what a larger one does.

    Raises
    ------
    UsageError
        A negative limit.
    """
    if limit is not None and limit < 0:
        raise UsageError(f"The number of subjects with pairs must be 0 or more, not {limit}.")
    ranked = sorted({pair.source.subject for pair in pairs}, key=lambda s: name_hash(f"{seed}:{s}"))
    return set(ranked[:limit])


def write_manifest(path: str | os.PathLike[str], rows: Iterable[Mapping[str, object]]) -> None:
    """Write a manifest; it appears under its name only when complete.

    Parameters
    ----------
    path : path
        The CSV to write or replace; its folder must exist.
    rows : iterable of mappings
        Column to value. Known columns come first, others in the order met; None is empty.
        Paths are written as given, so give them relative to the CSV.

    Raises
    ------
    OutputError
        The file cannot be written.
    """
    rows = list(rows)
    names = dict.fromkeys(name for row in rows for name in row)
    columns = [name for name in KNOWN_COLUMNS if name in names or name in REQUIRED_COLUMNS]
    columns += [name for name in names if name not in KNOWN_COLUMNS]
    with (
        replacing(Path(path)) as temporary,
        temporary.open("w", encoding="utf-8", newline="") as stream,
    ):
        writer = csv.DictWriter(stream, columns, lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)


def _entry(record: Mapping[Hashable, str]) -> Entry:
    subject, session = record["subject"], record.get("session", "")
    contrast = cast(Contrast, record["contrast"])  # `read_table` has checked it
    path, digest = Path(record["path"]), record.get("sha256", "")
    mask = Path(record["mask"]) if record.get("mask") else None
    return Entry(
        subject,
        session,
        contrast,
        path,
        record["split"],
        digest,
        mask,
        record.get("series") or None,
        record.get("unpaired", ""),
    )


def _entry_order(entry: Entry) -> tuple[str, str, int]:
    return entry.subject, entry.session, CONTRASTS.index(entry.contrast)


def _require_known(what: str, value: str, known: Sequence[str]) -> None:
    if value not in known:
        text = describe_unknown(what, value, known)
        raise UsageError(f"{text[0].upper()}{text[1:]}.")
