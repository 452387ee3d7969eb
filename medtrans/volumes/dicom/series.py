"""The series in a DICOM file or folder: which there are, and which one is meant."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path

from medtrans.config.terms import Contrast
from medtrans.errors import GeometryError, UnreadableFileError
from medtrans.volumes import geometry
from medtrans.volumes.dicom.dataset import Dataset, header, quiet, spell
from medtrans.volumes.dicom.frames import MODALITIES, class_uid, contrast_of, is_localizer
from medtrans.volumes.source import list_volumes, require_file, unreadable_on_error

MAX_FILES = 100_000
_MEDIA_DIRECTORY = "1.2.840.10008.1.3.10"


@dataclass(frozen=True)
class Series:
    """Files of one series, with what a person needs to choose it; no free text.

    Attributes
    ----------
    uid, number : str
        SeriesInstanceUID and SeriesNumber; empty where the images do not say.
    modality : str
        "MR", "CT", or that it is neither.
    contrast : Contrast or None
        What it shows, as far as the first image tells.
    files : tuple of Path
    images : int
        Images in these files, as they say themselves.
    localizer : bool
        Whether every image is a localizer.
    beside : tuple of Series
        Those of the same folder that were left out, since they cannot be a volume.
    """

    uid: str
    number: str
    modality: str
    contrast: Contrast | None
    files: tuple[Path, ...]
    images: int
    localizer: bool = False
    beside: tuple[Series, ...] = ()

    @property
    def may_be_volume(self) -> bool:
        """Whether there are enough images, and others than localizers."""
        return not self.localizer and self.images >= geometry.MIN_SLICES

    def is_chosen(self, series: str | None) -> bool:
        """Whether a number or UID means this series; None means every series."""
        return series is None or series in (self.uid, self.number)

    def line(self) -> str:
        """One line of the list that a person chooses from."""
        number = f"{self.number}: " if self.number else ""
        kind = f"{self.modality} {self.contrast or ''}".strip()
        return f"{number}{kind}, {len(self.files)} file(s), {self.uid or 'no UID'}"


def list_series(path: Path) -> list[Series]:
    """Find every image series in a file or folder, nested folders included.

    Returns
    -------
    list of Series
        By number, then UID; at least one.

    Raises
    ------
    UnreadableFileError
        If there is none, or a DICOM file in it is damaged.
    """
    images: dict[str, list[tuple[Path, Dataset]]] = {}
    for file in _files(path):
        with unreadable_on_error(file), quiet():
            dataset = image_header(file, named=file == path)
            if dataset is not None:
                uid = str(dataset.get("SeriesInstanceUID") or "")
                images.setdefault(uid, []).append((file, dataset))
    if not images:
        if path.is_dir() and (others := list_volumes(path)):
            raise UnreadableFileError(
                f"{path}: expected DICOM images in the folder, found {len(others)} volume file(s) "
                f"of other kinds, such as {others[0].name}. Name one of them."
            )
        raise UnreadableFileError(
            f"{path}: expected DICOM images in the folder, found none. Name a folder with a "
            "series, or a file."
        )
    with unreadable_on_error(path), quiet():
        series = [_series(uid, members) for uid, members in images.items()]
    return sorted(series, key=lambda s: (s.number.zfill(8), s.uid))


def choose_series(path: Path, series: str | None) -> Series:
    """Choose one series of a file or folder; localizers and single images are no choice.

    Parameters
    ----------
    path
        A DICOM file, or a folder.
    series
        Number or UID; None where there is only one.

    Raises
    ------
    GeometryError
        If several match, or none; the sentence lists what there is.
    UnreadableFileError
        As for `list_series`.
    """
    present = list_series(path)
    matches = matching(present, series)
    if len(matches) == 1:
        return matches[0]
    lines = "".join(f"\n  {s.line()}" for s in present)
    what = "one series" if series is None else f"one series {series!r}"
    raise GeometryError(
        f"{path}: expected {what}, found {len(matches)}. Choose with --series NUMBER or UID "
        f"from:{lines}"
    )


def matching(present: list[Series], series: str | None) -> list[Series]:
    """Find the series that a number or UID means; None means the only one that may be a volume.

    Parameters
    ----------
    present
        Every series of a folder.
    series
        As for `choose_series`.

    Returns
    -------
    list of Series
        One where the choice is clear. Without `series`, what cannot be a volume is then in its
        `beside`.
    """
    matches = [s for s in present if s.is_chosen(series)]
    volumes = [s for s in matches if s.may_be_volume]
    if series is None and len(volumes) == 1 < len(matches):
        return [replace(volumes[0], beside=tuple(s for s in present if s is not volumes[0]))]
    return matches


def _series(uid: str, members: list[tuple[Path, Dataset]]) -> Series:
    first = members[0][1]
    return Series(
        uid=uid,
        number=str(first.get("SeriesNumber") or ""),
        modality=MODALITIES.get(class_uid(first), "not MR or CT"),
        contrast=contrast_of(first),
        files=tuple(file for file, _ in members),
        images=sum(int(dataset.get("NumberOfFrames") or 1) for _, dataset in members),
        localizer=all(is_localizer(dataset) for _, dataset in members),
    )


def _files(path: Path) -> Iterable[Path]:
    if not path.is_dir():
        require_file(path)
        return [path]
    files = sorted(p for p in path.rglob("*") if p.is_file() and not p.name.startswith("."))
    if len(files) > MAX_FILES:
        raise UnreadableFileError(
            f"{path}: the folder holds {len(files)} files; expected at most {MAX_FILES}. Name the "
            "folder of one study or series."
        )
    return files


def image_header(file: Path, *, named: bool = False) -> Dataset | None:
    """Read the header of a DICOM image; None for any other file, unless that file was named.

    Parameters
    ----------
    file
        Any file.
    named
        Whether it has to be a DICOM image.

    Raises
    ------
    UnreadableFileError
        If a DICOM file is damaged.
    """
    with file.open("rb") as handle:
        marked = handle.read(132)[128:] == b"DICM"
    if not marked and not named and file.stat().st_size > geometry.MAX_BYTES:
        return None
    dataset = None
    try:
        dataset = header(file)
        uid = class_uid(dataset)
    except Exception:
        if marked or named:
            raise
        return None
    if not uid and (marked or named):
        raise UnreadableFileError(
            f"{file}: {spell('SOPClassUID')} is missing; the file is truncated or no DICOM image. "
            "Copy or export it again."
        )
    is_image = uid in MODALITIES or "Rows" in dataset
    if uid in MODALITIES and "Rows" not in dataset:
        raise UnreadableFileError(
            f"{file}: {spell('Rows')} is missing; the file is truncated. Copy or export it again."
        )
    return dataset if is_image and uid and uid != _MEDIA_DIRECTORY else None
