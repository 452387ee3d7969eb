"""`medtrans manifest`, from the folder to the file that the other commands read."""

import json
from functools import partial

import pytest

from medtrans.data.manifest import Manifest
from tests.volumes.builders import nifti_bytes


@pytest.fixture
def run(medtrans):
    return partial(medtrans, "manifest")


@pytest.fixture
def folder(tmp_path):
    for name in ("a/t1", "a/t2", "b/t1", "b/t2", "c/t1", "c/mask"):
        path = tmp_path / "data" / f"{name}.nii.gz"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(nifti_bytes((4, 4, 4)))
    (tmp_path / "data" / "notes.txt").write_text("x")
    return tmp_path / "data"


def test_for_a_person(folder, tmp_path, run):
    code, out, _ = run(folder, "--out", tmp_path / "m.csv")
    assert code == 0
    lines = [" ".join(line.split()) for line in out.splitlines()]
    assert "volumes: 5" in lines
    assert "all 3 3 2" in lines
    assert any(line.startswith("1 a mask, a map or another kind of image") for line in lines)
    assert "1 no image" in lines
    table = Manifest.read(tmp_path / "m.csv")
    assert len(table.entries()) == 5
    assert len(table.pairs("t1", "t2", None)) == 2
    assert table.split_is_stated
    text = (tmp_path / "m.csv").read_text()
    assert text.startswith("subject,contrast,path,split,session,series\n")
    assert "\na,t1,data/a/t1.nii.gz," in text


def test_for_a_program(folder, tmp_path, run):
    out_csv = tmp_path / "deep" / "m.csv"
    out_csv.parent.mkdir()
    arguments = (folder, "-o", out_csv, "--val", "0", "--test", "0", "--json")
    code, out, _ = run(*arguments)
    result = json.loads(out)
    assert code == 0
    assert [row["subjects"] for row in result["splits"]] == [3, 0, 0, 3]
    assert result["left_out"][0]["path"].endswith("c/mask.nii.gz")
    assert result["other_files"] == 1
    assert len(Manifest.read(out_csv).entries("train")) == 5


def test_a_layout_says_what_to_expect(folder, tmp_path, run):
    (folder / "IXI002-Guys-0828-T1.nii.gz").write_bytes(nifti_bytes((4, 4, 4)))
    arguments = (folder, "-o", tmp_path / "m.csv", "--layout", "ixi")
    code, out, _ = run(*arguments)
    assert code == 0
    assert "expected:\n  t1: 581\n  t2: 578" in out


def test_an_edited_manifest_is_not_replaced(folder, tmp_path, run):
    (tmp_path / "m.csv").write_text("edited")
    code, _, err = run(folder, "-o", tmp_path / "m.csv")
    assert code == 2
    assert "may have been edited" in err
    assert (tmp_path / "m.csv").read_text() == "edited"
    code, _, _ = run(folder, "-o", tmp_path / "m.csv", "--overwrite")
    assert code == 0
    assert len(Manifest.read(tmp_path / "m.csv").entries()) == 5


@pytest.mark.parametrize(
    ("arguments", "words"),
    [(["nowhere"], "expected a folder"), ([".", "--layout", "ixl"], "did you mean 'ixi'"),
     ([".", "--val", "2"], "leave nothing for training"), (["."], "found no volume to list")],
)  # fmt: skip
def test_what_a_user_can_fix(tmp_path, monkeypatch, run, arguments, words):
    monkeypatch.chdir(tmp_path)
    code, out, err = run(*arguments)
    assert (code, out) == (2, "")
    assert words in err
    assert not list(tmp_path.iterdir())
