"""Where a run has its noise stage from, if it does not train one afresh.

Weights do not tell what they were trained for, so a noise stage is read with its recipe.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

from medtrans.config.denoiser import DenoiserConfig
from medtrans.config.recipes import pipeline_from_dict
from medtrans.config.schema import Pipeline
from medtrans.errors import TrainingError
from medtrans.networks.foreign import DESCRIPTION, read_foreign_noise
from medtrans.networks.transfer import misfitting, relabelled
from medtrans.networks.unet import noise_network
from medtrans.package.store import ModelPackage, load_package
from medtrans.system.progress import say
from medtrans.training.checkpoint import BEST, Weights, has_checkpoint, read_tensors, steps_done
from medtrans.training.recipe import with_sigma
from medtrans.training.run_folder import read_recipe


@dataclass(frozen=True)
class NoiseOrigin:
    """A noise stage that was finished before the run.

    One of `recipe` and `denoiser` says how it was trained.

    Attributes
    ----------
    name : str
        Whose it is, for messages.
    weights : dict
        State dict.
    recipe : Pipeline or None
        What it was trained by; None when that was elsewhere.
    denoiser : DenoiserConfig or None
        How it was trained, when that was elsewhere.
    """

    name: str
    weights: Weights
    recipe: Pipeline | None = None
    denoiser: DenoiserConfig | None = None

    @property
    def sha256(self) -> str:
        """Hash of the weights and their names."""
        digest = hashlib.sha256()
        for name in sorted(self.weights):
            digest.update(name.encode())
            digest.update(self.weights[name].contiguous().numpy().tobytes())
        return digest.hexdigest()

    def predicted_in(self, pipeline: Pipeline) -> Pipeline:
        """Return a recipe whose noise network predicts what this one does, to start from it.

        One that was trained elsewhere is not started from, and changes nothing.
        """
        if self.recipe is None or self.recipe.noise.prediction == pipeline.noise.prediction:
            return pipeline
        predicted = self.recipe.noise.prediction
        say(f"The noise stage predicts {predicted}, as that of {self.name} does.")
        noise = pipeline.noise.model_copy(update={"prediction": predicted})
        return pipeline.model_copy(update={"noise": noise})

    def described_in(self, pipeline: Pipeline) -> Pipeline:
        """Return a recipe that says what this noise stage is, to take it over as it is.

        Beyond what the network predicts, that is how it was trained when that was elsewhere, and
        a sigma that is still to be chosen becomes the one that it was trained with.

        Raises
        ------
        ConfigError
            When the recipe's volumes do not suit a network that was trained elsewhere.
        """
        described = self.predicted_in(pipeline).model_copy(update={"denoiser": self.denoiser})
        if self.recipe is not None and pipeline.diffusion.sigma == "auto":
            sigma = self.recipe.diffusion.level
            described = with_sigma(described, sigma)
            say(f"sigma is {sigma:g}, that of {self.name}'s noise stage.")
        # Read again, since a network from elsewhere has a stride of its own to be checked.
        return pipeline_from_dict(described.model_dump(mode="json"), "the recipe")

    def taken_over(self, pipeline: Pipeline) -> Weights:
        """Return the weights for the noise network of a recipe that is `described_in`.

        Returns
        -------
        dict of Tensor
            State dict, with the recipe's contrasts in their order.

        Raises
        ------
        TrainingError
            When it was trained for another sigma, other contrasts or another network.
        """
        weights, network = self.weights, noise_network(pipeline, 0)
        if self.recipe is not None:
            self._require(self.recipe, pipeline)
        misfits = misfitting(network, weights)
        if misfits:
            raise TrainingError(
                f"The noise stage of {self.name} does not fit the recipe's [network]: "
                f"{misfits[0]} has another shape or is missing."
            )
        if self.recipe is None:
            return weights
        return relabelled(network, weights, self.recipe.targets, pipeline.targets)

    def _require(self, trained: Pipeline, pipeline: Pipeline) -> None:
        """Refuse another sigma or other contrasts than the noise stage was trained for."""
        known, sigma = trained.targets, trained.diffusion.level
        missing = [contrast for contrast in pipeline.targets if contrast not in known]
        if missing:
            raise TrainingError(
                f"The noise stage of {self.name} knows {', '.join(known)}, not "
                f"{', '.join(missing)}. Train one on {', '.join(pipeline.targets)} volumes."
            )
        if pipeline.diffusion.sigma != sigma:
            raise TrainingError(
                f"The noise stage of {self.name} was trained with sigma {sigma:g}, and the recipe "
                f"says {pipeline.diffusion.sigma}. Set diffusion.sigma to {sigma:g}, or train "
                "another noise stage."
            )


def noise_origin_in(folder: Path) -> NoiseOrigin:
    """Read the noise stage of a folder: one from elsewhere, a run's or a model package's.

    Raises
    ------
    TrainingError
        When it has no finished noise stage.
    PackageError
        When it is none of these.
    """
    if (folder / DESCRIPTION).is_file():
        denoiser, weights = read_foreign_noise(folder)
        return NoiseOrigin(str(folder), weights, denoiser=denoiser)
    of_run = noise_origin_of_run(folder)
    if of_run is not None:
        return of_run
    of_model = noise_origin_of_model(load_package(folder))
    if of_model is None:
        raise TrainingError(f"The model package {folder} has no noise stage to take over.")
    return of_model


def noise_origin_of_run(folder: Path) -> NoiseOrigin | None:
    """Read the noise stage that a run has trained in its folder, if it has.

    Raises
    ------
    TrainingError
        When its training is not finished.
    """
    stage = folder / "noise"
    if not has_checkpoint(stage):
        return None
    recipe = read_recipe(stage)
    done, planned = steps_done(stage), recipe.noise.iterations
    if done < planned:
        raise TrainingError(
            f"The noise stage in {folder} is not finished: {done} of {planned} steps. Go on with "
            "it first: the command that it was started with, and --resume."
        )
    return NoiseOrigin(str(folder), read_tensors(stage / BEST), recipe)


def noise_origin_of_model(package: ModelPackage) -> NoiseOrigin | None:
    """Return the noise stage of a model, if it has one."""
    if package.noise is None:
        return None
    denoiser = package.pipeline.denoiser
    recipe = package.pipeline if denoiser is None else None
    return NoiseOrigin(package.name, package.noise.state_dict(), recipe, denoiser)
