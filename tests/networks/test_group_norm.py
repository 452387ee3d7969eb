"""The faster group norm is torch's, to the rounding of bfloat16."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from medtrans.networks.group_norm import FastGroupNorm, use_fast_norms
from medtrans.networks.unet import residual_network
from tests import helpers


def pair(groups: int, channels: int) -> tuple[nn.GroupNorm, FastGroupNorm]:
    rng = torch.Generator().manual_seed(1)
    plain, fast = nn.GroupNorm(groups, channels), FastGroupNorm(groups, channels)
    with torch.no_grad():
        plain.weight.copy_(torch.randn(channels, generator=rng))
        plain.bias.copy_(torch.randn(channels, generator=rng))
    fast.load_state_dict(plain.state_dict())
    return plain, fast


def gradients(norm: nn.Module, x: Tensor, dy: Tensor) -> list[Tensor]:
    x = x.clone(memory_format=torch.preserve_format).requires_grad_()
    y = norm(x)
    return [y.detach(), *torch.autograd.grad(y, (x, *norm.parameters()), dy.to(y.dtype))]


def images(dtype: torch.dtype, layout: torch.memory_format) -> tuple[Tensor, Tensor]:
    rng = torch.Generator().manual_seed(0)
    x, dy = (torch.randn(3, 24, 10, 14, generator=rng) for _ in range(2))
    return (x * 2 + 0.5).to(dtype).to(memory_format=layout), dy.to(dtype).to(memory_format=layout)


@pytest.mark.parametrize("groups", [1, 6, 24])
def test_gradients_are_those_of_float32(groups: int) -> None:
    plain, fast = pair(groups, 24)
    x, dy = images(torch.bfloat16, torch.channels_last)
    exact = gradients(plain, x.float(), dy.float())
    native = gradients(plain, x, dy)
    found = gradients(fast, x, dy)
    for mine, truth in zip(found, exact, strict=True):
        assert (mine.float() - truth).abs().max() / truth.abs().max() < 0.02
    mine_off, torchs_off = ((dx[1].float() - exact[1]).square().mean() for dx in (found, native))
    assert mine_off <= 4 * torchs_off


def test_gradient_comes_in_the_order_of_the_image() -> None:
    _, fast = pair(6, 24)
    x, dy = images(torch.bfloat16, torch.channels_last)
    for cotangent in (dy, dy.contiguous()):
        dx = gradients(fast, x, cotangent)[1]
        assert dx.is_contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_others_take_torchs_own_path(dtype: torch.dtype) -> None:
    plain, fast = pair(6, 24)
    x, dy = images(dtype, torch.contiguous_format)
    for mine, torchs in zip(gradients(fast, x, dy), gradients(plain, x, dy), strict=True):
        assert torch.equal(mine, torchs)


def test_a_network_keeps_its_state_and_its_answers() -> None:
    network = helpers.randomise(residual_network(helpers.tiny_pipeline(), 0), 0)
    norms = [m for m in network.modules() if isinstance(m, nn.GroupNorm)]
    assert norms
    assert all(type(norm) is FastGroupNorm for norm in norms)
    keys = list(network.state_dict())
    use_fast_norms(network)  # nothing left to replace
    assert list(network.state_dict()) == keys
