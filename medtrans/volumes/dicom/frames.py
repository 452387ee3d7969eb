"""DICOM data sets to frames: the few attributes that place, scale and tell apart an image."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import numpy as np
import numpy.typing as npt

from medtrans.config.terms import Contrast
from medtrans.errors import GeometryError, UnreadableFileError
from medtrans.volumes import contrast, geometry
from medtrans.volumes.dicom.dataset import Dataset, spell

MR, CT = "1.2.840.10008.5.1.4.1.1.4", "1.2.840.10008.5.1.4.1.1.2"
MODALITIES: dict[str, Literal["MR", "CT"]] = {
    MR: "MR", "1.2.840.10008.5.1.4.1.1.4.1": "MR", "1.2.840.10008.5.1.4.1.1.4.4": "MR",
    CT: "CT", "1.2.840.10008.5.1.4.1.1.2.1": "CT", "1.2.840.10008.5.1.4.1.1.2.2": "CT",
}  # fmt: skip
INVERTED = "MONOCHROME1"
_READ = "classic or enhanced MR and CT images"
_COLOUR = ("RGB", "PALETTE COLOR", "YBR_FULL", "YBR_FULL_422", "YBR_ICT", "YBR_RCT")

# What tells volumes of one series apart, most telling first: (keyword, words for it).
SPLIT_KEYWORDS = (
    ("TemporalPositionIndex", "time point"),
    ("TemporalPositionIdentifier", "time point"),
    ("EchoTime", "echo time"),
    ("EffectiveEchoTime", "echo time"),
    ("EchoNumbers", "echo"),
    ("InversionTime", "inversion time"),
    ("TriggerTime", "trigger time"),
    ("ImageType", "image type"),
    ("FrameType", "image type"),
    ("ComplexImageComponent", "component"),
    ("AcquisitionNumber", "acquisition"),
    ("AcquisitionTime", "time of acquisition"),
    ("ContentTime", "time of the image"),
)
# b-values: the standard's tag, then Siemens', GE's and Philips' own.
B_VALUE = ("(0018,9087) DiffusionBValue or the vendor's own tag", "b-value")
_PRIVATE_B_VALUES = ((0x0019, 0x100C), (0x0043, 0x1039), (0x2001, 0x1003))


@dataclass(frozen=True)
class Frame:
    """One image plane.

    Attributes
    ----------
    path, index
        The file, and the frame in it counted from 0.
    instance_uid, class_uid
        SOP Instance UID and SOP Class UID.
    position, orientation, pixel_spacing, thickness
        In mm or as cosines, LPS; as text, exactly as stored, so that a derived image repeats them
        exactly.
    slope, intercept
        value = slope x stored + intercept.
    matrix
        Rows, columns, bits allocated, bits stored, and 1 where the pixels are signed.
    padding
        Lowest and highest stored number that marks pixels outside the image; None without any.
    inverted
        Whether the lowest value is to be shown white (MONOCHROME1).
    keys
        What may tell volumes of one series apart: (attribute, words for it) to its value.
    """

    path: Path
    index: int
    instance_uid: str
    class_uid: str
    position: tuple[str, ...]
    orientation: tuple[str, ...]
    pixel_spacing: tuple[str, ...]
    thickness: str
    slope: float
    intercept: float
    matrix: tuple[int, int, int, int, int]
    padding: tuple[int, int] | None
    inverted: bool
    keys: Mapping[tuple[str, str], str | float] = field(default_factory=dict)


def floats(values: tuple[str, ...]) -> npt.NDArray[np.float64]:
    """Convert the decimal strings of an attribute."""
    return np.array([float(v) for v in values], dtype=np.float64)


def class_uid(dataset: Dataset) -> str:
    """SOP class; anonymisers that empty it leave the copy in the file's meta header."""
    return str(dataset.get("SOPClassUID") or dataset.file_meta.get("MediaStorageSOPClassUID", ""))


def instance_uid(dataset: Dataset) -> str:
    """SOP instance, with the same fallback."""
    return str(
        dataset.get("SOPInstanceUID") or dataset.file_meta.get("MediaStorageSOPInstanceUID", "")
    )


def frames_of(dataset: Dataset, path: Path) -> list[Frame]:
    """Read the frames of one data set.

    Parameters
    ----------
    dataset
        Classic or enhanced; its pixels are not needed.
    path
        Where it came from.

    Returns
    -------
    list of Frame
        In the order of the data set: one of a classic image, one a frame of an enhanced one.

    Raises
    ------
    UnreadableFileError
        If it is no grey-scale MR or CT image, or an attribute that is needed is missing.
    GeometryError
        If it is a localizer or a mosaic.
    """
    check_image(dataset, path)
    if "PerFrameFunctionalGroupsSequence" not in dataset:
        if int(dataset.get("NumberOfFrames") or 1) != 1:
            raise UnreadableFileError(
                f"{path}: {spell('NumberOfFrames')} is {int(dataset.NumberOfFrames)} but there is "
                f"no {spell('PerFrameFunctionalGroupsSequence')} to place the frames. Export it "
                "as an enhanced image or as one file per slice."
            )
        return [_frame(dataset, [dataset], 0, path)]
    shared = list(dataset.get("SharedFunctionalGroupsSequence") or [])[:1]
    groups = list(dataset.PerFrameFunctionalGroupsSequence)
    if len(groups) != int(dataset.get("NumberOfFrames") or 1):
        raise UnreadableFileError(
            f"{path}: {spell('NumberOfFrames')} is {int(dataset.get('NumberOfFrames') or 1)} but "
            f"{len(groups)} frames are described. The file is damaged: export it again."
        )
    return [
        _frame(dataset, _macros([group, *shared]), index, path)
        for index, group in enumerate(groups)
    ]


def check_image(dataset: Dataset, path: Path) -> None:
    """Refuse what is not a plain grey-scale MR or CT image plane.

    Parameters
    ----------
    dataset
        Its pixels are not needed.
    path
        Where it came from, for the sentence.

    Raises
    ------
    UnreadableFileError
        Another kind of image, colour, inverted grey values of CT, or no linear rescale.
    GeometryError
        A localizer or a mosaic.
    """
    uid = class_uid(dataset)
    if uid not in MODALITIES:
        name = getattr(dataset.get("SOPClassUID"), "name", None) or "none"
        raise UnreadableFileError(
            f"{path}: {spell('SOPClassUID')} is {_safe(name)}; expected {_READ}. Choose another "
            "series."
        )
    photometric = _photometric(dataset)
    if int(dataset.get("SamplesPerPixel") or 1) != 1 or photometric in _COLOUR:
        raise UnreadableFileError(
            f"{path}: the image is in colour ({spell('PhotometricInterpretation')} "
            f"{_safe(photometric)}); expected MONOCHROME2. Choose the series it was made from."
        )
    # MR values have no unit, so that those of an inverted image are as good as any.
    if photometric != "MONOCHROME2" and (photometric, MODALITIES[uid]) != (INVERTED, "MR"):
        raise UnreadableFileError(
            f"{path}: {spell('PhotometricInterpretation')} is {_safe(photometric)}; expected "
            "MONOCHROME2. Export the series again with normal grey values."
        )
    kinds = _image_type(dataset)
    for word, remedy in (
        ("LOCALIZER", "Choose the series that it plans."),
        ("MOSAIC", "Export it with one image per slice, or convert it with dcm2niix."),
    ):
        if word in kinds:
            raise GeometryError(
                f"{path}: {spell('ImageType')} says {word}; expected one slice of a volume. "
                f"{remedy}"
            )
    for keyword in ("ModalityLUTSequence", "FloatPixelData", "DoubleFloatPixelData"):
        if keyword in dataset:
            raise UnreadableFileError(
                f"{path}: {spell(keyword)} is present; expected integer pixels with a linear "
                "rescale. Export the series as plain MR or CT images."
            )


def is_localizer(dataset: Dataset) -> bool:
    """Whether an image says that it is one of those from which others were planned."""
    return "LOCALIZER" in _image_type(dataset)


def contrast_of(dataset: Dataset) -> Contrast | None:
    """Tell the contrast from the sequence, or else from the series' own name for it.

    The name is only matched against known words, never repeated.
    """
    modality = MODALITIES.get(class_uid(dataset))
    if modality != "MR":
        return "ct" if modality == "CT" else None
    items = [*_macros(_some_groups(dataset)), dataset]
    codes = {str(v) for v in [*_values(_find(items, "ScanningSequence")),
                              *_values(dataset.get("ImageType"))]}  # fmt: skip
    sequence = contrast.Sequence(
        echo_ms=_number(_find(items, "EffectiveEchoTime") or _find(items, "EchoTime")),
        repetition_ms=_number(_find(items, "RepetitionTime")),
        inversion_ms=_number(_find(items, "InversionTime")),
        flip_deg=_number(_find(items, "FlipAngle")),
        codes=codes,
        agent="ContrastBolusAgent" in dataset or "ContrastBolusAgentSequence" in dataset,
    )
    named = contrast.from_name(f"{dataset.get('SeriesDescription')}")
    return contrast.refined(contrast.from_sequence(sequence), named)


def anatomy_of(dataset: Dataset) -> str:
    """Body part that the frames of an enhanced image show, in capitals; empty if it says none."""
    region = _find(_macros(_some_groups(dataset)), "AnatomicRegionSequence")
    items = list(region) if isinstance(region, Iterable) else []
    return _text(_find(items, "CodeMeaning")).upper().replace(" ", "")


def _some_groups(dataset: Dataset) -> list[Dataset]:
    """Functional groups of the first frame, and those of all frames."""
    return [
        *(dataset.get("PerFrameFunctionalGroupsSequence") or [])[:1],
        *(dataset.get("SharedFunctionalGroupsSequence") or [])[:1],
    ]


def _photometric(dataset: Dataset) -> str:
    return str(dataset.get("PhotometricInterpretation", ""))


def _image_type(dataset: Dataset) -> list[str]:
    return [str(v).upper() for v in _values(dataset.get("ImageType"))]


def _number(value: object) -> float | None:
    return float(str(value)) if value is not None and _is_finite(str(value)) else None


def _matrix(dataset: Dataset, path: Path) -> tuple[int, int, int, int, int]:
    """Rows, columns, bits allocated, bits stored and sign, checked."""
    keywords = ("Rows", "Columns", "BitsAllocated", "BitsStored", "PixelRepresentation")
    values = tuple(int(_need(dataset, [dataset], keyword, path)) for keyword in keywords)
    rows, columns, allocated, stored, sign = values
    high = int(dataset.get("HighBit") or stored - 1)
    if (
        allocated not in (8, 16, 32)
        or not 1 <= stored <= allocated
        or high != stored - 1
        or sign not in (0, 1)
    ):
        raise UnreadableFileError(
            f"{path}: {spell('BitsAllocated')} {allocated}, BitsStored {stored}, HighBit {high}, "
            f"PixelRepresentation {sign}; expected 8, 16 or 32 bits with the stored ones lowest. "
            "Export the series again."
        )
    geometry.check_size((rows, columns), allocated // 8, str(path))
    return rows, columns, allocated, stored, sign


def _frame(dataset: Dataset, items: list[Dataset], index: int, path: Path) -> Frame:
    modality = MODALITIES[class_uid(dataset)]
    slope, intercept = (
        _rescale(dataset, items, keyword, modality, path)
        for keyword in ("RescaleSlope", "RescaleIntercept")
    )
    return Frame(
        path=path,
        index=index,
        instance_uid=instance_uid(dataset),
        class_uid=class_uid(dataset),
        position=_decimals(dataset, items, "ImagePositionPatient", 3, path),
        orientation=_decimals(dataset, items, "ImageOrientationPatient", 6, path),
        pixel_spacing=_decimals(dataset, items, "PixelSpacing", 2, path),
        thickness=_text(_find(items, "SliceThickness")),
        slope=slope,
        intercept=intercept,
        matrix=_matrix(dataset, path),
        padding=_padding(dataset),
        inverted=_photometric(dataset) == INVERTED,
        keys=_keys(dataset, items),
    )


def _macros(groups: list[Dataset]) -> list[Dataset]:
    """Every first item of every functional group: where an enhanced image keeps its values."""
    return [
        element.value[0]
        for group in groups
        for element in group
        if element.VR == "SQ" and element.value
    ]


def _find(items: list[Dataset], keyword: str) -> object:
    for item in items:
        value = item.get(keyword)
        if value is not None and value != "":
            return value
    return None


def _need(dataset: Dataset, items: list[Dataset], keyword: str, path: Path) -> str:
    value = _find([*items, dataset], keyword)
    if value is None:
        raise UnreadableFileError(
            f"{path}: {spell(keyword)} is missing; without it the image cannot be placed or "
            "scaled. Export the series again with all its attributes."
        )
    return str(value)


def _decimals(
    dataset: Dataset, items: list[Dataset], keyword: str, count: int, path: Path
) -> tuple[str, ...]:
    _need(dataset, items, keyword, path)
    values = tuple(str(v) for v in _values(_find([*items, dataset], keyword)))
    if len(values) != count or not all(_is_finite(v) for v in values):
        raise GeometryError(
            f"{path}: {spell(keyword)} has {len(values)} value(s); expected {count} finite "
            "numbers. Export the series again."
        )
    return values


def _rescale(
    dataset: Dataset, items: list[Dataset], keyword: str, modality: str, path: Path
) -> float:
    value = _find([*items, dataset], keyword)
    if value is None and modality == "CT":
        raise UnreadableFileError(
            f"{path}: {spell(keyword)} is missing; without it CT numbers are not in HU. Export "
            "the series again with all its attributes."
        )
    if value is None:
        return 1.0 if keyword == "RescaleSlope" else 0.0
    number = float(str(value))
    if not np.isfinite(number) or (keyword == "RescaleSlope" and number == 0):
        raise UnreadableFileError(
            f"{path}: {spell(keyword)} is {number:g}; expected a finite number, not 0 for a slope. "
            "Export the series again."
        )
    return number


def _padding(dataset: Dataset) -> tuple[int, int] | None:
    """Lowest and highest stored number that marks pixels outside the image."""
    low = dataset.get("PixelPaddingValue")
    if low is None or not isinstance(low, int):
        return None
    high = dataset.get("PixelPaddingRangeLimit")
    high = high if isinstance(high, int) else low
    return min(low, high), max(low, high)


def _keys(dataset: Dataset, items: list[Dataset]) -> dict[tuple[str, str], str | float]:
    """Values that may tell volumes apart; text is kept only as a number or a code string."""
    keys: dict[tuple[str, str], str | float] = {}
    b_value = _b_value(dataset, items)
    if b_value is not None:
        keys[B_VALUE] = b_value
    for keyword, words in SPLIT_KEYWORDS:
        value = _find([*items, dataset], keyword)
        if value is not None:
            text = "\\".join(str(v) for v in _values(value))
            keys[(spell(keyword), words)] = float(text) if _is_finite(text) else _safe(text)
    return keys


def _b_value(dataset: Dataset, items: list[Dataset]) -> float | None:
    value = _find([*items, dataset], "DiffusionBValue")
    if value is not None:
        return float(str(value))
    for tag in _PRIVATE_B_VALUES:
        if tag in dataset:
            first = next(iter(_values(dataset[tag].value)), None)
            text = first.decode("ascii", "ignore") if isinstance(first, bytes) else str(first)
            if _is_finite(text):
                return float(text) % 1e9  # GE adds 1e9 to some of its b-values
    named = re.search(r"b(\d+)", str(dataset.get("SequenceName", "")))
    return float(named.group(1)) if named else None


def _values(value: object) -> list[object]:
    if value is None or value == "":
        return []
    if isinstance(value, (str, bytes)) or not hasattr(value, "__iter__"):
        return [value]
    return list(value)


def _is_finite(text: str) -> bool:
    try:
        return bool(np.isfinite(float(text)))
    except ValueError:
        return False


def _text(value: object) -> str:
    return "" if value is None else str(value)


def _safe(text: str) -> str:
    """Quote a code string; anything longer may be free text, so it is not repeated."""
    return text if re.fullmatch(r"[\w\\ .,:()/-]{1,64}", text) else "unreadable"
