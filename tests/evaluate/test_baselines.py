"""What a translation must beat."""

from __future__ import annotations

import numpy as np
import pytest

from medtrans.evaluate.baselines import ToneCurve


class TestToneCurve:
    def test_is_the_conditional_mean(self) -> None:
        rng = np.random.default_rng(0)
        source = rng.uniform(-1, 1, 200_000).astype(np.float32)
        target = source**2 + 0.1 * rng.standard_normal(source.size)
        half = source.size // 2
        parts = [(source[:half], target[:half]), (source[half:], target[half:])]
        curve = ToneCurve.fit(parts)
        x = np.linspace(-0.95, 0.95, 40, dtype=np.float32)
        np.testing.assert_allclose(curve(x), x**2, atol=0.03)
        assert curve(x).dtype == np.float32

    def test_holds_its_ends(self) -> None:
        source = np.linspace(0, 0.5, 1000, dtype=np.float32)
        curve = ToneCurve.fit([(source, 2 * source)])
        low, high = curve(np.array([-1, 1], dtype=np.float32))
        assert low == pytest.approx(0, abs=0.01)
        assert high == pytest.approx(1, abs=0.01)
