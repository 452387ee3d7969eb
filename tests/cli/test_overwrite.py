"""No command replaces a file that medtrans did not write, unless it is told to."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from medtrans.config.terms import Task
from medtrans.errors import OutputError
from medtrans.inference.jobs import Job, read_job, uncertainty_map
from medtrans.phantom.heads import write_subjects
from medtrans.report.page import Page, save_page
from medtrans.report.pictures import save_curves, save_grid
from medtrans.volumes import marks
from tests import helpers
from tests.helpers import Run

MINE = "my own work"
MAP = uncertainty_map(2, None)


@pytest.fixture
def head_file(tmp_path: Path) -> Path:
    return helpers.write_nifti(tmp_path / "sub-1_T1w.nii.gz", *helpers.head())


def refused_then_done(run: Run, file: Path, *arguments: object, again: bool = True) -> None:
    """Refuse while the user's file is there, replace it when told to, and then unasked."""
    file.parent.mkdir(exist_ok=True, parents=True)
    file.write_text(MINE)
    code, _, said = run(*arguments)
    assert code == 2, said
    assert file.name in said
    assert "--overwrite" in said
    assert file.read_text() == MINE
    code, _, said = run(*arguments, "--overwrite")
    assert code == 0, said
    assert file.read_bytes() != MINE.encode()
    if again:
        assert run(*arguments)[0] == 0


class TestTranslate:
    @pytest.mark.parametrize(
        ("goal", "kind"),
        [("sub-1_T1w.mha", "itk"), ("sub-1_T1w.nii", "nifti"), ("sub-1_T1w.nrrd", "itk")],
    )
    def test_the_input_keeps_its_sidecar(
        self, medtrans: Run, identity_model: Path, head_file: Path, goal: str, kind: str
    ) -> None:
        arguments = ("translate", head_file, "--model", identity_model, "--output-kind", kind)
        sidecar = head_file.with_name("sub-1_T1w.json")
        refused_then_done(medtrans, sidecar, *arguments, "-o", head_file.with_name(goal))

    def test_report(
        self, medtrans: Run, identity_model: Path, head_file: Path, tmp_path: Path
    ) -> None:
        page = tmp_path / "page.html"
        arguments = ("translate", head_file, "--model", identity_model, "--report", page)
        refused_then_done(medtrans, page, *arguments)

    def test_uncertainty(
        self, medtrans: Run, random_model: Path, head_file: Path, tmp_path: Path
    ) -> None:
        spread = tmp_path / "spread.nii.gz"
        arguments = ("translate", head_file, "--model", random_model, "--samples", "2")
        refused_then_done(medtrans, spread, *arguments, "--uncertainty", spread)

    @pytest.mark.parametrize("spread", ["o.nii", "o.nii.gz", "o.img", "sub-1_T1w.nii.gz"])
    def test_the_uncertainty_map_has_a_name_of_its_own(
        self, head_file: Path, tmp_path: Path, spread: str
    ) -> None:
        job = Job(head_file, out=tmp_path / "o.nii.gz", uncertainty=tmp_path / spread)
        with pytest.raises(OutputError, match="would replace"):
            read_job(job, Task.parse("t1-to-t2"), MAP)

    def test_a_taken_name_is_refused_before_any_work(self, head_file: Path, tmp_path: Path) -> None:
        for name in ("o.json", "s.json"):
            (tmp_path / name).write_text(MINE)
            spread = tmp_path / "s.nii.gz"
            job = Job(head_file, out=tmp_path / "o.nii.gz", uncertainty=spread)
            with pytest.raises(OutputError, match=rf"{name} exists.*--overwrite"):
                read_job(job, Task.parse("t1-to-t2"), MAP)
            read_job(replace(job, overwrite=True), Task.parse("t1-to-t2"), MAP)
            (tmp_path / name).unlink()

    @pytest.mark.parametrize("overwrite", [False, True])
    def test_an_input_is_never_replaced(self, head_file: Path, overwrite: bool) -> None:
        mask = helpers.write_nifti(head_file.with_name("mask.nii.gz"), *helpers.head())
        for goal in (head_file, mask):
            job = Job(head_file, out=goal, mask=mask, overwrite=overwrite)
            with pytest.raises(OutputError, match="replace its input"):
                read_job(job, Task.parse("t1-to-t2"), None)


def test_scores(medtrans: Run, identity_model: Path, cohort: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    arguments = ("evaluate", "--manifest", cohort, "--model", identity_model, "--out", out)
    refused_then_done(medtrans, out / "scores.csv", *arguments, "--mode", "fidelity")


@pytest.mark.parametrize("name", ["manifest.csv", "sub-001/t1.nii.gz"])
def test_phantoms(tmp_path: Path, name: str) -> None:
    protocol = helpers.small_scan()
    (tmp_path / "sub-001").mkdir()
    (tmp_path / name).write_text("subject,contrast,path,split\nmine,t1,t1.nii.gz,train\n")
    with pytest.raises(OutputError, match=r"did not write.*--overwrite"):
        write_subjects(tmp_path, 1, protocol)
    assert "mine" in (tmp_path / name).read_text()
    write_subjects(tmp_path, 1, protocol, overwrite=True)
    write_subjects(tmp_path, 1, protocol)
    assert nib.load(tmp_path / "sub-001" / "t1.nii.gz").shape == helpers.SHAPE


def test_marks_of_pictures_and_pages(tmp_path: Path) -> None:
    tile = np.zeros((4, 4), dtype=np.float32)
    grid, curves, page = tmp_path / "g.png", tmp_path / "c.png", tmp_path / "p.html"
    save_grid(grid, [[tile]], [""])
    save_curves(curves, [0.1, 1.0], {"a": [0.0, 1.0]}, 0.1)
    save_page(page, Page("title"))
    marks.require_marked([grid, curves], marks.PNG)
    marks.require_marked([page], marks.HTML)
    for file, mark in ((grid, marks.HTML), (page, marks.PNG)):
        with pytest.raises(OutputError):
            marks.require_marked([file], mark)
        marks.require_marked([file], mark, overwrite=True)


def test_noise_level(medtrans: Run, cohort: Path, tmp_path: Path) -> None:
    recipe = tmp_path / "mine.toml"
    recipe.write_text(
        'extends = "base"\ntasks = ["t1-to-t2"]\n[volume]\nspacing_mm = [0.0, 0.0, 0.0]\n'
    )
    out = tmp_path / "out"
    arguments = ("noise-level", "--task", "t1-to-t2", "--manifest", cohort, "--out", out)
    out.mkdir()
    for name in ("noise_level.csv", "noise_level.png"):
        (out / name).write_text(MINE)
        code, _, said = medtrans(*arguments, "--pipeline", recipe)
        assert code == 2, said
        assert name in said
        assert (out / name).read_text() == MINE
        (out / name).unlink()


def test_demo(medtrans: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from medtrans.cli import demo

    for name in ("mni152_t1.nii.gz", "mni152_t1_and_synthetic_t2.png", "mni152_t2.html"):
        (tmp_path / name).write_text(MINE)
        code, _, said = medtrans("demo", "--out", tmp_path)
        assert code == 2, said
        assert name in said
        assert (tmp_path / name).read_text() == MINE
        (tmp_path / name).unlink()
    marks.require_marked([demo._write_template(tmp_path, False)], demo._MARK)
