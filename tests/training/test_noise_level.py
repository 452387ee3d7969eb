"""The noise criterion on Gaussians whose MMD is known, and the command that draws it."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest
import torch
from PIL import Image

from medtrans.cli import app as cli
from medtrans.config.recipes import load_pipeline
from medtrans.data.manifest import Manifest
from medtrans.diffusion import noise_criterion
from medtrans.diffusion.noise_level import median_distance, squared_mmd
from medtrans.errors import ConfigError
from medtrans.networks.binding import build_schedule
from medtrans.package.store import load_package
from medtrans.training import noise_level
from medtrans.training.cache import VolumeCache
from medtrans.training.noise_level import measure_noise_level
from medtrans.training.plan import TrainingPlan
from medtrans.training.run import train
from tests import helpers

GRID = (0.05, 0.2, 0.5, 1.0, 2.0)


def normal(count: int, seed: int, shift: float = 0.0, spread: float = 1.0) -> torch.Tensor:
    rng = torch.Generator().manual_seed(seed)
    return (shift + spread * torch.randn(count, 3, generator=rng)).double()


class TestMmd:
    @pytest.mark.parametrize("shift", [0.0, 1.0, 2.0])
    def test_of_two_gaussians_is_the_closed_form(self, shift: float) -> None:
        """E k(x, y) of N(0, 1) and N(m, 1) in d dimensions: (h / s)^d exp(-m^2 / 2 s^2)."""
        h = 1.5
        s = math.sqrt(h**2 + 2)
        alike = (h / s) ** 3
        expected = 2 * alike * (1 - math.exp(-3 * shift**2 / (2 * s**2)))
        found = squared_mmd(normal(1500, 0), normal(1500, 1, shift), h)
        assert found == pytest.approx(expected, rel=0.15, abs=3e-3)

    def test_twins_do_not_make_sets_alike(self) -> None:
        """Without their pairs, a set and itself are two draws of one distribution."""
        x = normal(400, 0)
        assert squared_mmd(x, x, 1.0, paired=True) == pytest.approx(0, abs=1e-9)
        assert squared_mmd(x, x + 0.8, 1.0, paired=True) > 0.05

    def test_median_distance(self) -> None:
        assert median_distance(torch.tensor([[0.0], [1.0], [3.0]])) == 2


class TestCriterion:
    def test_noise_harmonises_and_destroys(self) -> None:
        source, target = normal(800, 0, -0.4, 0.3), normal(700, 1, 0.4, 0.3)
        found = noise_criterion(source, target, GRID, 0.5, torch.Generator().manual_seed(2))
        assert found.apart == sorted(found.apart, reverse=True)
        assert found.destroyed == sorted(found.destroyed)
        assert max(found.apart) == max(found.destroyed) == 1
        assert min(found.apart) == min(found.destroyed) == 0
        assert GRID[0] < found.best < GRID[-1]

    @pytest.mark.parametrize(("weight", "best"), [(0.0, GRID[0]), (1.0, GRID[-1])])
    def test_the_weight_picks_a_side(self, weight: float, best: float) -> None:
        source, target = normal(600, 0, -0.4, 0.3), normal(600, 1, 0.4, 0.3)
        found = noise_criterion(source, target, GRID, weight, torch.Generator().manual_seed(2))
        assert found.best == best


@pytest.fixture
def few(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(noise_level, "_COUNT", 80)


@pytest.mark.usefixtures("few")
class TestManifest:
    def test_is_the_same_every_time(self, cohort: Path, tmp_path: Path) -> None:
        recipe = helpers.tiny_pipeline()
        cache = VolumeCache(tmp_path, recipe)
        one, two = (
            measure_noise_level(recipe.parsed_tasks, Manifest.read(cohort), cache) for _ in range(2)
        )
        assert one == two
        assert one.apart[0] > one.apart[-1]
        assert one.destroyed[0] < one.destroyed[-1]

    def test_auto_is_a_number_in_the_model(self, cohort: Path, tmp_path: Path) -> None:
        recipe = helpers.tiny_pipeline(diffusion={"sigma": "auto"})
        manifest = Manifest.read(cohort)
        plan = TrainingPlan(recipe, manifest, tmp_path / "run", device="cpu", stages="residual")
        stored = load_package(train(plan)).pipeline.diffusion.sigma
        cache = VolumeCache(tmp_path / "own", recipe)
        chosen = measure_noise_level(recipe.parsed_tasks, manifest, cache)
        assert stored == chosen.best

    def test_auto_is_no_number_by_itself(self) -> None:
        with pytest.raises(ConfigError, match="only `medtrans train` can choose"):
            build_schedule(load_pipeline("t1-to-t2", {"diffusion": {"sigma": "auto"}}))


def run(capsys: pytest.CaptureFixture[str], *arguments: str) -> dict:
    with pytest.raises(SystemExit) as stopped:
        cli.app(list(arguments), standalone_mode=True)
    assert stopped.value.code == 0
    return json.loads(capsys.readouterr().out)


RECIPE = """
extends = "t1-to-t2"
[volume]
spacing_mm = [0.0, 0.0, 0.0]
divisible = 4
[network]
channels = [4, 4]
attention = [false, false]
norm_groups = 2
[noise]
patch = [16, 16]
batch_size = 2
precision = "fp32"
[residual]
patch = [16, 16]
batch_size = 2
precision = "fp32"
"""


@pytest.mark.usefixtures("few")
def test_the_command_writes_the_curve_and_the_sweep(
    cohort: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    recipe = tmp_path / "recipe.toml"
    recipe.write_text(RECIPE)
    given = ["--task", "t1-to-t2", "--manifest", str(cohort), "--pipeline", str(recipe)]
    out = tmp_path / "level"
    swept = ["--out", str(out), "--sweep", "--iterations", "2", "--json"]
    found = run(capsys, "noise-level", *given, *swept)
    weights = out / "sweep" / "sigma-1" / "residual" / "best.pt"
    written = weights.stat().st_mtime_ns
    assert run(capsys, "noise-level", *given, *swept)["sweep"] == found["sweep"]
    assert weights.stat().st_mtime_ns == written
    table = (out / "noise_level.csv").read_text().splitlines()
    assert table[0] == "sigma,A,B,J"
    assert found["sigma"] == min(found["curve"], key=lambda row: row["J"])["sigma"]
    with Image.open(out / "noise_level.png") as picture:
        assert picture.size == (640, 400)
    assert [row["sigma"] for row in found["sweep"]] == [0.1, 0.25, 0.5, 1.0]
    assert {"J", "fidelity_psnr_fit", "realistic_psnr_fit"} <= set(found["sweep"][0])
    assert len((out / "sweep.csv").read_text().splitlines()) == 5
