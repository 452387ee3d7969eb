"""What the options of `train` and `noise-level` become before any work starts."""

from __future__ import annotations

from pathlib import Path

import pytest

from medtrans.cli.noise_level import NoiseLevelRequest
from medtrans.cli.recipe import RecipeRequest, parse_tasks
from medtrans.cli.train import parse_stage
from medtrans.config.recipes import load_pipeline
from medtrans.config.terms import STAGE_CHOICES, Task
from medtrans.errors import ConfigError, UsageError
from tests import helpers


def test_tasks_are_separated_by_commas() -> None:
    assert parse_tasks(None) == ()
    assert parse_tasks("t1-to-t2, T1-to-FLAIR") == (Task("t1", "t2"), Task("t1", "flair"))
    with pytest.raises(UsageError, match="'t2' is not a task"):
        parse_tasks("t1-to-t2,t2")


def test_stages_are_known_words() -> None:
    assert [parse_stage(word) for word in STAGE_CHOICES] == list(STAGE_CHOICES)
    with pytest.raises(UsageError, match="--stage is all, noise or residual, not 'both'"):
        parse_stage("both")


@pytest.mark.parametrize("weight", [-0.1, 1.5, float("nan")])
def test_lambda_is_a_share(weight: float) -> None:
    with pytest.raises(UsageError, match="--lambda is between 0 and 1"):
        NoiseLevelRequest(RecipeRequest(), Path("manifest.csv"), Path("out"), weight)


def test_a_task_has_its_own_recipe_or_the_base() -> None:
    assert RecipeRequest((Task("t1", "t2"),)).load() == load_pipeline("t1-to-t2")
    other = RecipeRequest((Task("pd", "flair"),)).load()
    assert other == load_pipeline("base", {"tasks": ["pd-to-flair"]})


def test_iterations_are_laid_over_a_stage_each() -> None:
    tasks = (Task("t1", "t2"),)
    recipe = RecipeRequest(tasks, noise_iterations=3, residual_iterations=7).load()
    assert (recipe.noise.iterations, recipe.residual.iterations) == (3, 7)
    one = RecipeRequest(tasks, residual_iterations=7).load()
    assert one.noise == load_pipeline("t1-to-t2").noise


def test_a_model_brings_its_recipe_but_not_over_a_named_one(tmp_path: Path) -> None:
    pipeline = helpers.tiny_pipeline()
    model = str(helpers.save_model(tmp_path / "model", pipeline))
    assert RecipeRequest(initial=model).load() == pipeline
    changed = RecipeRequest((Task("t1", "flair"),), initial=model, noise_iterations=9).load()
    assert changed.tasks == ("t1-to-flair",)
    assert changed.noise.iterations == 9
    assert changed.network == pipeline.network
    named = RecipeRequest((Task("t1", "t2"),), pipeline="t1-to-t2", initial=model).load()
    assert named == load_pipeline("t1-to-t2")


def test_adapt_changes_how_a_model_is_trained_and_nothing_that_it_is(tmp_path: Path) -> None:
    pipeline = helpers.tiny_pipeline()
    model = str(helpers.save_model(tmp_path / "model", pipeline))
    adapted = RecipeRequest(pipeline="adapt", initial=model).load()
    trained = {"noise", "residual", "error", "look"}
    assert adapted.model_dump(exclude=trained) == pipeline.model_dump(exclude=trained)
    assert adapted.residual.learning_rate < load_pipeline("t1-to-t2").residual.learning_rate
    with pytest.raises(ConfigError, match=r"adapt\.toml changes the recipe of a model"):
        RecipeRequest((Task("t1", "t2"),), pipeline="adapt").load()


def test_without_recipe_model_or_task_there_is_none() -> None:
    with pytest.raises(UsageError, match=r"Which task\?"):
        RecipeRequest().load()
