"""Which predictions there are: CSVs and folders."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from medtrans.data.predictions import (
    Prediction,
    holds_volumes,
    lists_predictions,
    match_folders,
    read_predictions,
)
from medtrans.errors import ManifestError, UsageError

Make = Callable[..., Path]


@pytest.fixture
def make(tmp_path: Path) -> Make:
    """Make empty files below a folder, and return it."""

    def files(folder: str, *names: str) -> Path:
        for name in names:
            path = tmp_path / folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.touch()
        return tmp_path / folder

    return files


class TestCsv:
    def csv(self, folder: Path, text: str) -> Path:
        path = folder / "list.csv"
        path.write_text(text)
        return path

    def test_paths_are_relative_to_it(self, make: Make, tmp_path: Path) -> None:
        make("x", "p.nii", "r.nii", "m.nii")
        csv = self.csv(tmp_path, "Subject;prediction;reference;mask\ns 1;x/p.nii;x/r.nii;x/m.nii\n")
        assert lists_predictions(csv)
        x = tmp_path / "x"
        assert read_predictions(csv, "test") == [
            Prediction("s 1", x / "p.nii", x / "r.nii", region=x / "m.nii")
        ]

    def test_split_and_method(self, make: Make, tmp_path: Path) -> None:
        make(".", "p", "r")
        rows = "a,p,r,test,unet\na,p,r,train,\nb,p,r,test,\n"
        csv = self.csv(tmp_path, f"subject,prediction,reference,split,method\n{rows}")
        found = [(one.subject, one.method) for one in read_predictions(csv, "test")]
        assert found == [("a", "unet"), ("b", "prediction")]
        with pytest.raises(
            ManifestError, match=r"no prediction of split 'val'; it has 2 test, 1 t"
        ):
            read_predictions(csv, "val")

    def test_every_problem_is_told(self, make: Make, tmp_path: Path) -> None:
        make(".", "p")
        csv = self.csv(tmp_path, "subject,prediction,reference,split\na,p,gone,tset\n,p,p,test\n")
        with pytest.raises(ManifestError) as caught:
            read_predictions(csv, "test")
        text = str(caught.value)
        assert "row 2: there is no file" in text
        assert "did you mean 'test'" in text
        assert "row 3: subject is empty" in text

    def test_a_missing_column(self, make: Make, tmp_path: Path) -> None:
        make(".", "p")
        csv = self.csv(tmp_path, "prediction,reference\np,p\n")
        with pytest.raises(ManifestError, match="column 'subject' is missing"):
            read_predictions(csv, "test")

    def test_a_manifest_is_none(self, tmp_path: Path) -> None:
        assert not lists_predictions(self.csv(tmp_path, "subject,contrast,path\na,t1,p\n"))

    def test_an_empty_one(self, tmp_path: Path) -> None:
        with pytest.raises(ManifestError, match="subject,prediction,reference"):
            lists_predictions(self.csv(tmp_path, ""))


class TestFolders:
    def names(self, pairs: list[Prediction], *folders: Path) -> list[tuple[str, str, str]]:
        ours, theirs = folders
        return [
            (p.subject, str(p.prediction.relative_to(ours)), str(p.reference.relative_to(theirs)))
            for p in pairs
        ]

    def test_by_path_whatever_the_suffix(self, make: Make) -> None:
        ours = make("p", "s1/t2.nii.gz", "s2/t2.mha", "s2/t2.json")
        theirs = make("r", "s1/t2.nii", "s2/t2.nii.gz")
        pairs, left = match_folders(ours, theirs, {})
        assert self.names(pairs, ours, theirs) == [
            ("s1/t2", "s1/t2.nii.gz", "s1/t2.nii"),
            ("s2/t2", "s2/t2.mha", "s2/t2.nii.gz"),
        ]
        assert left == []

    def test_by_name_where_it_stands_once(self, make: Make) -> None:
        ours = make("p", "s1.nii", "s2.nii", "t2.nii", "s4.nii")
        theirs = make("r", "a/s1.nii", "b/s2.nii", "a/t2.nii", "b/t2.nii")
        pairs, left = match_folders(ours, theirs, {})
        assert self.names(pairs, ours, theirs) == [
            ("s1", "s1.nii", "a/s1.nii"),
            ("s2", "s2.nii", "b/s2.nii"),
        ]
        assert left == [
            f"2 of the files in {ours} have no counterpart and are left out: s4, t2.",
            f"2 of the files in {theirs} have no counterpart and are left out: a/t2, b/t2.",
        ]

    def test_masks(self, make: Make) -> None:
        ours, theirs = make("p", "s1.nii", "s2.nii"), make("r", "s1.nii", "s2.nii")
        masks, one = make("m", "s2.nii.gz"), make("o", "all.nii") / "all.nii"
        pairs, _ = match_folders(ours, theirs, {"region": masks, "foreground": one})
        assert [pair.region for pair in pairs] == [None, masks / "s2.nii.gz"]
        assert [pair.foreground for pair in pairs] == [one, one]

    def test_nothing_matches(self, make: Make) -> None:
        ours, theirs = make("p", "a.nii"), make("r", "b.nii")
        with pytest.raises(UsageError, match=r"No file .*: a, and b\. .*--manifest"):
            match_folders(ours, theirs, {})

    def test_a_dicom_series_is_one_volume(self, make: Make) -> None:
        assert not holds_volumes(make("series", "1.dcm", "2.dcm"))
        assert holds_volumes(make("tree", "s1/t2.nii"))
