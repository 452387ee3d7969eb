"""A DICOM file or folder to one volume: find the series, split it, stack it, scale it."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path

import numpy as np
import numpy.typing as npt

from medtrans.errors import GeometryError, UnreadableFileError
from medtrans.volumes import geometry
from medtrans.volumes.dicom import stack
from medtrans.volumes.dicom.dataset import Dataset, parse, pixels, quiet, spell
from medtrans.volumes.dicom.frames import (
    MODALITIES,
    Frame,
    class_uid,
    contrast_of,
    floats,
    frames_of,
)
from medtrans.volumes.source import Source, own_errors_only, require_file
from medtrans.volumes.voxels import Loaded, Voxels

MAX_FILES = 100_000
AIR_HU = -1024.0
_MEDIA_DIRECTORY = "1.2.840.10008.1.3.10"


@dataclass(frozen=True)
class Series:
    """Files of one series, with what a person needs to choose it; no free text."""

    uid: str
    number: str
    modality: str
    contrast: str | None
    files: tuple[Path, ...]

    def line(self) -> str:
        """One line of the list that a person chooses from."""
        number = f"{self.number}: " if self.number else ""
        kind = f"{self.modality} {self.contrast or ''}".strip()
        return f"{number}{kind}, {len(self.files)} file(s), {self.uid or 'no UID'}"


# All that is kept of a header: whose study it is, where the patient lay, and how lossy it is.
# Nothing here is a description.
KEPT = (
    "SpecificCharacterSet", "StudyDate", "StudyTime", "AccessionNumber", "PatientName",
    "PatientID", "IssuerOfPatientID", "PatientBirthDate", "PatientSex", "PatientAge",
    "PatientSize", "PatientWeight", "StudyInstanceUID", "StudyID", "FrameOfReferenceUID",
    "PositionReferenceIndicator", "PatientPosition", "SeriesNumber",
    "BodyPartExamined", "Laterality", "LossyImageCompression", "LossyImageCompressionRatio",
    "LossyImageCompressionMethod",
)  # fmt: skip


@dataclass(frozen=True)
class DicomHeader:
    """What the writer needs of a series: its frames in order, and the `KEPT` attributes."""

    frames: tuple[Frame, ...]
    study: Dataset


def list_series(path: Path) -> list[Series]:
    """Find every image series in a file or folder, nested folders included.

    Raises
    ------
    UnreadableFileError
        If there is none, or a DICOM file in it is damaged.
    """
    found: dict[str, list[tuple[Path, Dataset]]] = {}
    for file in _files(path):
        with own_errors_only(file), quiet():
            dataset = _image(file, named=file == path)
            if dataset is not None:
                uid = str(dataset.get("SeriesInstanceUID") or "")
                found.setdefault(uid, []).append((file, dataset))
    if not found:
        raise UnreadableFileError(
            f"{path}: expected DICOM images in the folder, found none. Name a folder with a "
            "series, or a file."
        )
    with own_errors_only(path), quiet():
        series = [_series(uid, members) for uid, members in found.items()]
    return sorted(series, key=lambda s: (s.number.zfill(8), s.uid))


def _series(uid: str, members: list[tuple[Path, Dataset]]) -> Series:
    first = members[0][1]
    return Series(
        uid=uid,
        number=str(first.get("SeriesNumber") or ""),
        modality=MODALITIES.get(class_uid(first), "not MR or CT"),
        contrast=contrast_of(first),
        files=tuple(file for file, _ in members),
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


def _image(file: Path, *, named: bool) -> Dataset | None:
    """Header of a DICOM image; None for any other file, unless that file was named."""
    with file.open("rb") as handle:
        marked = handle.read(132)[128:] == b"DICM"
    if not marked and not named and file.stat().st_size > geometry.MAX_BYTES:
        return None
    dataset = None
    try:
        dataset, _ = parse(file)
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


def pick(path: Path, wanted: str | None) -> Series:
    """Choose one series of a folder by number or UID.

    Raises
    ------
    GeometryError
        If several match, or none; the sentence lists what there is.
    """
    series = list_series(path)
    matches = [s for s in series if wanted is None or wanted in (s.uid, s.number)]
    if len(matches) == 1:
        return matches[0]
    lines = "".join(f"\n  {s.line()}" for s in series)
    what = "one series" if wanted is None else f"one series {wanted!r}"
    raise GeometryError(
        f"{path}: expected {what}, found {len(matches)}. Choose with --series NUMBER or UID "
        f"from:{lines}"
    )


def read(path: Path, series: str | None = None, volume: int | None = None) -> Loaded:
    """Read one series into voxels (column, row, slice), slices sorted along the normal.

    Parameters
    ----------
    path
        A folder, nested or not, or one file (enhanced multi-frame).
    series
        Number or UID, where there are several.
    volume
        Which volume, from 0, where the series holds several at each position.

    Returns
    -------
    Loaded
        Voxels float32, rescaled (CT in HU); affine to RAS+ mm.

    Raises
    ------
    UnreadableFileError, GeometryError
        With the tag, the value found and what to do.
    """
    chosen = pick(path, series)
    frames, study = _frames(chosen)
    where = _where(path, chosen)
    frames = _one_volume(frames, volume, where)
    with own_errors_only(path):
        sorted_stack = stack.build(
            np.array([floats(f.position) for f in frames]),
            floats(frames[0].orientation),
            floats(frames[0].pixel_spacing),
            where,
        )
    frames = [frames[i] for i in sorted_stack.order]
    rows, columns, allocated, stored, sign = frames[0].matrix
    geometry.check_size((columns, rows, len(frames)), allocated // 8, where)
    voxels, digest, padded = _voxels(frames)
    warnings: list[str] = []
    if padded:
        warnings.append(f"{where}: {padded} padding pixels outside the image were set to air.")
    if str(study.get("LossyImageCompression") or "") == "01":
        warnings.append(f"{where}: the images were compressed with loss before.")
    source = Source(
        path=path,
        kind="dicom",
        sha256=digest,
        shape=voxels.shape,
        affine=tuple(sorted_stack.affine.ravel().tolist()),
        header=DicomHeader(tuple(frames), study),
        warnings=tuple(warnings),
        contrast=chosen.contrast,
    )
    stored_type = f"{'int' if sign else 'uint'}{allocated} ({stored} bits stored)"
    return Loaded(voxels, sorted_stack.affine, source, stored_type)


def _where(path: Path, series: Series) -> str:
    return f"{path} (series {series.number or series.uid or 'without a number'})"


def _frames(series: Series) -> tuple[list[Frame], Dataset]:
    frames: list[Frame] = []
    study = Dataset()
    for file in series.files:
        with own_errors_only(file), quiet():
            dataset, _ = parse(file)
            for keyword in KEPT if not frames else ():
                if keyword in dataset:
                    study[keyword] = dataset[keyword]
            frames += frames_of(dataset, file)
    return frames, study


def _one_volume(frames: list[Frame], volume: int | None, where: str) -> list[Frame]:
    """Check that the frames agree, and choose one volume where there are several."""
    for attribute, words in (
        ("class_uid", f"image kinds ({spell('SOPClassUID')})"),
        ("matrix", f"sizes or bit depths ({spell('Rows')}, Columns, Bits...)"),
    ):
        if len({getattr(f, attribute) for f in frames}) > 1:
            raise GeometryError(
                f"{where}: the images have different {words}; expected one kind. Keep one stack "
                "of the series and leave the others out."
            )
    orientations = np.array([floats(f.orientation) for f in frames])
    stack.check_orientations(orientations, where)
    spacings = np.array([floats(f.pixel_spacing) for f in frames])
    if not (
        np.abs(spacings - spacings[0]) <= geometry.SAME_GRID_MM / max(frames[0].matrix[:2])
    ).all():
        raise GeometryError(
            f"{where}: {spell('PixelSpacing')} is {geometry.numbers(spacings[0])} in one image and "
            f"{geometry.numbers(spacings[np.argmax(np.abs(spacings - spacings[0]).sum(1))])} in "
            "another; expected one spacing. Keep one stack of the series."
        )
    positions = np.array([floats(f.position) for f in frames])
    groups = stack.group_by_position(positions, orientations[0])
    if len(groups) < geometry.MIN_SLICES or max(len(g) for g in groups) == 1:
        volumes = [frames]  # the stack's own checks say what is wrong, if anything
    else:
        volumes = _split(frames, groups, volume, where)
    if volume is not None and not 0 <= volume < len(volumes):
        raise GeometryError(
            f"{where}: there is no volume {volume}; the series has {len(volumes)}, counted from 0."
        )
    return volumes[volume or 0]


def _split(
    frames: list[Frame], groups: list[list[int]], volume: int | None, where: str
) -> list[list[Frame]]:
    """Split a series with several images at each position by the attribute that tells them apart.

    Raises
    ------
    GeometryError
        If no attribute does, or none is chosen by `volume`.
    """
    count = max(len(g) for g in groups)
    for key in dict.fromkeys(key for frame in frames for key in frame.keys):
        if not all(key in frame.keys for frame in frames):
            continue
        parts: dict[str | float, list[Frame]] = {}
        for frame in frames:
            parts.setdefault(frame.keys[key], []).append(frame)
        once_each = all(len({frames[i].keys[key] for i in g}) == len(g) == count for g in groups)
        if once_each and len(parts) == count:
            values = sorted(parts, key=lambda v: (isinstance(v, str), v))
            if volume is None:
                listed = ", ".join(f"{i}: {_spell(v)}" for i, v in enumerate(values))
                if "Time" in key[0] and "time of" in key[1]:  # says when somebody was scanned
                    listed = f"0 to {count - 1}"
                raise GeometryError(
                    f"{where}: expected one volume, found {count} at each of {len(groups)} "
                    f"positions, told apart by the {key[1]}, {key[0]}. Pick one with --volume "
                    f"({listed})."
                )
            return [parts[value] for value in values]
    crowded = next(i for i, g in enumerate(groups) if len(g) == count)
    raise GeometryError(
        f"{where}: duplicate slices: {count} images lie at slice position {crowded + 1} of "
        f"{len(groups)} (equal (0020,0032) ImagePositionPatient) and {min(map(len, groups))} at "
        "another, and no attribute tells whole volumes apart; expected one image per position. "
        "Remove the duplicates, or split the series."
    )


def _spell(value: str | float) -> str:
    return value if isinstance(value, str) else f"{value:g}"


def _voxels(frames: list[Frame]) -> tuple[Voxels, str, int]:
    """Decode and scale the frames in order; also the hash of their files and padding count."""
    rows, columns = frames[0].matrix[:2]
    voxels = np.empty((columns, rows, len(frames)), dtype=np.float32)
    digests: list[str] = []
    padded = 0
    by_file = sorted(enumerate(frames), key=lambda pair: str(pair[1].path))
    for file, members in groupby(by_file, key=lambda pair: pair[1].path):
        with own_errors_only(file), quiet():
            dataset, digest = parse(file, with_pixels=True)
            again = {frame.index: frame for frame in frames_of(dataset, file)}
            stored = pixels(dataset, file)
            digests.append(digest)
            for place, frame in members:
                if again.get(frame.index) != frame:
                    raise UnreadableFileError(
                        f"{file}: the file changed while it was read. Try again."
                    )
                plane, count = _scaled(stored[frame.index], frame)
                voxels[:, :, place] = plane.T
                padded += count
    return voxels, hashlib.sha256("".join(sorted(digests)).encode()).hexdigest(), padded


def _scaled(stored: npt.NDArray[np.integer], frame: Frame) -> tuple[Voxels, int]:
    """Rescale one plane; CT padding, which is no HU value, becomes air."""
    plane = stored.astype(np.float64) * frame.slope + frame.intercept
    if frame.padding is None or MODALITIES[frame.class_uid] != "CT":
        return plane.astype(np.float32), 0
    low, high = frame.padding
    outside = (stored >= low) & (stored <= high) & (plane < AIR_HU)
    plane[outside] = AIR_HU
    return plane.astype(np.float32), int(outside.sum())
