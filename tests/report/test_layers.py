"""What a synthetic volume is wrong by: of MR after a linear fit, of CT in HU, nothing outside."""

from __future__ import annotations

import numpy as np
import pytest

from medtrans.report.layers import error_layer
from tests import helpers
from tests.report import builders


def test_a_gain_is_no_error_of_an_mr_image() -> None:
    truth = builders.marked()
    layer = error_layer(3 * truth + 7, helpers.volume(truth), "")
    assert np.abs(layer.volume.numpy()).max() < 1e-2
    assert "after a linear fit" in layer.note


def test_hu_are_compared_as_they_are_and_where_the_patient_is() -> None:
    truth, mask = builders.marked(), np.zeros((13, 14, 12), dtype=bool)
    mask[5, 6, 7] = True
    layer = error_layer(truth - 30, helpers.volume(truth), "HU", mask)
    assert np.argwhere(layer.volume.numpy()).tolist() == [[5, 6, 7]]
    assert layer.volume.numpy().max() == pytest.approx(30)
    assert (layer.unit, layer.note) == ("HU", "")


def test_a_prediction_of_one_value_cannot_be_fitted() -> None:
    truth = builders.marked()
    layer = error_layer(0 * truth, helpers.volume(truth), "")
    assert layer.volume.numpy().max() == truth.max()
