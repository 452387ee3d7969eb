from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from medtrans.config.schema import PercentileScale, WindowScale
from medtrans.errors import FileError
from medtrans.preprocessing.intensity import Profile, measure_profile, typical_profile

PERCENTILES = PercentileScale(scale="percentile", lower=0.5, upper=99.5, background=0.0)
HU = WindowScale(scale="window", window_hu=(-1000.0, 2000.0), background=-1000.0)


class TestProfile:
    def test_maps_low_and_high_onto_minus_one_and_one(self) -> None:
        profile = Profile(-20.0, 180.0)
        values = np.array([-20, 80, 180], dtype=np.float32)
        assert profile.normalise(values).tolist() == [-1, 0, 1]
        assert profile.restore(np.array([-1, 0, 1], dtype=np.float32)).tolist() == [-20, 80, 180]

    def test_clips_both_ways(self) -> None:
        profile = Profile(0.0, 10.0)
        assert profile.normalise(np.array([-5, 20], dtype=np.float32)).tolist() == [-1, 1]
        assert profile.restore(np.array([-3, 3], dtype=np.float32)).tolist() == [0, 10]

    @given(st.floats(-2000, 2000), st.floats(1, 5000))
    def test_restore_undoes_normalise(self, low: float, width: float) -> None:
        profile = Profile(low, low + width)
        values = np.linspace(low, low + width, 50, dtype=np.float32)
        back = profile.restore(profile.normalise(values))
        np.testing.assert_allclose(back, values, atol=1e-5 * (abs(low) + width))
        assert back.dtype == np.float32


class TestMeasure:
    def test_percentiles_of_the_foreground_alone(self) -> None:
        image = np.full((10, 10, 10), 1e6, dtype=np.float32)
        mask = np.zeros(image.shape, dtype=bool)
        mask[:5] = True
        image[mask] = np.arange(500)
        profile = measure_profile(image, mask, PERCENTILES)
        low, high = np.percentile(np.arange(500), [0.5, 99.5])
        assert (profile.low, profile.high) == pytest.approx((low, high))

    def test_negative_values(self) -> None:
        image = np.linspace(-900, -100, 1000, dtype=np.float32).reshape(10, 10, 10)
        profile = measure_profile(image, np.ones(image.shape, dtype=bool), PERCENTILES)
        assert (profile.low, profile.high) == pytest.approx((-896, -104))

    def test_follows_the_scanners_gain(self) -> None:
        image = np.random.default_rng(0).random((8, 8, 8)).astype(np.float32)
        mask = np.ones(image.shape, dtype=bool)
        one = measure_profile(image, mask, PERCENTILES).normalise(image)
        other = image * 37 + 5
        two = measure_profile(other, mask, PERCENTILES).normalise(other)
        np.testing.assert_allclose(one, two, atol=1e-4)

    def test_window_does_not_look_at_the_voxels(self) -> None:
        image = np.full((2, 2, 2), 40, dtype=np.float32)
        profile = measure_profile(image, np.ones(image.shape, dtype=bool), HU)
        assert (profile.low, profile.high) == (-1000, 2000)
        np.testing.assert_allclose(profile.restore(profile.normalise(image)), 40, atol=1e-3)

    def test_no_contrast_is_refused(self) -> None:
        image = np.full((3, 3, 3), 12, dtype=np.float32)
        with pytest.raises(FileError, match=r"both 12.*no contrast"):
            measure_profile(image, np.ones(image.shape, dtype=bool), PERCENTILES)


def test_typical_profile_is_the_median() -> None:
    profiles = [Profile(0, 100), Profile(5, 90), Profile(-50, 5000)]
    assert typical_profile(iter(profiles)) == Profile(0, 100)
