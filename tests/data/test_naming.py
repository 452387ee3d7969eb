"""Whose image a path is: BIDS, and trees as people make them."""

from pathlib import PurePosixPath

import pytest

from medtrans.data.naming import bids_entities, bids_name, plain, tree_names
from medtrans.volumes.contrast import from_name


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("sub-01_T1w.nii.gz", ("sub-01", "", "T1w")),
        ("sub-01_ses-pre_ce-gad_run-2_T1w.nii", ("sub-01", "ses-pre", "T1w")),
        ("sub-A1_acq-space_FLAIR.nii.gz", ("sub-A1", "", "FLAIR")),
    ],
)
def test_bids(name, expected):
    entities = bids_entities(PurePosixPath("sub-x/anat") / name)
    assert (*bids_name(entities), entities["suffix"]) == expected


@pytest.mark.parametrize(
    "name", ["T1.nii.gz", "sub-01.nii.gz", "sub-01_T1 w.nii", "sub-01_ses_T1w"]
)
def test_not_bids(name):
    assert bids_entities(PurePosixPath(name)) is None


def named(*paths, root="cohort"):
    listed = [(PurePosixPath(p), from_name(PurePosixPath(p).name)) for p in paths]
    return ["/".join(filter(None, name)) for name in tree_names(listed, root).values()]


@pytest.mark.parametrize(
    ("paths", "expected"),
    [
        (["a/t1", "a/t2", "b/t1"], ["a", "a", "b"]),
        (["a/v1/t1", "a/v2/t1", "b/v1/t1"], ["a/v1", "a/v2", "b/v1"]),
        (["a/anat/t1", "a/anat/t2"], ["a", "a"]),
        (["all/a/t1", "all/b/t1"], ["a", "b"]),
        (["train/a/t1", "val/b/t1"], ["a", "b"]),
        (["T1/a", "T2/a", "T1/b"], ["a", "a", "b"]),
        (["IXI1-Guys-T1", "IXI1-Guys-T2"], ["IXI1-Guys", "IXI1-Guys"]),
        (["site/a_t1", "site/a_t2", "site/b_t1"], ["a", "a", "b"]),
        (["a/t1", "a/t1_brain", "b/t1", "b/t1_brain"], ["a", "a", "b", "b"]),
        (["a/t1_n4", "a/t1_raw", "b/t1_n4", "b/t1_raw"], ["a", "a", "b", "b"]),
        (["t1", "t2"], ["cohort", "cohort"]),
        (["p12-study1/t1", "p12-study2/t1"], ["p12/study1", "p12/study2"]),
        (["p1_baseline/t1", "p1_followup2/t1"], ["p1/baseline", "p1/followup2"]),
        (["day1_t1"], ["day1"]),
        (["a b/c;d/t1", "a b/e/t1", "x/y/t1"], ["a b/c-d", "a b/e", "x/y"]),
    ],
)
def test_a_tree(paths, expected):
    assert named(*paths) == expected


@pytest.mark.parametrize(("name", "kept"), [("../x", "-x"), ("a/b", "a-b"), ("..", "unnamed")])
def test_plain(name, kept):
    assert plain(name) == kept
