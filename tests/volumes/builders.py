"""Small files of every kind, made in memory: the tests need no data on disk."""

from __future__ import annotations

import gzip
from pathlib import Path

import nibabel as nib
import numpy as np
import pydicom
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian, ImplicitVRLittleEndian

from medtrans.volumes import Provenance

MR = "1.2.840.10008.5.1.4.1.1.4"
CT = "1.2.840.10008.5.1.4.1.1.2"
ENHANCED_MR = "1.2.840.10008.5.1.4.1.1.4.1"
OBLIQUE = np.array([[0.6, 0.8, 0.0], [-0.8, 0.6, 0.0]])


def provenance(kind: str = "mr") -> Provenance:
    return Provenance(
        model="brain_mri", model_sha256="ab" * 32, task="t1-to-t2", source_contrast="t1",
        target_contrast="t2", target_kind=kind, mode="fidelity", residual_steps=1, noise_steps=0,
        eta=0.0, seed=0, source_sha256="cd" * 32, version="0.1.0",
    )  # fmt: skip


def nifti_bytes(
    shape=(7, 6, 5), dtype=np.int16, *, packed=True, version=1, affine=None, edit=None, seed=0
) -> bytes:
    rng = np.random.default_rng(seed)
    data = rng.integers(0, 100, shape).astype(dtype)
    kind = nib.Nifti1Image if version == 1 else nib.Nifti2Image
    affine = np.diag([-2.0, 1.5, 3.0, 1.0]) if affine is None else affine
    image = kind(data, affine, dtype=data.dtype)
    image.header.set_xyzt_units("mm", "sec")
    raw = image.to_bytes()
    if edit is not None:  # afterwards: nibabel would tidy the header up again
        header = type(image.header)(raw[: image.header.template_dtype.itemsize], check=False)
        edit(header)
        raw = header.binaryblock + raw[len(header.binaryblock) :]
    return gzip.compress(raw, 1, mtime=0) if packed else raw


def dicom_slice(
    k: int, *, series="1.2.3.4", number=4, rows=6, columns=5, sop_class=MR, spacing=2.5, **values
) -> Dataset:
    """One slice of a straight oblique stack; `values` overrides or (None) removes attributes."""
    rng = np.random.default_rng(k)
    normal = np.cross(*OBLIQUE)
    dataset = Dataset()
    dataset.SOPClassUID = sop_class
    dataset.SOPInstanceUID = f"{series}.{k + 1}"
    dataset.Modality = "CT" if sop_class == CT else "MR"
    dataset.ImageType = ["ORIGINAL", "PRIMARY", "AXIAL" if sop_class == CT else "OTHER"]
    dataset.StudyInstanceUID, dataset.SeriesInstanceUID = "1.2.3", series
    dataset.FrameOfReferenceUID = "1.2.3.9"
    dataset.SeriesNumber, dataset.InstanceNumber = number, k + 1
    dataset.PatientName, dataset.PatientID = "Doe^Jane", "ID1"
    dataset.StudyID, dataset.StudyDate, dataset.StudyTime = "S1", "20200101", "101010"
    dataset.PatientBirthDate, dataset.PatientSex = "19500101", "F"
    dataset.AccessionNumber, dataset.ReferringPhysicianName = "A1", ""
    dataset.PatientPosition, dataset.PositionReferenceIndicator = "HFS", ""
    dataset.ImagePositionPatient = [
        f"{v:.6f}" for v in np.array([10.0, -20, 30]) + k * spacing * normal
    ]
    dataset.ImageOrientationPatient = OBLIQUE.ravel().tolist()
    dataset.PixelSpacing, dataset.SliceThickness = [0.75, 1.5], "2.5"
    dataset.Rows, dataset.Columns = rows, columns
    dataset.SamplesPerPixel, dataset.PhotometricInterpretation = 1, "MONOCHROME2"
    dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit = 16, 12, 11
    dataset.PixelRepresentation = 0
    dataset.EchoTime, dataset.RepetitionTime, dataset.ScanningSequence = 100, 4000, "SE"
    if sop_class == CT:
        dataset.RescaleSlope, dataset.RescaleIntercept = 1, -1024
    dataset.PixelData = rng.integers(0, 4096, (rows, columns)).astype("<u2").tobytes()
    dataset["PixelData"].VR = "OW"
    for keyword, value in values.items():
        if value is None:
            del dataset[keyword]
        else:
            setattr(dataset, keyword, value)
    return dataset


def save(dataset: Dataset, path: Path, syntax=ExplicitVRLittleEndian) -> Path:
    meta = FileMetaDataset()
    meta.TransferSyntaxUID = syntax
    meta.MediaStorageSOPClassUID = dataset.SOPClassUID
    meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID
    dataset.file_meta = meta
    dataset.save_as(
        path, enforce_file_format=True, implicit_vr=syntax == ImplicitVRLittleEndian,
        little_endian=syntax != pydicom.uid.ExplicitVRBigEndian,
    )  # fmt: skip
    return path


def dicom_series(folder: Path, slices=5, syntax=ExplicitVRLittleEndian, **values) -> Path:
    """A straight series whose file names and instance numbers run against its positions."""
    folder.mkdir(parents=True, exist_ok=True)
    for k in range(slices):
        one = {n: (v(k) if callable(v) else v) for n, v in values.items()}
        one = {n: v for n, v in one.items() if v is not ...}
        one.setdefault("InstanceNumber", slices - k)
        save(dicom_slice(k, **one), folder / f"{slices - k:03d}.dcm", syntax)
    return folder


def enhanced(path: Path, frames=4, **values) -> Path:
    """The same stack as one enhanced multi-frame file."""
    planes = [dicom_slice(k) for k in range(frames)]
    dataset = dicom_slice(0, sop_class=ENHANCED_MR, **values)
    for keyword in ("ImagePositionPatient", "ImageOrientationPatient", "PixelSpacing"):
        del dataset[keyword]
    dataset.NumberOfFrames = frames
    dataset.PixelData = b"".join(p.PixelData for p in planes)
    orientation, measures = Dataset(), Dataset()
    orientation.ImageOrientationPatient = planes[0].ImageOrientationPatient
    measures.PixelSpacing = planes[0].PixelSpacing
    shared = Dataset()
    shared.PlaneOrientationSequence, shared.PixelMeasuresSequence = [orientation], [measures]
    dataset.SharedFunctionalGroupsSequence = [shared]
    groups = []
    for plane in planes:
        position, group = Dataset(), Dataset()
        position.ImagePositionPatient = plane.ImagePositionPatient
        group.PlanePositionSequence = [position]
        groups.append(group)
    dataset.PerFrameFunctionalGroupsSequence = groups
    return save(dataset, path)


def stored_values(slices=5) -> np.ndarray:
    """Pixels of `dicom_series`, as (column, row, slice)."""
    planes = [np.frombuffer(dicom_slice(k).PixelData, "<u2").reshape(6, 5) for k in range(slices)]
    return np.stack([p.T for p in planes], axis=2).astype(np.float32)
