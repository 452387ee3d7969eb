from __future__ import annotations

import gc
import multiprocessing
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

SYSTEM = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")


@pytest.fixture(scope="session")
def browser() -> Iterator[Any]:
    """Chromium: what playwright downloads and the system's own both serve."""
    sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    with sync_api.sync_playwright() as playwright:
        own = Path(playwright.chromium.executable_path)
        found = [str(own)] if own.is_file() else [p for n in SYSTEM if (p := shutil.which(n))]
        if not found:
            pytest.skip("there is no Chromium: make browser")
        chromium = playwright.chromium.launch(executable_path=found[0])
        yield chromium
        chromium.close()
        # A process that reads ahead, left by a failed training of another test, holds the pipe of
        # playwright's driver, which would wait for its end.
        gc.collect()
        for child in multiprocessing.active_children():
            child.terminate()
