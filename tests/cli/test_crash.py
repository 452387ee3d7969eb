"""A fault of ours leaves a report that helps, and that holds nothing of a patient."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import NoReturn

import pytest

from medtrans.cli import crash, listing
from medtrans.inference.translator import Translator
from medtrans.version import __version__
from tests import helpers
from tests.helpers import Run

SECRET = "DOE_JANE"


@pytest.fixture
def reports(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Folder for temporary files, whose own name must not be told."""
    folder = tmp_path / "temporary"
    folder.mkdir()
    monkeypatch.setattr(crash, "folder", lambda: str(folder))
    return folder


def broken(*_: object, **__: object) -> NoReturn:
    try:
        raise KeyError(SECRET)
    except KeyError as error:
        raise RuntimeError(f"{SECRET} in a message") from error


def test_says_where_it_was_and_what_was_asked(
    medtrans: Run, reports: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(listing, "describe", broken)
    file = tmp_path / SECRET / "t1.nii.gz"
    code, _, said = medtrans("info", file, "--volume", "0", f"--series={SECRET}", "--json")
    assert code == 1
    [path] = reports.iterdir()
    assert str(path) in said
    assert "issue" in said
    assert re.search(r"RuntimeError at medtrans\.cli\.listing:\d+", said)
    text = path.read_text()
    assert f"medtrans {__version__}\n" in text
    assert f"Python {sys.version.split()[0]}" in text
    assert "command: medtrans info --volume --series --json\n" in text
    assert re.search(r"  medtrans\.cli\.listing:\d+ in describe_file", text)
    assert "RuntimeError" in text
    assert "KeyError" in text
    assert text.count("\n") < 60
    for secret in (SECRET, str(tmp_path), "t1.nii", str(Path(crash.__file__).parent)):
        assert secret not in text
    assert SECRET not in said.replace(str(path), "")
    assert path.stat().st_mode & 0o077 == 0


def test_an_option_that_is_none_of_ours_is_not_told() -> None:
    known = frozenset(("translate", "--mode"))
    text = crash.text(
        ValueError(), ["translate", "-DOE", "--mode=x", "--DOE", "translate.nii"], known
    )
    assert "command: medtrans translate --mode\n" in text
    assert "DOE" not in text


def test_where_none_can_be_written(
    medtrans: Run, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(listing, "describe", broken)
    monkeypatch.setattr(crash, "folder", lambda: str(tmp_path / "none"))
    code, _, said = medtrans("info", tmp_path)
    assert code == 1
    assert "No report could be written" in said
    assert SECRET not in said


def test_one_volume_of_many(
    medtrans: Run,
    identity_model: Path,
    reports: Path,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    (tmp_path / "in").mkdir()
    for name in ("a", "b"):
        helpers.write_nifti(tmp_path / "in" / f"{name}.nii.gz", *helpers.head())
    monkeypatch.setattr(Translator, "sample", broken)
    code, _, said = medtrans(
        "translate", tmp_path / "in", "-o", tmp_path / "out", "--model", identity_model
    )
    assert code == 1
    assert "a.nii.gz: medtrans failed (RuntimeError)" in said
    assert SECRET not in said
    assert len(list(reports.iterdir())) == 2


def test_a_mistake_of_the_user_is_no_crash(medtrans: Run, reports: Path) -> None:
    assert medtrans("info", "nothing.nii.gz")[0] == 2
    assert list(reports.iterdir()) == []
