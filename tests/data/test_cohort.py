"""A messy folder to a manifest: what is listed, under which name, and what is left out and why."""

import json
import shutil
import zipfile

import numpy as np
import pydicom
import pytest
from nibabel.freesurfer import MGHImage

from medtrans.data import search
from medtrans.data.cohort import MASK, TWICE, UNKNOWN, Options, find_cohort
from medtrans.data.manifest import Manifest, write_manifest
from medtrans.data.search import NO_VOLUME, NOT_HERE, NOT_RAW, OURS, SEVERAL, pseudonym
from medtrans.data.splits import split_by_name
from medtrans.errors import UnreadableFileError, UsageError
from medtrans.evaluate.cases import _read as read_case
from medtrans.volumes import write_volume
from medtrans.volumes.files import load
from tests.volumes.builders import dicom_series, dicom_slice, nifti_bytes, provenance, save

T1 = {"EchoTime": 10, "RepetitionTime": 500}


def nifti(path, shape=(4, 4, 4)):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(nifti_bytes(shape))
    return path


def find(root, **options):
    calls = []
    cohort = find_cohort(root, Options(**options), lambda done, total: calls.append((done, total)))
    assert not calls or calls[-1][0] == calls[-1][1] == len(calls)
    return cohort


def rows(cohort):
    return {"|".join((v.subject, v.session, v.contrast)) for v in cohort.volumes}


def reasons(cohort, root):
    return {str(item.path.relative_to(root)): item.why for item in cohort.left_out}


def test_bids(tmp_path):
    (tmp_path / "dataset_description.json").write_text("{}")
    for name in (
        "anat/sub-01_ses-1_T1w",
        "anat/sub-01_ses-1_ce-gad_T1w",
        "anat/sub-01_ses-1_FLAIR",
        "anat/sub-01_ses-1_run-2_T1w",
        "dwi/sub-01_ses-1_dwi",
        "anat/sub-01_ses-1_T2star",
    ):
        nifti(tmp_path / "sub-01" / "ses-1" / f"{name}.nii.gz")  # fmt: skip
    nifti(tmp_path / "sub-01" / "ses-2" / "anat" / "sub-01_ses-2_T2w.nii.gz")
    nifti(tmp_path / "derivatives" / "fs" / "sub-01_T1w.nii.gz")
    nifti(tmp_path / ".git" / "sub-02_T1w.nii.gz")
    cohort = find(tmp_path)
    assert rows(cohort) == {
        "sub-01|ses-1|t1", "sub-01|ses-1|t1c", "sub-01|ses-1|flair", "sub-01|ses-2|t2",
    }  # fmt: skip
    anat = "sub-01/ses-1/anat/sub-01_ses-1"
    assert reasons(cohort, tmp_path) == {
        f"{anat}_run-2_T1w.nii.gz": TWICE, f"{anat}_T2star.nii.gz": MASK,
        "sub-01/ses-1/dwi/sub-01_ses-1_dwi.nii.gz": MASK, "derivatives": NOT_RAW,
    }  # fmt: skip
    assert cohort.others == 1


def test_a_plain_tree(tmp_path):
    for name in ("a/t1.nii.gz", "a/t1_n4.nii.gz", "a/brainmask.nii.gz", "b/T2.nii.gz", "b/x.nii.gz",
                 "b/dwi.nii.gz"):  # fmt: skip
        nifti(tmp_path / name)
    nifti(tmp_path / "a" / "flair.nii.gz", (4, 4, 4, 3))
    (tmp_path / "b" / "t1.nii.gz").write_bytes(nifti_bytes()[:50])
    (tmp_path / "b" / "flair.nii.gz").symlink_to("nowhere")
    (tmp_path / "b" / "notes.txt").write_text("x")
    MGHImage(np.zeros((3, 3, 3), np.uint8), np.eye(4)).to_filename(tmp_path / "b" / "pd.mgz")
    cohort = find(tmp_path)
    assert rows(cohort) == {"a||t1", "b||t2", "b||pd"}
    assert reasons(cohort, tmp_path) == {
        "a/t1_n4.nii.gz": TWICE, "a/brainmask.nii.gz": MASK, "a/flair.nii.gz": SEVERAL,
        "b/x.nii.gz": UNKNOWN, "b/dwi.nii.gz": MASK, "b/t1.nii.gz": NO_VOLUME,
        "b/flair.nii.gz": NOT_HERE,
    }  # fmt: skip
    assert cohort.others == 1


def test_what_medtrans_made_is_left_out(tmp_path):
    source = load(nifti(tmp_path / "a" / "t1.nii.gz"), None, None).source
    write_volume(np.ones((4, 4, 4)), tmp_path / "a" / "t2.nii.gz", source, provenance())
    scan = load(dicom_series(tmp_path / "b" / "s"), None, None)
    write_volume(scan.voxels, tmp_path / "b" / "out", scan.source, provenance())
    cohort = find(tmp_path)
    assert len(cohort.volumes) == 2
    left = reasons(cohort, tmp_path)
    assert left == {"a/t2.nii.gz": OURS, "b/out": NO_VOLUME}


def test_the_sidecar_of_a_scanner_comes_before_the_name(tmp_path):
    for name, entries in {
        "a/scan1": {"EchoTime": 0.1, "RepetitionTime": 5, "ScanningSequence": "SE"},
        "a/scan2": {"Modality": "CT"},
        "b/t2": {"EchoTime": 0.01, "RepetitionTime": 0.5, "ContrastBolusAgent": "Gd"},
        "c/t1": {"EchoTime": "?"},
        "d/t1": [],
    }.items():
        nifti(tmp_path / f"{name}.nii.gz")
        (tmp_path / f"{name}.json").write_text(json.dumps(entries))
    nifti(tmp_path / "e" / "t1.nii.gz")
    (tmp_path / "e" / "t1.json").write_text("[" * 10_000)
    assert rows(find(tmp_path)) == {"a||t2", "a||ct", "b||t1c", "c||t1", "d||t1", "e||t1"}


def test_a_huge_sidecar_is_not_read(tmp_path, monkeypatch):
    nifti(tmp_path / "a" / "x.nii.gz")
    (tmp_path / "a" / "x.json").write_text('{"Modality": "CT"}')
    assert rows(find(tmp_path)) == {"a||ct"}
    monkeypatch.setattr("medtrans.data.search._LONGEST_SIDECAR", 3)
    with pytest.raises(UsageError, match="found no volume to list"):
        find(tmp_path)


class TestDicom:
    def test_by_tags(self, tmp_path):
        who = {"PatientID": "MRN1", "PatientName": "Doe^Jane"}
        for study, date, uid in (("1.9", "20210101", "5"), ("1.8", "20200101", "6")):
            when = {"StudyInstanceUID": study, "StudyDate": date, **who}
            dicom_series(tmp_path / f"x{uid}", series=f"1.2.{uid}", **when, **T1)
        dicom_series(tmp_path / "y", series="1.2.7", PatientID="MRN2")
        cohort = find(tmp_path)
        first, second = pseudonym("MRN1"), pseudonym("MRN2")
        assert rows(cohort) == {f"{first}|study1|t1", f"{first}|study2|t1", f"{second}||t2"}
        [early] = [v for v in cohort.volumes if v.session == "study1"]
        assert early.path.name == "x6"
        assert "MRN" not in repr(cohort)
        assert rows(find(tmp_path, keep_ids=True)) == {
            "MRN1|study1|t1", "MRN1|study2|t1", "MRN2||t2",
        }  # fmt: skip

    def test_without_an_id_by_folder(self, tmp_path):
        for name in ("p1", "p2"):
            dicom_series(tmp_path / name / "ser 1", series=f"1.{name[1]}", PatientID="")
        assert rows(find(tmp_path)) == {"p1||t2", "p2||t2"}

    def test_series_in_one_folder_are_named_and_read(self, tmp_path):
        for number, values in ((1, T1), (2, {})):
            dicom_series(tmp_path / "tmp", series=f"1.2.{number}", **values)
            for file in (tmp_path / "tmp").iterdir():
                (tmp_path / "all").mkdir(exist_ok=True)
                file.rename(tmp_path / "all" / f"{number}{file.name}")
        (tmp_path / "tmp").rmdir()
        cohort = find(tmp_path)
        assert [(v.contrast, v.series) for v in cohort.volumes] == [
            ("t1", "1.2.1"),
            ("t2", "1.2.2"),
        ]
        write_manifest(tmp_path / "m.csv", [v.row(tmp_path) for v in cohort.volumes])
        entries = Manifest.read(tmp_path / "m.csv").entries()
        assert [entry.series for entry in entries] == ["1.2.1", "1.2.2"]
        read = [read_case(entry) for entry in entries]
        assert [volume.meta["source"].series for volume in read] == ["1.2.1", "1.2.2"]

    def test_what_is_no_volume(self, tmp_path):
        dicom_series(tmp_path / "good", series="1.2.1")
        dicom_series(tmp_path / "hole", 7, series="1.2.2")
        (tmp_path / "hole" / "004.dcm").unlink()
        dicom_series(tmp_path / "b", series="1.2.3", DiffusionBValue=0.0)
        dicom_series(tmp_path / "b" / "2", series="1.2.3", DiffusionBValue=1000.0,
                     SOPInstanceUID=lambda k: f"1.7.{k + 1}")  # fmt: skip
        scout = tmp_path / "scout.dcm"
        save(dicom_slice(0, series="1.2.4", ImageType=["O", "P", "LOCALIZER"]), scout)
        dicom_series(tmp_path / "cut", series="1.2.5")
        whole = (tmp_path / "cut" / "001.dcm").read_bytes()
        (tmp_path / "cut" / "001.dcm").write_bytes(whole[:300])
        cohort = find(tmp_path)
        assert [v.path.name for v in cohort.volumes] == ["good"]
        details = {str(x.path.relative_to(tmp_path)): x.detail for x in cohort.left_out}
        assert TWICE not in {x.why for x in cohort.left_out}
        assert "1 slice(s) are missing" in details["hole"]
        assert "b-value" in details["b"]
        assert "localizer" in details["scout.dcm"]
        assert "001.dcm" in details["cut"]

    def test_copies_in_another_folder_are_no_second_half(self, tmp_path):
        one = dicom_series(tmp_path / "one")
        shutil.copytree(one, tmp_path / "two")
        cohort = find(tmp_path)
        assert [v.path.name for v in cohort.volumes] == ["one"]
        assert reasons(cohort, tmp_path) == {"two": TWICE}

    def test_a_series_over_several_folders(self, tmp_path):
        whole = dicom_series(tmp_path / "disc" / "A", 6)
        (tmp_path / "disc" / "B").mkdir()
        for name in ("004", "005", "006"):
            (whole / f"{name}.dcm").rename(tmp_path / "disc" / "B" / f"{name}.dcm")
        [volume] = find(tmp_path).volumes
        assert volume.path == tmp_path / "disc"
        assert load(volume.path).shape[2] == 6

    def test_pixels_are_not_read(self, tmp_path):
        folder = dicom_series(tmp_path / "s", rows=400, columns=400, PixelData=bytes(320_000))
        for file in folder.iterdir():
            file.write_bytes(file.read_bytes()[:-1000])  # only a reader of the pixels could tell
        assert len(find(tmp_path).volumes) == 1

    def test_a_zip(self, tmp_path):
        for number, values in ((1, T1), (2, {})):
            dicom_series(tmp_path / "x" / str(number), series=f"1.2.{number}", **values)
        dicom_series(tmp_path / "x" / "3", 7, series="1.2.3", PatientID="other")
        (tmp_path / "x" / "3" / "004.dcm").unlink()
        with zipfile.ZipFile(tmp_path / "study.zip", "w") as file:
            for path in (tmp_path / "x").rglob("*.dcm"):
                file.write(path, path.relative_to(tmp_path / "x"))
        shutil.rmtree(tmp_path / "x")
        with zipfile.ZipFile(tmp_path / "empty.zip", "w") as file:
            file.writestr("a.txt", "x")
        (tmp_path / "broken.zip").write_bytes(b"PK\3\4")
        cohort = find(tmp_path)
        assert {(v.path.name, v.series) for v in cohort.volumes} == {
            ("study.zip", "1.2.1"), ("study.zip", "1.2.2"),
        }  # fmt: skip
        assert load(cohort.volumes[0].path, cohort.volumes[0].series).shape == (5, 6, 5)
        left = {x.path.name: x.detail for x in cohort.left_out}
        assert "no DICOM images in the zip" in left["empty.zip"]
        assert "truncated" in left["broken.zip"]
        assert left["study.zip"].startswith(f"{tmp_path / 'study.zip'}/3: the gap")


class TestSplits:
    def test_a_person_stays_in_one(self, tmp_path):
        for number in range(30):
            for visit in ("study1", "study2"):
                nifti(tmp_path / f"p{number}-{visit}" / "t1.nii.gz")
        cohort = find(tmp_path, val=0.2, test=0.2)
        of = {subject: set() for subject in {v.subject for v in cohort.volumes}}
        for volume in cohort.volumes:
            of[volume.subject].add(volume.split)
        assert len(of) == 30
        assert all(len(splits) == 1 for splits in of.values())
        assert set.union(*of.values()) == {"train", "val", "test"}

    def test_more_subjects_do_not_move_the_others(self):
        few = split_by_name([f"s{k}" for k in range(100)], 0.25, 0.15)
        many = split_by_name([f"s{k}" for k in range(1000)], 0.25, 0.15)
        assert few.items() <= many.items()
        counts = [list(many.values()).count(name) for name in ("train", "val", "test")]
        assert np.allclose(counts, [600, 250, 150], atol=40)

    @pytest.mark.parametrize(
        ("count", "val", "test", "expected"),
        [
            (0, 0.1, 0.1, []), (1, 0.1, 0.1, ["train"]), (2, 0.1, 0.1, ["train", "val"]),
            (3, 0.1, 0.1, ["test", "train", "val"]), (2, 0, 0.1, ["test", "train"]),
            (2, 0.1, 0, ["train", "val"]), (20, 0, 0, ["train"]),
        ],
    )  # fmt: skip
    def test_few_and_none(self, count, val, test, expected):
        splits = split_by_name(map(str, range(count)), val, test)
        assert sorted(set(splits.values())) == expected

    @pytest.mark.parametrize(("val", "test"), [(0.5, 0.5), (-0.1, 0.1), (0.1, 1.0)])
    def test_wrong_shares(self, tmp_path, val, test):
        with pytest.raises(UsageError, match="leave nothing for training"):
            find(tmp_path, val=val, test=test)


def test_files_that_cannot_be_opened_or_are_no_images(tmp_path, monkeypatch):
    nifti(tmp_path / "a" / "t1.nii.gz")
    (tmp_path / "a" / "locked").write_bytes(b"x")
    dicom_series(tmp_path / "b", SOPClassUID="1.2.840.10008.5.1.4.1.1.7")
    dicom_series(tmp_path / "c", series="1.9", ImageType=["ORIGINAL", "PRIMARY", "LOCALIZER"])
    report = dicom_slice(0, Rows=None, SOPClassUID="1.2.840.10008.5.1.4.1.1.88.11")
    save(report, tmp_path / "report.dcm")

    def kind_of(path):
        if path.name == "locked":
            raise UnreadableFileError("no")
        return real(path)

    real = search.kind_of
    monkeypatch.setattr(search, "kind_of", kind_of)
    cohort = find(tmp_path)
    assert rows(cohort) == {"a||t1"}
    assert cohort.others == 1
    details = {x.path.name: x.detail for x in cohort.left_out}
    assert "Secondary Capture" in details["b"]
    assert "5 image(s) of a localizer" in details["c"]


def test_nothing_to_list(tmp_path):
    with pytest.raises(UsageError, match="expected a folder"):
        find(tmp_path / "nowhere")
    with pytest.raises(UsageError, match=r"found no volume to list \(0 left out\)"):
        find(tmp_path)
    nifti(tmp_path / "mask.nii.gz")
    with pytest.raises(UsageError, match=r"\(1 left out; the first, .*mask.nii.gz: a mask"):
        find(tmp_path)


def test_a_deep_header_is_read_whole(tmp_path):
    """Private attributes of 300 kB stand before those that place the image."""
    folder = dicom_series(tmp_path / "s")
    for file in folder.iterdir():
        dataset = pydicom.dcmread(file)
        dataset.private_block(0x0019, "X", create=True).add_new(1, "OB", bytes(300_000))
        dataset.save_as(file)
    assert len(find(tmp_path).volumes) == 1
