"""The manifest: what it reads, what it refuses and how it splits and pairs."""

from __future__ import annotations

import hashlib
import itertools
import random
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from medtrans.data import manifest_checks
from medtrans.data.manifest import CONTRASTS, SPLITS, Manifest, write_manifest
from medtrans.data.splits import split_by_name
from medtrans.errors import FileError, ManifestError, OutputError, UsageError

Write = Callable[..., Path]

GOOD = """subject,contrast,path,split
a,t1,a1.nii,train
a,t2,a2.nii,train
b,t2,b2.nii,train
c,t1,c1.nii,val
c,t2,c2.nii,val
"""


@pytest.fixture
def write(tmp_path: Path) -> Write:
    def _write(content: str | bytes, name: str = "m.csv") -> Path:
        path = tmp_path / name
        path.write_bytes(content.encode() if isinstance(content, str) else content)
        return path

    return _write


def read(path: Path) -> Manifest:
    return Manifest.read(path, check_files=False)


def refusal(path: Path, **options: bool) -> str:
    with pytest.raises(ManifestError) as caught:
        Manifest.read(path, **options)
    return str(caught.value)


def many(n: int, *, sessions: int = 1) -> str:
    lines = ["subject,session,contrast,path,split"]
    for subject in range(n):
        for session in range(sessions):
            for contrast in ("t1", "t2"):
                lines.append(
                    f"s{subject:02},{session},{contrast},{subject}{session}{contrast},train"
                )
    return "\n".join(lines)


# What is read ------------------------------------------------------------------------------------


def test_entries_are_located_beside_the_csv_and_sorted(write: Write, tmp_path: Path) -> None:
    manifest = read(write(GOOD))
    first = manifest.entries()[0]
    assert (first.subject, first.session, first.contrast, first.split) == ("a", "", "t1", "train")
    assert first.path == tmp_path / "a1.nii"
    assert [e.path.name for e in manifest.entries("val")] == ["c1.nii", "c2.nii"]
    assert manifest.subjects() == ["a", "b", "c"]
    assert manifest.subjects("train") == ["a", "b"]


def test_an_absolute_path_and_one_that_leaves_the_folder_are_kept(write: Write) -> None:
    manifest = read(write("subject,contrast,path\na,t1,/x/1.nii\na,t2,../2.nii\n"))
    paths = [entry.path for entry in manifest.entries()]
    assert paths[0] == Path("/x/1.nii")
    assert paths[1].parts[-2:] == ("..", "2.nii")


@pytest.mark.parametrize(
    "disguise",
    [
        lambda text: "\ufeff" + text,
        lambda text: text.replace("\n", "\r\n"),
        lambda text: text.replace(",", " , "),
        lambda text: text.replace(",", ";"),
        lambda text: text.replace(",", "\t"),
        lambda text: text.replace("\n", "\n\n"),
        lambda text: text.replace("t1,", "T1,").replace("train", "Train"),
        lambda text: text.replace("subject,contrast", "Subject,CONTRAST"),
        lambda text: text.rstrip("\n"),
        lambda text: text.replace(",a1.nii,", ',"a1.nii",'),
        lambda text: text.replace("\n", ",,\n"),
    ],
    ids=[
        "bom",
        "crlf",
        "spaces",
        "semicolons",
        "tabs",
        "blank",
        "case",
        "header-case",
        "no-newline",
        "quotes",
        "trailing",
    ],
)
def test_spreadsheet_habits_change_nothing(write: Write, disguise: Callable[[str], str]) -> None:
    assert read(write(disguise(GOOD))).entries() == read(write(GOOD)).entries()


def test_subject_ids_stay_text(write: Write) -> None:
    text = "subject,contrast,path\n007,t1,a\nNA,t1,b\n1e5,t1,c\nTrue,t1,d\n"
    assert read(write(text)).subjects() == ["007", "1e5", "NA", "True"]


def test_other_columns_are_kept_whatever_their_name(write: Write) -> None:
    text = "subject,contrast,path,row,Scanner\na,t1,1.nii,9,Aera\n"
    table = read(write(text)).table
    assert table.loc[2, "row"] == "9"
    assert table.loc[2, "Scanner"] == "Aera"


def test_the_table_handed_out_is_a_copy(write: Write) -> None:
    manifest = read(write(GOOD))
    table = manifest.table
    table["subject"] = "z"
    assert manifest.subjects() == ["a", "b", "c"]


# What is refused ---------------------------------------------------------------------------------


def test_every_problem_is_reported_at_once_with_its_row(write: Write, tmp_path: Path) -> None:
    (tmp_path / "ok.nii").touch()
    text = (
        "subject,contrast,path,split\n"
        "a,t1,ok.nii,train\n"
        "a,t1w,ok.nii,train\n"
        ",t1,ok.nii,train\n"
        "\n"
        "a,t1,ok.nii,train\n"
        "a,t2,gone.nii,test\n"
        "a,flair,ok.nii,tset\n"
        "a,pd,,train\n"
        "b,ct,ok.nii,val,oops\n"
    )
    message = refusal(write(text))
    expected = {
        3: "did you mean 't1'",
        4: "subject is empty",
        6: "already in row 2",
        7: "'test' here and in 'train' in row 2",
        8: "did you mean 'test'",
        9: "path is empty",
        10: "5 cells under 4 columns",
    }
    lines = message.splitlines()
    assert "9 problems" in lines[0]
    for row, fragment in expected.items():
        assert any(line.startswith(f"  row {row}:") and fragment in line for line in lines), row
    assert any("row 7: there is no file" in line and "gone.nii" in line for line in lines)
    assert any("row 10:" in line and "subject 'a''s" in line for line in lines)
    rows = [int(line.split()[1].rstrip(":")) for line in lines[1:]]
    assert rows == sorted(rows)


def test_a_missing_column_names_the_nearest_and_the_rest_is_still_checked(write: Write) -> None:
    message = refusal(write("subject,contrst,path\n,t1,x\nb,t1,y\n"), check_files=False)
    assert "row 1: column 'contrast' is missing: rename column 'contrst'" in message
    assert "row 2: subject is empty" in message


def test_without_a_contrast_two_volumes_of_a_subject_are_no_duplicates(write: Write) -> None:
    message = refusal(write("subject,session,path\na,1,x\na,1,y\n"), check_files=False)
    assert "1 problem:" in message
    assert "add it to subject, session, path" in message


def test_a_column_there_twice_is_refused(write: Write) -> None:
    assert "'path' is there twice" in refusal(write("subject,contrast,path,path\na,t1,x,y\n"))


def test_a_misnamed_split_column_is_not_passed_over(write: Write) -> None:
    message = refusal(write("subject,contrast,path,splits\na,t1,x,test\n"), check_files=False)
    assert "rename it to 'split'" in message
    assert read(write("subject,contrast,path,splits\na,t1,x,3\n")).subjects() == ["a"]


def test_sessions_tell_volumes_of_one_contrast_apart(write: Write) -> None:
    text = "subject,session,contrast,path\na,1,t1,x\na,2,t1,y\n"
    assert len(read(write(text)).entries()) == 2
    assert "row 3: 'a' '1' 't1' is already in row 2" in refusal(
        write(text.replace("a,2", "a,1")), check_files=False
    )


@pytest.mark.parametrize("column", ["subject", "session"])
@pytest.mark.parametrize(
    "name",
    ["../../escaped", "/abs/path", "a/b", "..", ".", "a\\b", "..\\b", "C:x", "a\x07b", "x" * 200],
)
def test_a_name_that_would_lead_out_of_a_folder_is_refused(
    write: Write, column: str, name: str
) -> None:
    names = {"subject": "a", "session": "1", column: name}
    text = f"subject,session,contrast,path\n{names['subject']},{names['session']},t1,a.nii\n"
    message = refusal(write(text), check_files=False)
    assert f"row 2: {column}" in message
    assert "no plain name" in message


@pytest.mark.parametrize("name", ["sub-01", "sub 01", "a.b", "Ärztin", "患者7", "2020:01", "..a"])
def test_plain_names_stay(write: Write, name: str) -> None:
    assert read(write(f"subject,contrast,path\n{name},t1,a.nii\n")).subjects() == [name]


def test_one_file_under_two_subjects_is_refused_but_not_two_contrasts(write: Write) -> None:
    head = "subject,contrast,path\na,t1,x\n"
    assert "row 3" in refusal(write(head + "b,t1,x\n"), check_files=False)
    assert len(read(write(head + "a,mr,x\n")).entries()) == 2


def test_a_long_list_is_capped_and_counted(write: Write) -> None:
    text = "subject,contrast,path\n" + "".join(f"s{i},t9,{i}\n" for i in range(33))
    lines = refusal(write(text), check_files=False).splitlines()
    assert "33 problems" in lines[0]
    assert lines[-1].strip() == "and 13 more"
    assert len(lines) == 22


@pytest.mark.parametrize(
    ("content", "fragment"),
    [
        (b"", "is empty"),
        (b"\xef\xbb\xbf\n \n", "is empty"),
        (b"subject,contrast,path\n", "lists no volume"),
        ("subject,contrast,path\nJosé,t1,x\n".encode("latin-1"), "CSV UTF-8"),
        ("subject,contrast,path\na,t1,x\n".encode("utf-16"), "CSV UTF-8"),
        (b"\x1f\x8b\x08\x00", "CSV UTF-8"),
        (b"PK\x03\x04\0\0\0", "is not text"),
        (b"This is my list of scans.\nThere are two.\n", "is not a manifest"),
        (b"subject,contrast,path\na,t1,x" + b"x" * 200_000, "is not a CSV"),
    ],
    ids=["empty", "blank", "header", "latin1", "utf16", "gzip", "zip", "prose", "huge"],
)
def test_what_is_no_manifest_gets_one_sentence(write: Write, content: bytes, fragment: str) -> None:
    message = refusal(write(content), check_files=False)
    assert fragment in message
    assert "\n" not in message


def test_a_missing_file_and_a_folder_get_one_sentence(tmp_path: Path) -> None:
    assert "There is no manifest" in refusal(tmp_path / "gone.csv")
    assert "is a folder" in refusal(tmp_path)


def test_what_cannot_be_opened_or_is_too_large_gets_one_sentence(
    write: Write, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert "Cannot read the manifest" in refusal(tmp_path / f"{'x' * 300}.csv")
    path = write(GOOD)
    monkeypatch.setattr(manifest_checks, "MAX_BYTES", path.stat().st_size)
    assert read(path).subjects() == ["a", "b", "c"]
    path.write_text(GOOD + "d,t1,d1.nii,test\n")
    assert "is larger than the" in refusal(path)


@pytest.mark.parametrize("missing", ["subject", "path"])
def test_without_a_column_the_others_are_still_checked(write: Write, missing: str) -> None:
    kept = [name for name in ("subject", "contrast", "path") if name != missing]
    row = {"subject": "a", "contrast": "t9", "path": "x"}
    text = f"{','.join(kept)}\n{','.join(row[name] for name in kept)}\n"
    message = refusal(write(text), check_files=False)
    assert f"column '{missing}' is missing" in message
    assert "unknown contrast 't9'" in message


def test_a_path_longer_than_the_system_allows_is_a_missing_file(write: Write) -> None:
    assert "there is no file" in refusal(write(f"subject,contrast,path\na,t1,{'x' * 300}\n"))


@settings(max_examples=40, deadline=None)
@given(st.binary(max_size=200) | st.text(max_size=200).map(str.encode))
def test_no_bytes_break_the_reader(
    tmp_path_factory: pytest.TempPathFactory, content: bytes
) -> None:
    path = tmp_path_factory.getbasetemp() / "fuzz.csv"
    path.write_bytes(content)
    with pytest.raises(ManifestError):
        Manifest.read(path)


# Hashes ------------------------------------------------------------------------------------------


def test_verify_names_what_differs_and_counts_what_does_not(write: Write, tmp_path: Path) -> None:
    (tmp_path / "x").write_bytes(b"volume")
    digest = hashlib.sha256(b"volume").hexdigest()
    head = "subject,contrast,path,sha256\n"
    assert read(write(f"{head}a,t1,x,{digest.upper()}\nb,t1,y,\n")).verify() == 1
    with pytest.raises(ManifestError) as caught:
        read(write(f"{head}a,t1,x,{'0' * 64}\nb,t1,gone,{digest}\n")).verify()
    assert "row 2" in str(caught.value)
    assert "row 3: cannot read" in str(caught.value)
    assert read(write(GOOD)).verify() == 0


def test_an_entry_is_verified_when_it_is_read(write: Write, tmp_path: Path) -> None:
    (tmp_path / "a.nii").write_bytes(b"a")
    digest = hashlib.sha256(b"a").hexdigest()
    csv = write(f"subject,contrast,path,sha256\na,t1,a.nii,{digest}\na,t2,a.nii,\n")
    for entry in Manifest.read(csv).entries():
        entry.verify()
    (tmp_path / "a.nii").write_bytes(b"b")
    stated, other = Manifest.read(csv).entries()
    with pytest.raises(FileError, match=r"a\.nii: its sha256 is .*manifest states"):
        stated.verify()
    other.verify()


def test_a_folder_has_no_hash(write: Write, tmp_path: Path) -> None:
    (tmp_path / "dicom").mkdir()
    csv = write(f"subject,contrast,path,sha256\na,t1,dicom,{'0' * 64}\n")
    [entry] = Manifest.read(csv).entries()
    with pytest.raises(FileError, match=r"dicom: its sha256 cannot be checked.*leave it empty"):
        entry.verify()


def test_a_malformed_hash_is_seen_at_once(write: Write) -> None:
    text = "subject,contrast,path,sha256\na,t1,x,abc\n"
    assert "row 2: sha256 is not 64" in refusal(write(text), check_files=False)


# Pairs and targets -------------------------------------------------------------------------------


def test_pairs_share_subject_and_session(write: Write) -> None:
    text = "subject,session,contrast,path\na,1,t1,1\na,2,t2,2\na,3,t1,3\na,3,t2,4\nb,3,t2,5\n"
    pairs = read(write(text)).pairs("t1", "t2", None)
    assert [(p.source.path.name, p.target.path.name) for p in pairs] == [("3", "4")]


def test_targets_include_unpaired_volumes(write: Write) -> None:
    manifest = read(write(GOOD))
    assert [entry.subject for entry in manifest.targets("t2")] == ["a", "b"]
    assert [pair.source.subject for pair in manifest.pairs("t1", "t2", "train")] == ["a"]


@pytest.mark.parametrize("seed", range(3))
def test_a_smaller_limit_keeps_a_subset_of_whole_subjects(write: Write, seed: int) -> None:
    manifest = read(write(many(12, sessions=2)))
    kept = [
        {pair.source.subject for pair in manifest.pairs("t1", "t2", "train", limit, seed)}
        for limit in range(14)
    ]
    assert [len(subjects) for subjects in kept] == [*range(13), 12]
    assert all(small <= large for small, large in itertools.pairwise(kept))
    assert len(manifest.pairs("t1", "t2", "train", 5, seed)) == 10


def test_seed_and_row_order(write: Write) -> None:
    header, *rows = many(12).splitlines()
    random.Random(0).shuffle(rows)
    tidy, shuffled = read(write(many(12))), read(write("\n".join([header, *rows]), "s.csv"))
    assert tidy.pairs("t1", "t2", "train", 4, 1) == shuffled.pairs("t1", "t2", "train", 4, 1)
    picks = {
        tuple(p.source.subject for p in tidy.pairs("t1", "t2", "train", 4, s)) for s in range(5)
    }
    assert len(picks) > 1


def test_words_and_limits_that_cannot_be_meant(write: Write) -> None:
    manifest = read(write(GOOD))
    with pytest.raises(UsageError, match=r"Unknown contrast 'T1W': did you mean 't1'"):
        manifest.targets("T1W")
    with pytest.raises(UsageError, match="Unknown split 'vall'"):
        manifest.pairs("t1", "t2", "vall")
    with pytest.raises(UsageError, match="-1"):
        manifest.pairs("t1", "t2", "train", limit=-1)


def test_when_there_is_nothing_the_error_says_what_there_is(write: Write) -> None:
    manifest = read(write(GOOD))
    with pytest.raises(ManifestError) as caught:
        manifest.require_pairs("t1", "t2", "test")
    assert "train: 2 subjects, 1 t1, 2 t2; val: 1 subject, 1 t1, 1 t2; test: 0 subjects" in str(
        caught.value
    )
    with pytest.raises(ManifestError, match="no flair volume in split 'train'"):
        manifest.require_targets("flair")
    assert manifest.require_pairs("t1", "t2", "train", limit=0) == []
    assert manifest.require_pairs("t1", "t2", "train") == manifest.pairs("t1", "t2", "train")
    assert manifest.require_targets("t2") == manifest.targets("t2")


# Splits by hash ----------------------------------------------------------------------------------


@settings(deadline=None)
@given(st.sets(st.text(max_size=8), min_size=1, max_size=40))
def test_no_split_is_empty_that_need_not_be(subjects: set[str]) -> None:
    splits = split_by_name(subjects)
    assert splits.keys() == subjects
    assert set(splits.values()) == set(SPLITS[: len(subjects)])


def test_splits_by_hash_are_fixed_and_near_80_10_10() -> None:
    splits = split_by_name(map(str, range(2000)))
    shares = [list(splits.values()).count(name) / 2000 for name in SPLITS]
    assert shares == pytest.approx([0.8, 0.1, 0.1], abs=0.03)
    more = split_by_name(map(str, range(2500)))
    assert all(more[subject] == split for subject, split in splits.items())
    assert [splits[name] for name in ("0", "2", "5")] == ["train", "val", "test"]


def test_a_subject_never_crosses_splits(write: Write) -> None:
    text = many(12, sessions=3).replace(",train", "").replace(",split", "")
    manifest = read(write(text))
    held = [set(manifest.subjects(split)) for split in SPLITS]
    assert sum(map(len, held)) == len(set.union(*held)) == 12
    assert all(held)


# Writing -----------------------------------------------------------------------------------------


def test_what_is_written_is_read_back(tmp_path: Path) -> None:
    rows = [
        {"site": 'a "quoted", site', "path": Path("x/1.nii.gz"), "contrast": name, "subject": "007"}
        for name in CONTRASTS
    ]
    write_manifest(tmp_path / "m.csv", [*rows, {"subject": "8", "contrast": "t1", "path": "y"}])
    table = read(tmp_path / "m.csv").table
    assert list(table.columns)[:4] == ["subject", "contrast", "path", "site"]
    assert set(table["site"]) == {'a "quoted", site', ""}
    assert list(table["contrast"])[:-1] == list(CONTRASTS)
    assert [path.name for path in tmp_path.iterdir()] == ["m.csv"]


def test_a_failed_write_leaves_the_old_file_and_nothing_else(tmp_path: Path) -> None:
    goal = tmp_path / "m.csv"
    goal.mkdir()
    with pytest.raises(OutputError, match="expected a file name to write to"):
        write_manifest(goal, [{"subject": "a"}])
    with pytest.raises(OutputError):
        write_manifest(tmp_path / "gone" / "m.csv", [])
    assert list(tmp_path.iterdir()) == [goal]


def test_a_region_of_interest_is_the_pairs(tmp_path: Path) -> None:
    """Beside either contrast; whether it is there matters only to who reads it."""
    rows = ["a,t1,a1,", "a,t2,a2,m/a.nii", "b,t1,b1,b.nii", "b,t2,b2,", "c,t1,c1,", "c,t2,c2,"]
    for name in ("a1", "a2", "b1", "b2", "c1", "c2"):
        (tmp_path / name).touch()
    csv = tmp_path / "m.csv"
    csv.write_text("\n".join(["subject,contrast,path,Mask", *rows]))
    pairs = Manifest.read(csv).pairs("t1", "t2", None)
    assert [pair.mask for pair in pairs] == [tmp_path / "m" / "a.nii", tmp_path / "b.nii", None]
