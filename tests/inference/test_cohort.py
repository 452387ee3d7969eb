"""Many volumes with one model."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from medtrans.errors import FaultError, Interrupted, OutputError, UnreadableFileError, UsageError
from medtrans.inference import cohort
from medtrans.inference.cohort import translate_cohort
from medtrans.inference.jobs import Job, jobs_from_inputs, jobs_from_manifest
from medtrans.inference.settings import Settings
from medtrans.inference.translator import Translator
from tests import helpers
from tests.volumes.builders import dicom_series


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

    @pytest.mark.parametrize("twin", ["a.mha", "a.nii", "a.hdr", "a"])
    @pytest.mark.parametrize("out", [None, "out"])
    def test_two_inputs_that_become_one_name_or_share_a_sidecar(
        self, heads: list[Path], tmp_path: Path, twin: str, out: str | None
    ) -> None:
        other = tmp_path / twin
        other.mkdir() if twin == "a" else other.write_bytes(b"")  # a DICOM folder, or a file
        with pytest.raises(UsageError, match="would have the same name"):
            jobs_from_inputs([heads[0], other], out and tmp_path / out)
        assert not (tmp_path / "out").exists()

    def test_folder_of_headers_and_voxels_apart(self, tmp_path: Path) -> None:
        for name in ("a.mhd", "a.raw", "b.hdr", "b.img", "c.nhdr", "c.raw.gz", ".0b-d.mha"):
            (tmp_path / name).write_bytes(b"")
        found = [job.path.name for job in jobs_from_inputs([tmp_path], None)]
        assert found == ["a.mhd", "b.hdr", "c.nhdr"]

    def test_a_missing_file_of_a_manifest_fails_alone(
        self, translator: Translator, tmp_path: Path
    ) -> None:
        manifest = helpers.write_cohort(tmp_path / "data", 2)
        (manifest.parent / "sub-001" / "t1.nii.gz").unlink()
        (manifest.parent / "sub-002" / "t2.nii.gz").unlink()  # no source of this task
        jobs = jobs_from_manifest(manifest, "t1", tmp_path / "out")
        first, second = translate_cohort(
            translator, jobs, Settings(), strict=False, on_done=lambda *_: None
        )
        assert "no such file" in str(first)
        assert second.outputs[0].is_file()

    def test_a_series_of_a_folder(self, tmp_path: Path) -> None:
        (tmp_path / "m.csv").write_text("subject,contrast,path,series\na,t1,dicom,1.2\nb,t1,x,\n")
        jobs = jobs_from_manifest(tmp_path / "m.csv", "t1", tmp_path / "out")
        assert [job.series for job in jobs] == ["1.2", None]

    def test_a_link_that_leads_out_of_the_output_folder(self, cohort: Path, tmp_path: Path) -> None:
        out = tmp_path / "out"
        out.mkdir()
        (out / "sub-002").symlink_to(tmp_path)
        with pytest.raises(OutputError, match=r"sub-002: it leads out of"):
            jobs_from_manifest(cohort, "t1", out)
        assert [path.name for path in out.iterdir()] == ["sub-002"]

    def test_the_output_folder_may_be_a_link(self, cohort: Path, tmp_path: Path) -> None:
        (tmp_path / "disk").mkdir()
        (tmp_path / "out").symlink_to(tmp_path / "disk")
        assert len(jobs_from_manifest(cohort, "t1", tmp_path / "out")) == 3

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
        failed, written, other = translate_cohort(
            translator,
            [*jobs_from_inputs(heads, tmp_path / "out"), Job(heads[1], tmp_path / "other.nii.gz")],
            Settings(samples=2),
            strict=False,
            on_done=lambda *_: None,
        )
        assert failed.__traceback__ is None
        assert (written.translation.voxels.size, written.translation.spread) == (0, None)
        # An empty array each cost 22 kB a volume: it lies where the volume's memory was.
        assert written.translation.voxels is other.translation.voxels
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


class TestReruns:
    """A rerun does only what is missing or changed."""

    def run(
        self, translator: Translator, jobs: list[Job], settings: Settings | None = None
    ) -> list[str]:
        results = translate_cohort(
            translator, jobs, settings or Settings(), strict=True, on_done=lambda *_: None
        )
        return [type(result).__name__ for result in results]

    @pytest.fixture
    def done(self, translator: Translator, heads: list[Path], tmp_path: Path) -> list[Job]:
        jobs = jobs_from_inputs(heads, tmp_path / "out")
        assert self.run(translator, jobs) == ["Written", "Written"]
        return jobs

    def test_nothing_has_changed(self, translator: Translator, done: list[Job]) -> None:
        before = {path: path.stat().st_mtime_ns for path in done[0].out.iterdir()}
        assert self.run(translator, done) == ["Unchanged", "Unchanged"]
        assert {path: path.stat().st_mtime_ns for path in done[0].out.iterdir()} == before

    def test_a_missing_image(self, translator: Translator, done: list[Job]) -> None:
        (done[0].out / "a_t2-synthetic.nii.gz").unlink()
        assert self.run(translator, done) == ["Written", "Unchanged"]

    def test_a_missing_sidecar_is_no_result_of_ours(
        self, translator: Translator, done: list[Job]
    ) -> None:
        (done[0].out / "a_t2-synthetic.json").unlink()
        with pytest.raises(OutputError, match="--overwrite"):
            self.run(translator, done)

    def test_a_changed_input(
        self, translator: Translator, done: list[Job], heads: list[Path]
    ) -> None:
        voxels, affine = helpers.head()
        helpers.write_nifti(heads[1], voxels + 1, affine)
        assert self.run(translator, done) == ["Unchanged", "Written"]
        assert self.run(translator, done) == ["Unchanged", "Unchanged"]

    @pytest.mark.parametrize(
        "settings",
        [{"seed": 1}, {"mode": "balanced"}, {"samples": 2}, {"flips": True}, {"axes": ("coronal",)},
         {"residual_steps": 2}, {"eta": 0.5}],
        ids=lambda settings: next(iter(settings)),
    )  # fmt: skip
    def test_a_changed_setting(
        self, translator: Translator, done: list[Job], settings: dict[str, Any]
    ) -> None:
        assert self.run(translator, done[:1], Settings(**settings)) == ["Written"]
        assert self.run(translator, done[:1], Settings(**settings)) == ["Unchanged"]

    def test_what_changes_no_voxel(self, translator: Translator, done: list[Job]) -> None:
        assert self.run(translator, done, Settings(batch_size=3)) == ["Unchanged", "Unchanged"]

    def test_another_precision(
        self, translator: Translator, identity_model: Path, done: list[Job]
    ) -> None:
        used = str(translator.sampler.precision).removeprefix("torch.")
        other = "bfloat16" if used == "float32" else "float32"
        assert self.run(Translator.load(identity_model, "cpu", used), done[:1]) == ["Unchanged"]
        assert self.run(Translator.load(identity_model, "cpu", other), done[:1]) == ["Written"]

    def test_another_model(self, done: list[Job], tmp_path: Path) -> None:
        model = helpers.save_model(tmp_path / "identity", helpers.linear_pipeline())
        assert self.run(Translator.load(model, "cpu"), done) == ["Written", "Written"]

    def test_overwrite_does_all_again(self, translator: Translator, done: list[Job]) -> None:
        again = [replace(job, overwrite=True) for job in done]
        assert self.run(translator, again) == ["Written", "Written"]

    def test_a_single_job_that_was_read_is_done_again(
        self, translator: Translator, done: list[Job]
    ) -> None:
        read = translator.read(done[0], Settings())
        assert self.run(translator, [read]) == ["Written"]  # type: ignore[list-item]

    def test_an_uncertainty_map_that_is_missing(
        self, translator: Translator, heads: list[Path], tmp_path: Path
    ) -> None:
        spread, settings = tmp_path / "spread.nii.gz", Settings(samples=2)
        jobs = [Job(heads[0], out=tmp_path / "o.nii.gz", uncertainty=spread)]
        assert self.run(translator, jobs, settings) == ["Written"]
        assert self.run(translator, jobs, settings) == ["Unchanged"]
        spread.unlink()
        assert self.run(translator, jobs, settings) == ["Written"]

    def test_a_series(self, translator: Translator, tmp_path: Path) -> None:
        series = dicom_series(tmp_path / "study", rows=8, columns=9, PixelData=pixels)
        jobs = [Job(series, out=tmp_path / "out")]
        assert self.run(translator, jobs) == ["Written"]
        assert self.run(translator, jobs) == ["Unchanged"]
        next(iter((tmp_path / "out").iterdir())).unlink()
        with pytest.raises(OutputError, match="new or empty folder"):
            self.run(translator, jobs)


def pixels(k: int) -> bytes:
    return np.random.default_rng(k).integers(1, 900, (8, 9)).astype("<u2").tobytes()


def test_a_fault_of_ours_stops_one_volume_only(
    translator: Translator, heads: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    original = Translator.sample
    calls = iter([RuntimeError("Jane Doe"), None])

    def broken(self: Translator, *arguments: Any) -> Any:
        if (error := next(calls)) is not None:
            raise error
        return original(self, *arguments)

    monkeypatch.setattr(Translator, "sample", broken)
    jobs = jobs_from_inputs(heads, tmp_path / "out")
    first, second = translate_cohort(
        translator, jobs, Settings(), strict=False, on_done=lambda *_: None
    )
    assert isinstance(first, FaultError)
    assert first.exit_code == 1
    assert isinstance(first.__cause__, RuntimeError)
    assert "Jane" not in str(first)
    assert second.outputs[0].is_file()


def test_no_lock_is_put_at_the_root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Folders without a common one are nobody's to close, also where root may write."""
    root = Path(tmp_path.anchor)
    monkeypatch.setattr(cohort, "only_one_in", lambda folder, work: pytest.fail(f"{folder} {work}"))
    with cohort._alone([Job(root / "a" / "t1.nii.gz"), Job(root / "b" / "t1.nii.gz")]):
        pass
