from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from medtrans.config.recipes import load_pipeline, pipeline_from_dict, shipped_tasks
from medtrans.config.terms import MODES, Task
from medtrans.errors import ConfigError, UsageError
from medtrans.system.resources import shipped


def write(folder: Path, text: str, name: str = "mine.toml") -> Path:
    path = folder / name
    path.write_text(text)
    return path


BASE = 'extends = "base"\ntasks = ["t1-to-t2"]\n'


class TestShipped:
    def test_recipes_the_project_promises(self) -> None:
        promised = {
            "t1-to-t2", "t2-to-t1", "t1-to-flair", "t2-to-flair", "t1c-to-flair", "mr-to-ct",
        }  # fmt: skip
        assert promised <= set(shipped_tasks())

    @pytest.mark.parametrize("task", shipped_tasks())
    def test_loads_and_does_its_task(self, task: str) -> None:
        pipeline = load_pipeline(task)
        assert pipeline.tasks == (task,)
        assert pipeline.targets == (Task.parse(task).target,)
        assert set(pipeline.sampling.modes) == set(MODES)
        assert pipeline.sampling.modes["fidelity"] == (1, 0)

    @pytest.mark.parametrize("task", shipped_tasks())
    def test_survives_being_stored(self, task: str) -> None:
        pipeline = load_pipeline(task)
        assert pipeline_from_dict(pipeline.model_dump(mode="json"), "stored") == pipeline

    def test_ct_is_a_window(self) -> None:
        scale = load_pipeline("mr-to-ct").contrasts["ct"]
        assert scale.scale == "window"
        assert scale.window_hu[0] <= -1000


class TestWrongKeys:
    def test_unknown_key_names_itself_its_file_and_the_nearest(self, tmp_path: Path) -> None:
        path = write(tmp_path, BASE + "[noise]\niteratons = 3\n")
        with pytest.raises(ConfigError) as caught:
            load_pipeline(path)
        message = str(caught.value)
        assert message.startswith("mine.toml: unknown key 'noise.iteratons'")
        assert "did you mean 'iterations'?" in message

    def test_unknown_table(self, tmp_path: Path) -> None:
        with pytest.raises(ConfigError, match=r"unknown key 'netwrok'; did you mean 'network'"):
            load_pipeline(write(tmp_path, BASE + "[netwrok]\nblocks = 1\n"))

    def test_every_problem_is_listed(self, tmp_path: Path) -> None:
        text = BASE + '[noise]\niterations = 0\nloss = "l3"\n[diffusion]\nsigma = -1.0\n'
        with pytest.raises(ConfigError) as caught:
            load_pipeline(write(tmp_path, text))
        message = str(caught.value)
        assert len(message.splitlines()) == 3
        for key in ("noise.iterations", "noise.loss", "diffusion.sigma"):
            assert f"mine.toml: {key}: " in message

    def test_missing_key(self, tmp_path: Path) -> None:
        with pytest.raises(ConfigError, match="the key 'volume' is missing"):
            load_pipeline(write(tmp_path, 'tasks = ["t1-to-t2"]\n'))

    @pytest.mark.parametrize(
        ("overrides", "words"),
        [
            ({"noise": {"iterations": "many"}}, ["noise.iterations", "'many'"]),
            ({"noise": {"iterations": 2.5}}, ["noise.iterations", "2.5"]),
            ({"noise": {"patch": [16]}}, ["noise.patch"]),
            (
                {"noise": {"batch_size": 6, "accumulate": 4}},
                ["noise", "batch_size is 6", "accumulate"],
            ),
            ({"residual": {"patch": [17, 16]}}, ["residual.patch", "multiples", "stride"]),
            ({"volume": {"divisible": 3}}, ["volume.divisible", "stride"]),
            ({"volume": {"dilation_mm": -1.0}}, ["volume.dilation_mm", "-1"]),
            ({"slices": {"axis": "transverse"}}, ["slices.axis", "axial", "transverse"]),
            ({"slices": {"context": 9}}, ["slices.context", "9"]),
            ({"contrasts": {"t1": {"lower": 99.9}}}, ["contrasts.t1", "lower must be below"]),
            ({"contrasts": {"ct": {"window_hu": [5, -5]}}}, ["contrasts.ct.window_hu", "below"]),
            ({"contrasts": {"t1": {"scale": "zscore"}}}, ["contrasts.t1", "zscore"]),
            ({"contrasts": {"pet": {"scale": "window"}}}, ["contrasts.pet"]),
            ({"sampling": {"eta": 1.5}}, ["sampling.eta", "1.5"]),
            ({"sampling": {"modes": {"fidelity": [0, 0]}}}, ["sampling.modes.fidelity"]),
            ({"network": {"attention": [True]}}, ["network", "attention"]),
            ({"network": {"channels": [33, 33, 33, 33]}}, ["network", "norm_groups"]),
            ({"tasks": []}, ["tasks"]),
            ({"tasks": ["t1-to-tw"]}, ["tasks", "tw", "did you mean 't2'"]),
            ({"noise": {"terminal_share": 2}}, ["noise.terminal_share"]),
            ({"noise": {"level_span": 0.5}}, ["noise.level_span", "above 1"]),
            ({"sampling": {"level_span": 1.0}}, ["sampling.level_span", "above 1"]),
            ({"sampling": {"order": 3}}, ["sampling.order", "1 or 2"]),
        ],
    )
    def test_wrong_values_name_the_key_and_what_was_found(
        self, overrides: dict[str, Any], words: list[str]
    ) -> None:
        with pytest.raises(ConfigError) as caught:
            load_pipeline("t1-to-t2", overrides)
        for word in ["t1-to-t2.toml", *words]:
            assert word in str(caught.value)

    def test_incomplete_modes(self, tmp_path: Path) -> None:
        stored = load_pipeline("t1-to-t2").model_dump(mode="json")
        del stored["sampling"]["modes"]["realistic"]
        with pytest.raises(ConfigError, match=r"stored: sampling.modes.*realistic are missing"):
            pipeline_from_dict(stored, "stored")

    def test_of_a_time_before_heads_and_masked_margins(self) -> None:
        """An older model works as it did."""
        stored = load_pipeline("mr-to-ct").model_dump(mode="json")
        del stored["network"]["head_features"], stored["volume"]["masked_dilation_mm"]
        stored["volume"]["dilation_mm"] = 7.0
        read = pipeline_from_dict(stored, "stored")
        assert read.network.head_features == 0
        assert read.volume.reach_mm(masked=True) == 7.0

    def test_missing_contrast(self) -> None:
        stored = load_pipeline("t1-to-t2").model_dump(mode="json")
        del stored["contrasts"]["t2"]
        with pytest.raises(ConfigError, match=r"contrasts.t2.* is missing, which t1-to-t2 needs"):
            pipeline_from_dict(stored, "stored")


def test_the_papers_recipe_has_nothing_that_goes_beyond_the_paper() -> None:
    paper = load_pipeline("drdd-paper")
    assert (paper.noise.prediction, paper.noise.sees_source) == ("eps", False)
    assert (paper.noise.level_span, paper.noise.min_snr) == (0, 0)
    assert not paper.residual.from_noise
    assert (paper.residual.pseudo_until, paper.residual.terminal_share) == (0, 0)
    assert (paper.sampling.eta, paper.sampling.noise_correlation) == (0, 0)
    assert (paper.sampling.order, paper.sampling.level_span) == (
        1,
        0,
    )  # Eq. 8, levels that fall evenly
    assert paper.sampling.modes["realistic"] == (2, 2)  # Algorithm 2, Table 10
    assert (paper.network.unshuffle, paper.network.head_features) == (1, 0)
    assert paper.diffusion.sigma == "auto"
    probabilities = ("affine", "tone_curve", "gamma", "lift", "cut", "bias_field", "noise")
    assert not any(getattr(paper.augmentation, name) for name in probabilities)


class TestFiles:
    def test_own_recipe_in_a_folder(self, tmp_path: Path) -> None:
        path = write(tmp_path, BASE + "[noise]\niterations = 3\n")
        pipeline = load_pipeline(path)
        assert pipeline.noise.iterations == 3
        assert pipeline.residual == load_pipeline("t1-to-t2").residual

    def test_extends_a_neighbour(self, tmp_path: Path) -> None:
        write(tmp_path, BASE + "[noise]\niterations = 3\nbatch_size = 5\n", "first.toml")
        path = write(tmp_path, 'extends = "first.toml"\n[noise]\nbatch_size = 6\n')
        stage = load_pipeline(path).noise
        assert (stage.iterations, stage.batch_size) == (3, 6)

    def test_extends_the_model_that_a_run_starts_from(self, tmp_path: Path) -> None:
        model = load_pipeline("brain-unified", {"network": {"blocks": 2}})
        first = write(tmp_path, 'extends = "model"\n[noise]\niterations = 3\n', "first.toml")
        path = write(tmp_path, 'extends = "first.toml"\n[noise]\nbatch_size = 6\n')
        pipeline = load_pipeline(path, {"tasks": ["t1-to-t2"]}, model)
        assert pipeline.tasks == ("t1-to-t2",)
        assert (pipeline.noise.iterations, pipeline.noise.batch_size) == (3, 6)
        assert (pipeline.network, pipeline.residual) == (model.network, model.residual)
        for recipe in (first, path):
            with pytest.raises(ConfigError, match="name the model with --from"):
                load_pipeline(recipe)

    def test_extends_cycle(self, tmp_path: Path) -> None:
        write(tmp_path, 'extends = "b.toml"\n', "a.toml")
        write(tmp_path, 'extends = "a.toml"\n', "b.toml")
        with pytest.raises(ConfigError, match="leads back"):
            load_pipeline(tmp_path / "a.toml")

    def test_extends_itself(self, tmp_path: Path) -> None:
        with pytest.raises(ConfigError, match="leads back"):
            load_pipeline(write(tmp_path, 'extends = "mine.toml"\n'))

    @pytest.mark.parametrize(
        ("text", "words"),
        [
            ('extends = "nowhere"\n', "does not exist"),
            ("extends = 3\n", "must be the name or path"),
            ("tasks = [\n", "not valid TOML"),
        ],
    )
    def test_bad_files(self, tmp_path: Path, text: str, words: str) -> None:
        with pytest.raises(ConfigError, match=words) as caught:
            load_pipeline(write(tmp_path, text))
        assert "mine.toml" in str(caught.value)

    def test_not_text(self, tmp_path: Path) -> None:
        path = tmp_path / "mine.toml"
        path.write_bytes(b"\xff\xfe\x00binary")
        with pytest.raises(ConfigError, match="cannot be read"):
            load_pipeline(path)

    def test_missing_file(self, tmp_path: Path) -> None:
        with pytest.raises(ConfigError, match=r"none\.toml does not exist"):
            load_pipeline(tmp_path / "none.toml")

    def test_unknown_recipe_names_the_nearest(self) -> None:
        with pytest.raises(ConfigError, match="did you mean 't1-to-t2'"):
            load_pipeline("t1-to-t22")

    def test_shipped_recipes_lie_where_resources_says(self) -> None:
        assert (shipped("pipelines") / "base.toml").is_file()


class TestOverrides:
    def test_nested_keys_are_laid_over(self) -> None:
        pipeline = load_pipeline("t1-to-t2", {"noise": {"iterations": 7}})
        assert pipeline.noise.iterations == 7
        assert pipeline.residual.iterations != 7

    def test_a_new_scale_replaces_the_old_one_whole(self) -> None:
        window = {"scale": "window", "window_hu": [0, 10], "background": 0}
        pipeline = load_pipeline("t1-to-t2", {"contrasts": {"t1": window}})
        assert pipeline.contrasts["t1"].scale == "window"
        assert pipeline.contrasts["t2"].scale == "percentile"

    def test_several_tasks(self) -> None:
        pipeline = load_pipeline("base", {"tasks": ["t1-to-t2", "flair-to-t2", "t1-to-flair"]})
        assert pipeline.targets == ("t2", "flair")

    def test_a_recipe_is_frozen(self) -> None:
        with pytest.raises(ValueError, match="frozen"):
            load_pipeline("t1-to-t2").noise.iterations = 3  # type: ignore[misc]

    def test_an_older_model_is_sampled_as_it_was(self) -> None:
        stored = load_pipeline("t1-to-t2").model_dump(mode="json")
        for key in ("noise_correlation", "order", "level_span"):
            del stored["sampling"][key]
        loaded = pipeline_from_dict(stored, "metadata.json")
        assert loaded.sampling.correlation_length == 0
        assert loaded.sampling.steps("realistic") == (1, 3, 0, 0, 1)

    def test_an_older_model_looks_for_no_brain(self) -> None:
        stored = load_pipeline("brain-unified").model_dump(mode="json")
        assert stored["volume"].pop("brains") is True
        assert pipeline_from_dict(stored, "metadata.json").volume.brains is False

    def test_shared_noise_never_ends(self) -> None:
        shared = load_pipeline("t1-to-t2", {"sampling": {"noise_correlation": "shared"}})
        assert shared.sampling.correlation_length == float("inf")
        with pytest.raises(ConfigError, match="noise_correlation"):
            load_pipeline("t1-to-t2", {"sampling": {"noise_correlation": -1}})


class TestTask:
    @pytest.mark.parametrize("text", ["t1-to-t2", " T1-to-T2 ", "T1-TO-T2"])
    def test_parse(self, text: str) -> None:
        task = Task.parse(text)
        assert task == Task("t1", "t2")
        assert str(task) == "t1-to-t2"

    @pytest.mark.parametrize(
        ("text", "words"),
        [
            ("t1", "is not a task"),
            ("", "is not a task"),
            ("t1_to_t2", "is not a task"),
            ("t1-to-flare", "did you mean 'flair'"),
            ("pet-to-ct", "unknown contrast 'pet'"),
            ("t1-to-t1", "same source and target"),
        ],
    )
    def test_nonsense(self, text: str, words: str) -> None:
        with pytest.raises(UsageError, match=words):
            Task.parse(text)
