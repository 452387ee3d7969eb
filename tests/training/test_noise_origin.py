"""Noise stages that a run takes over: never by other rules than they were trained by."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from medtrans.config.schema import Pipeline
from medtrans.errors import TrainingError
from medtrans.networks.unet import noise_network
from medtrans.training.checkpoint import read_tensors, save_weights
from medtrans.training.noise_origin import NoiseOrigin, noise_origin_in
from medtrans.training.run_folder import write_recipe
from tests import helpers

BOTH = ("t1-to-t2", "t1-to-flair")


def origin(recipe: Pipeline) -> NoiseOrigin:
    network = helpers.randomise(noise_network(recipe, 0), 3)
    return NoiseOrigin("the other run", network.state_dict(), recipe)


def answers(recipe: Pipeline, weights: dict[str, torch.Tensor], contrast: str) -> torch.Tensor:
    network = noise_network(recipe, 7)
    network.load_state_dict(weights)
    rng = torch.Generator().manual_seed(0)
    x, time = torch.randn(1, 1, 16, 16, generator=rng), torch.tensor([300.0])
    answer: torch.Tensor = network(x, time, torch.tensor([recipe.targets.index(contrast)]))
    return answer


@pytest.mark.parametrize("tasks", [BOTH[::-1], BOTH[:1], BOTH[1:]])
def test_each_contrast_is_denoised_as_before(tasks: tuple[str, ...]) -> None:
    recipe, other = (helpers.tiny_pipeline("base", tasks=list(t)) for t in (BOTH, tasks))
    given = origin(recipe)
    taken = given.taken_over(other)
    for contrast in other.targets:
        before = answers(recipe, given.weights, contrast)
        torch.testing.assert_close(answers(other, taken, contrast), before)


def test_of_another_contrast_is_refused() -> None:
    recipe, other = (helpers.tiny_pipeline("base", tasks=list(t)) for t in (BOTH[:1], BOTH))
    with pytest.raises(TrainingError, match="knows t2, not flair"):
        origin(recipe).taken_over(other)


def test_of_another_sigma_is_refused() -> None:
    recipe, other = (helpers.tiny_pipeline(diffusion={"sigma": s}) for s in (0.25, 1.0))
    with pytest.raises(TrainingError, match=r"sigma 0\.25, and the recipe says 1\.0"):
        origin(recipe).taken_over(other)


def test_gives_its_sigma_where_none_is_chosen_yet() -> None:
    recipe, other = (helpers.tiny_pipeline(diffusion={"sigma": s}) for s in (0.5, "auto"))
    described = origin(recipe).described_in(other)
    assert described.diffusion.level == 0.5
    assert origin(recipe).taken_over(described)


def test_of_another_network_is_refused() -> None:
    recipe, other = (helpers.tiny_pipeline(network={"channels": c}) for c in ([8, 16], [8, 8]))
    with pytest.raises(TrainingError, match="does not fit the recipe"):
        origin(recipe).taken_over(other)


def test_replaces_a_denoiser_from_elsewhere(pipeline: Pipeline) -> None:
    raw = pipeline.model_dump(mode="json")
    training = {"kind": "edm", "data_std": 0.5}
    foreign = Pipeline.model_validate(
        {**raw, "denoiser": {"training": training, "network": helpers.FOREIGN_NETWORK}}
    )
    described = origin(pipeline).described_in(foreign)
    assert described.denoiser is None
    assert origin(pipeline).taken_over(described)


def test_that_is_not_finished_is_refused(pipeline: Pipeline, tmp_path: Path) -> None:
    stage = tmp_path / "noise"
    write_recipe(stage, pipeline)
    wanted = pipeline.noise.iterations
    save_weights(stage / "best.pt", noise_network(pipeline, 0).state_dict())
    for done in (wanted - 1, wanted):
        torch.save({"step": done}, stage / "last.pt")
        if done < wanted:
            with pytest.raises(TrainingError, match=f"{done} of {wanted} steps"):
                noise_origin_in(tmp_path)
    found = noise_origin_in(tmp_path)
    assert found.recipe == pipeline
    expected = read_tensors(stage / "best.pt")
    assert all(torch.equal(found.weights[name], value) for name, value in expected.items())


def test_without_a_recipe_is_refused(pipeline: Pipeline, tmp_path: Path) -> None:
    write_recipe(tmp_path / "noise", pipeline)
    torch.save({"step": 9}, tmp_path / "noise" / "last.pt")
    (tmp_path / "noise" / "recipe.json").unlink()
    with pytest.raises(TrainingError, match="Train that stage again"):
        noise_origin_in(tmp_path)


def test_is_told_apart_by_its_weights(pipeline: Pipeline) -> None:
    one = origin(pipeline)
    changed = {name: value + 1 for name, value in one.weights.items()}
    assert one.sha256 == origin(pipeline).sha256 != replace(one, weights=changed).sha256
