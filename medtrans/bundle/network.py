"""The model as one network: what MONAI's bundle tools verify, export and load."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from medtrans.config.recipes import pipeline_from_dict
from medtrans.config.terms import DEFAULT_MODE, Mode
from medtrans.diffusion import Stages, slice_noise, translate
from medtrans.errors import PackageError
from medtrans.networks.binding import build_schedule, denoiser, residual_predictor
from medtrans.networks.unet import noise_network, residual_network
from medtrans.package.store import ModelPackage

_TILE = 256  # pixels; larger slices repeat the fixed noise


class TranslationNetwork(nn.Module):
    """The translator as one network: source slices in, a synthetic slice out.

    The noise of the reverse process is fixed, so the output is a function of the input, and the
    module can be traced. Its weights are those of the package's models/model.pt.

    Parameters
    ----------
    pipeline : mapping
        The recipe, as metadata.json holds it.
    noise_stage : bool
        Whether the model has one; without it `mode` must be "fidelity".
    task : str or None
        None for the model's default.
    mode : str
    residual_steps, noise_steps : int or None
        Override the mode's.
    seed : int
        Of the fixed noise.
    """

    eps: Tensor

    def __init__(
        self,
        pipeline: Mapping[str, Any],
        noise_stage: bool = True,
        task: str | None = None,
        mode: Mode = DEFAULT_MODE,
        residual_steps: int | None = None,
        noise_steps: int | None = None,
        seed: int = 0,
    ) -> None:
        super().__init__()
        self.pipeline = pipeline_from_dict(pipeline, "network_def")
        self.residual = residual_network(self.pipeline, 0)
        self.noise = noise_network(self.pipeline, 0) if noise_stage else None
        package = self.package()
        self.task = package.task(task)
        self.steps = package.steps(mode, residual_steps, noise_steps, eta=0.0)
        self.schedule = build_schedule(self.pipeline)
        self.register_buffer("eps", slice_noise(seed, [0], (_TILE, _TILE)), persistent=False)

    def forward(self, image: Tensor, noise: Tensor | None = None) -> Tensor:
        """Translate slices.

        Parameters
        ----------
        image : Tensor
            Shape (B, 2k + 1, H, W) in [-1, 1]: each source slice with its neighbours. H and W are
            multiples of the network's stride.
        noise : Tensor, optional
            Shape (B, 1, H, W): the noise of the start, instead of the fixed one.

        Returns
        -------
        Tensor
            Shape (B, 1, H, W) in [-1, 1].
        """
        eps = self._fixed_noise(image) if noise is None else noise
        label = self._label(image, self.pipeline.parsed_tasks.index(self.task))
        denoise = None
        if self.noise is not None:
            contrast = self._label(image, self.pipeline.targets.index(self.task.target))
            denoise = denoiser(self.noise, self.pipeline, self.schedule, contrast, image)
        stages = Stages(residual_predictor(self.residual, label), denoise, self.schedule)
        return translate(stages, image, eps, self.steps).clamp(-1, 1)

    def fill(self, package: ModelPackage) -> None:
        """Take over a package's weights, and be ready for inference.

        Raises
        ------
        PackageError
            When they do not fit the networks that the config describes.
        """
        stages: tuple[tuple[str, nn.Module | None, nn.Module | None], ...] = (
            ("residual", self.residual, package.residual),
            ("noise", self.noise, package.noise),
        )
        for name, network, stored in stages:
            if network is None:
                continue
            try:
                network.load_state_dict({} if stored is None else stored.state_dict())
            except RuntimeError as error:
                raise PackageError(
                    f"The weights of the bundle '{package.name}' do not fit the {name} network "
                    f"that its config describes: {str(error).splitlines()[1].strip()} Leave "
                    "network_def and the recipe's [network] as they were."
                ) from None
            network.eval().requires_grad_(False)

    def package(self) -> ModelPackage:
        """Return the networks as a package, for what is written in terms of one."""
        recipe = self.pipeline
        return ModelPackage("network_def", "", recipe, {}, self.residual, self.noise, False)

    def _fixed_noise(self, image: Tensor) -> Tensor:
        # Indices, not slices: a trace then takes other sizes than the one it was made with.
        rows = torch.arange(image.shape[2], device=image.device) % _TILE
        columns = torch.arange(image.shape[3], device=image.device) % _TILE
        eps = self.eps[:, :, rows][:, :, :, columns]
        return eps.expand(image.shape[0], -1, -1, -1)

    @staticmethod
    def _label(image: Tensor, index: int) -> Tensor:
        return torch.full((image.shape[0],), index, device=image.device)
