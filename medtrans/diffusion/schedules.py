"""How much noise and how much residual there is at each time step."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

TIME_SCALE = 1000.0  # the networks' time embedding expects numbers of this size


@dataclass(frozen=True)
class Schedule:
    """The two cumulative schedules of DRDD (Eq. 2, 3).

    One T serves both processes; the paper's T1 and T2 may differ.

    Attributes
    ----------
    alpha_bar : Tensor
        Shape (T + 1,), float64: share of the residual at each step, from 0 to exactly 1 (Eq. 3).
    beta_bar : Tensor
        Shape (T + 1,), float64: standard deviation of the noise, on the [-1, 1] scale of the
        images, from 0 to exactly sigma (Eq. 2).
    """

    alpha_bar: Tensor
    beta_bar: Tensor

    @property
    def last(self) -> int:
        """The last time step, T."""
        return int(self.alpha_bar.numel() - 1)

    @property
    def sigma(self) -> float:
        """The noise of the residual stage, beta_bar_T, on the [-1, 1] scale (Eq. 4)."""
        return float(self.beta_bar[-1])

    def grid(self, steps: int) -> list[int]:
        """Return the time steps that the residual's reverse visits (Alg. 2, with steps left out).

        Parameters
        ----------
        steps : int
            From 1 to T.

        Returns
        -------
        list of int
            `steps` + 1 time steps from T down to 0, evenly spaced in t.
        """
        return [round(self.last * (steps - i) / steps) for i in range(steps + 1)]

    def noise_grid(self, steps: int, span: float = 0.0) -> list[int]:
        """Return the time steps that the noise's reverse visits.

        The paper does not say which steps it visits. Evenly spaced in t, as `grid`, the first of
        two steps would lower the noise by a twentieth: the variances of the reference schedule
        rise, so that most of t has nearly all of the noise. Evenly spaced in beta_bar, the last of
        few steps still starts at a third or a quarter of sigma, far above fine detail.

        Parameters
        ----------
        steps : int
            From 1 to T.
        span : float
            beta_bar falls by one ratio a step, from sigma to sigma over this, and then to 0; with 0
            it falls evenly.

        Returns
        -------
        list of int
            `steps` + 1 time steps from T down to 0, each below the one before.
        """
        if span and steps > 1:
            shares = torch.linspace(0, 1, steps, dtype=torch.float64)
            levels = self.sigma * span**-shares
        else:
            levels = torch.linspace(self.sigma, 0, steps + 1, dtype=torch.float64)[:-1]
        visited = [*self.nearest_step(levels).tolist(), 0]
        for i in range(1, steps):  # many steps: levels closer than those of the schedule
            visited[i] = min(visited[i], visited[i - 1] - 1)
        for i in range(steps - 1, 0, -1):
            visited[i] = max(visited[i], visited[i + 1] + 1)
        return visited

    def nearest_step(self, level: Tensor) -> Tensor:
        """Return the time steps, from 1 to T, whose beta_bar is nearest to levels (B,)."""
        return (self.beta_bar[None, 1:] - level.double()[:, None]).abs().argmin(dim=1) + 1

    def residual_time(self, t: Tensor) -> Tensor:
        """Return what the residual network is told of the time (Eq. 9): alpha_bar_t x 1000.

        Parameters
        ----------
        t : Tensor
            Shape (B,), integers from 0 to T.

        Returns
        -------
        Tensor
            Shape (B,), float32, from 0 to 1000.
        """
        return (self.alpha_bar.to(t.device)[t] * TIME_SCALE).float()

    def noise_time(self, level: Tensor) -> Tensor:
        """Return what the noise network is told of the time (Eq. 10): beta_bar_t / sigma x 1000.

        Parameters
        ----------
        level : Tensor
            Shape (B,): beta_bar_t, or any standard deviation up to sigma.

        Returns
        -------
        Tensor
            Shape (B,), float32, from 0 to 1000.
        """
        return (level / self.sigma * TIME_SCALE).float()


def linear_variance_schedule(
    sigma: float, steps: int = 1000, first: float = 1e-4, last: float = 0.02
) -> Schedule:
    """Build the reference schedule: DDPM's linear variances (Ho et al., arXiv 2006.11239).

    With the running product P of (1 - variance), alpha_bar = 1 - sqrt(P) and beta_bar =
    sqrt(1 - P). Neither ends at 1 (0.9936 and 0.99998 with the reference numbers), so both are
    rescaled: alpha_bar to end at 1 (Eq. 3), beta_bar at sigma (Eq. 2). The paper does not print
    its schedules; these are those of its released code.

    Parameters
    ----------
    sigma : float
        The noise of the residual stage, on the [-1, 1] scale.
    steps : int
        T, the number of time steps.
    first, last : float
        Variance added at the first and the last step.
    """
    variance = torch.linspace(first, last, steps, dtype=torch.float64)
    kept = torch.cat([torch.ones(1, dtype=torch.float64), torch.cumprod(1 - variance, dim=0)])
    alpha_bar = 1 - kept.sqrt()
    beta_bar = (1 - kept).sqrt()
    return Schedule(alpha_bar / alpha_bar[-1], sigma * beta_bar / beta_bar[-1])
