"""Names of files: which stand for a volume, and which an output may have."""

from __future__ import annotations

from pathlib import Path

import pytest

from medtrans.errors import OutputError
from medtrans.volumes.source import (
    ITK_OUTPUT,
    KNOWN_SUFFIXES,
    LISTED_SUFFIXES,
    OUTPUT_SUFFIXES,
    is_volume_file,
    require_suffix,
    split_suffix,
)


@pytest.mark.parametrize(
    "name",
    ["t1.nii", "T1.NII.GZ", "a.b.nii.gz", "t1.mha", "t1.nrrd", "t1.hdr", "T1.MHD", "t1.nhdr"],
)
def test_one_file_stands_for_a_volume(name: str) -> None:
    assert is_volume_file(Path("folder") / name)


@pytest.mark.parametrize(
    "name", ["t1.img", "t1.img.gz", "t1.raw", "t1.zraw", "t1.json", "nii", ".0a-t1.nii"]
)
def test_data_files_of_pairs_temporary_and_other_files_do_not(name: str) -> None:
    assert not is_volume_file(Path("folder") / name)


def test_what_is_listed_or_written_can_be_read() -> None:
    written = {suffix for _, suffixes in OUTPUT_SUFFIXES.values() for suffix in suffixes}
    assert {*LISTED_SUFFIXES, *written} <= set(KNOWN_SUFFIXES)
    assert set(OUTPUT_SUFFIXES["itk"][1]) == set(ITK_OUTPUT.values())


def test_a_double_suffix_is_one() -> None:
    assert split_suffix(Path("a/sub-1.run.NII.GZ")) == ("sub-1.run", ".nii.gz")
    assert split_suffix(Path("a/x.hdr.gz")) == ("x", ".hdr.gz")
    assert split_suffix(Path(".nii")) == (".nii", "")


@pytest.mark.parametrize(("kind", "name"), [("nifti", "a.mha"), ("itk", "a.nii.gz"), ("itk", "a")])
def test_a_name_of_another_kind_is_refused(kind: str, name: str) -> None:
    with pytest.raises(OutputError, match="expected a name that ends in"):
        require_suffix(Path(name), kind)
