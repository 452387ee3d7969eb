"""Whole runs on phantoms: from a manifest to a model package."""

from __future__ import annotations

import csv
import json
import os
import shutil
import signal
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
import torch
from torch import Tensor

from medtrans.config.schema import Pipeline
from medtrans.data.manifest import Entry, Manifest
from medtrans.errors import (
    GeometryError,
    Interrupted,
    ManifestError,
    MedtransError,
    OutputError,
    TrainingError,
)
from medtrans.inference.jobs import Job
from medtrans.inference.settings import Settings
from medtrans.inference.translator import Translator
from medtrans.package.store import load_package
from medtrans.system.locks import LOCK_FILE, only_one_in
from medtrans.training import run, stages
from medtrans.training.cache import CachedVolume, VolumeCache
from medtrans.training.checkpoint import read_tensors
from medtrans.training.examples import select_data
from medtrans.training.noise_origin import noise_origin_in
from medtrans.training.packaging import save_model
from medtrans.training.plan import TrainingPlan
from medtrans.training.run import summarise, train
from medtrans.volumes import read_volume
from tests import helpers


def plan(cohort: Path, out: Path, pipeline: Pipeline, **options: Any) -> TrainingPlan:
    return TrainingPlan(pipeline, Manifest.read(cohort), out, device="cpu", **options)


@pytest.fixture(scope="module")
def finished(cohort: Path, pipeline: Pipeline, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of an uninterrupted run; read it only."""
    out = tmp_path_factory.mktemp("runs") / "run"
    train(plan(cohort, out, pipeline))
    return out


@pytest.fixture
def own_cohort(cohort: Path, tmp_path: Path) -> Path:
    """A copy of the cohort, to be spoilt."""
    shutil.copytree(cohort.parent, tmp_path / "own")
    return tmp_path / "own" / cohort.name


def equal(a: dict[str, Tensor], b: dict[str, Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[key], b[key]) for key in a)


class TestResult:
    def test_a_package_that_translates(self, finished: Path, cohort: Path, tmp_path: Path) -> None:
        translator = Translator.load(finished / "model", "cpu")
        source = cohort.parent / "sub-003" / "t1.nii.gz"
        for mode in ("fidelity", "balanced", "realistic"):
            written = translator.translate_file(
                Job(source, out=tmp_path / f"{mode}.nii.gz"), Settings(mode=mode)
            )
            out = read_volume(written.outputs[0])
            assert out.shape == helpers.SHAPE
            assert np.isfinite(out.numpy()).all()
            assert out.numpy().std() > 0

    def test_the_package_records_its_training(self, finished: Path, cohort: Path) -> None:
        package = load_package(finished / "model")
        assert package.name == "run/model"
        assert package.masked_background is True
        assert package.noise is not None
        target = read_volume(cohort.parent / "sub-001" / "t2.nii.gz").numpy()
        low, high = np.percentile(target[target > 0], [0.5, 99.5])
        assert package.profiles["t2"].low == pytest.approx(low, abs=0.03 * high)
        assert package.profiles["t2"].high == pytest.approx(high, rel=0.03)
        text = (finished / "model" / "configs" / "metadata.json").read_text()
        record = json.loads(text)["medtrans"]["training"]
        assert record["pairs"] == {"t1-to-t2": 1}
        assert record["unpaired_targets"] == {"t2": 1}
        assert "sub-00" not in text
        assert str(cohort.parent) not in text

    @pytest.mark.parametrize("masked", ["t1", "t2"])
    def test_it_is_the_source_that_has_its_background_masked(
        self, own_cohort: Path, pipeline: Pipeline, tmp_path: Path, masked: str
    ) -> None:
        other = {"t1": "t2", "t2": "t1"}[masked]
        for path in own_cohort.parent.glob(f"*/{other}.nii.gz"):
            image = nib.load(path)
            noisy = image.get_fdata() + np.random.default_rng(0).random(image.shape)
            nib.Nifti1Image(noisy.astype(np.float32), image.affine).to_filename(path)
        model = train(plan(own_cohort, tmp_path / "run", pipeline, stages="residual"))
        assert load_package(model).masked_background == (masked == "t1")

    def test_the_package_holds_the_best_weights(self, finished: Path) -> None:
        package = load_package(finished / "model")
        for stage, network in (("noise", package.noise), ("residual", package.residual)):
            best = read_tensors(finished / stage / "best.pt")
            stored = network.state_dict()
            for key, value in best.items():
                torch.testing.assert_close(stored[key], value, rtol=1e-3, atol=1e-6)

    def test_what_a_run_leaves(self, finished: Path) -> None:
        for stage in ("noise", "residual"):
            names = {path.name for path in (finished / stage).iterdir()}
            assert {"best.pt", "last.pt", "validation.csv", "pictures"} <= names
        assert not [p for p in helpers.files_below(finished) if p.name.startswith(".")]

    def test_validation_scores_are_those_of_images(self, finished: Path) -> None:
        with (finished / "residual" / "validation.csv").open(newline="") as file:
            scores = list(csv.DictReader(file))
        assert [row["step"] for row in scores] == ["2", "4"]
        for row in scores:
            assert {"fidelity_psnr_fit", "realistic_psnr_fit", "fidelity_ssim"} <= row.keys()
            assert 5 < float(row["fidelity_psnr_fit"]) < 40
            assert float(row["fidelity_psnr"]) <= float(row["fidelity_psnr_fit"]) + 1e-6
            assert -1 < float(row["fidelity_ssim"]) < 1


class TestStageTwoLeavesStageOne:
    def test_same_file(self, cohort: Path, pipeline: Pipeline, tmp_path: Path) -> None:
        out = tmp_path / "run"
        train(plan(cohort, out, pipeline, stages="noise"))
        assert not (out / "model").exists()
        before = {p: helpers.digest(p) for p in helpers.files_below(out / "noise")}
        train(plan(cohort, out, pipeline, stages="residual"))
        after = {p: helpers.digest(p) for p in helpers.files_below(out / "noise")}
        assert before == after
        stored = load_package(out / "model").noise.state_dict()
        for key, value in read_tensors(out / "noise" / "best.pt").items():
            torch.testing.assert_close(stored[key], value, rtol=1e-3, atol=1e-6)

    def test_two_runs_make_what_one_makes(
        self, finished: Path, cohort: Path, pipeline: Pipeline, tmp_path: Path
    ) -> None:
        train(plan(cohort, tmp_path / "run", pipeline, stages="noise"))
        train(plan(cohort, tmp_path / "run", pipeline, stages="residual"))
        for stage in ("noise", "residual"):
            one, two = (read_tensors(f / stage / "best.pt") for f in (finished, tmp_path / "run"))
            assert equal(one, two)


class TestSourcesCannotReachTheNoiseStage:
    def test_unreadable_sources_change_nothing(
        self, finished: Path, own_cohort: Path, pipeline: Pipeline, tmp_path: Path
    ) -> None:
        for source in own_cohort.parent.glob("*/t1.nii.gz"):
            source.write_bytes(b"no image at all")
        out = tmp_path / "run"
        train(plan(own_cohort, out, pipeline, stages="noise"))
        one, two = (read_tensors(f / "noise" / "best.pt") for f in (finished, out))
        assert equal(one, two)
        assert {path.name[:3] for path in (out / "cache").iterdir()} == {"t2-"}
        with pytest.raises(MedtransError):  # the pairs do need them
            train(plan(own_cohort, out, pipeline, stages="residual"))

    def test_removed_sources_change_nothing(
        self, finished: Path, own_cohort: Path, pipeline: Pipeline, tmp_path: Path
    ) -> None:
        lines = [x for x in own_cohort.read_text().splitlines() if ",t1," not in x]
        own_cohort.write_text("\n".join(lines) + "\n")
        out = tmp_path / "run"
        train(plan(own_cohort, out, pipeline, stages="noise"))
        one, two = (read_tensors(f / "noise" / "best.pt") for f in (finished, out))
        assert equal(one, two)


class TestInterrupted:
    @pytest.fixture(autouse=True)
    def python_handles_interrupts(self) -> Iterator[None]:
        """A shell that starts the tests in the background leaves SIGINT ignored."""
        before = signal.signal(signal.SIGINT, signal.default_int_handler)
        yield
        signal.signal(signal.SIGINT, before)

    @pytest.mark.parametrize("step", [1, 3])
    def test_in_each_stage_and_resumed_ends_bit_equal(
        self,
        finished: Path,
        cohort: Path,
        pipeline: Pipeline,
        tmp_path: Path,
        monkeypatch: pytest.MonkeyPatch,
        step: int,
    ) -> None:
        out = tmp_path / "run"
        for name in ("noise_loss", "residual_loss"):
            with monkeypatch.context() as patch:
                patch.setattr(stages, name, signalling(getattr(stages, name), step))
                with pytest.raises(Interrupted, match=f"{name[:-5]} step {step}"):
                    train(plan(cohort, out, pipeline, resume=name == "residual_loss"))
            assert not (out / "model").exists()
        train(plan(cohort, out, pipeline, resume=True))
        for stage in ("noise", "residual"):
            one, two = (read_tensors(f / stage / "best.pt") for f in (finished, out))
            assert equal(one, two)
        weights = Path("models") / "model.safetensors"
        assert helpers.digest(out / "model" / weights) == helpers.digest(
            finished / "model" / weights
        )

    @pytest.mark.parametrize("stage", ["noise", "residual"])
    def test_while_volumes_are_prepared_it_acts_at_once(
        self, finished: Path, cohort: Path, pipeline: Pipeline, tmp_path: Path,
        monkeypatch: pytest.MonkeyPatch, stage: str,
    ) -> None:  # fmt: skip
        """A thousand volumes take an hour, and all that is prepared is on the disk."""
        wanted = {"noise": "t2", "residual": "t1"}[stage]
        original, begun = VolumeCache.get, []

        def get(cache: VolumeCache, entry: Entry) -> CachedVolume:
            if entry.contrast == wanted:
                begun.append(entry)
                signal.raise_signal(signal.SIGINT)
            return original(cache, entry)

        out = tmp_path / "run"
        with monkeypatch.context() as patch:
            patch.setattr(VolumeCache, "get", get)
            with pytest.raises(KeyboardInterrupt):
                train(plan(cohort, out, pipeline))
        assert len(begun) == 1
        assert not (out / LOCK_FILE).exists()
        train(plan(cohort, out, pipeline, resume=True))
        one, two = (read_tensors(f / "residual" / "best.pt") for f in (finished, out))
        assert equal(one, two)

    def test_resuming_a_finished_run_changes_no_weights(
        self, finished: Path, cohort: Path, pipeline: Pipeline, tmp_path: Path
    ) -> None:
        out = tmp_path / "run"
        shutil.copytree(finished, out)
        before = {p: helpers.digest(p) for p in out.rglob("*.pt")}
        train(plan(cohort, out, pipeline, resume=True))
        assert {p: helpers.digest(p) for p in out.rglob("*.pt")} == before


class TestTwoInOneFolder:
    @pytest.mark.parametrize("resume", [False, True])
    def test_the_second_is_told_who_is_there(
        self, cohort: Path, pipeline: Pipeline, tmp_path: Path, *, resume: bool
    ) -> None:
        out = tmp_path / "run"
        out.mkdir()
        with (
            only_one_in(out, "training"),
            pytest.raises(OutputError, match=rf"another training .*process {os.getpid()} on "),
        ):
            train(plan(cohort, out, pipeline, resume=resume))
        assert list(out.iterdir()) == []

    def test_the_first_holds_it_to_its_end(
        self, cohort: Path, pipeline: Pipeline, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        out, held = tmp_path / "run", []
        first = plan(cohort, out, pipeline, stages="residual")

        def save(*arguments: Any) -> None:
            with pytest.raises(OutputError, match="another training"):
                train(replace(first, resume=True))
            held.append(True)
            save_model(*arguments)

        monkeypatch.setattr(run, "save_model", save)
        train(first)
        assert held
        assert not (out / LOCK_FILE).exists()

    def test_what_a_killed_one_was_writing_is_removed(
        self, finished: Path, cohort: Path, pipeline: Pipeline, tmp_path: Path
    ) -> None:
        out = tmp_path / "run"
        shutil.copytree(finished, out)
        stages = [out / "noise", out / "residual"]
        places = [out, out / "cache", *stages, *(stage / "pictures" for stage in stages)]
        for place in places:
            (place / ".medtrans-0123abcd-half.pt").write_text("half")
        (out / ".medtrans-0123abcd-model").mkdir()
        train(plan(cohort, out, pipeline, resume=True))
        assert not [path for path in out.rglob("*") if path.name.startswith(".")]


def signalling(loss: Callable[..., Tensor], step: int) -> Callable[..., Tensor]:
    """The same loss, during whose given call (from 1) Ctrl-C is pressed."""
    calls = 0

    def counted(*arguments: Any) -> Tensor:
        nonlocal calls
        calls += 1
        if calls == step:
            signal.raise_signal(signal.SIGINT)
        return loss(*arguments)

    return counted


class TestRefusals:
    def test_a_process_that_torchrun_started_anew_goes_on(
        self, cohort: Path, pipeline: Pipeline, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        given = plan(cohort, tmp_path / "run", pipeline)
        train(given)
        with pytest.raises(OutputError, match="already holds a run"):
            train(given)
        monkeypatch.setenv("TORCHELASTIC_RESTART_COUNT", "1")
        assert train(given) == given.model_folder

    def test_resume_with_other_settings_names_them(
        self, finished: Path, cohort: Path, pipeline: Pipeline
    ) -> None:
        before = {p: helpers.digest(p) for p in helpers.files_below(finished)}
        for change, word in (
            ({"seed": 1}, "seed"),
            ({"pairs": 1}, "pairs"),
            ({"pipeline": helpers.tiny_pipeline(noise={"learning_rate": 1e-5})}, "pipeline"),
        ):
            again = replace(plan(cohort, finished, pipeline, resume=True), **change)
            with pytest.raises(TrainingError, match=f"another {word}"):
                train(again)
        assert {p: helpers.digest(p) for p in helpers.files_below(finished)} == before

    def test_resume_with_a_changed_manifest(
        self, own_cohort: Path, pipeline: Pipeline, tmp_path: Path
    ) -> None:
        out = tmp_path / "run"
        train(plan(own_cohort, out, pipeline, stages="noise"))
        own_cohort.write_text(own_cohort.read_text().replace("test", "train"))
        with pytest.raises(TrainingError, match="another manifest"):
            train(plan(own_cohort, out, pipeline, stages="noise", resume=True))

    def test_a_folder_with_a_run_is_not_overwritten(
        self, finished: Path, cohort: Path, pipeline: Pipeline
    ) -> None:
        for do in (summarise, train):
            with pytest.raises(OutputError, match=r"already holds a run.*--resume"):
                do(plan(cohort, finished, pipeline))

    @pytest.mark.parametrize("what", ["package", "folder", "file"])
    def test_what_lies_in_the_place_of_the_model_stays(
        self, finished: Path, cohort: Path, pipeline: Pipeline, tmp_path: Path, what: str
    ) -> None:
        out = tmp_path / "run"
        out.mkdir()
        if what == "package":
            shutil.copytree(finished / "model", out / "model")
        elif what == "folder":
            (out / "model").mkdir()
            (out / "model" / "thesis.txt").write_text("mine")
        else:
            (out / "model").write_text("mine")
        before = [(p, helpers.digest(p)) for p in helpers.files_below(out)]
        for do in (summarise, train):
            with pytest.raises(OutputError, match=r"model exists, and this run did not write it"):
                do(plan(cohort, out, pipeline))
        assert [(p, helpers.digest(p)) for p in helpers.files_below(out)] == before

    def test_nor_is_it_replaced_by_a_run_that_goes_on(
        self, finished: Path, cohort: Path, pipeline: Pipeline, tmp_path: Path
    ) -> None:
        out = tmp_path / "run"
        shutil.copytree(finished, out)
        shutil.rmtree(out / "model")
        (out / "model").mkdir()
        summarise(plan(cohort, out, pipeline, resume=True))  # an empty folder is in nobody's way
        (out / "model" / "thesis.txt").write_text("mine")
        with pytest.raises(OutputError, match="model exists"):
            train(plan(cohort, out, pipeline, resume=True))

    def test_the_noise_stage_alone_needs_no_place_for_a_model(
        self, finished: Path, cohort: Path, pipeline: Pipeline, tmp_path: Path
    ) -> None:
        shutil.copytree(finished / "model", tmp_path / "run" / "model")
        summarise(plan(cohort, tmp_path / "run", pipeline, stages="noise"))

    def test_damaged_checkpoint(
        self, finished: Path, cohort: Path, pipeline: Pipeline, tmp_path: Path
    ) -> None:
        out = tmp_path / "run"
        shutil.copytree(finished, out)
        last = out / "noise" / "last.pt"
        last.write_bytes(last.read_bytes()[:1000])
        with pytest.raises(TrainingError, match=r"last\.pt is damaged"):
            train(plan(cohort, out, pipeline, resume=True))

    def test_damaged_settings(
        self, finished: Path, cohort: Path, pipeline: Pipeline, tmp_path: Path
    ) -> None:
        out = tmp_path / "run"
        shutil.copytree(finished, out)
        (out / "run.json").write_text("{")
        with pytest.raises(TrainingError, match=r"run\.json"):
            train(plan(cohort, out, pipeline, resume=True))

    def test_a_run_that_older_keys_describe_goes_on(
        self, finished: Path, cohort: Path, pipeline: Pipeline, tmp_path: Path
    ) -> None:
        out = tmp_path / "run"
        shutil.copytree(finished, out)
        settings = json.loads((out / "run.json").read_text())
        del settings["pipeline"]["noise"]["accumulate"]
        (out / "run.json").write_text(json.dumps(settings))
        train(plan(cohort, out, pipeline, resume=True))

    def test_a_file_in_the_place_of_the_folder(
        self, cohort: Path, pipeline: Pipeline, tmp_path: Path
    ) -> None:
        (tmp_path / "run").write_text("taken")
        with pytest.raises(OutputError, match="cannot be made"):
            train(plan(cohort, tmp_path / "run", pipeline))
        assert (tmp_path / "run").read_text() == "taken"

    def test_no_pair(self, own_cohort: Path, pipeline: Pipeline, tmp_path: Path) -> None:
        lines = [x for x in own_cohort.read_text().splitlines() if "sub-001,t1" not in x]
        own_cohort.write_text("\n".join(lines) + "\n")
        with pytest.raises(ManifestError, match="no pair of t1 and t2"):
            train(plan(own_cohort, tmp_path / "run", pipeline))
        assert not (tmp_path / "run").exists()

    def test_no_target(self, own_cohort: Path, tmp_path: Path) -> None:
        recipe = helpers.tiny_pipeline("t1-to-flair")
        with pytest.raises(ManifestError, match="no flair volume"):
            train(plan(own_cohort, tmp_path / "run", recipe, stages="noise"))

    def test_pair_on_two_grids(self, own_cohort: Path, pipeline: Pipeline, tmp_path: Path) -> None:
        path = own_cohort.parent / "sub-001" / "t1.nii.gz"
        image = nib.load(path)
        data = np.asarray(image.dataobj)[:-2]
        nib.Nifti1Image(data, image.affine).to_filename(path)
        with pytest.raises(GeometryError, match=r"t1\.nii\.gz and .*t2\.nii\.gz"):
            train(plan(own_cohort, tmp_path / "run", pipeline, stages="residual"))


class TestNoiseFrom:
    @pytest.mark.parametrize("place", ["run", "package"])
    def test_another_runs_noise_stage(
        self, finished: Path, cohort: Path, pipeline: Pipeline, tmp_path: Path, place: str
    ) -> None:
        source = finished if place == "run" else finished / "model"
        out = tmp_path / "run"
        train(plan(cohort, out, pipeline, noise_from=source))
        assert not (out / "noise").exists()
        one, two = (load_package(f / "model").noise.state_dict() for f in (finished, out))
        assert equal(one, two)

    @pytest.mark.parametrize("place", ["run", "package", "initial"])
    def test_goes_on_predicting_what_it_did(
        self, finished: Path, cohort: Path, tmp_path: Path, place: str
    ) -> None:
        recipe = helpers.tiny_pipeline(noise={"prediction": "v"})
        source = {"run": finished, "package": finished / "model", "initial": finished / "model"}
        origin = {"initial" if place == "initial" else "noise_from": source[place]}
        out = tmp_path / "run"
        train(plan(cohort, out, recipe, **origin))
        given = load_package(finished / "model").pipeline.noise.prediction
        assert load_package(out / "model").pipeline.noise.prediction == given != "v"
        train(plan(cohort, out, recipe, resume=True, **origin))

    def test_a_residual_stage_goes_with_the_runs_own_noise_stage(
        self, cohort: Path, pipeline: Pipeline, tmp_path: Path
    ) -> None:
        out = tmp_path / "run"
        train(plan(cohort, out, pipeline, stages="noise"))
        other = helpers.tiny_pipeline(noise={"prediction": "v"})
        initial = helpers.save_model(tmp_path / "initial", other)
        train(plan(cohort, out, other, stages="residual", initial=initial))
        kept = load_package(out / "model").pipeline.noise.prediction
        assert kept == pipeline.noise.prediction != "v"

    def test_and_none_to_train(
        self, finished: Path, cohort: Path, pipeline: Pipeline, tmp_path: Path
    ) -> None:
        given = plan(cohort, tmp_path / "run", pipeline, stages="noise", noise_from=finished)
        with pytest.raises(TrainingError, match="leave out --stage"):
            train(given)
        assert not (tmp_path / "run").exists()

    def test_a_resumed_run_takes_the_same_one(
        self, finished: Path, cohort: Path, pipeline: Pipeline, tmp_path: Path
    ) -> None:
        other = tmp_path / "other"
        train(plan(cohort, other, pipeline, stages="noise", seed=1))
        out = tmp_path / "run"
        train(plan(cohort, out, pipeline, noise_from=finished))
        train(plan(cohort, out, pipeline, noise_from=finished, resume=True))
        with pytest.raises(TrainingError, match="another noise_taken_over"):
            train(plan(cohort, out, pipeline, noise_from=other, resume=True))

    def test_leaves_what_the_runs_own_noise_stage_is(
        self, finished: Path, cohort: Path, pipeline: Pipeline, tmp_path: Path
    ) -> None:
        out, own = tmp_path / "run", helpers.tiny_pipeline(noise={"prediction": "v"})
        train(plan(cohort, out, own, stages="noise"))
        train(plan(cohort, out, own, stages="residual", noise_from=finished))
        assert load_package(out / "model").pipeline.noise.prediction == pipeline.noise.prediction
        assert noise_origin_in(out).recipe == own

    def test_that_does_not_fit(self, finished: Path, cohort: Path, tmp_path: Path) -> None:
        recipe = helpers.tiny_pipeline(network={"channels": [8, 8]})
        with pytest.raises(TrainingError, match="does not fit the recipe"):
            train(plan(cohort, tmp_path / "run", recipe, noise_from=finished))

    def test_that_has_none(self, cohort: Path, pipeline: Pipeline, tmp_path: Path) -> None:
        out = tmp_path / "run"
        train(plan(cohort, out, pipeline, stages="residual"))
        assert load_package(out / "model").noise is None
        with pytest.raises(TrainingError, match="no noise stage"):
            train(plan(cohort, tmp_path / "two", pipeline, noise_from=out / "model"))


class TestNoPairs:
    """A run from a model, given the target contrast alone."""

    def test_the_residual_stage_stays_and_the_noise_stage_moves(
        self, finished: Path, cohort: Path, pipeline: Pipeline, tmp_path: Path
    ) -> None:
        before = load_package(finished / "model")
        given = plan(cohort, tmp_path / "run", pipeline, pairs=0, initial=finished / "model")
        assert summarise(given)["residual_iterations"] == 0
        after = load_package(train(given))
        assert equal(after.residual.state_dict(), before.residual.state_dict())
        assert not equal(after.noise.state_dict(), before.noise.state_dict())
        assert not given.stage_folder("residual").exists()
        assert after.masked_background == before.masked_background

    @pytest.mark.parametrize("masked", [True, False])
    def test_what_the_model_knows_of_the_background_stays(
        self, cohort: Path, pipeline: Pipeline, tmp_path: Path, masked: bool
    ) -> None:
        model = helpers.save_model(tmp_path / "model", pipeline, masked_background=masked)
        given = plan(cohort, tmp_path / "run", pipeline, pairs=0, initial=model)
        assert load_package(train(given)).masked_background == masked

    def test_a_new_task_learns_from_pseudo_pairs(
        self, finished: Path, cohort: Path, tmp_path: Path
    ) -> None:
        recipe = helpers.tiny_pipeline(tasks=["t2-to-t1"])
        given = plan(cohort, tmp_path / "run", recipe, pairs=0, initial=finished / "model")
        before, after = load_package(finished / "model"), load_package(train(given))
        assert not equal(after.residual.state_dict(), before.residual.state_dict())

    def test_so_does_a_network_that_is_shown_other_images(
        self, finished: Path, cohort: Path, tmp_path: Path
    ) -> None:
        recipe = helpers.tiny_pipeline(diffusion={"sigma": 0.5})
        given = plan(cohort, tmp_path / "run", recipe, pairs=0, initial=finished / "model")
        assert summarise(given)["residual_iterations"] == recipe.residual.iterations
        before, after = load_package(finished / "model"), load_package(train(given))
        assert not equal(after.residual.state_dict(), before.residual.state_dict())


@pytest.fixture(scope="module")
def many(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Manifest of eight subjects."""
    return helpers.write_cohort(tmp_path_factory.mktemp("many"), 8, shape=(4, 4, 4))


class TestData:
    def test_pairs_limit_the_pairs_not_the_targets(
        self, many: Path, pipeline: Pipeline, tmp_path: Path
    ) -> None:
        everything = select_data(Manifest.read(many), pipeline.parsed_tasks, None, 0)
        few = select_data(Manifest.read(many), pipeline.parsed_tasks, 2, 0)
        [pairs] = few.pairs.values()
        assert len(pairs) == 2
        assert few.targets == everything.targets
        assert len(few.targets["t2"]) == 6
        assert few.validation_pairs == everything.validation_pairs

    def test_pairs_limit_the_subjects_of_all_tasks_together(self, tmp_path: Path) -> None:
        contrasts = ("t1", "t2", "flair")
        every = helpers.write_cohort(tmp_path, 4, contrasts=contrasts, shape=(4, 4, 4))
        lines = every.read_text().splitlines()
        gone = ("sub-001,t2", "sub-002,flair")
        every.write_text("\n".join(x for x in lines if not x.startswith(gone)) + "\n")
        recipe = helpers.tiny_pipeline("base", tasks=["t1-to-t2", "t1-to-flair"])
        for limit in (1, 2):
            data = select_data(Manifest.read(every), recipe.parsed_tasks, limit, 0)
            kept = {p.source.subject for pairs in data.pairs.values() for p in pairs}
            assert len(kept) == limit

    def test_splits_do_not_mix(self, many: Path, pipeline: Pipeline, tmp_path: Path) -> None:
        data = select_data(Manifest.read(many), pipeline.parsed_tasks, None, 0)
        train_subjects = {e.subject for e in data.targets["t2"]}
        val_subjects = {e.subject for e in data.validation_targets["t2"]}
        assert train_subjects
        assert val_subjects
        assert not train_subjects & val_subjects
        [pairs] = data.pairs.values()
        assert {p.source.subject for p in pairs} == train_subjects

    def test_dry_run_says_it_and_writes_nothing(
        self, many: Path, pipeline: Pipeline, tmp_path: Path
    ) -> None:
        facts = summarise(plan(many, tmp_path / "run", pipeline, pairs=3))
        assert facts["train_pairs"] == {"t1-to-t2": 3}
        assert facts["unpaired_targets"] == {"t2": 6}
        assert facts["noise_iterations"] == 4
        assert not (tmp_path / "run").exists()


def test_several_tasks_in_one_model(tmp_path: Path) -> None:
    manifest = helpers.write_cohort(tmp_path / "data", contrasts=("t1", "t2", "flair"))
    tasks = {"tasks": ["t1-to-t2", "t1-to-flair", "flair-to-t2"]}
    recipe = helpers.tiny_pipeline("base", **tasks)
    translator = Translator.load(train(plan(manifest, tmp_path / "run", recipe)), "cpu")
    volume = read_volume(manifest.parent / "sub-003" / "t1.nii.gz")
    for task in ("t1-to-t2", "t1-to-flair"):
        result = translator.translate_volume(volume, Settings(task=task, mode="realistic"))
        assert str(result.task) == task
        assert np.isfinite(result.voxels).all()
    assert set(translator.package.profiles) == {"t2", "flair"}


def test_same_seed_same_weights_and_another_another(
    finished: Path, cohort: Path, pipeline: Pipeline, tmp_path: Path
) -> None:
    for seed in (0, 1):
        train(plan(cohort, tmp_path / str(seed), pipeline, stages="noise", seed=seed))
    first = read_tensors(finished / "noise" / "best.pt")
    assert equal(first, read_tensors(tmp_path / "0" / "noise" / "best.pt"))
    assert not equal(first, read_tensors(tmp_path / "1" / "noise" / "best.pt"))
