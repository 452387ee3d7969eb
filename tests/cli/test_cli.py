"""The command line as a person and a program meet it."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest

from medtrans.cli import listing
from medtrans.config.recipes import shipped_tasks
from medtrans.inference import sampling
from medtrans.training import stages
from medtrans.version import __version__
from tests import helpers
from tests.helpers import Answer, Run

RECIPE = """
extends = "base"
tasks = ["t1-to-t2"]
[volume]
spacing_mm = [0.0, 0.0, 0.0]
divisible = 4
[network]
channels = [4, 4]
attention = [false, false]
norm_groups = 2
[noise]
batch_size = 1
patch = [8, 8]
precision = "fp32"
[residual]
batch_size = 1
patch = [8, 8]
precision = "fp32"
[error]
iterations = 0
[look]
examples = 0
"""


@pytest.fixture
def head_file(tmp_path: Path) -> Path:
    return helpers.write_nifti(tmp_path / "t1.nii.gz", *helpers.head())


@pytest.fixture
def recipe(tmp_path: Path) -> Path:
    path = tmp_path / "mine.toml"
    path.write_text(RECIPE)
    return path


def tree(folder: Path) -> dict[str, str]:
    """Everything in a folder, by name and content."""
    return {
        str(p.relative_to(folder)): helpers.digest(p) if p.is_file() else "folder"
        for p in folder.rglob("*")
    }


def write_text(folder: Path) -> Path:
    path = folder / "notes.txt"
    path.write_text("This is no image.")
    return path


def write_text_named_nifti(folder: Path) -> Path:
    path = folder / "notes.nii.gz"
    path.write_text("This is no image.")
    return path


def write_4d(folder: Path) -> Path:
    voxels = np.random.default_rng(0).integers(0, 99, (6, 6, 6, 3)).astype(np.int16)
    return helpers.write_nifti(folder / "fmri.nii.gz", voxels, np.eye(4))


def write_truncated(folder: Path) -> Path:
    whole = helpers.write_nifti(folder / "cut.nii.gz", *helpers.head())
    whole.write_bytes(whole.read_bytes()[:-400])
    return whole


def name_nothing(folder: Path) -> Path:
    return folder / "none.nii.gz"


class TestWrongInput:
    """Each ends with exit code 2 and one sentence, and leaves nothing behind."""

    def refused(self, answer: Answer, *words: str) -> None:
        assert answer.code == 2, answer
        _, start, message = answer.err.partition("medtrans: ")
        assert start
        assert "medtrans: " not in message
        for word in words:
            assert word in message
        assert "Traceback" not in answer.err
        assert answer.out == ""

    @pytest.mark.parametrize(
        ("make", "words"),
        [
            (write_text, ["notes.txt", "expected", "NIfTI"]),
            (write_text_named_nifti, ["notes.nii.gz"]),
            (write_4d, ["fmri.nii.gz", "--volume"]),
            (write_truncated, ["cut.nii.gz", "ends too early", "again"]),
            (name_nothing, ["none.nii.gz", "no such file"]),
        ],
    )
    def test_inputs(
        self,
        medtrans: Run,
        identity_model: Path,
        tmp_path: Path,
        make: Callable[[Path], Path],
        words: list[str],
    ) -> None:
        path = make(tmp_path)
        before = tree(tmp_path)
        answer = medtrans(
            "translate", path, "-o", tmp_path / "out.nii.gz", "--model", identity_model
        )
        self.refused(answer, *words)
        assert tree(tmp_path) == before

    @pytest.mark.parametrize("goal", ["file/out.nii.gz", "nowhere/out.nii.gz", "t1.nii.gz"])
    def test_unwritable_outputs(
        self, medtrans: Run, identity_model: Path, head_file: Path, tmp_path: Path, goal: str
    ) -> None:
        (tmp_path / "file").write_text("not a folder")
        before = tree(tmp_path)
        answer = medtrans("translate", head_file, "-o", tmp_path / goal, "--model", identity_model)
        self.refused(answer, goal.partition("/")[0])
        assert tree(tmp_path) == before

    @pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root may write")
    def test_folder_without_permission(
        self, medtrans: Run, identity_model: Path, head_file: Path, tmp_path: Path
    ) -> None:
        locked = tmp_path / "locked"
        locked.mkdir(mode=0o555)
        out = locked / "out.nii.gz"
        answer = medtrans("translate", head_file, "-o", out, "--model", identity_model)
        self.refused(answer, "locked")
        assert list(locked.iterdir()) == []

    @pytest.mark.parametrize(
        ("options", "words"),
        [
            (["--task", "t1-to-t9"], ["t9", "did you mean"]),
            (["--task", "t2-to-t1"], ["not trained for t2-to-t1"]),
            (["--task", "nonsense"], ["is not a task"]),
            (["--mode", "best"], ["'best' is unknown"]),
            (["--device", "tpu"], ["tpu"]),
            (["--samples", "0"], ["samples"]),
            (["--eta", "7"], ["eta"]),
            (["--uncertainty", "u.nii.gz"], ["--samples"]),
            (["--out-dir", "x"], ["--manifest"]),
            (["--manifest", "none.csv"], ["--out-dir"]),
            (["--noise-steps", "5000"], ["5000"]),
        ],
    )
    def test_options(
        self,
        medtrans: Run,
        identity_model: Path,
        head_file: Path,
        options: list[str],
        words: list[str],
    ) -> None:
        before = tree(head_file.parent)
        answer = medtrans("translate", head_file, "--model", identity_model, *options)
        self.refused(answer, *words)
        assert tree(head_file.parent) == before

    def test_unknown_model(self, medtrans: Run, head_file: Path) -> None:
        self.refused(medtrans("translate", head_file, "--model", "brane"), "no model 'brane'")

    def test_no_input(self, medtrans: Run, identity_model: Path) -> None:
        self.refused(medtrans("translate", "--model", identity_model), "No input")

    @pytest.mark.parametrize("command", ["train", "translate"])
    def test_manifest_without_a_column(
        self, medtrans: Run, identity_model: Path, tmp_path: Path, command: str
    ) -> None:
        manifest = tmp_path / "cohort.csv"
        manifest.write_text("subject,path\ns1,t1.nii.gz\n")
        before = tree(tmp_path)
        out = tmp_path / "out"
        if command == "train":
            answer = medtrans("train", "--task", "t1-to-t2", "--manifest", manifest, "--out", out)
        else:
            answer = medtrans(
                "translate", "--manifest", manifest, "--out-dir", out, "--model", identity_model
            )
        self.refused(answer, "cohort.csv", "contrast")
        assert tree(tmp_path) == before

    @pytest.mark.parametrize(
        ("options", "words"),
        [
            (["--task", "t1-to-t9"], ["t9", "did you mean"]),
            (["--task", "t1-to-t2", "--stage", "both"], ["--stage", "both"]),
            (["--task", "t1-to-t2", "--noise-iterations", "0"], ["noise.iterations"]),
            (["--task", "t1-to-t2", "--pipeline", "none.toml"], ["none.toml"]),
            (["--task", "flair-to-t2"], ["flair"]),
            ([], ["--task", "--pipeline"]),
            (["--pipeline", "brain-mr"], ["brain-mr", "shipped are"]),
        ],
    )
    def test_train(
        self, medtrans: Run, cohort: Path, tmp_path: Path, options: list[str], words: list[str]
    ) -> None:
        answer = medtrans("train", "--manifest", cohort, "--out", tmp_path / "run", *options)
        self.refused(answer, *words)
        assert not (tmp_path / "run").exists()

    def test_mistyped_recipe(
        self, medtrans: Run, cohort: Path, recipe: Path, tmp_path: Path
    ) -> None:
        recipe.write_text(RECIPE.replace("norm_groups", "norm_grups"))
        answer = medtrans(
            "train", "--task", "t1-to-t2", "--manifest", cohort, "--out", tmp_path / "run",
            "--pipeline", recipe,
        )  # fmt: skip
        self.refused(answer, "mine.toml", "norm_grups", "did you mean 'norm_groups'")

    def test_evaluate_needs_something(self, medtrans: Run, tmp_path: Path) -> None:
        self.refused(medtrans("evaluate"), "--manifest")
        self.refused(medtrans("evaluate", "--prediction", "a.nii.gz"), "go together")

    @pytest.mark.parametrize(
        "options", [["--subjects", "0"], ["--contrasts", "t1,t7"], ["--seed", "-1"]]
    )
    def test_phantom(self, medtrans: Run, tmp_path: Path, options: list[str]) -> None:
        self.refused(medtrans("phantom", tmp_path / "out", *options))

    @pytest.mark.parametrize("arguments", [["translat"], ["translate", "--speed", "9"], ["info"]])
    def test_usage(self, medtrans: Run, arguments: list[str]) -> None:
        answer = medtrans(*arguments)
        assert answer.code == 2
        assert "Traceback" not in answer.err
        assert answer.out == ""


class TestJson:
    def test_errors(self, medtrans: Run, tmp_path: Path) -> None:
        answer = medtrans("info", tmp_path / "none.nii.gz", "--json")
        assert answer.code in (0, 2)
        assert "none.nii.gz" in json.dumps(answer.json)

    def test_errors_of_a_command(self, medtrans: Run, head_file: Path) -> None:
        answer = medtrans("translate", head_file, "--model", "brane", "--json")
        assert answer.code == answer.json["exit_code"] == 2
        assert answer.json["error"] == "PackageError"
        assert "brane" in answer.json["message"]

    def test_tasks(self, medtrans: Run) -> None:
        answer = medtrans("tasks", "--json")
        assert answer.code == 0
        rows = {row["task"]: row for row in answer.json["tasks"]}
        assert set(rows) >= set(shipped_tasks())
        assert "brain_mri" in rows["t1-to-t2"]["models"]

    def test_models(self, medtrans: Run) -> None:
        assert {row["model"] for row in medtrans("models", "--json").json["models"]} >= {
            "brain_mri"
        }

    def test_info(self, medtrans: Run, head_file: Path) -> None:
        facts = medtrans("info", head_file, "--json").json
        assert facts["readable"] is True
        assert "translate" in facts

    def test_translate(
        self, medtrans: Run, identity_model: Path, head_file: Path, tmp_path: Path
    ) -> None:
        out = tmp_path / "out.nii.gz"
        answer = medtrans("translate", head_file, "-o", out, "--model", identity_model, "--json")
        assert answer.code == 0, answer
        [row] = answer.json["volumes"]
        assert row["input"] == str(head_file)
        assert row["output"] == str(out)
        assert answer.json["failed"] == 0
        assert "fidelity mode, on cpu" in answer.err

    def test_phantom_then_evaluate(
        self, medtrans: Run, identity_model: Path, cohort: Path, tmp_path: Path
    ) -> None:
        answer = medtrans(
            "evaluate", "--manifest", cohort, "--model", identity_model, "--mode", "fidelity",
            "--out", tmp_path / "scores", "--json",
        )  # fmt: skip
        assert answer.code == 0, answer
        assert [row["method"] for row in answer.json["mean"]] == [
            "identity", "tone curve", "fidelity",
        ]  # fmt: skip
        assert (tmp_path / "scores" / "scores.csv").is_file()

    def test_dry_run(self, medtrans: Run, cohort: Path, recipe: Path, tmp_path: Path) -> None:
        answer = medtrans(
            "train", "--task", "t1-to-t2", "--manifest", cohort, "--out", tmp_path / "run",
            "--pipeline", recipe, "--dry-run", "--json",
        )  # fmt: skip
        assert answer.code == 0, answer
        assert answer.json["train_pairs"] == {"t1-to-t2": 1}
        assert not (tmp_path / "run").exists()

    def test_a_recipe_brings_its_tasks(
        self, medtrans: Run, cohort: Path, recipe: Path, tmp_path: Path
    ) -> None:
        answer = medtrans(
            "train", "--manifest", cohort, "--out", tmp_path / "run", "--pairs", "0",
            "--pipeline", recipe, "--dry-run", "--json",
        )  # fmt: skip
        assert answer.code == 0, answer
        assert answer.json["tasks"] == ["t1-to-t2"]
        assert answer.json["train_pairs"] == {"t1-to-t2": 0}

    def test_a_warning_goes_to_stderr(
        self, medtrans: Run, identity_model: Path, tmp_path: Path
    ) -> None:
        (tmp_path / "in").mkdir()
        helpers.write_nifti(tmp_path / "in" / "a.nii.gz", *helpers.head())
        write_truncated(tmp_path / "in")
        answer = medtrans(
            "translate", tmp_path / "in", "-o", tmp_path / "out", "--model", identity_model,
            "--json",
        )  # fmt: skip
        assert answer.code == answer.json["exit_code"] == 2
        assert answer.json["failed"] == 1
        assert [row["output"] is None for row in answer.json["volumes"]] == [False, True]
        assert "cut.nii.gz" in answer.err


class TestPlain:
    def test_result_is_for_reading(
        self, medtrans: Run, identity_model: Path, head_file: Path
    ) -> None:
        answer = medtrans("translate", head_file, "--model", identity_model)
        assert answer.code == 0
        assert "t1_t2-synthetic.nii.gz" in answer.out
        assert "{" not in answer.out

    def test_tasks_and_version(self, medtrans: Run) -> None:
        assert "t1-to-t2" in medtrans("tasks").out
        assert medtrans("--version").out == f"medtrans {__version__}\n"

    def test_report(
        self, medtrans: Run, identity_model: Path, head_file: Path, tmp_path: Path
    ) -> None:
        page = tmp_path / "page.html"
        answer = medtrans(
            "translate", head_file, "--model", identity_model, "--report", page, "--seed", "12"
        )
        assert answer.code == 0, answer
        assert f"page: {page}" in answer.out
        assert "identity" in page.read_text()
        assert "Source T1" in page.read_text()
        assert "Uncertainty" not in page.read_text()
        assert nib.load(tmp_path / "t1_t2-synthetic.nii.gz").shape == helpers.SHAPE

    def test_report_with_reference_and_uncertainty(
        self, medtrans: Run, random_model: Path, head_file: Path, tmp_path: Path
    ) -> None:
        page, spread = tmp_path / "page.html", tmp_path / "std.nii.gz"
        given = ["translate", head_file, "--model", random_model, "--report", page]
        given += ["--reference", head_file, "--samples", "2", "--uncertainty", spread]
        answer = medtrans(*given, "--mode", "realistic")
        assert answer.code == 0, answer
        for name in ("Reference T2", "after a linear fit", "Uncertainty"):
            assert name in page.read_text()

    def test_report_of_many(
        self, medtrans: Run, identity_model: Path, head_file: Path, tmp_path: Path
    ) -> None:
        other = head_file.with_name("b_t1.nii.gz")
        other.write_text("no image")
        pages = tmp_path / "pages"
        given = ["translate", head_file, other, "-o", tmp_path / "out", "--model", identity_model]
        for _ in range(2):
            answer = medtrans(*given, "--report", pages)
            assert answer.code == 2
            assert f"page: {pages / 'index.html'}" in answer.out
            index = (pages / "index.html").read_text(encoding="utf-8")
            assert index.index("b_t1.nii.gz") < index.index(head_file.name)
        assert len(list((pages / "cases").iterdir())) == 1

    def test_a_stopped_cohort_has_its_index(
        self, medtrans: Run, identity_model: Path, head_file: Path, tmp_path: Path
    ) -> None:
        broken = head_file.with_name("a_t1.nii.gz")
        broken.write_text("no image")
        given = ["translate", broken, head_file, "-o", tmp_path / "out", "--model", identity_model]
        answer = medtrans(*given, "--report", tmp_path / "pages", "--strict")
        assert answer.code == 2
        index = (tmp_path / "pages" / "index.html").read_text(encoding="utf-8")
        assert "Not translated (2)" in index

    @pytest.mark.parametrize(
        ("report", "said"), [("p.html", "name a folder"), ("p.pdf", "should end in .html")]
    )
    def test_the_page_of_one_is_not_for_many(
        self, medtrans: Run, identity_model: Path, head_file: Path, report: str, said: str
    ) -> None:
        other = helpers.write_nifti(head_file.with_name("b_t1.nii.gz"), *helpers.head())
        given = ["translate", head_file, other, "--model", identity_model, "--report"]
        answer = medtrans(*given, head_file.with_name(report))
        assert answer.code == 2
        assert said in answer.err

    def test_a_reference_is_for_the_page_of_one(
        self, medtrans: Run, identity_model: Path, head_file: Path, tmp_path: Path
    ) -> None:
        given = ["translate", head_file, "--model", identity_model, "--reference", head_file]
        answer = medtrans(*given, "--report", tmp_path / "pages")
        assert "add --report page.html" in answer.err

    def test_a_wrong_reference_is_refused_early(
        self, medtrans: Run, head_file: Path, tmp_path: Path
    ) -> None:
        voxels, affine = helpers.head()
        moved = helpers.write_nifti(tmp_path / "moved.nii.gz", voxels, affine + np.eye(4))
        plain = helpers.write_nifti(tmp_path / "plain.nii.gz", 0 * voxels, affine)
        given = ["translate", head_file, "--report", tmp_path / "page.html", "--reference"]
        for path, said in ((moved, "not on one grid"), (plain, "has one value")):
            answer = medtrans(*given, path)
            assert answer.code == 2
            assert said in answer.err
            assert path.name in answer.err
        answer = medtrans("translate", head_file, "--reference", head_file)
        assert "add --report" in answer.err

    def test_evaluate_two_files(self, medtrans: Run, head_file: Path) -> None:
        answer = medtrans("evaluate", "--prediction", head_file, "--reference", head_file)
        assert answer.code == 0
        assert "ssim: 1" in answer.out

    def test_evaluate_ct_on_a_window(self, medtrans: Run, tmp_path: Path) -> None:
        rng = np.random.default_rng(0)
        truth = rng.uniform(-1000, 1700, (16, 16, 8)).astype(np.float32)
        files = [tmp_path / "p.nii.gz", tmp_path / "r.nii.gz"]
        for path, values in zip(files, (truth + 300, truth), strict=True):
            nib.Nifti1Image(values, np.eye(4)).to_filename(path)
        pair = ["evaluate", "--prediction", files[0], "--reference", files[1], "--json"]
        found = medtrans(*pair, "--window", "-1000", "2000")
        assert found.json["mae"] == pytest.approx(0.1, abs=1e-5)
        assert "--window" not in found.err
        assert "--window" in medtrans(*pair).err
        assert "lower end" in medtrans(*pair, "--window", "5", "5").err

    def test_evaluate_each_task_of_a_model(self, medtrans: Run, tmp_path: Path) -> None:
        cohort = helpers.write_cohort(tmp_path / "data", 1, contrasts=("t1", "t2", "flair"))
        recipe = helpers.tiny_pipeline("base", tasks=["t1-to-t2", "t1-to-flair"])
        model = helpers.save_model(tmp_path / "model", recipe)
        scores = {}
        for task in recipe.tasks:
            answer = medtrans(
                "evaluate", "--model", model, "--manifest", cohort, "--split", "train",
                "--task", task, "--mode", "fidelity", "--json",
            )  # fmt: skip
            assert answer.code == 0, answer
            rows = {row["method"]: row for row in answer.json["subjects"]}
            assert {row["task"] for row in rows.values()} == {task}
            scores[task] = {method: row["psnr"] for method, row in rows.items()}
        first, second = scores.values()
        assert all(first[method] != second[method] for method in first)

    def test_manifest(
        self, medtrans: Run, identity_model: Path, cohort: Path, tmp_path: Path
    ) -> None:
        out = tmp_path / "out"
        answer = medtrans(
            "translate", "--manifest", cohort, "--out-dir", out, "--model", identity_model
        )
        assert answer.code == 0
        assert sorted(p.parent.name for p in out.rglob("*.nii.gz")) == [
            "sub-001", "sub-002", "sub-003",
        ]  # fmt: skip


class TestStatedHashes:
    """A file that is not the one that the manifest lists is noticed when it is read."""

    @pytest.fixture
    def changed(self, tmp_path: Path) -> Path:
        manifest = helpers.write_cohort(tmp_path / "data", 3)
        header, *rows = manifest.read_text().splitlines()
        where = header.split(",").index("path")
        hashes = [helpers.digest(manifest.parent / row.split(",")[where]) for row in rows]
        lines = [f"{row},{digest}" for row, digest in zip(rows, hashes, strict=True)]
        manifest.write_text("\n".join([f"{header},sha256", *lines]) + "\n")
        for subject in ("sub-001", "sub-003"):  # train and test
            helpers.write_nifti(manifest.parent / subject / "t1.nii.gz", *helpers.head())
        return manifest

    @pytest.mark.parametrize("command", ["translate", "evaluate", "train", "noise-level"])
    def test_is_refused_by_name(
        self,
        medtrans: Run,
        identity_model: Path,
        recipe: Path,
        changed: Path,
        tmp_path: Path,
        command: str,
    ) -> None:
        out = tmp_path / "out"
        more = {
            "translate": ("--out-dir", out, "--model", identity_model),
            "evaluate": ("--model", identity_model, "--mode", "fidelity"),
            "train": ("--task", "t1-to-t2", "--pipeline", recipe, "--out", out),
            "noise-level": ("--task", "t1-to-t2", "--pipeline", recipe, "--out", out),
        }[command]
        answer = medtrans(command, "--manifest", changed, *more)
        assert answer.code == 2, answer
        assert re.search(r"t1\.nii\.gz:? (its|has) sha256 (is )?", answer.err)
        if command == "translate":  # the one that is as listed is translated
            assert [path.parent.name for path in out.rglob("*.nii.gz")] == ["sub-002"]


class TestTrain:
    def train(self, cohort: Path, recipe: Path, out: Path, *more: object) -> tuple[object, ...]:
        return (
            "train", "--task", "t1-to-t2", "--manifest", cohort, "--out", out,
            "--pipeline", recipe, "--noise-iterations", "2", "--residual-iterations", "2",
            "--device", "cpu", *more,
        )  # fmt: skip

    def test_then_translate(
        self, medtrans: Run, cohort: Path, recipe: Path, head_file: Path, tmp_path: Path
    ) -> None:
        run = tmp_path / "run"
        answer = medtrans(*self.train(cohort, recipe, run, "--json"))
        assert answer.code == 0, answer
        assert answer.json["model"] == str(run / "model")
        answer = medtrans("translate", head_file, "--model", run / "model", "--mode", "realistic")
        assert answer.code == 0, answer
        again = medtrans(*self.train(cohort, recipe, run))
        assert again.code == 2
        assert "--resume" in again.err

    def test_ctrl_c_is_130_and_says_how_to_go_on(
        self,
        medtrans: Run,
        cohort: Path,
        recipe: Path,
        tmp_path: Path,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        original = stages.residual_loss

        def pressed(*arguments: Any) -> Any:
            signal.raise_signal(signal.SIGINT)
            return original(*arguments)

        run = tmp_path / "run"
        with monkeypatch.context() as patch:
            patch.setattr(stages, "residual_loss", pressed)
            answer = medtrans(*self.train(cohort, recipe, run))
        assert answer.code == 130, answer
        assert "residual step 1" in answer.err
        assert "--resume" in answer.err
        assert medtrans(*self.train(cohort, recipe, run, "--resume")).code == 0
        assert (run / "model").is_dir()


class TestStops:
    @pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
    def test_in_the_middle_of_a_translation(
        self,
        medtrans: Run,
        identity_model: Path,
        head_file: Path,
        monkeypatch: pytest.MonkeyPatch,
        number: int,
        code: int,
    ) -> None:
        original = sampling.place

        def stopped(*arguments: Any, **more: Any) -> Any:
            signal.raise_signal(number)
            return original(*arguments, **more)

        monkeypatch.setattr(sampling, "place", stopped)
        before = tree(head_file.parent)
        answer = medtrans("translate", head_file, "--model", identity_model, "--json")
        assert answer.code == code
        assert "Traceback" not in answer.err
        assert tree(head_file.parent) == before
        assert answer.json["exit_code"] == code

    def test_of_every_process_of_a_training(
        self, cohort: Path, recipe: Path, tmp_path: Path
    ) -> None:
        """A batch system signals the loader's processes, too."""
        out = tmp_path / "run"
        more = ("--noise-iterations", "100000", "--out", str(out))
        job = subprocess.Popen(
            [sys.executable, "-m", "medtrans", "train", "--task", "t1-to-t2", "--manifest",
             str(cohort), "--pipeline", str(recipe), "--device", "cpu", *more],
            start_new_session=True, stderr=subprocess.PIPE, text=True,
        )  # fmt: skip
        log = out / "noise" / "training.csv"
        deadline = time.monotonic() + 120
        while not log.exists() and time.monotonic() < deadline:
            time.sleep(0.1)
        os.killpg(job.pid, signal.SIGTERM)
        _, said = job.communicate(timeout=120)
        assert job.returncode == 143, said
        assert "--resume" in said
        assert (out / "noise" / "last.pt").is_file()

    def test_a_fault_of_ours_is_1_and_tells_no_values(
        self, medtrans: Run, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def broken() -> None:
            raise RuntimeError(" ".join(("Jane", "Doe")))

        monkeypatch.setattr(listing, "list_tasks", broken)
        answer = medtrans("tasks")
        assert answer.code == 1
        assert "RuntimeError" in answer.err
        assert "fault of medtrans" in answer.err
        assert "Jane Doe" not in answer.err
        assert answer.out == ""


HELP = """
import sys
from typer.main import get_command
from typer.testing import CliRunner
from medtrans.cli.app import app

def walk(command, words):
    yield words
    for name, inner in getattr(command, "commands", {}).items():
        yield from walk(inner, (*words, name))

for words in walk(get_command(app), ()):
    result = CliRunner().invoke(app, [*words, "--help"])
    assert result.exit_code == 0, (words, result.output)
    assert "Usage" in result.output and len(result.output) > 100, words
    print(" ".join(words))
heavy = {"torch", "monai", "numpy", "nibabel", "SimpleITK", "pydicom", "pandas", "scipy"}
print("loaded:", *sorted(heavy & sys.modules.keys()))
"""


def test_help_of_every_command_is_light() -> None:
    done = subprocess.run(
        [sys.executable, "-c", HELP], capture_output=True, text=True, check=False, timeout=120
    )
    assert done.returncode == 0, done.stderr
    *listed, loaded = done.stdout.splitlines()
    assert {"translate", "train", "evaluate", "demo", "phantom", "tasks", "models", "info"} <= set(
        listed
    )
    assert loaded == "loaded:"


def test_the_module_runs_as_a_command(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "medtrans", "info", tmp_path / "none", "--json"],
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
        cwd=tmp_path,
    )
    assert done.returncode in (0, 2), done.stderr
    assert json.loads(done.stdout)
    assert "Traceback" not in done.stderr
