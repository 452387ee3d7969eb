"""A synthetic volume to a derived DICOM series in the study of its source.

The header is made new from a whitelist (PS3.3 C.7, C.8.2 and C.8.3): what keeps the series in
its study and places its slices, and a label. Free text and private attributes stay behind.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import numpy as np

from medtrans.errors import OutputError
from medtrans.system.atomic import replacing, replacing_folder
from medtrans.volumes.contrast import LOWEST_STORED_HU
from medtrans.volumes.dicom.dataset import Dataset, new_uid, quiet, spell, to_bytes
from medtrans.volumes.dicom.frames import CT, MR, Frame
from medtrans.volumes.dicom.read import DicomHeader
from medtrans.volumes.provenance import NOT_FOR_DIAGNOSIS, Provenance
from medtrans.volumes.sidecar import Claim, sidecar_of, write_sidecar
from medtrans.volumes.source import Source, unreadable_on_error
from medtrans.volumes.voxels import Integers, Stored

# Of the source's attributes, these are looked at first, or not written at all.
NOT_AS_THEY_ARE = (
    "BodyPartExamined", "Laterality", "LossyImageCompression", "LossyImageCompressionRatio",
    "LossyImageCompressionMethod", "PositionReferenceIndicator", "SeriesNumber",
)  # fmt: skip
# Attributes that a study must have, even if empty (type 2).
EMPTY_IF_MISSING = (
    "StudyDate", "StudyTime", "AccessionNumber", "PatientName", "PatientID", "PatientBirthDate",
    "PatientSex", "StudyID", "PositionReferenceIndicator", "ReferringPhysicianName",
)  # fmt: skip
REQUIRED = ("StudyInstanceUID", "FrameOfReferenceUID")
# The series number of a derived series: far from what scanners count up to.
SERIES_NUMBER_OFFSET = 9000
# MR values are stored 1:1 where 16 bits and their rounding suit them, else stretched to this.
MR_TOP = 4095
MR_SUITABLE = (255, 32767)


@dataclass(frozen=True)
class _Stored:
    """Voxels as 16-bit integers, with the window to show them in and how they were made."""

    voxels: Integers
    window: tuple[float, float]
    note: str


def require_study(path: Path, source: Source) -> None:
    """Refuse a source that does not say which study it belongs to.

    Parameters
    ----------
    path
        The folder to make.
    source
        Of kind "dicom".

    Raises
    ------
    OutputError
    """
    study = DicomHeader.of(source).study
    for keyword in REQUIRED:
        if not str(study.get(keyword) or ""):
            raise OutputError(
                f"{path}: the input has no {spell(keyword)}, so a derived series has no study to "
                "join. Ask for nifti output, or use the images as they were before anonymising."
            )


def write(voxels: Stored, path: Path, source: Source, provenance: Provenance) -> list[Path]:
    """Write voxels as a new series of single-frame MR or CT images.

    Parameters
    ----------
    voxels
        Shape (columns, rows, slices), as `read` gave them; HU for a CT target. MR values are
        rounded to integers, after scaling to 0..4095 where they are floats whose largest is not
        within 255..32767; the scale is noted in DerivationDescription. CT values are rounded to
        integer HU and stored with intercept -1024 and slope 1.
    path
        The folder to make.
    source
        A DICOM source that `require_study` let pass.
    provenance
        The label; its ``target_kind`` chooses between MR and CT images.

    Returns
    -------
    list of Path
        The folder, then the JSON sidecar beside it.

    Raises
    ------
    OutputError
        If the folder cannot be made.
    """
    header = DicomHeader.of(source)
    stored = _to_ct(voxels) if provenance.target_kind == "ct" else _to_mr(voxels)
    with unreadable_on_error(source.path), quiet():
        common = _common(header, provenance, stored)
    sidecar = sidecar_of(path, "dicom")
    with replacing(sidecar) as label, replacing_folder(path, anew=True) as folder, quiet():
        for index, frame in enumerate(header.frames):
            with unreadable_on_error(source.path):
                image = _image(common, frame, stored.voxels[:, :, index].T, index + 1)
                content = to_bytes(image)
            (folder / f"{index + 1:04d}.dcm").write_bytes(content)
        claim = Claim.of(source, provenance)
        write_sidecar(label, provenance, sidecar, claim, {path: folder})
    return [path, sidecar]


def _to_ct(voxels: Stored) -> _Stored:
    stored = np.clip(np.rint(voxels) - LOWEST_STORED_HU, 0, 2**16 - 1).astype("<u2")
    return _Stored(stored, (40.0, 400.0), "values rounded to integer HU")


def _to_mr(voxels: Stored) -> _Stored:
    largest = float(np.abs(voxels.astype(np.float64)).max())
    low, high = MR_SUITABLE
    as_it_is = voxels.dtype.kind in "iub" or low <= largest <= high or largest == 0
    scale = 1.0 if as_it_is else MR_TOP / largest
    rounded = np.rint(np.multiply(voxels, scale))
    stored = rounded.astype("<i2" if rounded.min() < 0 else "<u2")
    low_window, high_window = np.percentile(stored, (1, 99))
    width = max(float(high_window - low_window), 1.0)
    window = (round(float(low_window) + width / 2, 1), round(width, 1))
    return _Stored(stored, window, f"stored = round({scale:.6g} x value)")


def _common(header: DicomHeader, provenance: Provenance, stored: _Stored) -> Dataset:
    """Everything that the images of the new series share."""
    dataset = Dataset()
    for keyword in EMPTY_IF_MISSING:
        setattr(dataset, keyword, "")
    for element in header.study:
        if element.keyword not in NOT_AS_THEY_ARE:
            dataset.add(element)
    now = datetime.now(UTC).astimezone()
    for name in ("InstanceCreation", "Series", "Content"):
        setattr(dataset, f"{name}Date", now.strftime("%Y%m%d"))
        setattr(dataset, f"{name}Time", now.strftime("%H%M%S"))
    _series(dataset, header, provenance)
    _label(dataset, header, provenance, stored.note)
    _pixel_format(dataset, stored)
    if provenance.target_kind == "ct":
        _ct(dataset)
    else:
        _mr(dataset)
    return dataset


def _series(dataset: Dataset, header: DicomHeader, provenance: Provenance) -> None:
    dataset.SOPClassUID = CT if provenance.target_kind == "ct" else MR
    dataset.Modality = provenance.target_kind.upper()
    dataset.SeriesInstanceUID = new_uid()
    number = int(header.study.get("SeriesNumber") or 0)
    dataset.SeriesNumber = SERIES_NUMBER_OFFSET + number % 1000
    dataset.SeriesDescription = f"{NOT_FOR_DIAGNOSIS}: {provenance.task}"[:64]
    dataset.Manufacturer = "medtrans"
    dataset.ManufacturerModelName = _ascii(provenance.model)
    dataset.SoftwareVersions = provenance.version
    for keyword, terms in TERMS.items():
        if str(header.study.get(keyword) or "") in terms:
            dataset[keyword] = header.study[keyword]
    if "Laterality" not in dataset and _may_have_two(header.study):
        dataset.Laterality = ""  # type 2C: empty means that it is not known which of the two it is


def _may_have_two(study: Dataset) -> bool:
    """Whether there is a body part of which there may be two; of no part at all we say no more."""
    part = str(study.get("BodyPartExamined") or "")
    return bool(part) and part not in UNPAIRED


def _label(dataset: Dataset, header: DicomHeader, provenance: Provenance, note: str) -> None:
    """Say in every way that DICOM has that nothing here was acquired."""
    dataset.ImageType = ["DERIVED", "SECONDARY", "OTHER", "SYNTHETIC"]
    dataset.SyntheticData = "YES"
    dataset.BurnedInAnnotation = "NO"
    dataset.DerivationDescription = _ascii(
        f"{NOT_FOR_DIAGNOSIS}. {provenance.task} by medtrans {provenance.version}, model "
        f"{provenance.model} ({provenance.model_sha256[:12]}), mode {provenance.mode}, "
        f"{provenance.residual_steps}+{provenance.noise_steps} steps, seed {provenance.seed}; "
        f"{note}",
        limit=1024,
    )
    lossy = str(header.study.get("LossyImageCompression") or "00")
    dataset.LossyImageCompression = "01" if lossy == "01" else "00"
    for keyword in ("LossyImageCompressionRatio", "LossyImageCompressionMethod"):
        if lossy == "01" and keyword in header.study:
            dataset[keyword] = header.study[keyword]
    dataset.ContributingEquipmentSequence = [_equipment(provenance)]


def _equipment(provenance: Provenance) -> Dataset:
    item = Dataset()
    item.PurposeOfReferenceCodeSequence = [_code("109102", "Processing Equipment")]
    item.Manufacturer = "medtrans"
    item.ManufacturerModelName = _ascii(provenance.model)
    item.SoftwareVersions = provenance.version
    item.ContributionDescription = "Synthesised the image from another contrast"
    return item


def _code(value: str, meaning: str) -> Dataset:
    code = Dataset()
    code.CodeValue, code.CodingSchemeDesignator, code.CodeMeaning = value, "DCM", meaning
    return code


def _pixel_format(dataset: Dataset, stored: _Stored) -> None:
    columns, rows, _ = stored.voxels.shape
    dataset.SamplesPerPixel = 1
    dataset.PhotometricInterpretation = "MONOCHROME2"
    dataset.Rows, dataset.Columns = rows, columns
    dataset.BitsAllocated = dataset.BitsStored = 16
    dataset.HighBit = 15
    dataset.PixelRepresentation = int(stored.voxels.dtype.kind == "i")
    dataset.WindowCenter, dataset.WindowWidth = (str(v) for v in stored.window)


def _mr(dataset: Dataset) -> None:
    """Say "research", since no pulse sequence made the image; the rest stays empty (type 2)."""
    dataset.ScanningSequence = "RM"
    dataset.SequenceVariant = "NONE"
    empty = ("ScanOptions", "MRAcquisitionType", "RepetitionTime", "EchoTime", "EchoTrainLength")
    for keyword in empty:
        setattr(dataset, keyword, None)


def _ct(dataset: Dataset) -> None:
    dataset.ImageType = ["DERIVED", "SECONDARY", "AXIAL"]  # CT has no fourth term for it
    dataset.RescaleIntercept, dataset.RescaleSlope = str(LOWEST_STORED_HU), "1"
    dataset.RescaleType = "HU"
    dataset.KVP = None
    dataset.AcquisitionNumber = None


def _image(common: Dataset, frame: Frame, plane: Integers, number: int) -> Dataset:
    image = Dataset()
    image.update(common)
    image.SOPInstanceUID = new_uid()
    image.InstanceNumber = number
    image.ImagePositionPatient = list(frame.position)
    image.ImageOrientationPatient = list(frame.orientation)
    image.PixelSpacing = list(frame.pixel_spacing)
    image.SliceThickness = frame.thickness or None
    reference = Dataset()
    reference.ReferencedSOPClassUID = frame.class_uid
    reference.ReferencedSOPInstanceUID = frame.instance_uid
    if frame.class_uid not in (MR, CT):
        reference.ReferencedFrameNumber = frame.index + 1
    reference.PurposeOfReferenceCodeSequence = [
        _code("121322", "Source image for image processing operation")
    ]
    image.SourceImageSequence = [reference]
    image.PixelData = np.ascontiguousarray(plane).tobytes()
    image["PixelData"].VR = "OW"
    return image


def _ascii(text: str, limit: int = 64) -> str:
    """Keep plain characters: the study's character set may not hold others."""
    plain = "".join(c if " " <= c <= "~" and c != "\\" else "?" for c in text)
    return plain[:limit]


# Defined terms that a translation may meet (PS3.16 Annex L); any other value may be free text.
PAIRED = frozenset((
    "ANKLE", "BREAST", "EAR", "ELBOW", "EXTREMITY", "EYE", "FOOT", "HAND", "HIP", "KIDNEY",
    "KNEE", "LEG", "ORBIT", "SHOULDER", "WRIST",
))  # fmt: skip
UNPAIRED = frozenset((
    "ABDOMEN", "ABDOMENPELVIS", "BLADDER", "BRAIN", "CHEST", "CHESTABDOMEN", "CHESTABDPELVIS",
    "COCCYX", "CSPINE", "CTSPINE", "HEAD", "HEADNECK", "HEART", "LIVER", "LSPINE", "LSSPINE",
    "NECK", "NECKCHEST", "NECKCHESTABDOMEN", "NECKCHESTABDPELVIS", "PANCREAS", "PELVIS",
    "PROSTATE", "SKULL", "SPINE", "SSPINE", "TLSPINE", "TSPINE", "UTERUS", "WHOLEBODY",
))  # fmt: skip
TERMS = {
    "BodyPartExamined": PAIRED | UNPAIRED,
    "Laterality": frozenset("LR"),
    # The usual landmarks (PS3.3 C.7.4.1.1.2).
    "PositionReferenceIndicator": frozenset((
        "EXTERNAL AUDITORY MEATUS", "IC", "ILIAC CREST", "LOWER COSTAL MARGIN", "OM",
        "ORBITAL MEDIAL", "SN", "STERNAL NOTCH", "SYMPHYSIS PUBIS", "XIPHOID", "XY",
    )),
}  # fmt: skip
