"""A manifest whose pairs lie on one grid, made of one whose pairs may not."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from medtrans.config.terms import CONTRASTS, Contrast, Task
from medtrans.data.manifest import Entry, Manifest, write_manifest
from medtrans.errors import FileError, ManifestError, OutputError
from medtrans.registration.align import align, corrected
from medtrans.registration.records import Aligned, picture_of
from medtrans.registration.similarity import LEAST_GAIN
from medtrans.registration.subject import Subject
from medtrans.system.atomic import make_folder
from medtrans.system.locks import only_one_in
from medtrans.volumes.marks import require_marked
from medtrans.volumes.stream import sha256

MANIFEST = "manifest.csv"
_MARK = b"aligned,similarity"  # two columns, so that only a manifest of ours is replaced

Row = dict[str, Any]
Place = tuple[Path, str | None]
"""Where a volume is: a path, and which series of it."""


@dataclass(frozen=True)
class Alignment:
    """What is aligned, and how.

    Attributes
    ----------
    manifest : Manifest
    out : Path
        A folder; made if it is missing.
    onto : Contrast
        Whose grid the others get.
    moving : tuple of Contrast
        Which others.
    n4 : bool
        Whether volumes are written without their bias field.
    least_gain : float
        Pairs with a lower similarity are marked.
    """

    manifest: Manifest
    out: Path
    onto: Contrast
    moving: tuple[Contrast, ...]
    n4: bool = False
    least_gain: float = LEAST_GAIN


class Report(NamedTuple):
    """What came of it: the new manifest, and a row for each pair."""

    manifest: Path
    rows: list[Row]


def planned(
    manifest: Manifest, out: Path, task: Task | None = None, onto: Contrast | None = None
) -> Alignment:
    """Choose what is brought onto which grid.

    Parameters
    ----------
    manifest : Manifest
    out : Path
    task : Task, optional
        Only its two contrasts; onto the target's grid.
    onto : Contrast, optional
        Onto this one's grid. Without it and a task: of the contrasts that most sessions have, the
        last in the order of `CONTRASTS`, as in t1-to-t2 and mr-to-ct.

    Raises
    ------
    ManifestError
        When there is no pair.
    """
    entries = manifest.entries()
    counts = {c: sum(entry.contrast == c for entry in entries) for c in CONTRASTS}
    if onto is None:
        most = max(counts.values())
        onto = task.target if task else [c for c in CONTRASTS if counts[c] == most][-1]
    chosen = CONTRASTS if task is None else task
    moving = tuple(c for c in CONTRASTS if c in chosen and c != onto and counts[c])
    sessions = {(e.subject, e.session) for e in entries if e.contrast == onto}
    if not any((e.subject, e.session) in sessions for e in entries if e.contrast in moving):
        raise ManifestError(
            f"{manifest.path} has no volume of another contrast to bring onto a {onto}'s grid: "
            f"found {manifest.summary()}. Choose another contrast with --to."
        )
    return Alignment(manifest, out, onto, moving)


def align_cohort(plan: Alignment, update: Callable[[int, int], None]) -> Report:
    """Align every pair, and write the new manifest.

    Parameters
    ----------
    plan : Alignment
    update : callable
        Told how many volumes are done, and of how many.

    Raises
    ------
    OutputError
        When the folder cannot be written, or its manifest is somebody else's or the input.
    """
    target = plan.out / MANIFEST
    if target.exists() and target.samefile(plan.manifest.path):
        raise OutputError(
            f"{target} is the manifest to read: choose another folder for --out, since the new "
            "manifest is written there."
        )
    require_marked([target], _MARK)
    groups = _sessions(plan)
    total, done = sum(map(len, groups.values())), 0
    written: dict[Place, Row] = {}
    rows: list[Row] = []
    with only_one_in(make_folder(plan.out), "aligning"):
        for reference, others in groups.items():
            onto = Subject(reference)
            written[_place(reference)] = {"aligned": "reference", "similarity": ""}
            if plan.n4:
                written[_place(reference)] |= _reference(onto, plan)
            for entry in others:
                found = _one(entry, onto, plan)
                written[_place(entry)] = found.columns
                rows.append(found.row)
                done += 1
                update(done, total)
        write_manifest(target, _rows(plan, written))
    return Report(target, rows)


class _Outcome(NamedTuple):
    columns: Row
    row: Row


def _sessions(plan: Alignment) -> dict[Entry, list[Entry]]:
    """List what is moved, by the volume whose grid it gets."""
    entries = plan.manifest.entries()
    groups = {
        (e.subject, e.session): (e, list[Entry]()) for e in entries if e.contrast == plan.onto
    }
    for entry in entries:
        if entry.contrast in plan.moving and (entry.subject, entry.session) in groups:
            groups[entry.subject, entry.session][1].append(entry)
    return {reference: others for reference, others in groups.values() if others}


def _one(entry: Entry, onto: Subject, plan: Alignment) -> _Outcome:
    row: Row = {"subject": entry.subject, "session": entry.session or None}
    row |= {"contrast": entry.contrast, "onto": plan.onto}
    folder = _folder(plan, entry)
    try:
        found = align(Subject(entry), onto, folder, n4=plan.n4)
    except FileError as error:
        marked = {"aligned": "failed", "similarity": "", "unpaired": f"it was not aligned: {error}"}
        return _Outcome(marked, row | {"result": f"failed: {error}"})
    doubt = found.similarity.doubt(plan.least_gain)
    moved_mm, turned_deg = _size(found)
    kind = "resampled" if found.is_resampled else "same grid"
    row |= {
        "result": kind if found.anew else f"{kind} (done before)",
        "moved_mm": round(moved_mm, 2),
        "turned_deg": round(turned_deg, 2),
        "similarity": round(found.similarity.gain, 4),
        "nmi": round(found.similarity.nmi, 4),
        "overlap": round(found.similarity.overlap, 3),
        "use": doubt or "yes",
        "picture": os.path.relpath(picture_of(folder, found), plan.out),
    }
    columns = _files(found, plan.out)
    columns |= {"aligned": kind, "similarity": f"{found.similarity.gain:.4f}"}
    return _Outcome(columns | ({"unpaired": doubt} if doubt else {}), row)


def _size(found: Aligned) -> tuple[float, float]:
    """How far the middle of the patient was from its place, in mm, and the angle in degrees."""
    movement, centre = found.movement, [*found.record["CentreMm"], 1.0]
    shift = movement @ centre - centre
    cosine = np.clip((np.trace(movement[:3, :3]) - 1) / 2, -1, 1)
    return float(np.linalg.norm(shift[:3])), float(np.degrees(np.arccos(cosine)))


def _reference(onto: Subject, plan: Alignment) -> Row:
    try:
        return _files(corrected(onto, _folder(plan, onto.entry)), plan.out)
    except FileError as error:
        return {"unpaired": f"it was not aligned: {error}"}


def _folder(plan: Alignment, entry: Entry) -> Path:
    return plan.out / entry.subject / entry.session


def _files(found: Aligned, out: Path) -> Row:
    """Columns of the new manifest for a volume that was looked at."""
    columns: Row = {"path": _relative(found.volume, out)}
    if found.mask is not None:
        columns["mask"] = _relative(found.mask, out)
    if found.record["FilesSHA256"]:
        columns["sha256"] = sha256(found.volume)
    return columns


def _place(entry: Entry) -> Place:
    return entry.path, entry.series


def _rows(plan: Alignment, written: Mapping[Place, Row]) -> list[Row]:
    """Rows of the new manifest: those of the old one, with what has changed."""
    rows = []
    for record in plan.manifest.table.to_dict("records"):
        row: Row = {str(name): value for name, value in record.items()}
        path, series = Path(row["path"]), row.get("series") or None
        row["path"] = _relative(path, plan.out)
        if row.get("mask"):
            row["mask"] = _relative(Path(row["mask"]), plan.out)
        changed = {
            "unpaired": "",
            **row,
            "aligned": "no",
            "similarity": "",
            **written.get((path, series), {}),
        }
        if series and changed["path"] != row["path"]:
            changed["series"] = ""  # what was written is one volume
        if "sha256" not in row:
            changed.pop("sha256", None)
        rows.append(changed)
    return rows


def _relative(path: Path, out: Path) -> str:
    return Path(os.path.relpath(path.resolve(), out.resolve())).as_posix()
