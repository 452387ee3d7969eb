"""Model packages as MONAI bundles: what MONAI's own tools make of them, and what they must not."""

from __future__ import annotations

import json
import pickle
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import monai.bundle
import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from typer.testing import CliRunner

from medtrans.bundle import training as bundle_training
from medtrans.bundle.check import METADATA_KEYS, TENSOR_KEYS, Check, check, metadata_problems
from medtrans.bundle.inference import Evaluator, list_volumes
from medtrans.bundle.network import TranslationNetwork
from medtrans.bundle.training import Trainer, TrainingPatches
from medtrans.cli.app import app
from medtrans.config.schema import Pipeline
from medtrans.data.manifest import Manifest
from medtrans.diffusion import Stages, slice_noise, translate, ve_denoiser
from medtrans.errors import (
    MedtransError,
    OutputError,
    PackageError,
    TrainingError,
    UnreadableFileError,
)
from medtrans.inference.jobs import Job
from medtrans.inference.settings import Settings
from medtrans.inference.translator import Translator
from medtrans.networks.binding import noise_predictor, residual_predictor
from medtrans.networks.unet import residual_network
from medtrans.package.bundle_files import Documents
from medtrans.package.folder import find_package, shipped_models
from medtrans.package.store import TrainedModel, export_package, load_package, save_package
from medtrans.training.parallel import Group
from medtrans.training.plan import TrainingPlan
from medtrans.training.run import summarise, train
from tests import helpers

pytestmark = [
    pytest.mark.filterwarnings("ignore:parsing config_file"),
    pytest.mark.filterwarnings("ignore::torch.jit.TracerWarning"),
]

READING = (
    "layout",
    "file sizes",
    "metadata keys",
    "version in changelog",
    "weights and recipe",
    "model.pt",
    "configs are as medtrans writes them",
)
SHORT = {f"pipeline::{stage}::iterations": 2 for stage in ("noise", "residual")}


@pytest.fixture
def bundle(random_model: Path, tmp_path: Path) -> Path:
    """A package of one's own to spoil."""
    return Path(shutil.copytree(random_model, tmp_path / "bundle"))


@pytest.fixture
def volumes(tmp_path: Path) -> Path:
    """A folder with two small heads."""
    folder = tmp_path / "volumes"
    folder.mkdir()
    voxels, affine = helpers.head()
    helpers.write_nifti(folder / "a.nii.gz", voxels, affine)
    helpers.write_nifti(folder / "b.nii.gz", voxels[::-1].copy(), helpers.tilted(affine))
    return folder


def run_config(folder: Path, name: str, **overrides: Any) -> None:
    """`python -m monai.bundle run --config_file configs/NAME …`, in this process."""
    monai.bundle.run(
        config_file=str(folder / "configs" / name),
        logging_file=False,
        bundle_root=str(folder),
        device="cpu",
        **{key: str(v) if isinstance(v, Path) else v for key, v in overrides.items()},
    )


def edit_json(path: Path, change: Callable[[dict[str, Any]], None]) -> None:
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))


def results(rows: list[Check]) -> dict[str, str]:
    return {row.check: row.result for row in rows}


class TestMonaiAccepts:
    def test_every_check_holds(self, random_model: Path) -> None:
        rows = check(random_model)
        assert {row.result for row in rows} == {"ok"}, rows
        assert {"verify_net_in_out", "ckpt_export", "monai.bundle.load"} < results(rows).keys()

    def test_every_check_holds_without_a_noise_stage(
        self, tmp_path: Path, pipeline: Pipeline
    ) -> None:
        rows = check(helpers.save_model(tmp_path / "half", pipeline, noise=False))
        assert {row.result for row in rows} == {"ok"}, rows

    @pytest.mark.parametrize("name", shipped_models())
    def test_shipped_models_are_bundles(self, name: str) -> None:
        rows = {row.check: row for row in check(find_package(name))}
        assert {rows[key].result for key in rows} == {"ok"}, rows

    def test_verify_metadata(self, random_model: Path, tmp_path: Path) -> None:
        """MONAI's own function, with a schema of the specification's mandatory keys.

        It would fetch the published schema from the internet; a file that is already there is
        used instead.
        """
        pytest.importorskip("jsonschema")
        text = {"type": "string"}
        tensor = {
            "type": "object",
            "required": list(TENSOR_KEYS),
            "properties": {
                "type": text,
                "format": text,
                "modality": text,
                "num_channels": {"type": "integer"},
                "spatial_shape": {"type": "array", "items": {"type": ["integer", "string"]}},
                "dtype": text,
                "value_range": {"type": "array", "items": {"type": "number"}},
                "is_patch_data": {"type": "boolean"},
                "channel_def": {"type": "object", "additionalProperties": text},
            },
        }
        tensors = {"type": "object", "minProperties": 1, "additionalProperties": tensor}
        network = {
            "type": "object",
            "required": ["inputs", "outputs"],
            "properties": {"inputs": tensors, "outputs": tensors},
        }
        versions = {"type": "object", "additionalProperties": text}
        schema = {
            "type": "object",
            "required": list(METADATA_KEYS),
            "properties": {
                **dict.fromkeys(("schema", "name", "task", "description", "authors"), text),
                "version": {"type": "string", "pattern": r"^\d+\.\d+\.\d+$"},
                "changelog": versions,
                "required_packages_version": versions,
                "references": {"type": "array", "items": text},
                "eval_metrics": {"type": "object"},
            },
            "patternProperties": {"_data_format$": network},
        }
        place = tmp_path / "schema.json"
        place.write_text(json.dumps(schema))
        metadata = random_model / "configs" / "metadata.json"
        monai.bundle.verify_metadata(meta_file=str(metadata), filepath=str(place))
        spoiled = json.loads(metadata.read_text())
        del spoiled["network_data_format"]["inputs"]["image"]["dtype"]
        (tmp_path / "spoiled.json").write_text(json.dumps(spoiled))
        with pytest.raises(ValueError, match="Failed validating"):
            monai.bundle.verify_metadata(
                meta_file=str(tmp_path / "spoiled.json"), filepath=str(place)
            )

    def test_metadata_describes_the_translator_and_both_networks(self, random_model: Path) -> None:
        metadata = json.loads((random_model / "configs" / "metadata.json").read_text())
        assert metadata_problems(metadata) == []
        formats = {key for key in metadata if key.endswith("_data_format")}
        assert formats == {"network_data_format", "noise_data_format", "residual_data_format"}
        image = metadata["network_data_format"]["inputs"]["image"]
        assert image["num_channels"] == len(image["channel_def"]) == 3

    @pytest.mark.parametrize(("sees_source", "channels"), [(False, 1), (True, 4)])
    @pytest.mark.parametrize("prediction", ["eps", "x0", "v"])
    def test_metadata_says_what_the_noise_network_takes_and_gives(
        self, tmp_path: Path, sees_source: bool, channels: int, prediction: str
    ) -> None:
        noise = {"sees_source": sees_source, "prediction": prediction}
        folder = helpers.save_model(tmp_path / "m", helpers.tiny_pipeline(noise=noise))
        metadata = json.loads((folder / "configs" / "metadata.json").read_text())
        format_ = metadata["noise_data_format"]
        assert format_["inputs"]["image"]["num_channels"] == channels
        first = next(load_package(folder).noise.parameters())
        assert first.shape[1] == channels * 4  # two by two pixels are folded
        [answer] = format_["outputs"]["pred"]["channel_def"].values()
        assert ("noise" in answer, "target" in answer) == {
            "eps": (True, False),
            "x0": (False, True),
            "v": (True, True),
        }[prediction]

    @pytest.mark.parametrize(
        ("config", "kind"), [("inference.json", "infer"), ("train.json", "train")]
    )
    def test_no_property_is_missing(self, random_model: Path, config: str, kind: str) -> None:
        workflow = monai.bundle.create_workflow(
            config_file=str(random_model / "configs" / config),
            workflow_type=kind,
            logging_file=False,
            bundle_root=str(random_model),
        )
        assert workflow.check_properties() == []
        assert workflow.version == "0.1.0"

    def test_load_fills_the_network(self, random_model: Path) -> None:
        network = monai.bundle.load(random_model.name, bundle_dir=random_model.parent, device="cpu")
        package = load_package(random_model)
        expected = package.residual.state_dict()
        assert network.residual.state_dict().keys() == expected.keys()
        for key, value in network.residual.state_dict().items():
            assert torch.equal(value, expected[key])


class TestWeights:
    def test_state_dict_is_plain_and_holds_the_same_numbers(self, random_model: Path) -> None:
        found = torch.load(random_model / "models" / "model.pt", weights_only=True)
        expected = load_file(random_model / "models" / "model.safetensors")
        assert type(found) is dict
        assert found.keys() == expected.keys()
        assert all(torch.equal(found[key], expected[key]) for key in expected)

    def test_a_different_state_dict_is_found(self, bundle: Path) -> None:
        path = bundle / "models" / "model.pt"
        content = torch.load(path, weights_only=True)
        first = next(iter(content))
        torch.save({**content, first: content[first] + 1}, path)
        assert results(check(bundle))["model.pt"] == "failed"


class TestNetwork:
    @pytest.fixture
    def network(self, random_model: Path) -> TranslationNetwork:
        return self.filled(random_model)

    def filled(self, folder: Path, **options: Any) -> TranslationNetwork:
        package = load_package(folder)
        network = TranslationNetwork(package.pipeline.model_dump(mode="json"), **options)
        network.load_state_dict(load_file(folder / "models" / "model.safetensors"))
        return network.eval()

    def stack(self, height: int = 16, width: int = 24, batch: int = 2) -> torch.Tensor:
        rng = torch.Generator().manual_seed(0)
        return torch.rand(batch, 3, height, width, generator=rng) * 2 - 1

    @pytest.mark.parametrize("mode", ["fidelity", "realistic"])
    def test_is_the_sampler(self, random_model: Path, mode: Any) -> None:
        network, package = self.filled(random_model, mode=mode), load_package(random_model)
        image = self.stack()
        noise = slice_noise(3, range(2), (16, 24))
        with torch.inference_mode():
            denoise = ve_denoiser(
                noise_predictor(package.noise),
                network.schedule,
                package.pipeline.noise.prediction,
            )
            stages = Stages(residual_predictor(package.residual), denoise, network.schedule)
            expected = translate(stages, image, noise, package.steps(mode)).clamp(-1, 1)
            assert torch.equal(network(image, noise), expected)

    def test_is_deterministic(self, network: TranslationNetwork) -> None:
        assert torch.equal(network(self.stack()), network(self.stack()))

    @pytest.mark.parametrize("mode", ["fidelity", "realistic"])
    def test_trace_gives_the_same_slice_at_every_size(self, random_model: Path, mode: Any) -> None:
        network = self.filled(random_model, mode=mode)
        with torch.inference_mode():
            traced = torch.jit.trace(network, self.stack(16, 16, 1), check_trace=False)
            for size in ((16, 16, 1), (24, 40, 3), (264, 16, 1)):
                image = self.stack(*size)
                torch.testing.assert_close(traced(image), network(image), rtol=0, atol=1e-4)

    def test_noise_steps_need_a_noise_stage(self, pipeline: Pipeline) -> None:
        with pytest.raises(PackageError, match="no noise stage"):
            TranslationNetwork(pipeline.model_dump(mode="json"), False, mode="realistic")


class TestInference:
    @pytest.mark.parametrize(
        "settings",
        [{}, {"mode": "realistic", "seed": 3}, {"residual_steps": 2, "noise_steps": 1}],
    )
    def test_writes_what_translate_writes(
        self, random_model: Path, volumes: Path, tmp_path: Path, settings: dict[str, Any]
    ) -> None:
        run_config(
            random_model,
            "inference.json",
            dataset_dir=volumes,
            output_dir=tmp_path / "out",
            **settings,
        )
        translator = Translator.load(random_model, "cpu")
        written = sorted((tmp_path / "out").iterdir())
        assert len(written) == 4  # two volumes, each with its sidecar
        for item in list_volumes(volumes):
            goal = tmp_path / "expected"
            goal.mkdir(exist_ok=True)
            translator.translate_file(Job(Path(item["image"]), out=goal), Settings(**settings))
        for path in written:
            assert path.read_bytes() == (tmp_path / "expected" / path.name).read_bytes()

    def test_averages_draws_as_translate_does(
        self, random_model: Path, volumes: Path, tmp_path: Path
    ) -> None:
        out = tmp_path / "out"
        run_config(
            random_model,
            "inference.json",
            dataset_dir=volumes,
            output_dir=out,
            samples=2,
            mode="balanced",
        )
        translator = Translator.load(random_model, "cpu")
        settings = Settings(samples=2, mode="balanced")
        expected = translator.translate_file(
            Job(volumes / "a.nii.gz", out=tmp_path / "x.nii.gz"), settings
        )
        found = helpers.nib.load(out / "a_t2-synthetic.nii.gz").get_fdata(dtype=np.float32)
        np.testing.assert_array_equal(found, expected.translation.voxels)

    def test_recipe_can_be_overridden(
        self, random_model: Path, volumes: Path, tmp_path: Path
    ) -> None:
        run_config(
            random_model,
            "inference.json",
            dataset_dir=volumes,
            output_dir=tmp_path / "out",
            **{"_meta_::medtrans::pipeline::volume::dilation_mm": 0.0},
        )
        image = helpers.nib.load(tmp_path / "out" / "a_t2-synthetic.nii.gz")
        voxels, _ = helpers.head()
        assert not np.asarray(image.dataobj)[voxels == 0].any()

    def test_a_damaged_volume_is_our_error(
        self, random_model: Path, volumes: Path, tmp_path: Path
    ) -> None:
        (volumes / "c.nii.gz").write_bytes(b"no volume")
        workflow = monai.bundle.create_workflow(
            config_file=str(random_model / "configs" / "inference.json"),
            workflow_type="infer",
            logging_file=False,
            bundle_root=str(random_model),
            dataset_dir=str(volumes),
            output_dir=str(tmp_path / "out"),
            device="cpu",
        )
        evaluator: Evaluator = workflow.evaluator
        with pytest.raises(UnreadableFileError, match=r"c\.nii\.gz"):
            evaluator.run()

    def test_another_network_than_the_weights(self, random_model: Path, volumes: Path) -> None:
        with pytest.raises(RuntimeError) as caught:
            run_config(
                random_model,
                "inference.json",
                dataset_dir=volumes,
                **{"_meta_::medtrans::pipeline::network::channels": [8, 8]},
            )
        chain = [caught.value]
        while chain[-1].__cause__ is not None:
            chain.append(chain[-1].__cause__)
        assert any(isinstance(e, PackageError) and "do not fit" in str(e) for e in chain)


class TestTraining:
    def test_two_iterations_give_a_bundle(
        self, random_model: Path, cohort: Path, tmp_path: Path
    ) -> None:
        run_config(
            random_model,
            "train.json",
            dataset_dir=cohort.parent,
            manifest=cohort,
            output_dir=tmp_path / "run",
            **SHORT,
        )
        rows = results(check(tmp_path / "run" / "model"))
        assert {rows[name] for name in READING} == {"ok"}

    def test_data_set_is_what_the_loop_sees(self, pipeline: Pipeline, cohort: Path, tmp_path: Path):
        data = TrainingPatches(cohort, pipeline.model_dump(mode="json"), tmp_path / "cache")
        item = data[0]
        assert item["source"].shape == (3, *pipeline.residual.patch)
        assert torch.equal(item["target"], data[0]["target"])
        assert not torch.equal(item["target"], data[1]["target"])
        assert len(data) == pipeline.residual.iterations * pipeline.residual.batch_size
        with pytest.raises(IndexError):
            data[len(data)]

    def test_epochs_multiply_the_recipe(self, pipeline: Pipeline, cohort: Path, tmp_path: Path):
        data = TrainingPatches(cohort, pipeline.model_dump(mode="json"), tmp_path / "cache", seed=4)
        plan = Trainer(data, tmp_path / "run", max_epochs=3, device="cpu").plan()
        assert plan.pipeline.noise.iterations == 3 * pipeline.noise.iterations
        assert plan.pipeline.residual.iterations == 3 * pipeline.residual.iterations
        assert plan.seed == 4

    @pytest.mark.parametrize("rank", [0, 1])
    def test_the_processes_of_torchrun_train_together(
        self,
        pipeline: Pipeline,
        cohort: Path,
        tmp_path: Path,
        monkeypatch: pytest.MonkeyPatch,
        rank: int,
    ) -> None:
        groups, told = [], []

        def train(_: TrainingPlan, group: Group) -> Path:
            groups.append(group)
            return tmp_path / "model"

        monkeypatch.setattr(bundle_training, "current", lambda: Group(rank, 2))
        monkeypatch.setattr(bundle_training, "train", train)
        data = TrainingPatches(cohort, pipeline.model_dump(mode="json"), tmp_path / "cache")
        handlers = [lambda trainer: told.append(trainer.model)]
        model = Trainer(data, tmp_path, device="cpu", train_handlers=handlers).run()
        assert groups == [Group(rank, 2)]
        assert told == ([] if rank else [tmp_path / "model"])
        assert model == (None if rank else tmp_path / "model")

    def test_multi_gpu_config_is_laid_over_the_other(self, random_model: Path) -> None:
        parser = monai.bundle.ConfigParser()
        configs = random_model / "configs"
        parser.read_config([str(configs / "train.json"), str(configs / "multi_gpu_train.json")])
        assert parser["device"]["_target_"] == "medtrans.bundle.own_device"
        assert parser["train::trainer::max_epochs"] == 1
        assert parser.get_parsed_content("device").type in ("cpu", "cuda")


class TestFineTuning:
    def plan(self, pipeline: Pipeline, cohort: Path, out: Path, **options: Any) -> TrainingPlan:
        return TrainingPlan(pipeline, Manifest.read(cohort), out, device="cpu", **options)

    def test_both_stages_start_from_the_model(
        self, random_model: Path, pipeline: Pipeline, cohort: Path, tmp_path: Path
    ) -> None:
        short = pipeline.model_copy(
            update={
                stage: pipeline.stage(stage).model_copy(update={"iterations": 1})
                for stage in ("noise", "residual")
            }
        )
        plan = self.plan(short, cohort, tmp_path / "run", initial=random_model)
        tuned, before = load_package(train(plan)), load_package(random_model)
        for name in ("residual", "noise"):
            old, new = getattr(before, name).state_dict(), getattr(tuned, name).state_dict()
            moved = max(float((new[key] - old[key]).abs().max()) for key in old)
            assert 0 < moved < 0.01
        metadata = json.loads((tmp_path / "run/model/configs/metadata.json").read_text())
        assert metadata["medtrans"]["training"]["started_from"] == "random"

    def test_residual_stage_alone_keeps_the_noise_network(
        self, random_model: Path, pipeline: Pipeline, cohort: Path, tmp_path: Path
    ) -> None:
        plan = self.plan(
            pipeline, cohort, tmp_path / "run", initial=random_model, stages="residual"
        )
        tuned, before = load_package(train(plan)), load_package(random_model)
        assert tuned.noise is not None
        assert before.noise is not None
        expected = before.noise.state_dict()
        for key, value in tuned.noise.state_dict().items():
            assert torch.equal(value, expected[key])

    def test_a_model_that_does_not_fit_is_refused_at_once(
        self, random_model: Path, cohort: Path, tmp_path: Path
    ) -> None:
        network = {"network": {"channels": [8, 8]}}
        plan = self.plan(
            helpers.tiny_pipeline(**network), cohort, tmp_path / "run", initial=random_model
        )
        with pytest.raises(TrainingError, match="does not fit this recipe"):
            train(plan)
        with pytest.raises(TrainingError, match="does not fit this recipe"):
            summarise(plan)
        assert not (tmp_path / "run").exists()

    def test_resume_needs_the_same_start(
        self, random_model: Path, pipeline: Pipeline, cohort: Path, tmp_path: Path
    ) -> None:
        plan = self.plan(pipeline, cohort, tmp_path / "run", stages="noise")
        train(replace(plan, initial=random_model))
        with pytest.raises(TrainingError, match="initial"):
            train(replace(plan, resume=True))

    def test_command_brings_the_models_own_recipe(self, random_model: Path, cohort: Path) -> None:
        command = ["train", "--task", "t1-to-t2", "--manifest", str(cohort), "--out", "run"]
        options = ["--from", str(random_model), "--noise-iterations", "7", "--dry-run", "--json"]
        done = CliRunner().invoke(app, [*command, *options])
        assert done.exit_code == 0, done.output
        said = json.loads(done.stdout)
        assert said["noise_iterations"] == 7
        assert (
            said["residual_iterations"] == load_package(random_model).pipeline.residual.iterations
        )


class TestExport:
    def test_writes_the_texts_a_person_gave(self, random_model: Path, tmp_path: Path) -> None:
        documents = Documents("# Card\n", "Mine.\n", "CC BY.\n", "1.2.0", {"1.2.0": "Better."})
        files = export_package(random_model, tmp_path / "named", documents)
        assert tmp_path / "named" / "models" / "model.pt" in files
        assert (tmp_path / "named" / "docs" / "README.md").read_text() == "# Card\n"
        assert (tmp_path / "named" / "docs" / "data_license.txt").read_text() == "CC BY.\n"
        assert (tmp_path / "named" / "LICENSE").read_text() == "Mine.\n"
        metadata = json.loads((tmp_path / "named" / "configs" / "metadata.json").read_text())
        assert metadata["changelog"][metadata["version"]] == "Better."
        assert load_package(tmp_path / "named").sha256 == load_package(random_model).sha256

    def test_takes_a_run(self, random_model: Path, tmp_path: Path) -> None:
        shutil.copytree(random_model, tmp_path / "run" / "model")
        export_package(tmp_path / "run", tmp_path / "out", Documents())
        assert load_package(tmp_path / "out").name == "out"

    def test_refuses_a_folder_with_something_in_it(
        self, random_model: Path, tmp_path: Path
    ) -> None:
        (tmp_path / "kept.txt").write_text("x")
        with pytest.raises(OutputError, match="not empty"):
            export_package(random_model, tmp_path, Documents())
        assert (tmp_path / "kept.txt").exists()

    def test_card_can_be_given_to_save_package(self, tmp_path: Path, pipeline: Pipeline) -> None:
        model = TrainedModel(
            pipeline=pipeline,
            profiles={"t2": helpers.Profile(0, 1)},
            residual=residual_network(pipeline, 0).state_dict(),
            noise=None,
            masked_background=False,
            training={},
        )
        save_package(tmp_path / "m", model, Documents(card="# By hand\n"))
        assert (tmp_path / "m" / "docs" / "README.md").read_text() == "# By hand\n"

    def test_default_card_says_what_is_known(self, random_model: Path) -> None:
        card = (random_model / "docs" / "README.md").read_text()
        assert "not for diagnosis" in card
        assert "- seed: 0" in card
        assert "Not measured." in card


class TestCheck:
    @pytest.mark.parametrize(
        ("spoil", "expected"),
        [
            (lambda f: (f / "LICENSE").unlink(), "layout"),
            (lambda f: (f / "models" / "model.pt").unlink(), "layout"),
            (lambda f: (f / "models" / "big").write_bytes(bytes(25_000_001)), "file sizes"),
            (
                lambda f: edit_json(
                    f / "configs" / "metadata.json", lambda m: m.update(version="9.9.9")
                ),
                "version in changelog",
            ),
            (
                lambda f: edit_json(f / "configs" / "metadata.json", lambda m: m.pop("authors")),
                "metadata keys",
            ),
            (
                lambda f: (f / "configs" / "more.json").write_text("{}"),
                "configs are as medtrans writes them",
            ),
        ],
        ids=["no licence", "no model.pt", "large file", "version", "metadata key", "config"],
    )
    def test_names_what_is_wrong(self, bundle: Path, spoil: Any, expected: str) -> None:
        spoil(bundle)
        rows = results(check(bundle))
        assert rows[expected] == "failed"
        assert rows["ckpt_export"] == "skipped"

    def test_name_is_like_the_zoos(self, random_model: Path, tmp_path: Path) -> None:
        folder = Path(shutil.copytree(random_model, tmp_path / "My Model"))
        assert results(check(folder))["layout"] == "failed"

    def test_command_prints_a_line_each(self, bundle: Path) -> None:
        (bundle / "LICENSE").unlink()
        done = CliRunner().invoke(app, ["bundle", "check", str(bundle), "--json"])
        assert done.exit_code == 2
        rows = {row["check"]: row for row in json.loads(done.stdout)["checks"]}
        assert rows["layout"]["detail"] == "LICENSE missing"
        assert rows["model.pt"]["result"] == "ok"

    def test_not_a_bundle(self, tmp_path: Path) -> None:
        with pytest.raises(PackageError, match="not a bundle"):
            check(tmp_path)


class _Canary:
    """Makes a file when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.path,)


class TestUntrusted:
    """A hostile package given to `translate --model` and to `bundle check`."""

    @pytest.fixture
    def canary(self, tmp_path: Path) -> Path:
        return tmp_path / "fired"

    @pytest.fixture
    def hostile(self, bundle: Path, canary: Path) -> Path:
        """Every file that MONAI would evaluate or a careless loader unpickle makes the canary."""
        expression = f"$__import__('pathlib').Path({str(canary)!r}).touch()"
        target = {"_target_": "os.mknod", "path": str(canary)}
        for name in ("inference.json", "train.json"):
            edit_json(
                bundle / "configs" / name,
                lambda c: c.update(
                    network_def=target, initialize=[expression], imports=[expression]
                ),
            )
        edit_json(
            bundle / "configs" / "metadata.json",
            lambda m: m.update(description=expression, authors=target, task="$import antigravity"),
        )
        (bundle / "models" / "model.pt").write_bytes(pickle.dumps(_Canary(canary)))
        return bundle

    def translated(self, model: Path, volumes: Path, out: Path) -> Any:
        source = str(volumes / "a.nii.gz")
        return CliRunner().invoke(
            app, ["translate", source, "-o", str(out), "--model", str(model), "--device", "cpu"]
        )

    def test_the_canary_would_fire(self, hostile: Path, canary: Path) -> None:
        pickle.loads((hostile / "models" / "model.pt").read_bytes())
        assert canary.exists()
        canary.unlink()
        parser = monai.bundle.ConfigParser()
        parser.read_config(str(hostile / "configs" / "inference.json"))
        parser.get_parsed_content("network_def")
        assert canary.exists()
        canary.unlink()
        parser.get_parsed_content("initialize::0")
        assert canary.exists()

    def test_translate_neither_evaluates_nor_unpickles(
        self, hostile: Path, canary: Path, volumes: Path, tmp_path: Path
    ) -> None:
        done = self.translated(hostile, volumes, tmp_path / "t2.nii.gz")
        assert done.exit_code == 0, done.output
        assert (tmp_path / "t2.nii.gz").is_file()
        assert not canary.exists()

    def test_translate_refuses_an_expression_in_the_recipe(
        self, bundle: Path, canary: Path, volumes: Path, tmp_path: Path
    ) -> None:
        def spoil(metadata: dict[str, Any]) -> None:
            metadata["medtrans"]["pipeline"]["tasks"] = [f"$open({str(canary)!r}, 'w')"]

        edit_json(bundle / "configs" / "metadata.json", spoil)
        done = self.translated(bundle, volumes, tmp_path / "t2.nii.gz")
        assert isinstance(done.exception, PackageError)
        assert not canary.exists()
        assert not (tmp_path / "t2.nii.gz").exists()

    @pytest.mark.parametrize("part", ["weights", "hash"])
    def test_translate_refuses_a_wrong_hash(
        self, bundle: Path, volumes: Path, tmp_path: Path, part: str
    ) -> None:
        if part == "weights":
            path = bundle / "models" / "model.safetensors"
            path.write_bytes(path.read_bytes()[:-1] + b"\x7f")
        else:
            edit_json(
                bundle / "configs" / "metadata.json",
                lambda m: m["medtrans"].update(weights_sha256="0" * 64),
            )
        done = self.translated(bundle, volumes, tmp_path / "t2.nii.gz")
        assert isinstance(done.exception, MedtransError)
        assert done.exception.exit_code == 2
        assert "sha256" in str(done.exception)
        assert not (tmp_path / "t2.nii.gz").exists()

    def test_translate_refuses_deeply_nested_metadata(self, bundle: Path) -> None:
        (bundle / "configs" / "metadata.json").write_text("[" * 100_000)
        with pytest.raises(PackageError, match="not the metadata"):
            load_package(bundle)

    def test_check_reads_but_does_not_run(self, hostile: Path, canary: Path) -> None:
        rows = {row.check: row for row in check(hostile)}
        assert rows["model.pt"].result == "failed"
        assert "weights_only" in rows["model.pt"].detail
        assert rows["configs are as medtrans writes them"].result == "failed"
        assert rows["monai.bundle.load"].result == "skipped"
        assert not canary.exists()

    def test_check_sees_what_metadata_would_evaluate(self, bundle: Path) -> None:
        edit_json(bundle / "configs" / "metadata.json", lambda m: m.update(task="$import os"))
        rows = {row.check: row for row in check(bundle)}
        assert "$import os" in rows["configs are as medtrans writes them"].detail
