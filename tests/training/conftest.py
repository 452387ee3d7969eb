from __future__ import annotations

from pathlib import Path

import pytest

from medtrans.config.schema import Pipeline
from medtrans.data.manifest import Manifest
from medtrans.training.cache import CachedVolume, VolumeCache


@pytest.fixture(scope="session")
def cached(
    cohort: Path, pipeline: Pipeline, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, dict[str, CachedVolume]]:
    """Split -> contrast -> the preprocessed volume of the phantoms."""
    cache = VolumeCache(tmp_path_factory.mktemp("cache"), pipeline)
    found: dict[str, dict[str, CachedVolume]] = {}
    for entry in Manifest.read(cohort).entries():
        found.setdefault(entry.split, {})[entry.contrast] = cache.get(entry)
    return found
