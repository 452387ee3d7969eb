"""What ``medtrans info`` is told, and which contrast a name or a sequence means."""

import json

import pytest

from medtrans.errors import UnreadableFileError
from medtrans.volumes import contrast, describe
from tests.volumes.builders import dicom_series, nifti_bytes


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("sub-01_T1w", "t1"), ("sub-01_ce-gd_T1w", "t1c"), ("BraTS-0001-t1n", "t1"),
        ("BraTS_t1ce", "t1c"), ("t1c", "t1c"), ("t2f", None), ("sub-1_FLAIR", "flair"),
        ("t2_flair_tra", "flair"), ("T2w", "t2"), ("t2_tse_tra", "t2"), ("pd", "pd"), ("ct", "ct"),
        ("mr", "mr"), ("mprage_sag", "t1"), ("ep2d_diff_t2", None), ("t1_seg", None),
        ("subject7", None), ("t2star", None), ("impact1", None), ("scan", None),
    ],
)  # fmt: skip
def test_names(name, expected):
    assert contrast.from_name(name) == expected


@pytest.mark.parametrize(
    ("echo", "repetition", "inversion", "flip", "codes", "agent", "expected"),
    [
        (100, 4000, None, 90, {"SE"}, False, "t2"),
        (12, 500, None, 90, {"SE"}, False, "t1"),
        (12, 500, None, 90, {"SE"}, True, "t1c"),
        (12, 3000, None, 90, {"SE"}, False, "pd"),
        (120, 9000, 2500, 150, {"SE", "IR"}, False, "flair"),
        (3, 2000, 900, 9, {"GR", "IR"}, False, "t1"),
        (4, 20, None, 25, {"GR"}, False, "t1"),
        (20, 600, None, 20, {"GR"}, False, None),
        (80, 5000, None, 90, {"EP", "SE"}, False, None),
        (None, 5000, None, 90, {"SE"}, False, None),
    ],
)
def test_sequences(echo, repetition, inversion, flip, codes, agent, expected):
    sequence = contrast.Sequence(echo, repetition, inversion, flip, codes, agent)
    assert contrast.from_sequence(sequence) == expected


def test_a_nifti_file(tmp_path):
    path = tmp_path / "sub-1_T1w.nii.gz"
    path.write_bytes(nifti_bytes())
    facts = json.loads(json.dumps(describe(path)))
    assert facts["readable"] is True
    assert facts["kind"] == "nifti"
    assert facts["contrast"] == "t1"
    assert facts["shape"] == [7, 6, 5]
    assert facts["spacing_mm"] == [2.0, 1.5, 3.0]
    assert facts["orientation"] == "LAS"
    assert facts["stored_dtype"] == "int16"
    assert facts["problems"] == []


def test_problems_are_reported_not_raised(tmp_path):
    path = tmp_path / "a.nii"
    path.write_text("no image")
    facts = describe(path)
    assert facts["readable"] is False
    assert len(facts["problems"]) == 1
    with pytest.raises(UnreadableFileError, match="no such file"):
        describe(tmp_path / "missing.nii")


def test_a_folder_of_two_series(tmp_path):
    dicom_series(tmp_path / "a", SeriesDescription="CANARY")
    dicom_series(tmp_path / "b", series="1.2.3.5", number=5, EchoTime=10, RepetitionTime=500)
    facts = describe(tmp_path)
    assert [(s["number"], s["contrast"]) for s in facts["series"]] == [("4", "t2"), ("5", "t1")]
    assert "--series" in facts["problems"][0]
    chosen = describe(tmp_path, series="5")
    assert chosen["contrast"] == "t1"
    assert chosen["readable"] is True
    assert not any(word in json.dumps([facts, chosen]) for word in ("CANARY", "Doe", "ID1"))


def test_an_image_of_one_value_is_a_problem(tmp_path):
    path = tmp_path / "a.nii"
    path.write_bytes(nifti_bytes(packed=False, edit=lambda h: h.set_slope_inter(1e-9, 7)))
    assert describe(path)["problems"][-1].endswith("Check that this is the right file.")
    assert "all voxels have the value 7" in describe(path)["problems"][-1]
