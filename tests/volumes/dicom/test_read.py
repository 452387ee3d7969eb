"""DICOM in: sorted, scaled, split and refused; made in memory."""

import numpy as np
import pydicom
import pytest
from pydicom.dataset import Dataset
from pydicom.encaps import encapsulate, generate_frames
from pydicom.uid import (
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    RLELossless,
)

from medtrans.errors import GeometryError, UnreadableFileError
from medtrans.volumes import geometry, read_volume
from medtrans.volumes.dicom import read, series
from medtrans.volumes.files import load
from tests.volumes import builders
from tests.volumes.builders import CT, OBLIQUE, dicom_series, enhanced, stored_values


@pytest.mark.parametrize(
    "syntax",
    [ExplicitVRLittleEndian, ImplicitVRLittleEndian, DeflatedExplicitVRLittleEndian],
)
def test_slices_are_sorted_by_position_not_by_name_or_number(tmp_path, syntax):
    loaded = load(dicom_series(tmp_path / "s", syntax=syntax), None, None)
    assert np.array_equal(loaded.voxels, stored_values())
    lps = np.array([10.0, -20, 30]) + 2 * 1.5 * OBLIQUE[0] + 3 * 0.75 * OBLIQUE[1]
    lps = lps + 4 * 2.5 * np.cross(*OBLIQUE)
    assert np.allclose((loaded.affine @ [2, 3, 4, 1])[:3], lps * [-1, -1, 1])


def test_big_endian_and_rle(tmp_path):
    swapped = dicom_series(tmp_path / "big", 0)
    for k in range(5):
        dataset = builders.dicom_slice(k)
        dataset.PixelData = np.frombuffer(dataset.PixelData, "<u2").astype(">u2").tobytes()
        builders.save(dataset, swapped / f"{k}.dcm", ExplicitVRBigEndian)
    assert np.array_equal(load(swapped, None, None).voxels, stored_values())
    packed = dicom_series(tmp_path / "rle")
    for file in packed.iterdir():
        dataset = pydicom.dcmread(file)
        dataset.compress(RLELossless)
        dataset.save_as(file)
    assert np.array_equal(load(packed, None, None).voxels, stored_values())


def test_ct_is_in_hu_and_padding_is_air(tmp_path):
    def pixels(k):
        values = np.full((6, 5), 1024 + k, "<i2")
        values[0, 0] = -2000
        return values.tobytes()

    folder = dicom_series(
        tmp_path / "ct", sop_class=CT, PixelRepresentation=1, BitsStored=16, HighBit=15,
        PixelData=pixels, PixelPaddingValue=-2000,
    )  # fmt: skip
    loaded = load(folder, None, None)
    assert np.array_equal(loaded.voxels[2, 2], np.arange(5))
    assert np.array_equal(loaded.voxels[0, 0], np.full(5, -1024))
    assert "5 padding pixels" in loaded.source.warnings[0]


def test_rescale_may_differ_per_slice(tmp_path):
    folder = dicom_series(
        tmp_path / "s", RescaleSlope=lambda k: k + 1, RescaleIntercept=lambda k: -k
    )
    expected = stored_values() * np.arange(1, 6) - np.arange(5)
    assert np.array_equal(load(folder, None, None).voxels, expected)


def test_overlay_bits_above_the_stored_ones_are_dropped_and_the_sign_extended(tmp_path):
    folder = dicom_series(
        tmp_path / "s", PixelRepresentation=1,
        PixelData=lambda k: np.full((6, 5), 0xF000 | 0x0FFE, "<u2").tobytes(),
    )  # fmt: skip
    assert (load(folder, None, None).voxels == -2).all()
    folder = dicom_series(
        tmp_path / "u", PixelData=lambda k: np.full((6, 5), 0xF005, "<u2").tobytes()
    )
    assert (load(folder, None, None).voxels == 5).all()


def test_enhanced_multi_frame(tmp_path):
    loaded = load(enhanced(tmp_path / "e.dcm", 5), None, None)
    classic = load(dicom_series(tmp_path / "s"), None, None)
    assert np.array_equal(loaded.voxels, classic.voxels)
    assert np.array_equal(loaded.affine, classic.affine)


def test_several_series_are_listed_and_one_is_picked(tmp_path):
    dicom_series(tmp_path / "a", series="1.2.3.4", number=4)
    dicom_series(tmp_path / "deep" / "b", 4, series="1.2.3.5", number=5)
    (tmp_path / "notes.txt").write_text("no image")
    with pytest.raises(GeometryError, match="found 2") as caught:
        load(tmp_path, None, None)
    assert "4: MR t2, 5 file(s), 1.2.3.4" in str(caught.value)
    assert read_volume(tmp_path, series="5").shape == (5, 6, 4)
    assert read_volume(tmp_path, series="1.2.3.4").shape == (5, 6, 5)
    with pytest.raises(GeometryError, match="'9', found 0"):
        load(tmp_path, "9", None)


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"DiffusionBValue": (1000.0, 50.0)}, r"b-value, .* \(0: 50, 1: 1000\)"),
        ({"EchoTime": (80, 20)}, r"echo time, \(0018,0081\) EchoTime.*\(0: 20, 1: 80\)"),
        ({"TemporalPositionIdentifier": (2, 1)}, r"time point, .*\(0: 1, 1: 2\)"),
        ({"AcquisitionTime": ("101112", "090807")}, r"time of acquisition, .*\(0 to 1\)"),
    ],
)
def test_several_volumes_are_told_apart_and_one_is_picked(tmp_path, values, words):
    brighter = lambda k: np.full((6, 5), 7, "<u2").tobytes()  # noqa: E731
    folder = tmp_path / "both"
    first = {name: value[0] for name, value in values.items()}
    second = {name: value[1] for name, value in values.items()}
    dicom_series(folder / "0", **first)
    dicom_series(folder / "1", PixelData=brighter, **second)
    with pytest.raises(GeometryError, match=f"found 2 at each of 5 positions.*{words}") as caught:
        load(folder, None, None)
    assert "101112" not in str(caught.value)
    assert (load(folder, None, 0).voxels == 7).all()
    assert np.array_equal(load(folder, None, 1).voxels, stored_values())
    with pytest.raises(GeometryError, match="no volume 2"):
        load(folder, None, 2)


def test_other_pixels_at_one_position_are_duplicates(tmp_path):
    dicom_series(tmp_path / "a")
    dicom_series(tmp_path / "b", PixelData=bytes(60))
    with pytest.raises(GeometryError, match="duplicate slices: 2 images lie at slice position 1"):
        load(tmp_path, None, None)


REFUSALS = [
    ({"SOPClassUID": "1.2.840.10008.5.1.4.1.1.7"}, "Secondary Capture"),
    ({"SamplesPerPixel": 3, "PhotometricInterpretation": "RGB"}, "in colour"),
    ({"PhotometricInterpretation": "MONOCHROME1", "sop_class": CT}, "MONOCHROME1"),
    ({"PhotometricInterpretation": lambda k: f"MONOCHROME{1 + k % 2}"}, "directions of grey"),
    ({"ImageType": ["ORIGINAL", "PRIMARY", "LOCALIZER"]}, "LOCALIZER"),
    ({"ImageType": ["ORIGINAL", "PRIMARY", "M", "ND", "MOSAIC"]}, "MOSAIC"),
    ({"ImagePositionPatient": None}, r"\(0020,0032\) ImagePositionPatient is missing"),
    ({"ImageOrientationPatient": [1, 0, 0]}, "has 3 value"),
    ({"PixelSpacing": None}, r"\(0028,0030\) PixelSpacing is missing"),
    ({"PixelSpacing": [0, 1]}, "spacing is 1, 0, 2.5"),
    ({"Rows": None}, r"\(0028,0010\) Rows is missing"),
    ({"Rows": 0}, "shape 0 x 5"),
    ({"Rows": 60000, "Columns": 60000}, "at most"),
    ({"Rows": 7}, "hold 60 bytes; expected 70"),
    ({"BitsAllocated": 12}, "BitsAllocated"),
    ({"HighBit": 15}, "HighBit 15"),
    ({"PixelData": None}, "no .*PixelData"),
    ({"NumberOfFrames": 2}, "NumberOfFrames"),
    ({"ModalityLUTSequence": [Dataset()]}, "ModalityLUTSequence"),
    ({"RescaleSlope": 0, "RescaleIntercept": 0}, "RescaleSlope is 0"),
]


@pytest.mark.parametrize(("values", "words"), REFUSALS)
def test_refusals_name_the_tag(tmp_path, values, words):
    folder = dicom_series(tmp_path / "s", **values)
    with pytest.raises((UnreadableFileError, GeometryError), match=words) as caught:
        load(folder, None, None)
    assert "Doe" not in str(caught.value)


def test_ct_without_rescale_is_refused(tmp_path):
    folder = dicom_series(tmp_path / "s", sop_class=CT, RescaleIntercept=None)
    with pytest.raises(UnreadableFileError, match=r"\(0028,1052\) RescaleIntercept is missing"):
        load(folder, None, None)


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"rows": lambda k: 6 + k % 2}, "different sizes"),
        ({"PixelSpacing": lambda k: [1 + k % 2, 1]}, "PixelSpacing is"),
        ({"ImageOrientationPatient": lambda k: [1, 0, 0, 0, 1, 0] if k else [0, 1, 0, 1, 0, 0]},
         "not parallel"),
    ],
)  # fmt: skip
def test_mixed_series_are_refused(tmp_path, values, words):
    with pytest.raises(GeometryError, match=words):
        load(dicom_series(tmp_path / "s", **values), None, None)


def test_a_missing_slice_is_named_and_a_truncated_one_refused(tmp_path):
    folder = dicom_series(tmp_path / "s", 7)
    file = folder / "004.dcm"
    whole = file.read_bytes()
    for cut in (140, 200, 400, len(whole) - 10):
        file.write_bytes(whole[:cut])
        with pytest.raises(UnreadableFileError):
            load(folder, None, None)
    file.unlink()
    with pytest.raises(GeometryError, match=r"between slices 3 and 4 .* 5 mm.*1 slice"):
        load(folder, None, None)


def test_an_empty_folder_says_so(tmp_path):
    with pytest.raises(UnreadableFileError, match="found none"):
        load(tmp_path, None, None)


def test_a_deflated_bomb_is_refused(tmp_path, monkeypatch):
    dataset = builders.dicom_slice(0)
    dataset.PixelData = bytes(2**22)
    file = builders.save(dataset, tmp_path / "b.dcm", DeflatedExplicitVRLittleEndian)
    monkeypatch.setattr(geometry, "MAX_BYTES", 2**20)
    with pytest.raises(UnreadableFileError, match="inflates to more than"):
        load(file, None, None)


def test_old_files_without_a_preamble_are_read(tmp_path):
    folder = dicom_series(tmp_path / "s", syntax=ImplicitVRLittleEndian)
    for file in folder.iterdir():
        dataset = pydicom.dcmread(file)
        bare = Dataset()
        bare.update(dataset)
        bare.save_as(file, implicit_vr=True, little_endian=True)
        assert file.read_bytes()[128:132] != b"DICM"
    assert np.array_equal(load(folder, None, None).voxels, stored_values())


def test_an_attribute_that_only_some_images_have_tells_no_volumes_apart(tmp_path):
    dicom_series(tmp_path / "s" / "0", EchoTime=20, DiffusionBValue=1000.0)
    dicom_series(tmp_path / "s" / "1", EchoTime=80)
    with pytest.raises(GeometryError, match=r"told apart by the echo time"):
        load(tmp_path / "s", None, None)


def test_compression_with_loss_is_said(tmp_path):
    loaded = load(dicom_series(tmp_path / "s", LossyImageCompression="01"), None, None)
    assert "compressed with loss" in loaded.source.warnings[0]


def test_a_file_that_changes_while_it_is_read_is_noticed(tmp_path, monkeypatch):
    folder = dicom_series(tmp_path / "s")
    original = read.parse

    def changing(file, with_pixels=False):
        if with_pixels:
            builders.save(builders.dicom_slice(9), file)
        return original(file, with_pixels=with_pixels)

    monkeypatch.setattr(read, "parse", changing)
    with pytest.raises(UnreadableFileError, match="the file changed while it was read"):
        load(folder, None, None)


def test_a_folder_of_volumes_is_no_series(tmp_path):
    (tmp_path / "t1.nii").write_bytes(builders.nifti_bytes(packed=False))
    with pytest.raises(UnreadableFileError, match=r"found 1 volume file\(s\) .* t1\.nii"):
        load(tmp_path, None, None)


def test_no_more_files_than_a_study_has_are_opened(tmp_path, monkeypatch):
    folder = dicom_series(tmp_path / "s")
    monkeypatch.setattr(series, "MAX_FILES", 5)
    assert load(folder, None, None).shape == (5, 6, 5)
    monkeypatch.setattr(series, "MAX_FILES", 4)
    with pytest.raises(UnreadableFileError, match="holds 5 files; expected at most 4"):
        load(folder, None, None)


def test_a_huge_file_is_passed_over_unless_it_is_dicom(tmp_path, monkeypatch):
    folder = dicom_series(tmp_path / "s")
    monkeypatch.setattr(geometry, "MAX_BYTES", 2**14)
    (folder / "notes.bin").write_bytes(bytes(2**14 + 1))
    assert np.array_equal(load(folder, None, None).voxels, stored_values())
    (folder / "more.dcm").write_bytes(bytes(128) + b"DICM" + bytes(2**14))
    with pytest.raises(UnreadableFileError, match=r"more\.dcm: the file is larger than the 16384"):
        load(folder, None, None)


def test_what_cannot_be_parsed_is_passed_over_unless_it_is_named(tmp_path):
    folder = dicom_series(tmp_path / "s")
    (folder / "odd").write_bytes(b"\x08\0\x05\0SQ\0\0\xff\xff\xff\xffabc")
    assert np.array_equal(load(folder, None, None).voxels, stored_values())
    (folder / "odd").rename(tmp_path / "odd.dcm")
    with pytest.raises(UnreadableFileError, match=r"odd\.dcm: the file is damaged"):
        load(tmp_path / "odd.dcm", None, None)


def test_frames_without_a_place_are_refused(tmp_path):
    file = enhanced(tmp_path / "e.dcm", 4)
    dataset = pydicom.dcmread(file)
    del dataset.PerFrameFunctionalGroupsSequence[-1]
    dataset.save_as(file)
    with pytest.raises(
        UnreadableFileError, match=r"NumberOfFrames is 4 but 3 frames are described"
    ):
        load(file, None, None)


def test_a_file_that_only_names_the_deflated_syntax_is_not_inflated(tmp_path):
    uid = str(DeflatedExplicitVRLittleEndian)
    folder = dicom_series(tmp_path / "s", SeriesDescription=uid)
    assert np.array_equal(load(folder, None, None).voxels, stored_values())


def test_damaged_rle_is_refused(tmp_path):
    file = dicom_series(tmp_path / "s") / "003.dcm"
    dataset = pydicom.dcmread(file)
    dataset.compress(RLELossless)
    frame = bytearray(next(generate_frames(dataset.PixelData)))
    frame[:4] = (9).to_bytes(4, "little")  # segments
    dataset.PixelData = encapsulate([bytes(frame)])
    dataset.save_as(file)
    with pytest.raises(UnreadableFileError, match=r"003\.dcm: the file is damaged"):
        load(file.parent, None, None)
