"""Layouts of public sets on skeletons of them, and of one's own."""

from collections import Counter

import pytest

from medtrans.data.cohort import Options, find_cohort
from medtrans.data.layouts import read_layout, shipped_layouts
from medtrans.errors import ConfigError
from tests.volumes.builders import dicom_series, nifti_bytes


def skeleton(root, *names):
    """Small images of these names; a name without suffix is a DICOM series."""
    for number, name in enumerate(names):
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if name.endswith((".nii", ".nii.gz")):
            path.write_bytes(nifti_bytes((4, 4, 4), packed=name.endswith("gz")))
        elif name.endswith(".mha"):
            header = "ObjectType = Image\nNDims = 3\nBinaryData = True\nDimSize = 2 2 2\n"
            header += "ElementType = MET_UCHAR\nElementDataFile = LOCAL\n"
            path.write_bytes(header.encode() + bytes(8))
        elif path.suffix:
            path.write_bytes(b"x")
        else:
            dicom_series(path, 3, series=f"1.2.3.{number + 10}")
    return root


def listed(root, layout):
    cohort = find_cohort(root, Options(read_layout(layout)), lambda done, total: None)
    rows = {f"{v.subject}|{v.session}|{v.contrast}" for v in cohort.volumes}
    return rows, Counter(item.why for item in cohort.left_out), cohort


def test_ixi(tmp_path):
    root = skeleton(
        tmp_path, "IXI-T1/IXI002-Guys-0828-T1.nii.gz", "IXI-T2/IXI002-Guys-0828-T2.nii.gz",
        "IXI-PD/IXI012-HH-1211-PD.nii.gz", "IXI-MRA/IXI002-Guys-0828-MRA.nii.gz",
        "IXI-DTI/IXI002-Guys-0828-DTI-00.nii.gz", "IXI.xls", "IXI-T1/other.nii.gz",
    )  # fmt: skip
    rows, why, cohort = listed(root, "ixi")
    assert rows == {"IXI002||t1", "IXI002||t2", "IXI012||pd"}
    assert why == {
        "angiography or diffusion": 2, "no rule of the layout IXI fits its path": 1,
    }  # fmt: skip
    assert cohort.others == 1


def test_brats(tmp_path):
    new, old = "BraTS-GLI-00000-001", "BraTS20_Training_001"
    root = skeleton(
        tmp_path,
        *(f"2023/{new}/{new}-{name}.nii.gz" for name in ("t1n", "t1c", "t2w", "t2f", "seg")),
        *(f"2020/{old}/{old}_{name}.nii" for name in ("t1", "t1ce", "t2", "flair", "seg")),
        "2021/BraTS2021_00002/BraTS2021_00002_t1ce.nii.gz",
        "2018/Brats18_TCIA01_131_1/Brats18_TCIA01_131_1_t1.nii.gz",
    )
    rows, why, _ = listed(root, "brats")
    contrasts = ("t1", "t1c", "t2", "flair")
    assert rows == {
        *(f"BraTS-GLI-00000|001|{c}" for c in contrasts), *(f"{old}||{c}" for c in contrasts),
        "BraTS2021_00002||t1c", "Brats18_TCIA01_131_1||t1",
    }  # fmt: skip
    assert why == {"a tumour's labels": 2}


@pytest.mark.parametrize(
    ("layout", "case", "suffix"),
    [("synthrad2023", "Task1/brain/1BA001", "nii.gz"), ("synthrad2023", "pelvis/1PC012", "nii.gz"),
     ("synthrad2025", "Task1/HN/1HNA001", "mha"), ("synthrad2025", "AB/1ABE005", "mha")],
)  # fmt: skip
def test_synthrad(tmp_path, layout, case, suffix):
    root = skeleton(tmp_path, *(f"{case}/{n}.{suffix}" for n in ("mr", "ct", "mask", "cbct")))
    rows, why, _ = listed(root, layout)
    subject = case.rpartition("/")[2]
    assert rows == {f"{subject}||mr", f"{subject}||ct"}
    assert sum(why.values()) == 2
    assert why["a mask"] == 1


def test_fastmri_brain(tmp_path):
    """All series of an examination in one folder; contrasts by the images' own attributes."""
    folder = tmp_path / "fastMRI_brain_DICOM" / "100099070170"
    kinds = {
        "t1": {"EchoTime": 10, "RepetitionTime": 500, "SeriesDescription": "AX T1"},
        "t1c": {"EchoTime": 10, "RepetitionTime": 500, "SeriesDescription": "AX T1 POST"},
        "t2": {"SeriesDescription": "AX T2"},
        "flair": {"SeriesDescription": "AX FLAIR"},
    }
    for number, (name, values) in enumerate(kinds.items()):
        dicom_series(folder / name, 3, series=f"1.2.3.{number + 10}", **values)
        for file in (folder / name).iterdir():
            file.rename(folder / f"{name}{file.name}")
        (folder / name).rmdir()
    rows, _, cohort = listed(tmp_path, "fastmri_brain")
    assert rows == {f"100099070170||{name}" for name in kinds}
    assert {volume.path for volume in cohort.volumes} == {folder}
    assert len({volume.series for volume in cohort.volumes}) == 4


def test_oasis3(tmp_path):
    one, two = "OAS30001_MR_d0129", "OAS30001_MR_d3132"
    root = skeleton(
        tmp_path, f"{one}/anat1/sub-OAS30001_ses-d0129_T1w.nii.gz",
        f"{one}/anat2/NIFTI/sub-OAS30001_sess-d0129_acq-TSE_T2w.nii.gz",
        f"{one}/anat3/sub-OAS30001_sess-d0129_T2w.nii.gz",
        f"{one}/func1/sub-OAS30001_ses-d0129_task-rest_bold.nii.gz",
        f"{two}/anat1/sub-OAS30001_sess-d3132_run-01_T1w.nii.gz",
        f"{two}/anat2/sub-OAS30001_sess-d3132_FLAIR.nii.gz",
    )  # fmt: skip
    rows, why, cohort = listed(root, "oasis3")
    assert rows == {
        "OAS30001|d0129|t1", "OAS30001|d0129|t2", "OAS30001|d3132|t1", "OAS30001|d3132|flair",
    }  # fmt: skip
    assert len({volume.split for volume in cohort.volumes}) == 1
    [second] = [item for item in cohort.left_out if "acq-TSE" in item.path.name]
    assert second.why.startswith("another volume of the same subject")
    assert sum(why.values()) == 2


def test_chaos(tmp_path):
    mr = "Train_Sets/MR/1"
    root = skeleton(
        tmp_path, f"{mr}/T1DUAL/DICOM_anon/OutPhase", f"{mr}/T2SPIR/DICOM_anon",
        "Train_Sets/CT/1/DICOM_anon", f"{mr}/T2SPIR/Ground/x.png",
    )  # fmt: skip
    dicom_series(root / f"{mr}/T1DUAL/DICOM_anon/InPhase", 3, series="1.2.3.10")  # OutPhase's UID
    rows, why, cohort = listed(root, "chaos")
    assert rows == {"mr-1||t1", "mr-1||t2", "ct-1||ct"}
    assert why == {"out of phase: fat and water cancel each other": 1}
    assert {volume.series for volume in cohort.volumes} == {""}


def test_every_layout_has_a_page_and_is_in_the_list():
    from medtrans.system.resources import shipped

    folder = shipped("data_manifests")
    readme = (folder / "README.md").read_text(encoding="utf-8")
    for name in shipped_layouts():
        page = (folder / f"{name}.md").read_text(encoding="utf-8")
        assert f"--layout {name}`" in page
        for entry in ("get it", "licence", "expected", "split that others use"):
            assert f"\n| {entry} |" in page
        assert f"[{name}]({name}.md)" in readme
    assert len(shipped_layouts()) == 7


def test_one_of_your_own(tmp_path):
    own = tmp_path / "own.toml"
    own.write_text("""
name = "own"
[[volumes]]
path = '^(?P<site>\\w+)/(?P<id>\\d+)/(?P<visit>v\\d)?_?t1\\.nii\\.gz$'
subject = "{site}-{id}"
session = "{visit}"
contrast = "t1"
split = "val"
""")
    root = skeleton(tmp_path / "d", "oslo/7/v2_t1.nii.gz", "rome/7/t1.nii.gz", "rome/7/t2.nii.gz")
    rows, why, cohort = listed(root, str(own))
    assert rows == {"oslo-7|v2|t1", "rome-7||t1"}
    assert {volume.split for volume in cohort.volumes} == {"val"}
    assert sum(why.values()) == 1


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("name = 'x'", "volumes: Field required"),
        ("name = 'x'\nvolumes = []", "volumes: .*at least 1"),
        ("name = 'x'\n[[volumes]]\npath = '(?P<subject>'", "no regular expression"),
        ("name = 'x'\n[[volumes]]\npath = 'a'", r"has no group \(\?P<subject>"),
        ("name = 'x'\n[[volumes]]\npath = '(?P<subject>a)'\nsession = '{subject.x}'", "no group"),
        ("name = 'x'\n[[volumes]]\npath = '(?P<subject>a)'\nsplit = 'dev'", "'dev' is no split"),
        ("name = 'x'\n[[volumes]]\npath = '(?P<subject>a)'\ncontrast = 't9'", "contrast: "),
        ("name = 'x'\ncolour = 1\n[[volumes]]\npath = '(?P<subject>a)'", "colour: Extra"),
        ("name = ", "cannot be read as TOML"),
    ],
)
def test_a_wrong_layout(tmp_path, text, words):
    (tmp_path / "own.toml").write_text(text)
    with pytest.raises(ConfigError, match=words):
        read_layout(str(tmp_path / "own.toml"))


def test_an_unknown_or_large_layout(tmp_path, monkeypatch):
    with pytest.raises(ConfigError, match=r"did you mean 'brats'.*chaos, fastmri_brain, ixi"):
        read_layout("bratz")
    monkeypatch.setattr("medtrans.data.layouts._MAX_BYTES", 3)
    with pytest.raises(ConfigError, match="at most 3 bytes"):
        read_layout("ixi")
