"""Derived series: same grid, same values, labelled, and nothing of the patient's but the study."""

import json
import re
import shutil
import subprocess

import numpy as np
import pydicom
import pytest
from pydicom.datadict import dictionary_VR

from medtrans.errors import OutputError
from medtrans.volumes import output_path, write_volume
from medtrans.volumes.files import load
from tests.volumes.builders import CT, dicom_series, dicom_slice, enhanced, provenance

TEXT = ("SH", "LO", "ST", "LT", "UT", "UC")
# What keeps a series in its study has to come along.
IDENTITY = ("PatientName", "PatientID", "IssuerOfPatientID", "StudyID", "AccessionNumber")
CANARY = "CANARY7"


@pytest.fixture
def source(tmp_path):
    return load(dicom_series(tmp_path / "source"), None, None)


def derive(loaded, folder, voxels=None, kind="mr"):
    voxels = loaded.voxels if voxels is None else voxels
    out, sidecar = write_volume(voxels, folder, loaded.source, provenance(kind))
    return out, sidecar, [pydicom.dcmread(f) for f in sorted(out.iterdir())]


def test_mr_comes_back_exactly_and_says_what_it_is(source, tmp_path):
    out, sidecar, images = derive(source, tmp_path / "out")
    again = load(out, None, None)
    assert np.array_equal(again.voxels, source.voxels)
    assert np.array_equal(again.affine, source.affine)
    assert json.loads(sidecar.read_text())["Synthetic"] is True
    originals = {f.instance_uid: f for f in source.source.header.frames}
    for image in images:
        assert image.SOPClassUID.name == "MR Image Storage"
        assert image.ImageType[:2] == ["DERIVED", "SECONDARY"]
        assert image.SyntheticData == "YES"
        assert image.BurnedInAnnotation == "NO"
        assert "SYNTHETIC" in image.SeriesDescription
        assert "NOT FOR DIAGNOSIS" in image.SeriesDescription
        assert "stored = round(1 x value)" in image.DerivationDescription
        assert "RescaleSlope" not in image
        assert image.StudyInstanceUID == "1.2.3"
        assert image.FrameOfReferenceUID == "1.2.3.9"
        assert image.SeriesInstanceUID != "1.2.3.4"
        assert image.ContributingEquipmentSequence[0].Manufacturer == "medtrans"
        frame = originals[image.SourceImageSequence[0].ReferencedSOPInstanceUID]
        assert tuple(map(str, image.ImagePositionPatient)) == frame.position
        assert tuple(map(str, image.ImageOrientationPatient)) == frame.orientation
    assert len({i.SOPInstanceUID for i in images}) == len(images)
    assert len({i.SeriesInstanceUID for i in images}) == 1


def test_ct_is_hu_with_the_usual_rescale(source, tmp_path):
    hu = np.random.default_rng(0).uniform(-1500, 3000, source.voxels.shape)
    out, _, images = derive(source, tmp_path / "out", hu, "ct")
    assert {(i.RescaleIntercept, i.RescaleSlope, i.Modality) for i in images} == {(-1024, 1, "CT")}
    assert np.array_equal(load(out, None, None).voxels, np.maximum(np.rint(hu), -1024))


@pytest.mark.parametrize("top", [1e-3, 1.0, 200.0, 1e6])
def test_mr_values_that_do_not_suit_16_bits_are_scaled(source, tmp_path, top):
    voxels = source.voxels / source.voxels.max() * top
    out, _, images = derive(source, tmp_path / "out", voxels)
    again = load(out, None, None).voxels
    scale = float(re.search(r"round\((\S+) x", images[0].DerivationDescription).group(1))
    assert again.max() == 4095
    assert np.allclose(again / scale, voxels, atol=0.51 / scale + 1e-5 * top)


def test_negative_mr_values_keep_their_sign(source, tmp_path):
    out, _, _ = derive(source, tmp_path / "out", source.voxels - 1000)
    assert np.array_equal(load(out, None, None).voxels, source.voxels - 1000)


def test_an_enhanced_source_gives_a_classic_series_that_names_its_frames(tmp_path):
    loaded = load(enhanced(tmp_path / "e.dcm", 4), None, None)
    out, _, images = derive(loaded, tmp_path / "out")
    assert np.array_equal(load(out, None, None).voxels, loaded.voxels)
    frames = [i.SourceImageSequence[0].ReferencedFrameNumber for i in images]
    assert sorted(frames) == [1, 2, 3, 4]
    assert output_path(loaded.source, "t1-to-t2").name == "e_t2-synthetic"


def test_the_same_series_as_nifti(source, tmp_path):
    out, _ = write_volume(
        source.voxels, tmp_path / "o.nii.gz", source.source, provenance(), kind="nifti"
    )
    again = load(out, None, None)
    assert np.array_equal(again.voxels, source.voxels)
    assert np.allclose(again.affine, source.affine, atol=1e-5)
    assert not again.source.warnings


def test_refusals(source, tmp_path):
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "x").write_text("x")
    with pytest.raises(OutputError, match="new or empty folder"):
        derive(source, tmp_path / "full")
    nameless = load(dicom_series(tmp_path / "n", StudyInstanceUID=""), None, None)
    with pytest.raises(OutputError, match=r"no \(0020,000D\) StudyInstanceUID"):
        derive(nameless, tmp_path / "out")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["full", "n", "source"]


def with_canaries(folder):
    """Put a canary into every text element that a study can have, private and nested too."""
    from pydicom.datadict import DicomDictionary, keyword_dict

    dicom_series(folder)
    for file in folder.iterdir():
        dataset = pydicom.dcmread(file)
        for keyword, tag in keyword_dict.items():
            multiple = DicomDictionary.get(tag, ("", "2"))[1] != "1"
            vr = dictionary_VR(tag)
            wanted = (
                vr in (*TEXT, "PN", "AE") and 8 <= tag >> 16 < 0x5400 and keyword not in IDENTITY
            )
            if wanted and (tag >> 16) not in (0x28,) and multiple in (True, False):
                setattr(dataset, keyword, CANARY)
        block = dataset.private_block(0x0019, CANARY, create=True)
        block.add_new(1, "LT", CANARY)
        item = pydicom.Dataset()
        item.CodeMeaning = CANARY
        dataset.ProcedureCodeSequence = [item]
        dataset.PatientName, dataset.PatientBirthDate = "Doe^Jane", "19510203"
        dataset.save_as(file)
    return folder


def test_no_free_text_gets_through(tmp_path, capsys, recwarn):
    loaded = load(with_canaries(tmp_path / "s"), None, None)
    out, sidecar, _ = derive(loaded, tmp_path / "out")
    nifti, _ = write_volume(
        loaded.voxels, tmp_path / "o.nii", loaded.source, provenance(), kind="nifti"
    )
    for file in [*out.iterdir(), sidecar, nifti, nifti.with_suffix(".json")]:
        assert CANARY.encode() not in file.read_bytes(), file.name
    for file in (sidecar, nifti, nifti.with_suffix(".json")):
        assert not any(w in file.read_bytes() for w in (b"Doe", b"19510203", b"ID1")), file.name
    said = capsys.readouterr()
    words = f"{loaded.source!r} {said.out} {said.err} {[str(w.message) for w in recwarn]}"
    assert not any(word in words for word in (CANARY, "Doe", "19510203"))


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ({"BodyPartExamined": "BRAIN"}, ("BRAIN", None)),
        ({"BodyPartExamined": "KNEE", "Laterality": "L"}, ("KNEE", "L")),
        ({"BodyPartExamined": "KNEE"}, ("KNEE", "")),
        ({"BodyPartExamined": "JANES KNEE", "Laterality": "BOTH"}, (None, "")),
        ({}, (None, None)),
    ],
)
def test_a_body_part_comes_along_in_standard_terms_alone(tmp_path, values, expected):
    source = load(dicom_series(tmp_path / "source", **values), None, None)
    for image in derive(source, tmp_path / "out")[2]:
        assert (image.get("BodyPartExamined"), image.get("Laterality")) == expected


def test_a_loss_stays_stated(tmp_path):
    loss = {"LossyImageCompressionRatio": 10, "LossyImageCompressionMethod": "ISO_10918_1"}
    source = load(dicom_series(tmp_path / "source", LossyImageCompression="01", **loss), None, None)
    for image in derive(source, tmp_path / "out")[2]:
        assert image.LossyImageCompression == "01"
        assert {keyword: image.get(keyword) for keyword in loss} == loss


@pytest.mark.parametrize("kind", ["mr", "ct"])
@pytest.mark.parametrize(
    "values",
    [{"BodyPartExamined": "BRAIN"}, {"BodyPartExamined": "KNEE", "Laterality": "L"}],
)
def test_the_validators_find_nothing(tmp_path, kind, values):
    source = load(dicom_series(tmp_path / "source", **values), None, None)
    out, _, _ = derive(source, tmp_path / "out", kind=kind)
    files = sorted(out.iterdir())
    assert [fault for file in files for fault in faults("dciodvfy", "-new", file)] == []
    assert faults("dcentvfy", *files) == []


@pytest.mark.filterwarnings("ignore:Invalid value for VR")
@pytest.mark.parametrize(
    "values",
    [
        {"PatientSex": "0000"},
        {"PatientSex": "FEMALE", "PatientAge": "50"},
        {},  # no body part, so that a side is missing
        {"BodyPartExamined": "KNEE", "Laterality": ""},
        {"PatientName": "Jane Doe", "StudyID": ""},
    ],
)
def test_what_the_source_has_wrong_gets_no_worse(tmp_path, values):
    folder = dicom_series(tmp_path / "source", **values)
    before = faults("dciodvfy", "-new", next(folder.iterdir()))
    assert before
    out, _, _ = derive(load(folder, None, None), tmp_path / "out")
    after = [fault for file in out.iterdir() for fault in faults("dciodvfy", "-new", file)]
    assert set(after) <= set(before)


@pytest.mark.parametrize(
    ("values", "side"),
    [
        ({"BodyPartExamined": "BRAIN"}, None),
        ({"BodyPartExamined": "BRAIN", "Laterality": ""}, None),
        ({"BodyPartExamined": "SOMEWHERE"}, ""),
        ({}, None),
        ({"BodyPartExamined": "KNEE"}, ""),
        ({"BodyPartExamined": "KNEE", "Laterality": "L"}, "L"),
    ],
)
def test_only_a_part_that_there_are_two_of_has_an_empty_side(tmp_path, values, side):
    source = load(dicom_series(tmp_path / "source", **values), None, None)
    _, _, images = derive(source, tmp_path / "out")
    assert {image.get("Laterality") for image in images} == {side}


def test_an_enhanced_source_says_the_part_in_its_frames(tmp_path):
    from pydicom.dataset import Dataset

    region, anatomy = Dataset(), Dataset()
    region.CodeMeaning = "Brain"
    anatomy.AnatomicRegionSequence = [region]
    path = enhanced(tmp_path / "e.dcm", 4)
    dataset = pydicom.dcmread(path)
    dataset.SharedFunctionalGroupsSequence[0].FrameAnatomySequence = [anatomy]
    dataset.save_as(path)
    _, _, images = derive(load(path, None, None), tmp_path / "out")
    assert {image.BodyPartExamined for image in images} == {"BRAIN"}
    assert not any("Laterality" in image for image in images)


def faults(tool, *arguments):
    """What a validator of dicom3tools finds wrong."""
    if not shutil.which(tool):
        pytest.skip("dicom3tools (dciodvfy, dcentvfy) is not installed")
    command = [tool, *map(str, arguments)]
    run = subprocess.run(command, capture_output=True, text=True, check=False)
    said = (run.stdout + run.stderr).splitlines()
    # SyntheticData (0008,001C) is younger than the dictionary of Debian's dicom3tools.
    wrong = [x for x in said if x.startswith(("Error", "Warning"))]
    return [x for x in wrong if "(0008,001c)" not in x]


def test_dcm2niix_reads_it_back(source, tmp_path, dcm2niix):
    out, _, _ = derive(source, tmp_path / "out")
    subprocess.run(
        [dcm2niix, "-b", "n", "-z", "n", "-f", "back", "-o", str(tmp_path), str(out)],
        check=True, capture_output=True,
    )  # fmt: skip
    back = load(tmp_path / "back.nii", None, None)
    steps = np.rint(np.linalg.inv(back.affine) @ source.affine)
    axes = np.abs(steps[:3, :3]).argmax(axis=1)
    flips = [i for i in range(3) if steps[i, axes[i]] < 0]
    assert np.array_equal(np.flip(source.voxels.transpose(axes), flips), back.voxels)
    assert np.allclose(back.affine @ steps, source.affine, atol=1e-3)


def test_highdicom_and_simpleitk_open_it(source, tmp_path):
    import SimpleITK

    out, _, images = derive(source, tmp_path / "out")
    highdicom = pytest.importorskip("highdicom")
    volume = highdicom.get_volume_from_series(images)
    # highdicom counts slices against the normal, and (slice, row, column).
    assert np.array_equal(volume.array[::-1].transpose(2, 1, 0), source.voxels)
    reader = SimpleITK.ImageSeriesReader()
    reader.SetFileNames(reader.GetGDCMSeriesFileNames(str(out)))
    array = SimpleITK.GetArrayFromImage(reader.Execute())
    assert np.array_equal(array.T, source.voxels)


def test_a_ct_source_and_a_chosen_volume(tmp_path):
    folder = tmp_path / "s"
    dicom_series(folder / "0", EchoTime=20)
    dicom_series(folder / "1", EchoTime=80, series="1.2.3.4")
    loaded = load(folder, None, 1)
    _, _, images = derive(loaded, tmp_path / "out")
    assert len(images) == 5
    assert load(dicom_series(tmp_path / "ct", sop_class=CT), None, None).voxels.min() >= -1024
    assert dicom_slice(0).Rows == images[0].Rows
