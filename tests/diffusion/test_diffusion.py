"""DRDD against closed forms; arithmetic stands in for the networks."""

from __future__ import annotations

import itertools
import math

import pytest
import torch
from torch import Tensor

from medtrans.diffusion import (
    Draw,
    NoiseObjective,
    NoiseStep,
    Schedule,
    Stages,
    Steps,
    add_noise,
    add_residual,
    draw_low_timesteps,
    draw_timesteps,
    generator,
    linear_variance_schedule,
    noise_loss,
    noise_step,
    remove_noise,
    remove_residual,
    residual_loss,
    slice_noise,
    translate,
    ve_denoiser,
)
from medtrans.diffusion.randomness import correlated_slice_noise

SIGMAS = (0.1, 0.25, 1.0, 3.0)


@pytest.fixture
def schedule() -> Schedule:
    return linear_variance_schedule(0.25)


@pytest.fixture
def images() -> dict[str, Tensor]:
    """Target, source stack of three, noise and residual, (4, C, 6, 5), in [-1, 1]."""
    rng = torch.Generator().manual_seed(3)
    x0 = torch.rand(4, 1, 6, 5, generator=rng) * 2 - 1
    source = torch.rand(4, 3, 6, 5, generator=rng) * 2 - 1
    eps = torch.randn(4, 1, 6, 5, generator=rng)
    return {"x0": x0, "source": source, "eps": eps, "residual": source[:, 1:2] - x0}


class TestSchedule:
    @pytest.mark.parametrize("sigma", SIGMAS)
    @pytest.mark.parametrize("steps", [1, 2, 10, 1000])
    def test_ends_are_exact(self, sigma: float, steps: int) -> None:
        schedule = linear_variance_schedule(sigma, steps)
        assert schedule.last == steps
        assert schedule.sigma == sigma
        assert schedule.alpha_bar[0] == 0
        assert schedule.beta_bar[0] == 0
        assert schedule.alpha_bar[-1] == 1
        assert schedule.beta_bar[-1] == sigma
        assert schedule.alpha_bar.dtype == schedule.beta_bar.dtype == torch.float64

    @pytest.mark.parametrize("sigma", SIGMAS)
    def test_rises_monotonously(self, sigma: float) -> None:
        schedule = linear_variance_schedule(sigma)
        assert (schedule.alpha_bar.diff() > 0).all()
        assert (schedule.beta_bar.diff() > 0).all()

    def test_is_the_reference_schedule_up_to_its_scale(self) -> None:
        variance = torch.linspace(1e-4, 0.02, 1000, dtype=torch.float64)
        kept = torch.cumprod(1 - variance, 0)
        unscaled = 1 - kept.sqrt()
        assert float(unscaled[-1]) == pytest.approx(0.9936, abs=1e-4)
        schedule = linear_variance_schedule(0.7)
        torch.testing.assert_close(schedule.alpha_bar[1:], unscaled / unscaled[-1])
        ratio = schedule.beta_bar[1:] / (1 - kept).sqrt()
        torch.testing.assert_close(ratio, ratio[-1].expand(1000))

    @pytest.mark.parametrize("steps", [1, 2, 3, 7, 999, 1000])
    def test_grid_runs_from_last_to_zero(self, schedule: Schedule, steps: int) -> None:
        grid = schedule.grid(steps)
        assert (grid[0], grid[-1], len(grid)) == (1000, 0, steps + 1)
        gaps = [a - b for a, b in itertools.pairwise(grid)]
        assert min(gaps) >= 1
        assert max(gaps) - min(gaps) <= 1

    def test_grid_of_two(self, schedule: Schedule) -> None:
        assert schedule.grid(2) == [1000, 500, 0]

    @pytest.mark.parametrize("steps", [1, 2, 3, 7, 200, 999, 1000])
    def test_noise_grid_lowers_the_noise_evenly(self, schedule: Schedule, steps: int) -> None:
        grid = schedule.noise_grid(steps)
        assert (grid[0], grid[-1], len(grid)) == (1000, 0, steps + 1)
        assert all(now > then for now, then in itertools.pairwise(grid))
        if steps <= 7:
            even = torch.linspace(schedule.sigma, 0, steps + 1, dtype=torch.float64)
            coarsest = float(schedule.beta_bar.diff().max())
            torch.testing.assert_close(schedule.beta_bar[grid], even, atol=coarsest / 2, rtol=0)

    @pytest.mark.parametrize("span", [2.0, 12.5, 40.0])
    @pytest.mark.parametrize("steps", [2, 3, 4, 10])
    def test_levels_fall_by_one_ratio(self, schedule: Schedule, steps: int, span: float) -> None:
        grid = schedule.noise_grid(steps, span)
        assert (grid[0], grid[-1], len(grid)) == (1000, 0, steps + 1)
        assert all(now > then for now, then in itertools.pairwise(grid))
        levels = schedule.beta_bar[grid[:-1]]
        assert float(levels[0] / levels[-1]) == pytest.approx(span, rel=0.1)
        ratios = levels[:-1] / levels[1:]
        torch.testing.assert_close(
            ratios, ratios.new_tensor(span ** (1 / (steps - 1))).expand_as(ratios), rtol=0.1, atol=0
        )

    def test_one_step_has_one_level_whatever_the_span(self, schedule: Schedule) -> None:
        assert schedule.noise_grid(1, 12.5) == [1000, 0]

    @pytest.mark.parametrize("span", [0.0, 12.5])
    @pytest.mark.parametrize("steps", [1, 2, 4, 5])
    def test_noise_grid_of_a_short_schedule(self, steps: int, span: float) -> None:
        grid = linear_variance_schedule(1.0, steps=5).noise_grid(steps, span)
        assert (grid[0], grid[-1], len(set(grid))) == (5, 0, steps + 1)
        assert sorted(grid, reverse=True) == grid

    def test_times_reach_a_thousand(self, schedule: Schedule) -> None:
        t = torch.tensor([0, 1000])
        torch.testing.assert_close(schedule.residual_time(t), torch.tensor([0.0, 1000.0]))
        level = torch.tensor([0.0, schedule.sigma / 2, schedule.sigma])
        torch.testing.assert_close(schedule.noise_time(level), torch.tensor([0.0, 500.0, 1000.0]))


class TestForward:
    def test_noise_is_added_with_each_images_level(self, images: dict[str, Tensor]) -> None:
        level = torch.tensor([0.0, 0.1, 0.5, 2.0])
        noisy = add_noise(images["x0"], images["eps"], level)
        for i, value in enumerate(level):
            torch.testing.assert_close(noisy[i], images["x0"][i] + value * images["eps"][i])

    def test_residual_diffusion_runs_from_x0_to_the_source(
        self, images: dict[str, Tensor], schedule: Schedule
    ) -> None:
        x0, eps, residual = images["x0"], images["eps"], images["residual"]
        ends = schedule.alpha_bar[[0, schedule.last]]
        start = add_residual(x0, eps, residual, schedule.sigma, ends[:1].expand(4))
        end = add_residual(x0, eps, residual, schedule.sigma, ends[1:].expand(4))
        torch.testing.assert_close(start, x0 + schedule.sigma * eps)
        torch.testing.assert_close(end, images["source"][:, 1:2] + schedule.sigma * eps)


class TestLosses:
    @pytest.mark.parametrize("loss", ["l1", "l2"])
    def test_exact_networks_lose_nothing(
        self, images: dict[str, Tensor], schedule: Schedule, loss: str
    ) -> None:
        x0 = images["x0"]
        t = torch.tensor([1, 400, 999, 1000])

        def exact_noise(x: Tensor, time: Tensor) -> Tensor:
            return (x - x0) / (time / 1000 * schedule.sigma).view(-1, 1, 1, 1)

        def exact_residual(x: Tensor, source: Tensor, time: Tensor) -> Tensor:
            known = x0 + schedule.sigma * images["eps"]
            return (x - known) / (time / 1000).view(-1, 1, 1, 1)

        draw = Draw(t, images["eps"])
        noise = noise_loss(exact_noise, x0, draw, schedule, NoiseObjective(loss))
        assert float(noise) == pytest.approx(0, abs=1e-3)
        residual = residual_loss(exact_residual, x0, images["source"], draw, schedule, loss)
        assert float(residual) == pytest.approx(0, abs=1e-2)

    @pytest.mark.parametrize(("loss", "power"), [("l1", 1), ("l2", 2)])
    def test_values_for_a_network_that_answers_zero(
        self, images: dict[str, Tensor], schedule: Schedule, loss: str, power: int
    ) -> None:
        draw = Draw(torch.full((4,), 500), images["eps"])
        objective = NoiseObjective(loss)
        noise = noise_loss(
            lambda x, time: torch.zeros_like(x), images["x0"], draw, schedule, objective
        )
        torch.testing.assert_close(noise, images["eps"].abs().pow(power).mean())
        residual = residual_loss(
            lambda x, source, time: torch.zeros_like(x),
            images["x0"],
            images["source"],
            draw,
            schedule,
            loss,
        )
        torch.testing.assert_close(residual, images["residual"].abs().pow(power).mean())

    def test_networks_are_given_the_noisy_image_and_its_time(
        self, images: dict[str, Tensor], schedule: Schedule
    ) -> None:
        seen = {}
        t = torch.tensor([1, 250, 500, 1000])

        def noise(x: Tensor, time: Tensor) -> Tensor:
            seen["noise"] = x, time
            return x

        def residual(x: Tensor, source: Tensor, time: Tensor) -> Tensor:
            seen["residual"] = x, source, time
            return x

        x0, eps, source = images["x0"], images["eps"], images["source"]
        noise_loss(noise, x0, Draw(t, eps), schedule, NoiseObjective("l2"))
        residual_loss(residual, x0, source, Draw(t, eps), schedule, "l2")
        b, a = schedule.beta_bar[t].float(), schedule.alpha_bar[t].float()
        torch.testing.assert_close(seen["noise"][0], x0 + b.view(-1, 1, 1, 1) * eps)
        torch.testing.assert_close(seen["noise"][1], b / schedule.sigma * 1000)
        x = x0 + schedule.sigma * eps + a.view(-1, 1, 1, 1) * images["residual"]
        torch.testing.assert_close(seen["residual"][0], x)
        assert seen["residual"][1] is source
        torch.testing.assert_close(seen["residual"][2], a * 1000)

    def test_losses_are_float32_under_low_precision(
        self, images: dict[str, Tensor], schedule: Schedule
    ) -> None:
        loss = noise_loss(
            lambda x, time: x.bfloat16(),
            images["x0"],
            Draw(torch.ones(4, dtype=int), images["eps"]),
            schedule,
            NoiseObjective("l2"),
        )
        assert loss.dtype == torch.float32


class TestTimesteps:
    def test_reaches_every_step_and_no_other(self) -> None:
        schedule = linear_variance_schedule(1.0, steps=7)
        t = draw_timesteps(2000, schedule, generator(0), 0.0)
        assert t.unique().tolist() == [1, 2, 3, 4, 5, 6, 7]

    @pytest.mark.parametrize("share", [0.0, 0.5, 1.0])
    def test_terminal_share(self, schedule: Schedule, share: float) -> None:
        t = draw_timesteps(20_000, schedule, generator(1), share)
        expected = share + (1 - share) / schedule.last
        found = float((t == schedule.last).float().mean())
        assert found == pytest.approx(expected, abs=0.015)

    def test_low_levels_are_log_uniform(self, schedule: Schedule) -> None:
        t = draw_low_timesteps(20_000, schedule, generator(1), 16.0)
        levels = schedule.beta_bar[t] / schedule.sigma
        edges = torch.tensor([1 / 16, 1 / 8, 1 / 4, 1 / 2, 1.0], dtype=torch.float64)
        counts = torch.histogram(levels, edges).hist / len(t)
        torch.testing.assert_close(counts, torch.full((4,), 0.25).double(), atol=0.02, rtol=0)
        assert t.min() >= 1

    def test_is_a_function_of_the_generator(self, schedule: Schedule) -> None:
        draws = [draw_timesteps(50, schedule, generator(s), 0.5) for s in (4, 4, 5)]
        assert torch.equal(draws[0], draws[1])
        assert not torch.equal(draws[0], draws[2])


class TestRemoveResidual:
    @pytest.mark.parametrize("sigma", SIGMAS)
    @pytest.mark.parametrize("steps", [1, 2, 3, 10, 1000])
    def test_true_residual_leaves_x0_and_the_noise(
        self, images: dict[str, Tensor], sigma: float, steps: int
    ) -> None:
        schedule = linear_variance_schedule(sigma)
        start = images["source"][:, 1:2] + sigma * images["eps"]
        x = remove_residual(start, images["source"], lambda *_: images["residual"], schedule, steps)
        expected = images["x0"] + sigma * images["eps"]
        torch.testing.assert_close(x, expected, rtol=0, atol=2e-5 if steps > 10 else 2e-6)

    def test_calls_the_network_once_a_step_from_the_end(
        self, images: dict[str, Tensor], schedule: Schedule
    ) -> None:
        times = []

        def predict(x: Tensor, source: Tensor, time: Tensor) -> Tensor:
            times.append(time)
            return torch.zeros_like(x)

        remove_residual(images["x0"], images["source"], predict, schedule, 3)
        grid = torch.tensor(schedule.grid(3)[:-1])
        torch.testing.assert_close(torch.stack(times)[:, 0], schedule.residual_time(grid))


def gaussian_denoiser(mean: float, spread: float):
    """Posterior mean of x0 ~ N(mean, spread^2) given x = x0 + level * eps."""

    def denoise(x: Tensor, level: Tensor) -> Tensor:
        share = spread**2 / (spread**2 + level.to(x).view(-1, 1, 1, 1) ** 2)
        return mean + share * (x - mean)

    return denoise


class TestRemoveNoise:
    mean, spread = 0.3, 0.4

    @pytest.mark.parametrize("sigma", SIGMAS)
    @pytest.mark.parametrize("steps", [1, 2, 5, 40])
    def test_gaussian_lands_on_the_closed_form(self, sigma: float, steps: int) -> None:
        """With eta = 0 a step scales x - mean by (s^2 + b b') / (s^2 + b^2), Eq. 8 by hand."""
        schedule = linear_variance_schedule(sigma)
        x = torch.linspace(-3, 3, 24, dtype=torch.float64).view(2, 1, 3, 4)
        factor = 1.0
        for now, then in itertools.pairwise(schedule.noise_grid(steps)):
            b, b_next = float(schedule.beta_bar[now]), float(schedule.beta_bar[then])
            factor *= (self.spread**2 + b * b_next) / (self.spread**2 + b**2)
        found = remove_noise(
            x, gaussian_denoiser(self.mean, self.spread), schedule, Steps(1, steps)
        )
        torch.testing.assert_close(found, self.mean + factor * (x - self.mean))

    @pytest.mark.parametrize("sigma", SIGMAS)
    def test_one_step_is_the_denoiser_itself(self, sigma: float) -> None:
        schedule = linear_variance_schedule(sigma)
        denoise = gaussian_denoiser(self.mean, self.spread)
        x = torch.linspace(-3, 3, 12, dtype=torch.float64).view(1, 1, 3, 4)
        level = torch.tensor([sigma], dtype=torch.float64)
        torch.testing.assert_close(
            remove_noise(x, denoise, schedule, Steps(1, 1)), denoise(x, level)
        )

    @pytest.mark.parametrize("sigma", SIGMAS)
    def test_many_steps_follow_the_probability_flow(self, sigma: float) -> None:
        schedule = linear_variance_schedule(sigma)
        x = torch.linspace(-3, 3, 12, dtype=torch.float64).view(1, 1, 3, 4)
        denoise = gaussian_denoiser(self.mean, self.spread)
        found = remove_noise(x, denoise, schedule, Steps(1, 1000))
        shrink = self.spread / math.hypot(self.spread, sigma)
        expected = self.mean + shrink * (x - self.mean)
        torch.testing.assert_close(found, expected, rtol=0, atol=0.02)

    @pytest.mark.parametrize("sigma", SIGMAS)
    def test_a_second_order_is_nearer_to_the_flow_than_the_first(self, sigma: float) -> None:
        """Errors of x - mean, whose exact factor is s / sqrt(s^2 + sigma^2), for few steps."""
        schedule = linear_variance_schedule(sigma)
        x = torch.full((1, 1, 1, 1), self.mean + 1.0, dtype=torch.float64)
        exact = self.spread / math.hypot(self.spread, sigma)
        errors = {}
        for order in (1, 2):
            asked = Steps(1, 10, level_span=40.0, order=order)
            found = remove_noise(x, gaussian_denoiser(self.mean, self.spread), schedule, asked)
            errors[order] = abs(float(found) - self.mean - exact)
        assert errors[2] < errors[1] / 4
        assert errors[2] < 0.02 * exact

    def test_a_second_order_step_by_hand(self, schedule: Schedule) -> None:
        """x' = (b' / b) x + (1 - b' / b) (D + (D - D_before) / 2 r), r the ratio of log steps."""
        steps = NoiseStep.all(schedule, Steps(1, 4, level_span=12.5, order=2))
        assert [step.slope > 0 for step in steps] == [False, True, True, False]
        x, clean, before = (torch.full((1, 1, 1, 1), v, dtype=torch.float64) for v in (1, 2, 4))
        now, then = steps[1].now, steps[1].then
        r = math.log(steps[0].now / now) / math.log(now / then)
        expected = then / now * 1 + (1 - then / now) * (2 + (2 - 4) / (2 * r))
        assert float(noise_step(x, clean, before, steps[1])) == pytest.approx(expected)

    def test_noise_that_is_added_anew_makes_steps_of_first_order(self, schedule: Schedule) -> None:
        steps = NoiseStep.all(schedule, Steps(1, 4, eta=0.5, order=2))
        assert all(step.slope == 0 for step in steps)

    @pytest.mark.parametrize("steps", [2, 5, 200])
    @pytest.mark.parametrize("eta", [0.3, 1.0])
    def test_stochastic_steps_have_the_known_mean_and_variance(
        self, steps: int, eta: float
    ) -> None:
        """Each step maps Var(x) to a^2 Var(x) + s^2 with a from Eq. 8."""
        sigma, count = 0.8, 40_000
        schedule = linear_variance_schedule(sigma)
        rng = generator("sample", steps)
        shape = (1, 1, 200, count // 200)
        x = self.mean + math.hypot(self.spread, sigma) * torch.randn(shape, generator=rng)
        variance = self.spread**2 + sigma**2
        for now, then in itertools.pairwise(schedule.noise_grid(steps)):
            b, b_next = float(schedule.beta_bar[now]), float(schedule.beta_bar[then])
            fresh = eta * (b**2 - b_next**2) * b_next**2 / b**2
            a = 1 - (b - math.sqrt(b_next**2 - fresh)) * b / (self.spread**2 + b**2)
            variance = a**2 * variance + fresh
        found = remove_noise(
            x,
            gaussian_denoiser(self.mean, self.spread),
            schedule,
            Steps(1, steps, eta),
            lambda _: torch.randn(shape, generator=rng),
        )
        assert float(found.mean()) == pytest.approx(self.mean, abs=0.01)
        assert float(found.var()) == pytest.approx(variance, rel=0.04)
        if steps == 200:
            assert float(found.std()) == pytest.approx(self.spread, rel=0.04)

    def test_last_step_draws_no_noise(self, schedule: Schedule) -> None:
        asked = []

        def fresh(step: int) -> Tensor:
            asked.append(step)
            return torch.zeros(1, 1, 2, 2)

        x = torch.ones(1, 1, 2, 2)
        remove_noise(x, lambda x, level: x, schedule, Steps(1, 4, 1.0), fresh)
        assert asked == [0, 1, 2]

    def test_stochastic_steps_need_fresh_noise(self, schedule: Schedule) -> None:
        with pytest.raises(ValueError, match="fresh noise"):
            remove_noise(torch.ones(1, 1, 2, 2), lambda x, level: x, schedule, Steps(1, 2, 0.5))

    @pytest.mark.parametrize("steps", [1, 2, 7])
    def test_exact_network_gives_x0_in_any_number_of_steps(
        self, images: dict[str, Tensor], schedule: Schedule, steps: int
    ) -> None:
        x0, eps = images["x0"], images["eps"]
        denoise = ve_denoiser(lambda x, time: eps, schedule)
        found = remove_noise(x0 + schedule.sigma * eps, denoise, schedule, Steps(1, steps))
        torch.testing.assert_close(found, x0, rtol=0, atol=1e-6)


def test_ve_denoiser_subtracts_the_noise_at_its_level(
    images: dict[str, Tensor], schedule: Schedule
) -> None:
    level = torch.tensor([0.0, 0.1, 0.2, 0.25])
    seen = []

    def predict(x: Tensor, time: Tensor) -> Tensor:
        seen.append(time)
        return images["eps"]

    x0 = ve_denoiser(predict, schedule)(add_noise(images["x0"], images["eps"], level), level)
    torch.testing.assert_close(x0, images["x0"])
    torch.testing.assert_close(seen[0], torch.tensor([0.0, 400.0, 800.0, 1000.0]))


class TestTranslate:
    @pytest.mark.parametrize("steps", [Steps(1, 0), Steps(3, 0), Steps(1, 1), Steps(2, 2)])
    def test_exact_networks_return_the_target(
        self, images: dict[str, Tensor], schedule: Schedule, steps: Steps
    ) -> None:
        denoise = ve_denoiser(lambda *_: images["eps"], schedule)
        stages = Stages(lambda *_: images["residual"], denoise, schedule)
        found = translate(stages, images["source"], images["eps"], steps)
        torch.testing.assert_close(found, images["x0"], rtol=0, atol=2e-6)

    @pytest.mark.parametrize("steps", [Steps(1, 0), Steps(1, 1), Steps(2, 2), Steps(5, 3)])
    def test_calls_each_network_once_a_step(
        self, images: dict[str, Tensor], schedule: Schedule, steps: Steps
    ) -> None:
        calls = {"residual": 0, "noise": 0}

        def predict(x: Tensor, source: Tensor, time: Tensor) -> Tensor:
            calls["residual"] += 1
            return torch.zeros_like(x)

        def denoise(x: Tensor, level: Tensor) -> Tensor:
            calls["noise"] += 1
            return x

        stages = Stages(predict, denoise, schedule)
        translate(stages, images["source"], images["eps"], steps)
        assert calls == {"residual": steps.residual, "noise": steps.noise}

    def test_starts_at_the_noisy_middle_slice(
        self, images: dict[str, Tensor], schedule: Schedule
    ) -> None:
        seen = []

        def predict(x: Tensor, source: Tensor, time: Tensor) -> Tensor:
            seen.append(x)
            return torch.zeros_like(x)

        stages = Stages(predict, None, schedule)
        translate(stages, images["source"], images["eps"], Steps(1, 0))
        expected = images["source"][:, 1:2] + schedule.sigma * images["eps"]
        torch.testing.assert_close(seen[0], expected)

    def test_noise_steps_need_a_noise_stage(
        self, images: dict[str, Tensor], schedule: Schedule
    ) -> None:
        stages = Stages(lambda x, *_: x, None, schedule)
        with pytest.raises(ValueError, match="noise stage"):
            translate(stages, images["source"], images["eps"], Steps(1, 1))


class TestSliceNoise:
    def test_depends_on_the_slice_not_on_its_batch(self) -> None:
        together = slice_noise(7, [0, 1, 2, 3, 9], (4, 6))
        alone = torch.cat([slice_noise(7, [i], (4, 6)) for i in (0, 1, 2, 3, 9)])
        assert together.shape == (5, 1, 4, 6)
        assert torch.equal(together, alone)
        shuffled = slice_noise(7, [9, 2, 0], (4, 6))
        assert torch.equal(shuffled, together[[4, 2, 0]])

    def test_seeds_slices_and_purposes_differ(self) -> None:
        draws = [
            slice_noise(seed, [index], (8, 8), purpose)
            for seed, index, purpose in itertools.product((0, 1), (0, 1), ("start", "step 0"))
        ]
        for a, b in itertools.combinations(draws, 2):
            assert not torch.equal(a, b)

    def test_is_standard_normal(self) -> None:
        noise = slice_noise(0, range(20), (64, 64))
        assert float(noise.mean()) == pytest.approx(0, abs=0.02)
        assert float(noise.std()) == pytest.approx(1, abs=0.02)

    def test_leaves_the_global_generator_alone(self) -> None:
        before = torch.get_rng_state()
        slice_noise(0, [1, 2], (4, 4))
        assert torch.equal(before, torch.get_rng_state())


class TestCorrelatedNoise:
    @pytest.mark.parametrize("length", [0.0, 1.0, 2.0, 5.0, math.inf])
    def test_is_standard_normal_and_correlates_as_stated(self, length: float) -> None:
        noise = correlated_slice_noise(0, range(4), (150, 150), "start", length).flatten(1)
        assert noise.mean(dim=1).abs().max() < 0.03
        torch.testing.assert_close(noise.var(dim=1), torch.ones(4), rtol=0, atol=0.04)
        for d in (1, 2, 3):
            expected = math.exp(-((d / length) ** 2) / 2) if length else 0.0
            assert float((noise[0] * noise[d]).mean()) == pytest.approx(expected, abs=0.03)

    @pytest.mark.parametrize("length", [0.0, 1.5, math.inf])
    def test_depends_on_the_slice_not_on_its_batch(self, length: float) -> None:
        together = correlated_slice_noise(3, [4, 5, 9], (6, 4), "start", length)
        alone = [correlated_slice_noise(3, [i], (6, 4), "start", length) for i in (4, 5, 9)]
        assert together.shape == (3, 1, 6, 4)
        assert torch.equal(together, torch.cat(alone))

    def test_of_no_length_is_the_independent_noise(self) -> None:
        noise = correlated_slice_noise(7, [1, 2], (4, 6), "start", 0.0)
        assert torch.equal(noise, slice_noise(7, [1, 2], (4, 6)))
