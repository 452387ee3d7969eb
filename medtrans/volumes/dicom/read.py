"""A DICOM series to one volume: split it, stack it, scale it."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path

import numpy as np

from medtrans.errors import GeometryError, UnreadableFileError
from medtrans.volumes import geometry
from medtrans.volumes.contrast import LOWEST_STORED_HU
from medtrans.volumes.dicom import stack, strays
from medtrans.volumes.dicom.archive import renamed, unpacked
from medtrans.volumes.dicom.dataset import Dataset, header, parse, pixels, quiet, spell
from medtrans.volumes.dicom.frames import (
    INVERTED,
    MODALITIES,
    Frame,
    anatomy_of,
    check_image,
    floats,
    frames_of,
    is_localizer,
)
from medtrans.volumes.dicom.series import Series, choose_series
from medtrans.volumes.geometry import Affine
from medtrans.volumes.source import Source, unreadable_on_error
from medtrans.volumes.voxels import Integers, Loaded, Voxels, finite

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

    @classmethod
    def of(cls, source: Source) -> DicomHeader:
        """Return the header that `read` left in a source of kind "dicom"."""
        assert isinstance(source.header, cls), source.kind
        return source.header


@dataclass(frozen=True)
class Arranged:
    """The slices of one volume in order, their affine (voxel to RAS+ mm), and what was odd."""

    frames: tuple[Frame, ...]
    affine: Affine
    warnings: tuple[str, ...]


def read(path: Path, series: str | None = None, volume: int | None = None) -> Loaded:
    """Read one series into voxels (column, row, slice), slices sorted along the normal.

    Parameters
    ----------
    path
        A folder, nested or not, a zip of one, or one file (enhanced multi-frame).
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
    with unpacked(path) as place:
        return renamed(_read(place, series, volume), place, path)


def _read(path: Path, series: str | None, volume: int | None) -> Loaded:
    chosen = choose_series(path, series)
    where = _where(path, chosen)
    frames, study, noted = _frames(chosen, where)
    arranged = arrange(frames, volume, where)
    frames = list(arranged.frames)
    _, _, allocated, stored, sign = frames[0].matrix
    voxels, digest, padded = _voxels(frames)
    voxels, odd = finite(voxels, where)
    warnings = [*noted, *arranged.warnings, *odd]
    if padded:
        warnings.append(f"{where}: {padded} padding pixels outside the image were set to air.")
    if str(study.get("LossyImageCompression") or "") == "01":
        warnings.append(f"{where}: the images were compressed with loss before.")
    source = Source(
        path=path,
        kind="dicom",
        sha256=digest,
        shape=voxels.shape,
        affine=tuple(arranged.affine.ravel().tolist()),
        header=DicomHeader(tuple(frames), study),
        warnings=tuple(warnings),
        contrast=chosen.contrast,
        series=chosen.uid,
    )
    stored_type = f"{'int' if sign else 'uint'}{allocated} ({stored} bits stored)"
    return Loaded(voxels, arranged.affine, source, stored_type)


def arrange(frames: list[Frame], volume: int | None, where: str) -> Arranged:
    """Put the frames of a series into order, or say why they are no volume.

    Parameters
    ----------
    frames
        Of the whole series, without localizers.
    volume
        As for `read`.
    where
        What to name in a sentence.

    Raises
    ------
    UnreadableFileError, GeometryError
        As for `read`.
    """
    frames, copies = strays.without_copies(frames, where)
    with unreadable_on_error(frames[0].path):
        frames, across = strays.without_other_planes(frames, where)
        frames, orientation, corrected = _one_volume(frames, volume, where)
        sorted_stack = stack.build(
            np.array([floats(f.position) for f in frames]),
            orientation,
            floats(frames[0].pixel_spacing),
            where,
        )
    rows, columns, allocated = frames[0].matrix[:3]
    geometry.check_size((columns, rows, len(frames)), allocated // 8, where)
    warnings = [*copies, *across, *corrected]
    if frames[0].inverted:
        warnings.append(
            f"{where}: {spell('PhotometricInterpretation')} is {INVERTED}: low values are meant to "
            "be shown bright. The values are used as they are."
        )
    ordered = tuple(frames[i] for i in sorted_stack.order)
    return Arranged(ordered, sorted_stack.affine, tuple(warnings))


def _where(path: Path, series: Series) -> str:
    return f"{path} (series {series.number or series.uid or 'without a number'})"


def _frames(series: Series, where: str) -> tuple[list[Frame], Dataset, list[str]]:
    """Read the frames of a series without its localizers, with warnings of what was left out."""
    frames: list[Frame] = []
    localizers: list[Path] = []
    study = Dataset()
    for file in series.files:
        with unreadable_on_error(file), quiet():
            dataset = header(file)
            if is_localizer(dataset):
                if series.localizer:
                    check_image(dataset, file)  # refuses it
                localizers.append(file)
                continue
            if not frames:
                study = _study(dataset)
            frames += frames_of(dataset, file)
    warnings = strays.left_beside(where, series)
    if localizers:
        warnings.append(strays.left_out(where, localizers, "of a localizer"))
    return frames, study, warnings


def _study(dataset: Dataset) -> Dataset:
    study = Dataset()
    for keyword in KEPT:
        if keyword in dataset:
            study[keyword] = dataset[keyword]
    if not study.get("BodyPartExamined"):
        study.BodyPartExamined = anatomy_of(dataset)
    return study


def _one_volume(
    frames: list[Frame], volume: int | None, where: str
) -> tuple[list[Frame], stack.Floats, list[str]]:
    """Check that the frames agree, and choose one volume where there are several.

    Also gives the orientation of all, and a warning if it had to be corrected.
    """
    for attribute, words in (
        ("class_uid", f"image kinds ({spell('SOPClassUID')})"),
        ("matrix", f"sizes or bit depths ({spell('Rows')}, Columns, Bits...)"),
        ("inverted", f"directions of grey ({spell('PhotometricInterpretation')})"),
    ):
        if len({getattr(f, attribute) for f in frames}) > 1:
            raise GeometryError(
                f"{where}: the images have different {words}; expected one kind. Keep one stack "
                "of the series and leave the others out."
            )
    orientation, warnings = _orientation(frames, where)
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
    groups = stack.group_by_position(positions, orientation)
    if len(groups) < geometry.MIN_SLICES or max(len(g) for g in groups) == 1:
        volumes = [frames]  # the stack's own checks say what is wrong, if anything
    else:
        volumes = _split(frames, groups, volume, where)
    if volume is not None and not 0 <= volume < len(volumes):
        raise GeometryError(
            f"{where}: there is no volume {volume}; the series has {len(volumes)}, counted from 0."
        )
    return volumes[volume or 0], orientation, warnings


def _orientation(frames: list[Frame], where: str) -> tuple[stack.Floats, list[str]]:
    """Orientation of all frames, which have one size."""
    rows, columns = frames[0].matrix[:2]
    spacing = floats(frames[0].pixel_spacing)
    orientations = np.array([floats(f.orientation) for f in frames])
    along = np.sort(stack.positions_along(
        np.array([floats(f.position) for f in frames]), orientations[0]
    ))  # fmt: skip
    gaps = np.diff(along)[np.diff(along) > geometry.SAME_POSITION_MM]
    shortest = min(*spacing, float(np.median(gaps)) if gaps.size else np.inf)
    sides_mm = spacing[::-1] * (columns - 1, rows - 1)
    return stack.common_orientation(orientations, sides_mm, float(shortest), where)


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
                choices = ", ".join(f"{i}: {_spell(v)}" for i, v in enumerate(values))
                if "Time" in key[0] and "time of" in key[1]:  # says when somebody was scanned
                    choices = f"0 to {count - 1}"
                raise GeometryError(
                    f"{where}: expected one volume, found {count} at each of {len(groups)} "
                    f"positions, told apart by the {key[1]}, {key[0]}. Pick one with --volume "
                    f"({choices})."
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
        with unreadable_on_error(file), quiet():
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


def _scaled(stored: Integers, frame: Frame) -> tuple[Voxels, int]:
    """Rescale one plane; CT padding below all stored HU becomes the lowest of them."""
    plane = stored.astype(np.float64) * frame.slope + frame.intercept
    if frame.padding is None or MODALITIES[frame.class_uid] != "CT":
        return plane.astype(np.float32), 0
    low, high = frame.padding
    outside = (stored >= low) & (stored <= high) & (plane < LOWEST_STORED_HU)
    plane[outside] = LOWEST_STORED_HU
    return plane.astype(np.float32), int(outside.sum())
