"""The only home of pydicom: bytes to data sets and pixels, quietly and within bounds."""

from __future__ import annotations

import hashlib
import warnings
import zlib
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from io import BytesIO
from pathlib import Path

import numpy as np
from pydicom import config, dcmread
from pydicom.datadict import tag_for_keyword
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.encaps import encapsulate, generate_frames
from pydicom.filereader import read_file_meta_info
from pydicom.pixels import pixel_array
from pydicom.uid import (
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    RLELossless,
    generate_uid,
)

from medtrans.errors import UnreadableFileError
from medtrans.volumes import geometry
from medtrans.volumes.dicom.codestream import codestream_size
from medtrans.volumes.voxels import Integers

__all__ = ["Dataset", "header", "new_uid", "parse", "pixels", "quiet", "spell", "to_bytes"]

_UNCOMPRESSED = (
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    ExplicitVRBigEndian,
    DeflatedExplicitVRLittleEndian,
)
# Bytes within which the attributes before the pixels mostly end.
HEAD_BYTES = 1 << 18
# What a decoder needs to know, and nothing about the patient.
_PIXEL_KEYWORDS = (
    "SamplesPerPixel", "PhotometricInterpretation", "Rows", "Columns", "NumberOfFrames",
    "BitsAllocated", "BitsStored", "HighBit", "PixelRepresentation",
)  # fmt: skip
# Implementation Class UID (0002,0012) of medtrans: a fixed UUID-derived UID.
IMPLEMENTATION_UID = "2.25.303041336744517539739644249804735511025"


@contextmanager
def quiet() -> Iterator[None]:
    """Silence warnings that quote header values: they may name a patient."""
    with warnings.catch_warnings(), config.disable_value_validation():
        warnings.simplefilter("ignore")
        yield


def spell(keyword: str) -> str:
    """Name an attribute with its tag: ``"(0028,1052) RescaleIntercept"``."""
    tag = tag_for_keyword(keyword) or 0
    return f"({tag >> 16:04X},{tag & 0xFFFF:04X}) {keyword}"


def parse(path: Path, *, with_pixels: bool = False) -> tuple[Dataset, str]:
    """Read one DICOM file into a data set and the SHA-256 of its bytes.

    The bytes are read first, so that a wrong length in an element cannot make pydicom ask for
    more than the file holds.

    Parameters
    ----------
    path
        A DICOM file, with or without preamble and meta header.
    with_pixels
        Whether to keep the pixel data, which are not decoded here.

    Raises
    ------
    UnreadableFileError
        If the file, or what it inflates to, is larger than `geometry.MAX_BYTES`.
    """
    if path.stat().st_size > geometry.MAX_BYTES:
        raise UnreadableFileError(
            f"{path}: the file is larger than the {geometry.MAX_BYTES} bytes that medtrans reads. "
            "Split the series into one file per slice."
        )
    content = path.read_bytes()
    if str(DeflatedExplicitVRLittleEndian).encode() in content:
        _check_deflated(path, content)
    # An encapsulated or native pixel element is skipped without being decoded.
    dataset = dcmread(BytesIO(content), stop_before_pixels=not with_pixels, force=True)
    if "TransferSyntaxUID" not in dataset.file_meta:  # files from before the meta header
        implicit, little = dataset.original_encoding
        plain = ExplicitVRLittleEndian if little else ExplicitVRBigEndian
        dataset.file_meta.TransferSyntaxUID = ImplicitVRLittleEndian if implicit else plain
    return dataset, hashlib.sha256(content).hexdigest()


def header(path: Path) -> Dataset:
    """Read the attributes before the pixels, and mostly no more of the file than these.

    Parameters, errors and the data set are those of `parse`.
    """
    with path.open("rb") as file:
        content = file.read(HEAD_BYTES)
    if len(content) == HEAD_BYTES and str(DeflatedExplicitVRLittleEndian).encode() not in content:
        buffer = BytesIO(content)
        with suppress(Exception):  # an element that goes on behind these bytes
            dataset = dcmread(buffer, stop_before_pixels=True, force=True)
            if buffer.tell() < HEAD_BYTES and "TransferSyntaxUID" in dataset.file_meta:
                return dataset
    return parse(path)[0]


def _check_deflated(path: Path, content: bytes) -> None:
    """Bound the inflated size of a deflated data set, which pydicom inflates in one go."""
    meta = read_file_meta_info(str(path))
    if meta.get("TransferSyntaxUID") != DeflatedExplicitVRLittleEndian:
        return
    start = 132 + 12 + int(meta.FileMetaInformationGroupLength)
    inflater, pending, size = zlib.decompressobj(-zlib.MAX_WBITS), content[start:], 0
    while pending and not inflater.eof and size <= geometry.MAX_BYTES:
        size += len(inflater.decompress(pending, 1 << 20))
        pending = inflater.unconsumed_tail
    if size > geometry.MAX_BYTES:
        raise UnreadableFileError(
            f"{path}: the deflated data set inflates to more than {geometry.MAX_BYTES} bytes; "
            "expected one image. Export it again, uncompressed."
        )


def pixels(dataset: Dataset, path: Path) -> Integers:
    """Decode the stored integers of every frame.

    Parameters
    ----------
    dataset
        As `parse` gives it, with its pixels, of one sample a pixel.
    path
        Where it came from, for the sentence.

    Returns
    -------
    array
        Shape (frames, rows, columns), without rescaling, sign-extended from BitsStored.

    Raises
    ------
    UnreadableFileError
        If the pixel data are missing, too short, or no decoder reads them.
    """
    frames = int(dataset.get("NumberOfFrames") or 1)
    shape = (frames, int(dataset.Rows), int(dataset.Columns))
    itemsize = int(dataset.BitsAllocated) // 8
    syntax = dataset.file_meta.get("TransferSyntaxUID", ImplicitVRLittleEndian)
    data = dataset.get("PixelData")
    if data is None:
        raise UnreadableFileError(
            f"{path}: there are no {spell('PixelData')}; the file is truncated. Export it again."
        )
    needed = int(np.prod(shape, dtype=np.int64)) * itemsize
    if syntax in _UNCOMPRESSED and len(data) < needed:
        raise UnreadableFileError(
            f"{path}: {spell('PixelData')} hold {len(data)} bytes; expected {needed} "
            f"({geometry.grid(shape)} pixels of {itemsize} bytes). The file is truncated: export "
            "it again."
        )
    array = _decode(dataset, str(syntax), path).reshape(shape)
    return _stored_bits(array, int(dataset.BitsStored), bool(dataset.PixelRepresentation))


def _decode(dataset: Dataset, syntax: str, path: Path) -> Integers:
    if syntax in _UNCOMPRESSED:
        return np.asarray(pixel_array(dataset, raw=True))
    frames = _codestreams(dataset, path)
    try:
        return np.asarray(pixel_array(dataset, raw=True))
    except Exception:
        if syntax == RLELossless:
            raise  # pydicom decodes this itself, so the pixels are damaged
    from medtrans.volumes import itk

    try:
        return itk.decode(_pixels_only(dataset, frames))
    except Exception:
        raise UnreadableFileError(
            f"{path}: the pixels are damaged, or compressed in a way that neither pydicom nor "
            f"SimpleITK decodes ({spell('TransferSyntaxUID')} {_text(syntax)}). Export the series "
            "again, uncompressed."
        ) from None


def _codestreams(dataset: Dataset, path: Path) -> list[bytes]:
    """Split compressed frames, or refuse them: too few, or of another size than declared.

    A decoder allocates what the codestream says, whatever the data set says.
    """
    count = int(dataset.get("NumberOfFrames") or 1)
    frames = list(generate_frames(dataset.PixelData, number_of_frames=count))
    declared = (int(dataset.Rows), int(dataset.Columns))
    for frame in frames:
        size = codestream_size(frame)
        if len(frames) != count or size not in (None, declared):
            raise UnreadableFileError(
                f"{path}: {spell('PixelData')} hold {len(frames)} frame(s) of "
                f"{geometry.grid(size or declared)} pixels; expected {count} of "
                f"{geometry.grid(declared)}. The file is damaged: export it again."
            )
    return frames


def _text(uid: str) -> str:
    """Return a UID, or a stand-in where the bytes are no UID."""
    return uid if set(uid) <= set("0123456789.") else "unreadable"


def _pixels_only(dataset: Dataset, frames: list[bytes]) -> bytes:
    """Return a sound DICOM file with the pixels and nothing else, for another decoder."""
    bare = Dataset()
    for keyword in _PIXEL_KEYWORDS:
        if keyword in dataset:
            bare[keyword] = dataset[keyword]
    bare.PixelData = encapsulate(frames)
    bare["PixelData"].VR = "OB"
    bare["PixelData"].is_undefined_length = True
    bare.PhotometricInterpretation = "MONOCHROME2"  # or SimpleITK would invert MONOCHROME1
    bare.SOPClassUID = "1.2.840.10008.5.1.4.1.1.7"
    bare.SOPInstanceUID = new_uid()
    bare.file_meta = FileMetaDataset()
    bare.file_meta.TransferSyntaxUID = dataset.file_meta.TransferSyntaxUID
    buffer = BytesIO()
    bare.save_as(buffer, enforce_file_format=True)
    return buffer.getvalue()


def _stored_bits(array: Integers, stored: int, signed: bool) -> Integers:
    """Drop what old files keep above BitsStored (overlays), and extend the sign."""
    shift = array.dtype.itemsize * 8 - stored
    if shift <= 0:
        return array
    kind = np.dtype(f"{'i' if signed else 'u'}{array.dtype.itemsize}")
    lifted = np.left_shift(array.astype(kind.newbyteorder("="), copy=False), shift)
    return np.asarray(np.right_shift(lifted, shift))


def new_uid() -> str:
    """Make a fresh UID under the UUID root 2.25."""
    return str(generate_uid(prefix=None))


def to_bytes(dataset: Dataset) -> bytes:
    """Encode a data set as an Explicit VR Little Endian file with its meta header."""
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID = dataset.SOPClassUID
    meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    meta.ImplementationClassUID = IMPLEMENTATION_UID
    meta.ImplementationVersionName = "MEDTRANS"
    dataset.file_meta = meta
    buffer = BytesIO()
    dataset.save_as(buffer, enforce_file_format=True)
    return buffer.getvalue()
