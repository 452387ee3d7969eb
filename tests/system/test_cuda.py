"""What a GPU gives is what the CPU gives; runs where PyTorch sees one, and says so where not."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from medtrans.inference.settings import Settings
from medtrans.inference.translator import Translator
from tests import helpers

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="PyTorch sees no CUDA device")


@pytest.mark.parametrize("mode", ["fidelity", "realistic"])
def test_gpu_agrees_with_cpu(random_model: Path, mode: str) -> None:
    """At least 60 dB, both in float32."""
    head = helpers.volume(*helpers.head())
    results = []
    for device in ("cpu", "cuda"):
        translator = Translator.load(random_model, device, "float32")
        results.append(translator.translate_volume(head, Settings(mode=mode)).voxels)
    error = float(np.mean((results[0] - results[1]) ** 2))
    assert 10 * np.log10(float(np.ptp(results[0])) ** 2 / max(error, 1e-12)) >= 60


def test_gpu_computes_in_bfloat16(random_model: Path) -> None:
    translator = Translator.load(random_model, "auto")
    assert translator.device.type == "cuda"
    result = translator.translate_volume(helpers.volume(*helpers.head()), Settings())
    assert np.isfinite(result.voxels).all()
