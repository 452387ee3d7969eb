"""Fixtures that every test may use."""

from __future__ import annotations

import signal
import sys
from collections.abc import Iterator
from pathlib import Path

import hypothesis
import pytest

from medtrans.cli import app
from medtrans.config.schema import Pipeline
from tests import helpers
from tests.helpers import Answer, Run

hypothesis.settings.register_profile("medtrans", deadline=None, max_examples=40)
hypothesis.settings.load_profile("medtrans")


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Folder of real images beside the repository; the test skips where it is missing."""
    folder = Path(__file__).resolve().parents[2] / "shared" / "data"
    if not folder.is_dir():
        pytest.skip(f"the real images are not there: {folder}")
    return folder


@pytest.fixture(scope="session")
def pipeline() -> Pipeline:
    """t1-to-t2 with a network of a few hundred weights, on the input's own grid."""
    return helpers.tiny_pipeline()


@pytest.fixture(scope="session")
def random_model(tmp_path_factory: pytest.TempPathFactory, pipeline: Pipeline) -> Path:
    """Folder of a model package whose two networks have random weights."""
    return helpers.save_model(tmp_path_factory.mktemp("models") / "random", pipeline)


@pytest.fixture(scope="session")
def identity_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of a model package that predicts no residual; both contrasts map 0 ... 1000."""
    folder = tmp_path_factory.mktemp("models") / "identity"
    return helpers.save_model(folder, helpers.linear_pipeline(), identity=True)


@pytest.fixture(scope="session")
def cohort(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Manifest of three phantom subjects, t1 and t2: one each for train, val and test."""
    return helpers.write_cohort(tmp_path_factory.mktemp("cohort"))


@pytest.fixture(scope="session")
def dcm2niix() -> str:
    """Path of the dcm2niix program that its package carries, or skip."""
    package = pytest.importorskip("dcm2niix", reason="dcm2niix is not installed")
    return str(package.bin)


@pytest.fixture
def medtrans(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Iterator[Run]:
    """Type a command in this process; gives its exit code, stdout and stderr."""

    def run(*arguments: object) -> Answer:
        monkeypatch.setattr(sys, "argv", ["medtrans", *map(str, arguments)])
        capfd.readouterr()
        with pytest.raises(SystemExit) as stopped:
            app.main()
        return Answer(int(stopped.value.code or 0), *capfd.readouterr())

    before = signal.getsignal(signal.SIGTERM)
    yield run
    signal.signal(signal.SIGTERM, before)
