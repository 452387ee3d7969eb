"""Bands of detail: they add up, see no edge of the foreground, and can be raised."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import ndimage

from medtrans.preprocessing.detail import (
    BANDS_SD,
    MOST_GAIN,
    amplitudes,
    missing,
    raised,
)
from medtrans.volumes.voxels import Mask, Voxels

SHAPE = (40, 36, 30)


def ball() -> Mask:
    axes = np.ogrid[tuple(slice(-1, 1, n * 1j) for n in SHAPE)]
    return np.asarray(sum(axis**2 for axis in axes) < 0.8)


def texture(sd: float, seed: int = 0) -> Voxels:
    """Noise of one scale, of unit variance."""
    noise = np.random.default_rng(seed).standard_normal(SHAPE)
    blurred = ndimage.gaussian_filter(noise, sd)
    return (blurred / blurred.std()).astype(np.float32)


def test_gains_of_one_change_nothing() -> None:
    volume = texture(1.0)
    assert np.allclose(raised(volume, ball(), [1.0] * len(BANDS_SD)), volume, atol=1e-6)


def test_a_constant_foreground_has_no_detail_whatever_lies_around_it() -> None:
    volume = np.where(ball(), np.float32(0.7), np.float32(-1))
    assert max(amplitudes(volume, ball())) < 1e-5
    assert np.allclose(raised(volume, ball(), [3.0] * len(BANDS_SD)), volume, atol=1e-4)


@pytest.mark.parametrize(("sd", "band"), [(0.0, 0), (2.0, 2), (5.0, 3)])
def test_detail_of_a_scale_is_in_its_band(sd: float, band: int) -> None:
    assert int(np.argmax(amplitudes(texture(sd), ball()))) == band


@given(st.lists(st.floats(1, MOST_GAIN), min_size=4, max_size=4), st.integers(0, 9))
def test_only_the_foreground_changes(gains: list[float], seed: int) -> None:
    volume, mask = texture(1.0, seed), ball()
    assert np.array_equal(raised(volume, mask, gains)[~mask], volume[~mask])


@pytest.mark.parametrize("band", range(len(BANDS_SD)))
def test_a_band_that_is_raised_is_stronger_beside_the_others(band: int) -> None:
    volume, mask = texture(1.0) + texture(4.0, 1), ball()
    gains = [2.0 if k == band else 1.0 for k in range(len(BANDS_SD))]
    before, after = (np.array(amplitudes(v, mask)) for v in (volume, raised(volume, mask, gains)))
    share_before, share_after = before / before.sum(), after / after.sum()
    assert share_after[band] > 1.05 * share_before[band]  # bands overlap


def test_contrast_is_no_detail() -> None:
    """An image of half the contrast, its black where it was, has as much."""
    volume, mask = 0.1 * texture(1.0), ball()
    dimmed = (volume + 1) / 2 - 1
    assert amplitudes(dimmed, mask) == pytest.approx(amplitudes(volume, mask), rel=1e-4)


def test_a_blurred_image_gets_its_detail_back() -> None:
    """The amplitudes of a blurred image come near the real ones, and the image gets no worse."""
    mask = ball()
    real = 0.1 * texture(1.0, 3) + 0.2 * texture(3.0, 4)
    blurred = ndimage.gaussian_filter(real, 1.0)
    gains = missing(amplitudes(blurred, mask), amplitudes(real, mask))
    sharp = raised(blurred, mask, gains)
    before, after = (
        np.array(amplitudes(v, mask)) / amplitudes(real, mask) for v in (blurred, sharp)
    )
    assert np.all(np.abs(np.log(after[:3])) < np.abs(np.log(before[:3])))
    assert np.abs(sharp - real)[mask].mean() < np.abs(blurred - real)[mask].mean()


def test_gains_are_between_one_and_the_most() -> None:
    assert missing([1.0, 1.0, 1.0, 0.0], [0.5, 2.0, 9.0, 1.0]) == [1.0, 2.0, MOST_GAIN, MOST_GAIN]
