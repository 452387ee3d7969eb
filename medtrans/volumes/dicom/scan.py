"""Every series of many DICOM files, by their headers: what each is, and whether it is a volume.

Each file is opened once, and no pixel is decoded (but those of images that may be copies).
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from medtrans.config.terms import Contrast
from medtrans.errors import FileError
from medtrans.volumes.dicom.dataset import Dataset, quiet
from medtrans.volumes.dicom.frames import Frame, contrast_of, frames_of, is_localizer
from medtrans.volumes.dicom.read import arrange
from medtrans.volumes.dicom.series import image_header
from medtrans.volumes.source import unreadable_on_error

_SYNTHETIC = "SYNTHETIC"


@dataclass(frozen=True)
class Finding:
    """One series of a tree.

    Attributes
    ----------
    place : Path
        Its file, where there is one only, or the deepest folder that holds them all.
    uid : str
    patient, study, time : str
        PatientID, StudyInstanceUID, and StudyDate with StudyTime: not to be shown.
    contrast : Contrast or None
    slices : int
        Of the volume; 0 where it is none.
    problem : str
        Why it is no volume, in a sentence; empty where it is one.
    """

    place: Path
    uid: str
    patient: str
    study: str
    time: str
    contrast: Contrast | None
    slices: int
    problem: str


@dataclass
class _Series:
    """What was read of a series so far."""

    facts: tuple[str, str, str]
    contrast: Contrast | None
    files: list[Path] = field(default_factory=list)
    frames: list[Frame] = field(default_factory=list)
    localizers: int = 0
    problem: str = ""


def scan(files: Iterable[Path], *, by_folder: bool = False) -> Iterator[Finding | None]:
    """Find the series among DICOM files.

    Parameters
    ----------
    files
        DICOM files; those that turn out to be none, or no image, are passed over.
    by_folder
        Whether the files of a series in two folders are two volumes.

    Yields
    ------
    Finding or None
        None after each file, so that a caller can count them, and at the end the series.
    """
    found: dict[tuple[str, Path], _Series] = {}
    damaged: dict[Path, str] = {}
    for file in files:
        try:
            _add(found, file)
        except FileError as error:
            damaged.setdefault(file.parent, str(error))
        yield None
    by_uid: dict[str, list[_Series]] = {}
    for (uid, _), part in found.items():
        by_uid.setdefault(uid, []).append(part)
    for uid, parts in by_uid.items():
        whole = uid and not by_folder and _are_disjoint(parts)
        for series in [_merged(parts)] if whole else parts:
            yield _finish(uid, series, damaged)
    for folder, problem in damaged.items():
        yield Finding(folder, "", "", "", "", None, 0, problem)


def _add(found: dict[tuple[str, Path], _Series], file: Path) -> None:
    with unreadable_on_error(file), quiet():
        dataset = image_header(file)
        if dataset is None:
            return  # a DICOMDIR, a report, or no DICOM at all
        key = str(dataset.get("SeriesInstanceUID") or ""), file.parent
        if key not in found:
            found[key] = _Series(_facts(dataset), contrast_of(dataset))
        found[key].files.append(file)
        _read(dataset, file, found[key])


def _are_disjoint(parts: list[_Series]) -> bool:
    """Whether folders hold different images of a series; else some are copies of others."""
    images = [(frame.instance_uid, frame.index) for part in parts for frame in part.frames]
    return len(parts) == 1 or len(set(images)) == len(images)


def _merged(parts: list[_Series]) -> _Series:
    whole = _Series(parts[0].facts, parts[0].contrast)
    for part in parts:
        whole.files += part.files
        whole.frames += part.frames
        whole.localizers += part.localizers
        whole.problem = whole.problem or part.problem
    return whole


def _read(dataset: Dataset, file: Path, series: _Series) -> None:
    if is_localizer(dataset):
        series.localizers += 1
        return
    if _SYNTHETIC in [str(v).upper() for v in dataset.get("ImageType") or []] or (
        dataset.get("SyntheticData") == "YES"
    ):
        series.problem = f"{file.parent}: the images are synthetic."
        return
    try:
        with unreadable_on_error(file):
            series.frames += frames_of(dataset, file)
    except FileError as error:
        series.problem = series.problem or str(error)


def _facts(dataset: Dataset) -> tuple[str, str, str]:
    date, time = (str(dataset.get(name) or "") for name in ("StudyDate", "StudyTime"))
    patient, study = (str(dataset.get(name) or "") for name in ("PatientID", "StudyInstanceUID"))
    return patient, study, f"{date} {time}"


def _finish(uid: str, series: _Series, damaged: Mapping[Path, str]) -> Finding:
    alone = len(series.files) == 1
    parents = [str(file.parent) for file in series.files]
    place = series.files[0] if alone else Path(os.path.commonpath(parents))
    # A damaged file may be one of its slices, and whoever reads the folder is told so.
    beside = (text for folder, text in damaged.items() if place in (folder, *folder.parents))
    problem, slices = series.problem or next(beside, ""), 0
    if not problem and not series.frames:
        problem = f"{place}: {series.localizers} image(s) of a localizer."
    if not problem:
        try:
            slices = len(arrange(series.frames, None, str(place)).frames)
        except FileError as error:
            problem = str(error)
    return Finding(place, uid, *series.facts, series.contrast, slices, problem)
