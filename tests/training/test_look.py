"""Learning to tell contrasts: the changes of examples, and what comes out on phantoms."""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from medtrans.config.recipes import load_pipeline
from medtrans.config.terms import Contrast, Task
from medtrans.data.manifest import Manifest
from medtrans.inference.look import look_at
from medtrans.package.look import Known
from medtrans.package.store import load_package
from medtrans.preprocessing.coarse import fine_cube, ranks
from medtrans.training.look import Shown, learn
from medtrans.training.look_changes import changed, moved, spoilt
from medtrans.training.plan import TrainingPlan
from medtrans.training.run import train
from medtrans.volumes.geometry import spacing_mm
from tests import helpers

QUICK = {
    "examples": 48,
    "contrast_epochs": 30,
    "orientation_epochs": 1,
}


@cache
def phantom(contrast: str, subject: int) -> tuple[np.ndarray, list[float]]:
    """One small head in the space of the networks, and its spacing."""
    scan = helpers.small_scan(contrasts=(contrast,))
    made = helpers.make_subject(subject, 5, scan)
    space = helpers.in_model_space(
        helpers.volume(made.images[contrast], made.affine), helpers.tiny_pipeline()
    )
    return space.image, spacing_mm(space.placement.affine).tolist()


def shown(contrast: str, subject: int) -> Shown:
    return Shown.of(f"patient {subject}", contrast, *phantom(contrast, subject))  # type: ignore[arg-type]


@cache
def known() -> Known:
    config = load_pipeline("t1-to-t2", {"look": QUICK}).look
    return learn([shown(c, s) for c in ("t1", "t2") for s in range(3)], config, seed=0)


def test_the_contrast_of_another_patient_is_told() -> None:
    for source, target in (("t1", "t2"), ("t2", "t1")):
        image, grid_mm = phantom(source, 7)
        right, wrong = (Task.parse(f"{a}-to-{b}") for a, b in ((source, target), (target, source)))
        look = look_at(image, grid_mm, right, [right, wrong], known())
        assert look.contrast == source
        assert look.expected > 0.5
        assert not any("voxels look like" in w for w in look.unusual)
        doubted = look_at(image, grid_mm, wrong, [right, wrong], known())
        [sentence] = [w for w in doubted.unusual if "voxels look like" in w]
        assert f"look like {source}" in sentence


def test_noise_is_none_of_them() -> None:
    image, grid_mm = phantom("t1", 7)
    noise = np.random.default_rng(0).uniform(-0.9, 0.9, image.shape).astype(np.float32)
    task = Task("t1", "t2")
    look = look_at(
        np.where(image > -1, noise, -1).astype(np.float32), grid_mm, task, [task], known()
    )
    assert look.contrast is None
    assert look.expected < 0.5


def test_the_same_seed_gives_the_same_network_and_leaves_global_randomness() -> None:
    config = load_pipeline(
        "t1-to-t2", {"look": {**QUICK, "examples": 6, "contrast_epochs": 2}}
    ).look
    volumes = [shown(c, 0) for c in ("t1", "t2")]
    before = torch.get_rng_state()
    first, again, other = (learn(volumes, config, seed) for seed in (1, 1, 2))
    assert torch.equal(torch.get_rng_state(), before)
    states = [found.network.state_dict() for found in (first, again, other)]
    assert all(torch.equal(states[0][key], states[1][key]) for key in states[0])
    assert not torch.equal(states[0]["contrast.2.weight"], states[2]["contrast.2.weight"])
    assert first.contrasts == ("t1", "t2")
    assert first.usual.litres[0] <= first.usual.litres[1]


def rng(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def rank_correlation(a: Tensor, b: Tensor) -> float:
    both = (a[1] > 0) & (b[1] > 0)
    pair = [ranks(cube[0], both)[both] for cube in (a, b)]
    return float(torch.corrcoef(torch.stack(pair))[0, 1])


def test_changes_keep_a_contrast() -> None:
    cube = fine_cube(*phantom("t1", 0))
    every = [changed(cube, rng(seed)) for seed in range(12)]
    for other in every:
        assert other.shape == cube.shape
        assert other.isfinite().all()
        assert set(other[1].unique().tolist()) == {0.0, 1.0}
        assert not other[0][other[1] == 0].any()
    assert np.median([rank_correlation(cube, other) for other in every]) > 0.7
    assert len({float(other[1].sum()) for other in every}) > 3  # cut, or with a shell


def test_what_is_spoilt_is_none_of_the_known_contrasts() -> None:
    cubes = [fine_cube(*phantom(c, 0)) for c in ("t1", "t2")]
    every = [spoilt(cubes[0], cubes, rng(seed)) for seed in range(10)]
    assert all(made.isfinite().all() and made[1].any() for made in every)
    likest = [max(rank_correlation(made, cube) for cube in cubes) for made in every]
    assert np.median(likest) < 0.3
    assert max(likest) < 0.85


@pytest.mark.parametrize("seed", [0, 3])
def test_moved_keeps_the_size_of_a_head(seed: int) -> None:
    cells = torch.zeros(4, 1, 20, 20, 20)
    cells[:, :, 4:16, 6:14, 5:15] = 1
    out = moved(cells, rng(seed))
    assert out.shape == cells.shape
    assert torch.equal(out, moved(cells, rng(seed)))
    assert not torch.equal(out[0], out[1])
    assert out.sum() == pytest.approx(float(cells.sum()), rel=0.4)


@pytest.mark.parametrize("volumes", [120, 1])
def test_a_run_ends_with_a_model_that_looks(cohort: Path, tmp_path: Path, volumes: int) -> None:
    quick = {**QUICK, "examples": 4, "contrast_epochs": 1, "volumes": volumes}
    recipe = helpers.tiny_pipeline(look=quick)
    plan = TrainingPlan(
        recipe, Manifest.read(cohort), tmp_path / "run", stages="residual", device="cpu"
    )
    look = load_package(train(plan)).look
    assert look is not None
    assert set(look.contrasts) <= {"t1", "t2"}
    assert len(look.contrasts) == min(volumes, 2)


@pytest.mark.parametrize(("contrasts", "kept"), [(("t1", "t2"), True), (("t2", "flair"), False)])
def test_the_look_of_the_model_that_a_run_starts_from(
    cohort: Path, tmp_path: Path, contrasts: tuple[Contrast, ...], kept: bool
) -> None:
    """It is kept where none is learnt, and where it knows the sources."""
    recipe = helpers.tiny_pipeline(look={"examples": 0})
    model = helpers.save_model(
        tmp_path / "model", recipe, look=replace(known(), contrasts=contrasts)
    )
    plan = TrainingPlan(
        recipe,
        Manifest.read(cohort),
        tmp_path / "run",
        stages="residual",
        device="cpu",
        initial=model,
    )
    look = load_package(train(plan)).look
    assert (look is not None) == kept
    if look is not None:
        assert look.usual == known().usual
