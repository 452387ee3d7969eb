"""Model packages: what is written is what is read, and nothing else is believed."""

from __future__ import annotations

import hashlib
import io
import json
import math
import pickle
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from medtrans.config.schema import Pipeline
from medtrans.config.terms import Task
from medtrans.errors import PackageError
from medtrans.networks.unet import noise_network, residual_network
from medtrans.package.folder import find_package, read_metadata
from medtrans.package.store import TrainedModel, load_package, save_package
from medtrans.preprocessing.intensity import Profile
from tests import helpers
from tests.faults.kills import kills

METADATA = Path("configs") / "metadata.json"
WEIGHTS = Path("models") / "model.safetensors"


@pytest.fixture
def package(random_model: Path, tmp_path: Path) -> Path:
    """A package of its own, to be spoilt."""
    return Path(shutil.copytree(random_model, tmp_path / "mine"))


def edit(package: Path, change: Callable[[dict[str, Any]], None]) -> None:
    path = package / METADATA
    metadata = json.loads(path.read_text())
    change(metadata)
    path.write_text(json.dumps(metadata))


def replace_weights(package: Path, data: bytes) -> None:
    """Put other bytes in place of the weights, and their hash in the metadata."""
    (package / WEIGHTS).write_bytes(data)
    digest = hashlib.sha256(data).hexdigest()
    edit(package, lambda m: m["medtrans"].update(weights_sha256=digest))


class TestRoundTrip:
    def test_gives_back_what_was_saved(self, tmp_path: Path, pipeline: Pipeline) -> None:
        networks = [
            helpers.randomise(make(pipeline, 0), 3) for make in (residual_network, noise_network)
        ]
        model = TrainedModel(
            pipeline=pipeline,
            profiles={"t2": Profile(-3.5, 812.25)},
            residual=networks[0].state_dict(),
            noise=networks[1].state_dict(),
            masked_background=True,
            training={"seed": 7},
        )
        save_package(tmp_path / "brain", model)
        loaded = load_package(tmp_path / "brain")
        assert loaded.name == "brain"
        assert loaded.pipeline == pipeline
        assert loaded.profiles == {"t2": Profile(-3.5, 812.25)}
        assert loaded.masked_background is True
        assert loaded.sha256 == helpers.digest(tmp_path / "brain" / WEIGHTS)
        for saved, found in zip(networks, (loaded.residual, loaded.noise), strict=True):
            assert not found.training
            for key, value in saved.state_dict().items():
                assert torch.equal(found.state_dict()[key], value.half().float())

    def test_without_a_noise_stage(self, tmp_path: Path, pipeline: Pipeline) -> None:
        loaded = load_package(helpers.save_model(tmp_path / "m", pipeline, noise=False))
        assert loaded.noise is None

    def test_saving_again_replaces(self, package: Path, pipeline: Pipeline) -> None:
        (package / "stale.txt").write_text("old")
        before = load_package(package).sha256
        helpers.save_model(package, pipeline, identity=True)
        assert load_package(package).sha256 != before
        assert not (package / "stale.txt").exists()
        assert [p.name for p in package.parent.iterdir()] == ["mine"]

    def test_a_moved_package_loads(self, package: Path, tmp_path: Path) -> None:
        moved = package.rename(tmp_path / "elsewhere")
        assert load_package(moved).name == "elsewhere"

    def test_a_card_says_it_is_synthetic(self, package: Path) -> None:
        assert "synthetic" in (package / "docs" / "README.md").read_text()

    def test_weights_beyond_float16_keep_their_value(
        self, tmp_path: Path, pipeline: Pipeline
    ) -> None:
        model = trained(pipeline, 1e5)
        save_package(tmp_path / "m", model)
        stored = load_package(tmp_path / "m").residual.state_dict()
        name = first_weight(model)
        assert torch.equal(stored[name], model.residual[name])
        types = {value.dtype for value in load_file(tmp_path / "m" / WEIGHTS).values()}
        assert types == {torch.float16, torch.float32}

    def test_a_kill_while_it_is_replaced_leaves_a_whole_package(
        self, package: Path, pipeline: Pipeline
    ) -> None:
        before = load_package(package).sha256
        left = set()
        for _ in kills(lambda: save_package(package, trained(pipeline, 0.5)), step=7):
            left.add(helpers.digest(package / WEIGHTS))
            assert len(list(helpers.files_below(package))) == 10
        after = load_package(package).sha256
        assert before != after
        assert left == {before, after}


def trained(pipeline: Pipeline, value: float) -> TrainedModel:
    """A model whose residual network has `value` among its weights."""
    weights = helpers.randomise(residual_network(pipeline, 0), 3).state_dict()
    first = next(iter(weights.values()))
    first[(0,) * first.ndim] = value
    return TrainedModel(
        pipeline=pipeline,
        profiles={"t2": Profile(0, 1000)},
        residual=weights,
        noise=None,
        masked_background=True,
        training={"seed": 7},
    )


def first_weight(model: TrainedModel) -> str:
    return next(iter(model.residual))


class TestTasks:
    def test_default_is_t1_to_t2_where_there_is_one(self, tmp_path: Path) -> None:
        recipe = helpers.tiny_pipeline("base", tasks=["flair-to-t2", "t1-to-t2"])
        loaded = load_package(helpers.save_model(tmp_path / "m", recipe))
        assert loaded.task(None) == Task("t1", "t2")
        assert loaded.task("flair-to-t2") == Task("flair", "t2")

    def test_default_is_the_first_otherwise(self, tmp_path: Path) -> None:
        recipe = helpers.tiny_pipeline("t2-to-flair")
        assert load_package(helpers.save_model(tmp_path / "m", recipe)).task(None) == Task(
            "t2", "flair"
        )

    def test_another_task_is_refused(self, random_model: Path) -> None:
        with pytest.raises(PackageError, match=r"not trained for t2-to-t1; it does t1-to-t2"):
            load_package(random_model).task("t2-to-t1")


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
class TestWeightsThatAreNotFinite:
    def test_are_not_saved(self, package: Path, pipeline: Pipeline, value: float) -> None:
        before = {path: helpers.digest(path) for path in helpers.files_below(package)}
        model = trained(pipeline, value)
        with pytest.raises(PackageError, match=rf"residual\.{first_weight(model)}.* not finite"):
            save_package(package, model)
        assert {path: helpers.digest(path) for path in helpers.files_below(package)} == before

    def test_are_not_loaded(self, package: Path, value: float) -> None:
        tensors = load_file(package / WEIGHTS)
        name = next(key for key in tensors if key.startswith("noise."))
        tensors[name].view(-1)[-1] = value
        save_file(tensors, package / "other")
        replace_weights(package, (package / "other").read_bytes())
        with pytest.raises(PackageError, match=rf"model\.safetensors.*{name}.* not finite"):
            load_package(package)


class TestDamage:
    def test_a_flipped_bit(self, package: Path) -> None:
        data = bytearray((package / WEIGHTS).read_bytes())
        data[len(data) // 2] ^= 1
        (package / WEIGHTS).write_bytes(data)
        with pytest.raises(PackageError, match="weights were changed or damaged"):
            load_package(package)

    @pytest.mark.parametrize("part", [METADATA, WEIGHTS])
    def test_a_missing_file(self, package: Path, part: Path) -> None:
        (package / part).unlink()
        with pytest.raises(PackageError):
            load_package(package)

    @pytest.mark.parametrize(
        "text", ["", "{", "[]", "null", "3", '{"medtrans": 1}', '{"medtrans": {}}', "\ufffe"]
    )
    def test_damaged_metadata(self, package: Path, text: str) -> None:
        (package / METADATA).write_text(text)
        with pytest.raises(PackageError, match=r"metadata\.json"):
            load_package(package)

    def test_metadata_that_is_not_text(self, package: Path) -> None:
        (package / METADATA).write_bytes(b"\xff\xfe\x00\x80")
        with pytest.raises(PackageError, match=r"metadata\.json"):
            load_package(package)

    @pytest.mark.parametrize("key", ["weights_sha256", "pipeline", "profiles", "format"])
    def test_a_missing_key(self, package: Path, key: str) -> None:
        edit(package, lambda m: m["medtrans"].pop(key))
        with pytest.raises(PackageError):
            load_package(package)

    @pytest.mark.parametrize(
        ("key", "value"),
        [
            ("format", 99),
            ("profiles", {}),
            ("profiles", {"t2": [0.0]}),
            ("profiles", {"t2": ["a", "b"]}),
            ("profiles", []),
            ("profiles", None),
            ("pipeline", {}),
            ("pipeline", []),
            ("pipeline", "t1-to-t2"),
            ("weights_sha256", None),
        ],
    )
    def test_a_wrong_value(self, package: Path, key: str, value: Any) -> None:
        edit(package, lambda m: m["medtrans"].update({key: value}))
        with pytest.raises(PackageError):
            load_package(package)

    def test_a_wrong_recipe_names_the_key(self, package: Path) -> None:
        edit(package, lambda m: m["medtrans"]["pipeline"]["diffusion"].update(sigma=-1))
        with pytest.raises(PackageError, match=r"diffusion\.sigma"):
            load_package(package)

    def test_weights_of_another_network(self, package: Path) -> None:
        change = {"channels": [8, 8]}
        edit(package, lambda m: m["medtrans"]["pipeline"]["network"].update(change))
        with pytest.raises(PackageError, match="does not fit together"):
            load_package(package)

    def test_missing_tensors(self, package: Path) -> None:
        tensors = load_file(package / WEIGHTS)
        del tensors[next(key for key in tensors if key.startswith("residual."))]
        save_file(tensors, package / "other")
        replace_weights(package, (package / "other").read_bytes())
        with pytest.raises(PackageError, match="does not fit together"):
            load_package(package)

    @pytest.mark.parametrize("kind", ["text", "empty", "truncated"])
    def test_weights_that_are_not_safetensors(self, package: Path, kind: str) -> None:
        half = (package / WEIGHTS).read_bytes()[:500]
        replace_weights(package, {"text": b"hello", "empty": b"", "truncated": half}[kind])
        with pytest.raises(PackageError, match="does not fit together"):
            load_package(package)


class Touch:
    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.path,)


class TestNoCodeIsRun:
    @pytest.mark.parametrize("writer", ["pickle", "torch"])
    def test_a_pickle_in_place_of_the_weights(self, package: Path, writer: str) -> None:
        mark = package / "mark"
        buffer = io.BytesIO()
        torch.save({"residual.x": Touch(mark)}, buffer)
        replace_weights(
            package, pickle.dumps(Touch(mark)) if writer == "pickle" else buffer.getvalue()
        )
        with pytest.raises(PackageError):
            load_package(package)
        assert not mark.exists()

    def test_a_pickle_beside_the_weights_is_not_opened(self, package: Path) -> None:
        mark = package / "mark"
        for name in ("model.pt", "model.ts", "model.pkl"):
            (package / "models" / name).write_bytes(pickle.dumps(Touch(mark)))
        (package / "configs" / "__init__.py").write_text(f"open({str(mark)!r}, 'w')")
        load_package(package)
        assert not mark.exists()

    def test_expressions_in_the_metadata_stay_text(self, package: Path) -> None:
        mark = package / "mark"
        code = f"$__import__('pathlib').Path({str(mark)!r}).touch()"
        edit(package, lambda m: m.update(version=code, _requires_=code, description=code))
        edit(package, lambda m: m["medtrans"]["training"].update(note=code))
        load_package(package)
        assert read_metadata(package)["version"] == code
        assert not mark.exists()


class TestFind:
    def test_unknown_name_lists_the_shipped(self) -> None:
        with pytest.raises(PackageError, match=r"no model 'brain_mrii'.*shipped"):
            find_package("brain_mrii")

    def test_a_folder_that_is_none(self, tmp_path: Path) -> None:
        with pytest.raises(PackageError, match="is not a model package"):
            load_package(tmp_path)

    def test_a_run_folder_says_where_the_package_is(self, package: Path, tmp_path: Path) -> None:
        run = tmp_path / "run"
        run.mkdir()
        package.rename(run / "model")
        with pytest.raises(PackageError, match="RUN/model"):
            load_package(run)
        assert load_package(run / "model").name == "run/model"


def test_loading_imports_no_compiler() -> None:
    """torch's took 2 s, for initial weights that the package's own replace."""
    program = (
        "import sys; from medtrans.package.store import load_package; load_package('brain_mri'); "
        "print('torch._dynamo' in sys.modules)"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "False"
