from __future__ import annotations

import pytest
import torch
from torch import Tensor

from medtrans.config.schema import Pipeline
from medtrans.networks.head import without_period
from medtrans.networks.transfer import copy_matching, misfitting
from medtrans.networks.unet import TimeUNet, residual_network
from tests import helpers


def without_head() -> Pipeline:
    return helpers.tiny_pipeline(network={"head_features": 0})


def call(network: TimeUNet, x: Tensor) -> Tensor:
    with torch.inference_mode():
        return network(x, torch.full((len(x),), 500.0))


def noise(*shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("period", [2, 3, 4])
def test_nothing_of_the_period_passes(period: int) -> None:
    block = noise(1, 1, period, period)
    pattern = block.tile(1, 1, 6, 6)
    edge = 2 * period
    inner = without_period(pattern, period)[..., edge:-edge, edge:-edge]
    torch.testing.assert_close(inner, block.mean().expand_as(inner))


def test_a_constant_image_and_a_ramp_pass() -> None:
    flat = torch.full((2, 1, 8, 8), 0.7)
    torch.testing.assert_close(without_period(flat, 2), flat)
    ramp = torch.arange(8.0).expand(1, 1, 8, 8)
    torch.testing.assert_close(without_period(ramp, 2)[..., 2:-2], ramp[..., 2:-2])


def test_channels_stay_apart() -> None:
    image = noise(1, 3, 6, 6)
    together = without_period(image, 2)
    for channel in range(3):
        torch.testing.assert_close(
            together[:, channel], without_period(image[:, channel : channel + 1], 2)[:, 0]
        )


def test_starts_as_the_network_without_it_less_the_pattern() -> None:
    """So a model that was trained before there was a head can go on with one."""
    before = helpers.randomise(residual_network(without_head(), 0), 0).eval()
    after = residual_network(helpers.tiny_pipeline(), 1).eval()
    assert misfitting(after, before.state_dict()) == []
    copy_matching(after, before.state_dict())
    x = noise(2, 4, 8, 12)
    torch.testing.assert_close(call(after, x), without_period(call(before, x), 2))


def test_a_head_is_not_lost_without_a_word() -> None:
    with_head = residual_network(helpers.tiny_pipeline(), 0).state_dict()
    names = misfitting(residual_network(without_head(), 0), with_head)
    assert "head.last.weight" in names
    assert "unet.out.2.features.weight" in names


def test_nothing_writes_a_grid() -> None:
    """Whatever the weights are: a constant input stays without a pattern, away from the border."""
    network = helpers.randomise(residual_network(helpers.tiny_pipeline(), 0), 0).eval()
    answer = call(network, torch.full((1, 4, 48, 48), 0.3))[0, 0, 18:30, 18:30]
    assert answer.std() < 1e-5 * (1 + answer.abs().mean())


def test_without_folding_there_is_no_head() -> None:
    assert residual_network(helpers.tiny_pipeline(network={"unshuffle": 1}), 0).head is None


def test_the_head_sees_the_input_at_full_resolution() -> None:
    """A single pixel of the input changes the answer at that pixel, by the head alone."""
    network = helpers.randomise(residual_network(helpers.tiny_pipeline(), 0), 0).eval()
    torch.nn.init.zeros_(network.unet.out[-1].conv.weight)
    torch.nn.init.zeros_(network.unet.out[-1].features.weight)
    x = noise(1, 4, 8, 8)
    changed = x.clone()
    changed[0, 0, 3, 4] += 1
    difference = (call(network, changed) - call(network, x)).abs()[0, 0]
    assert difference[3, 4] > 0
    assert difference[:, 7].max() == 0
