"""The recipe that the options of `medtrans train` and `medtrans noise-level` ask for."""

from __future__ import annotations

from dataclasses import dataclass

from medtrans.config.recipes import load_pipeline, pipeline_from_dict, shipped_tasks
from medtrans.config.schema import Pipeline
from medtrans.config.terms import Task
from medtrans.errors import UsageError
from medtrans.package.folder import find_package, read_recipe


@dataclass(frozen=True)
class RecipeRequest:
    """Which recipe is asked for, and what the command line changes in it.

    Attributes
    ----------
    tasks : tuple of Task
        Empty for the recipe's own.
    pipeline : str or None
        A shipped recipe's name, or a TOML file.
    initial : str or None
        A model, by name or folder, whose recipe is used where `pipeline` is None, and is what a
        recipe changes that extends "model".
    noise_iterations, residual_iterations : int or None
        Instead of the recipe's.
    """

    tasks: tuple[Task, ...] = ()
    pipeline: str | None = None
    initial: str | None = None
    noise_iterations: int | None = None
    residual_iterations: int | None = None

    def load(self) -> Pipeline:
        """Read the recipe, and lay over it what the command line says.

        A model to start from brings its own recipe, since its weights fit no other network.
        Without a recipe or a model, the first task's shipped recipe is used, or the base recipe.

        Raises
        ------
        ConfigError
            When the recipe is wrong.
        PackageError
            When the model is missing or damaged.
        UsageError
            When neither a recipe, a model nor a task is named.
        """
        model = None if self.initial is None else read_recipe(find_package(self.initial))
        if self.pipeline is not None:
            return load_pipeline(self.pipeline, self._changes(), model)
        if model is not None:
            return self._over(model)
        if not self.tasks:
            raise UsageError(
                "Which task? Give --task t1-to-t2 (several with commas), or a recipe with "
                "--pipeline."
            )
        first = str(self.tasks[0])
        return load_pipeline(first if first in shipped_tasks() else "base", self._changes())

    def _over(self, model: Pipeline) -> Pipeline:
        recipe = model.model_dump(mode="json")
        for stage, changes in self._iterations().items():
            recipe[stage] |= changes
        return pipeline_from_dict({**recipe, **self._task_names()}, str(self.initial))

    def _changes(self) -> dict[str, object]:
        return {**self._iterations(), **self._task_names()}

    def _iterations(self) -> dict[str, dict[str, int]]:
        given = {"noise": self.noise_iterations, "residual": self.residual_iterations}
        return {stage: {"iterations": n} for stage, n in given.items() if n is not None}

    def _task_names(self) -> dict[str, list[str]]:
        return {"tasks": [str(task) for task in self.tasks]} if self.tasks else {}


def parse_tasks(text: str | None) -> tuple[Task, ...]:
    """Read tasks that are separated by commas; none of None.

    Raises
    ------
    UsageError
        When one is not a task.
    """
    return () if text is None else tuple(Task.parse(part) for part in text.split(","))
