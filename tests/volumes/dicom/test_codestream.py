"""Sizes read from compressed frames, and frames that lie about theirs."""

import io
import shutil

import numpy as np
import pydicom
import pytest
from PIL import Image
from pydicom.encaps import encapsulate
from pydicom.uid import JPEGBaseline8Bit

from medtrans.errors import MedtransError, UnreadableFileError
from medtrans.volumes.dicom.codestream import codestream_size
from medtrans.volumes.files import load
from tests.volumes.builders import dicom_series
from tests.volumes.fuzz import mutate


def encode(kind, rows=6, columns=5):
    buffer = io.BytesIO()
    Image.new("L", (columns, rows)).save(buffer, kind)
    return buffer.getvalue()


def raw_jpeg2000(rows, columns):
    data = encode("JPEG2000", rows, columns)
    return data[data.index(b"\xff\x4f\xff\x51") :]


@pytest.mark.parametrize(("rows", "columns"), [(6, 5), (1, 300), (257, 2)])
def test_sizes(rows, columns):
    assert codestream_size(encode("JPEG", rows, columns)) == (rows, columns)
    assert codestream_size(raw_jpeg2000(rows, columns)) == (rows, columns)


def test_what_is_no_codestream_has_no_size():
    data = encode("JPEG")
    assert codestream_size(b"") is None
    assert codestream_size(b"RLE data") is None
    assert all(codestream_size(data[:n]) in (None, (6, 5)) for n in range(len(data)))
    for n in range(300):
        codestream_size(mutate(data, np.random.default_rng(n)))


def jpeg_series(folder, frame):
    dicom_series(
        folder, BitsAllocated=8, BitsStored=8, HighBit=7, PixelData=lambda k: bytes(30)
    )  # fmt: skip
    for file in folder.iterdir():
        dataset = pydicom.dcmread(file)
        dataset.PixelData = encapsulate([frame])
        dataset["PixelData"].VR = "OB"
        dataset["PixelData"].is_undefined_length = True
        dataset.file_meta.TransferSyntaxUID = JPEGBaseline8Bit
        dataset.save_as(file)
    return folder


def test_a_frame_of_another_size_is_refused(tmp_path):
    assert load(jpeg_series(tmp_path / "right", encode("JPEG")), None, None).voxels.max() == 0
    with pytest.raises(UnreadableFileError, match=r"1 frame\(s\) of 9000 x 9000 pixels"):
        load(jpeg_series(tmp_path / "wrong", encode("JPEG", 9000, 9000)), None, None)


def test_a_frame_that_nothing_decodes_is_refused(tmp_path):
    frame = encode("JPEG")
    header = frame[: frame.index(b"\xff\xda")]  # up to the scan
    with pytest.raises(UnreadableFileError, match=r"neither pydicom nor SimpleITK .*1\.2\.840"):
        load(jpeg_series(tmp_path / "s", header + b"\xff\xd9"), None, None)


@pytest.mark.parametrize("name", ["compressed", "compressed_jpeg", "compressed_jpegls"])
def test_damaged_real_frames_are_read_or_refused(shared_data, tmp_path, name):
    folder = tmp_path / name
    shutil.copytree(shared_data / "dicom" / "dicom2nifti" / "generic" / name / "001", folder)
    file = min(folder.iterdir())
    whole = file.read_bytes()
    file.unlink()
    for n in range(60):
        rng = np.random.default_rng(n)
        cut = n % 2 == 0
        damaged = whole[: int(rng.integers(200, len(whole) - 8))] if cut else mutate(whole, rng)
        file.write_bytes(damaged)
        try:
            load(folder, None, None)
            assert not cut, "a truncated file was read"
        except MedtransError:
            pass
