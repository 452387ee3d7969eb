"""Where a run has its noise stage from, if it does not train one of its own from nothing.

Weights do not tell what they predict, so whoever takes them over takes over what is known of them.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from medtrans.config import Pipeline
from medtrans.denoiser_config import DenoiserConfig
from medtrans.errors import TrainingError
from medtrans.foreign_noise import DESCRIPTION, read_foreign_noise
from medtrans.package import ModelPackage, load_package
from medtrans.progress import say
from medtrans.recipes import pipeline_from_dict
from medtrans.training.checkpoint import Weights, read_tensors
from medtrans.training.loop import BEST
from medtrans.training.run_folder import read_settings, recipe_of


@dataclass(frozen=True)
class NoiseOrigin:
    """A noise stage that there is before the run.

    Attributes
    ----------
    weights : dict
        State dict.
    prediction : str or None
        What the network predicts, as `noise.prediction` in a recipe; None where nothing says.
    denoiser : DenoiserConfig or None
        How it was trained, when that was elsewhere.
    """

    weights: Weights
    prediction: str | None = None
    denoiser: DenoiserConfig | None = None

    def described_in(self, pipeline: Pipeline) -> Pipeline:
        """Write into a recipe what this noise stage is."""
        recipe: dict[str, Any] = pipeline.model_dump(mode="json")
        if self.denoiser is not None:
            recipe["denoiser"] = self.denoiser.model_dump()
        elif self.prediction not in (None, pipeline.noise.prediction):
            say(f"The noise stage predicts {self.prediction}, as the one it comes from does.")
            recipe["noise"]["prediction"] = self.prediction
        return pipeline_from_dict(recipe, "the recipe")


def noise_origin_in(folder: Path) -> NoiseOrigin:
    """Read the noise stage of a folder: one from elsewhere, a run's or a model package's.

    Raises
    ------
    TrainingError
        When it is none of these, or has no noise stage.
    """
    if (folder / DESCRIPTION).is_file():
        denoiser, weights = read_foreign_noise(folder)
        return NoiseOrigin(weights, denoiser=denoiser)
    run = noise_origin_of_run(folder)
    if run is not None:
        return run
    found = noise_origin_of_model(load_package(folder))
    if found is None:
        raise TrainingError(f"The model package {folder} has no noise stage to take over.")
    return found


def noise_origin_of_run(folder: Path) -> NoiseOrigin | None:
    """Read the noise stage that a run has trained in its folder, if it has."""
    best = folder / "noise" / BEST
    if not best.is_file():
        return None
    settings = read_settings(folder)
    prediction = None if settings is None else recipe_of(settings, folder).noise.prediction
    return NoiseOrigin(read_tensors(best), prediction)


def noise_origin_of_model(package: ModelPackage) -> NoiseOrigin | None:
    """Give the noise stage of a model, if it has one."""
    if package.noise is None:
        return None
    recipe = package.pipeline
    return NoiseOrigin(package.noise.state_dict(), recipe.noise.prediction, recipe.denoiser)
