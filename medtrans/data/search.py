"""What may be a volume in a folder: files by their suffix, DICOM by its content, headers only."""

from __future__ import annotations

import hashlib
import json
import os
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from medtrans.config.terms import Contrast
from medtrans.errors import FileError
from medtrans.volumes.contrast import from_sidecar
from medtrans.volumes.dicom.archive import unpacked
from medtrans.volumes.dicom.scan import Finding, scan
from medtrans.volumes.files import kind_of
from medtrans.volumes.header import shape_of
from medtrans.volumes.sidecar import read_sidecar, sidecar_of
from medtrans.volumes.source import ARCHIVE_SUFFIX, KNOWN_SUFFIXES, is_volume_file, split_suffix

NO_VOLUME, SEVERAL, OURS, NOT_HERE, NOT_RAW = (
    "cannot be read as one volume",
    "several volumes in one file",
    "made by medtrans",
    "its content is not here (a link that leads nowhere)",
    "not raw data, in a BIDS data set",
)
# Never images; not even opened.
_OTHER_SUFFIXES = frozenset((
    ".bval", ".bvec", ".csv", ".doc", ".docx", ".h5", ".html", ".jpeg", ".jpg", ".json", ".log",
    ".mat", ".md", ".npy", ".npz", ".pdf", ".png", ".py", ".raw", ".sh", ".toml", ".tsv", ".txt",
    ".xls", ".xlsx", ".xml", ".yaml", ".yml", ".zraw",
))  # fmt: skip
_NOT_RAW_FOLDERS = ("derivatives", "sourcedata", "code", "stimuli", "phenotype")
_LONGEST_SIDECAR = 1 << 20

OnFile = Callable[[int, int], None]
"""Told how many files were looked at, and how many there are."""


@dataclass(frozen=True)
class Candidate:
    """A volume.

    Attributes
    ----------
    path : Path
        File, DICOM folder or zip.
    series : str
        UID of the DICOM series where the path holds several; else empty.
    contrast : Contrast or None
        By the sequence; a file's name is left to others.
    patient, study, time : str
        Of DICOM: not to be shown.
    slices : int
        Of DICOM; 0 for others.
    """

    path: Path
    series: str = ""
    contrast: Contrast | None = None
    patient: str = ""
    study: str = ""
    time: str = ""
    slices: int = 0


@dataclass(frozen=True)
class LeftOut:
    """What is not listed: why, in words that many share, and what is particular about it."""

    path: Path
    why: str
    detail: str = ""


@dataclass(frozen=True)
class _Files:
    volumes: list[Path]
    dicom: list[Path]
    archives: list[Path]
    left_out: list[LeftOut]
    others: int


def search(
    root: Path, *, by_folder: bool, on_file: OnFile
) -> tuple[list[Candidate], list[LeftOut], int]:
    """Find the volumes below a folder.

    Parameters
    ----------
    root
        The folder. Links to folders are not followed; hidden files and folders are passed over.
    by_folder
        Whether the files of one DICOM series in two folders are two volumes.
    on_file
        Called as the work goes on.

    Returns
    -------
    list of Candidate
    list of LeftOut
    int
        How many files are of no image.
    """
    files = _list_files(root)
    total = len(files.volumes) + len(files.dicom) + len(files.archives)
    found: list[Candidate] = []
    left_out = files.left_out
    done = 0
    for path in files.volumes:
        _sort(_look_at_file(path), found, left_out)
        done += 1
        on_file(done, total)
    findings = []
    for finding in scan(files.dicom, by_folder=by_folder):
        if finding is None:
            done += 1
            on_file(done, total)
        else:
            findings.append(finding)
    for item in _with_series(findings):
        _sort(item, found, left_out)
    for archive in files.archives:
        for item in _look_into(archive):
            _sort(item, found, left_out)
        done += 1
        on_file(done, total)
    return found, left_out, files.others


def pseudonym(patient: str) -> str:
    """Name a patient by a hash of the PatientID: the same in every study, and not the ID."""
    return f"p-{hashlib.sha256(patient.encode()).hexdigest()[:8]}"


def _sort(item: Candidate | LeftOut, found: list[Candidate], left_out: list[LeftOut]) -> None:
    if isinstance(item, Candidate):
        found.append(item)
    else:
        left_out.append(item)


def _list_files(root: Path) -> _Files:
    files = _Files([], [], [], [], 0)
    others = 0
    for folder, names in _walk(root, files.left_out):
        for name in names:
            path = folder / name
            if not path.exists():
                files.left_out.append(LeftOut(path, NOT_HERE))
            elif is_volume_file(path):
                files.volumes.append(path)
            elif path.suffix.lower() == ARCHIVE_SUFFIX:
                files.archives.append(path)
            elif _is_dicom(path):
                files.dicom.append(path)
            else:
                others += split_suffix(path)[1] not in KNOWN_SUFFIXES  # no other half of a pair
    return replace(files, others=others)


def _walk(root: Path, left_out: list[LeftOut]) -> Iterator[tuple[Path, list[str]]]:
    is_bids = (root / "dataset_description.json").is_file()
    for name, folders, files in os.walk(root):
        folder = Path(name)
        folders[:] = sorted(f for f in folders if not f.startswith("."))
        if is_bids and folder == root:
            not_raw = [f for f in folders if f in _NOT_RAW_FOLDERS]
            left_out += [LeftOut(folder / f, NOT_RAW) for f in not_raw]
            folders[:] = [f for f in folders if f not in _NOT_RAW_FOLDERS]
        yield folder, sorted(f for f in files if not f.startswith("."))


def _is_dicom(path: Path) -> bool:
    if path.suffix.lower() in _OTHER_SUFFIXES or not path.is_file():
        return False
    try:
        return kind_of(path) == "dicom"
    except FileError:
        return False


def _look_at_file(path: Path) -> Candidate | LeftOut:
    entries = _sidecar(path)
    if read_sidecar(sidecar_of(path, "nifti")) is not None:
        return LeftOut(path, OURS)
    try:
        shape = shape_of(path)
    except FileError as error:
        return LeftOut(path, NO_VOLUME, str(error))
    if len(shape) == 4 and shape[3] > 1:
        return LeftOut(path, SEVERAL, f"{path}: {shape[3]} volumes.")
    return Candidate(path, contrast=from_sidecar(entries))


def _sidecar(path: Path) -> Mapping[str, object]:
    """Entries of the JSON beside a file, as dcm2niix and BIDS have it; empty without one."""
    file = sidecar_of(path, "nifti")
    try:
        if file.stat().st_size > _LONGEST_SIDECAR:
            return {}
        entries = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return {}
    return entries if isinstance(entries, dict) else {}


def _look_into(archive: Path) -> Iterable[Candidate | LeftOut]:
    try:
        with unpacked(archive) as place:
            files = sorted(p for p in place.rglob("*") if p.is_file() and _is_dicom(p))
            findings = [found for found in scan(files) if found is not None]
            if not findings:
                return [LeftOut(archive, NO_VOLUME, f"{archive}: no DICOM images in the zip.")]
            return [_of_archive(f, archive, str(place), alone=len(findings) == 1) for f in findings]
    except FileError as error:
        return [LeftOut(archive, NO_VOLUME, str(error))]


def _of_archive(finding: Finding, archive: Path, place: str, *, alone: bool) -> Candidate | LeftOut:
    problem = finding.problem.replace(place, str(archive))
    return _candidate(replace(finding, place=archive, problem=problem), alone=alone)


def _with_series(findings: list[Finding]) -> Iterator[Candidate | LeftOut]:
    """Name the series where its place holds files of another."""
    below = Counter(folder for f in findings for folder in (f.place, *f.place.parents))
    places = {f.place for f in findings}
    for finding in findings:
        alone = below[finding.place] == 1 and not places & set(finding.place.parents)
        yield _candidate(finding, alone=alone)


def _candidate(finding: Finding, *, alone: bool) -> Candidate | LeftOut:
    if finding.problem:
        return LeftOut(finding.place, NO_VOLUME, finding.problem)
    return Candidate(
        finding.place,
        "" if alone or (finding.place.is_file() and not _is_zip(finding.place)) else finding.uid,
        finding.contrast,
        finding.patient,
        finding.study,
        finding.time,
        finding.slices,
    )


def _is_zip(path: Path) -> bool:
    return path.suffix.lower() == ARCHIVE_SUFFIX
