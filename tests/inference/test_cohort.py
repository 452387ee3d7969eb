"""Many volumes with one model."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from medtrans.errors import Interrupted, OutputError, UnreadableFileError, UsageError
from medtrans.inference.cohort import translate_cohort
from medtrans.inference.jobs import Job, jobs_from_inputs, jobs_from_manifest
from medtrans.inference.settings import Settings
from medtrans.inference.translator import Translator
from tests import helpers


@pytest.fixture(scope="module")
def translator(identity_model: Path) -> Translator:
    return Translator.load(identity_model, "cpu")


@pytest.fixture
def heads(tmp_path: Path) -> list[Path]:
    image, affine = helpers.head()
    return [helpers.write_nifti(tmp_path / f"{n}.nii.gz", image, affine) for n in "ab"]


class TestJobs:
    def test_files(self, heads: list[Path], tmp_path: Path) -> None:
        assert jobs_from_inputs(heads[:1], None) == [Job(heads[0], None)]
        out = tmp_path / "deep" / "out"
        assert jobs_from_inputs(heads, out) == [Job(path, out) for path in heads]
        assert out.is_dir()

    def test_one_file_goes_where_it_is_told(self, heads: list[Path], tmp_path: Path) -> None:
        out = tmp_path / "named.nii.gz"
        assert jobs_from_inputs(heads[:1], out) == [Job(heads[0], out)]
        assert not out.exists()

    def test_folder_stands_for_its_volumes_without_earlier_results(
        self, heads: list[Path], tmp_path: Path
    ) -> None:
        (tmp_path / "a_t2-synthetic.nii.gz").write_bytes(b"")
        (tmp_path / "notes.txt").write_text("")
        assert [job.path for job in jobs_from_inputs([tmp_path], None)] == heads

    def test_folder_without_volumes_is_left_to_the_dicom_reader(self, tmp_path: Path) -> None:
        assert jobs_from_inputs([tmp_path], None) == [Job(tmp_path, None)]

    def test_nothing(self) -> None:
        with pytest.raises(UsageError, match="No input"):
            jobs_from_inputs([], None)

    def test_a_file_for_several(self, heads: list[Path], tmp_path: Path) -> None:
        with pytest.raises(UsageError, match="2 inputs"):
            jobs_from_inputs(heads[:2], tmp_path / "one.nii.gz")
        assert not (tmp_path / "one.nii.gz").exists()

    def test_out_that_cannot_be_made(self, heads: list[Path], tmp_path: Path) -> None:
        (tmp_path / "file").write_text("taken")
        with pytest.raises(OutputError, match="cannot be made"):
            jobs_from_inputs(heads, tmp_path / "file" / "out")

    def test_manifest(self, cohort: Path, tmp_path: Path) -> None:
        jobs = jobs_from_manifest(cohort, "t1", tmp_path / "out")
        assert [job.out for job in jobs] == [tmp_path / "out" / f"sub-00{n}" for n in (1, 2, 3)]
        assert all(job.path.name == "t1.nii.gz" for job in jobs)
        with pytest.raises(UsageError, match="lists no flair volume"):
            jobs_from_manifest(cohort, "flair", tmp_path / "out")


class TestTranslate:
    def test_results_in_order(
        self, translator: Translator, heads: list[Path], tmp_path: Path
    ) -> None:
        out = tmp_path / "out"
        done: list[Any] = []
        results = translate_cohort(
            translator,
            jobs_from_inputs(heads, out),
            Settings(),
            strict=False,
            on_done=lambda job, result: done.append((job.path, result)),
        )
        assert [path for path, _ in done] == heads
        assert [result for _, result in done] == results
        names = sorted(path.name for path in out.glob("*.nii.gz"))
        assert names == ["a_t2-synthetic.nii.gz", "b_t2-synthetic.nii.gz"]

    def test_one_failure_does_not_stop_the_others(
        self, translator: Translator, heads: list[Path], tmp_path: Path
    ) -> None:
        heads[0].write_text("not an image")
        out, told = tmp_path / "out", list[tuple[Path, Any]]()
        results = translate_cohort(
            translator,
            jobs_from_inputs(heads, out),
            Settings(),
            strict=False,
            on_done=lambda job, result: told.append((job.path, result)),
        )
        assert isinstance(results[0], UnreadableFileError)
        assert "a.nii.gz" in str(results[0])
        assert told == list(zip(heads, results, strict=True))
        assert results[1].outputs[0] == out / "b_t2-synthetic.nii.gz"
        assert sorted(path.name[:2] for path in out.iterdir()) == ["b_", "b_"]

    def test_strict_stops_at_the_first_failure(
        self, translator: Translator, heads: list[Path], tmp_path: Path
    ) -> None:
        """The volume before it is kept, the one after it is not begun."""
        bad = tmp_path / "bad.nii.gz"
        bad.write_text("not an image")
        jobs = jobs_from_inputs([heads[0], bad, heads[1]], tmp_path / "out")
        with pytest.raises(UnreadableFileError, match=r"bad\.nii\.gz"):
            translate_cohort(translator, jobs, Settings(), strict=True, on_done=lambda *_: None)
        assert sorted(path.name[:2] for path in (tmp_path / "out").iterdir()) == ["a_", "a_"]

    def test_stopping_is_not_a_failure_of_one_volume(
        self, translator: Translator, heads: list[Path], tmp_path: Path
    ) -> None:
        def stop(done: int, total: int) -> None:
            raise Interrupted("stop")

        jobs = jobs_from_inputs(heads, tmp_path / "out")
        with pytest.raises(Interrupted):
            translate_cohort(
                translator,
                jobs,
                Settings(),
                strict=False,
                on_done=lambda *_: None,
                on_slices=stop,
            )
        assert list((tmp_path / "out").iterdir()) == []

    def test_results_of_many_do_not_fill_the_memory(
        self, translator: Translator, heads: list[Path], tmp_path: Path
    ) -> None:
        """Neither voxels that are on the disk, nor what a failure's traceback holds."""
        heads[0].write_text("not an image")
        failed, written = translate_cohort(
            translator,
            jobs_from_inputs(heads, tmp_path / "out"),
            Settings(samples=2),
            strict=False,
            on_done=lambda *_: None,
        )
        assert failed.__traceback__ is None
        assert (written.translation.voxels.size, written.translation.spread) == (0, None)
        [alone] = translate_cohort(
            translator,
            jobs_from_inputs(heads[1:], None),
            Settings(),
            strict=True,
            on_done=lambda *_: None,
        )
        assert alone.translation.voxels.shape == helpers.SHAPE

    def test_a_second_one_into_the_same_folder_is_told_who_is_there(
        self, translator: Translator, cohort: Path, tmp_path: Path
    ) -> None:
        """A manifest's volumes go to folders of their own; what they have in common counts."""
        jobs = jobs_from_manifest(cohort, "t1", tmp_path / "out")
        caught: list[OutputError] = []

        def another(*_: object) -> None:
            with pytest.raises(OutputError, match=rf"another translation .*process {os.getpid()}"):
                translate_cohort(
                    translator, jobs[1:], Settings(), strict=True, on_done=lambda *_: None
                )
            caught.append(OutputError())

        translate_cohort(translator, jobs, Settings(), strict=True, on_done=another)
        assert len(caught) == len(jobs)
        assert not list(tmp_path.rglob(".*"))

    def test_volumes_beside_their_inputs_need_no_common_folder(
        self, translator: Translator, heads: list[Path], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(os, "access", lambda *_: False)
        jobs = jobs_from_inputs(heads, None)
        done = translate_cohort(translator, jobs, Settings(), strict=True, on_done=lambda *_: None)
        assert len(done) == 2

    def test_same_names_do_not_overwrite_each_other(self, tmp_path: Path) -> None:
        paths = []
        for subject in ("x", "y"):
            (tmp_path / subject).mkdir()
            paths.append(helpers.write_nifti(tmp_path / subject / "t1.nii.gz", *helpers.head()))
        with pytest.raises(UsageError, match="same name"):
            jobs_from_inputs(paths, tmp_path / "out")
        assert not (tmp_path / "out").exists()
        assert len(jobs_from_inputs(paths, None)) == 2
