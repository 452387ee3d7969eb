"""Places that may not be written, and inputs that go away: a sentence that names them."""

from __future__ import annotations

import re
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch._dynamo  # noqa: F401 - the first optimizer would, when its files may not be read

from medtrans.config.schema import Pipeline
from medtrans.inference.jobs import Job
from medtrans.inference.settings import Settings
from medtrans.inference.translator import Translator
from medtrans.training.run import train
from tests import helpers
from tests.faults.limits import DONE, without_rights, writing_at_most
from tests.faults.test_full_disk import SENTENCE, WRITES, Write, contents, make_inputs
from tests.faults.trainings import small_plan


@pytest.fixture
def place() -> Iterator[Path]:
    """A folder that everybody may enter; those of pytest are their owner's alone."""
    with tempfile.TemporaryDirectory(prefix="medtrans-test-") as folder:
        Path(folder).chmod(0o755)
        yield Path(folder)


@pytest.fixture(scope="module")
def inputs() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="medtrans-test-") as folder:
        Path(folder).chmod(0o755)
        yield make_inputs(Path(folder))


@pytest.mark.parametrize("write", WRITES.values(), ids=WRITES.keys())
class TestReadOnly:
    def test_a_folder(self, place: Path, inputs: Path, write: Write) -> None:
        out = place / "out"
        out.mkdir()
        write(out, inputs)
        for folder in (*(path for path in out.rglob("*") if path.is_dir()), out):
            folder.chmod(0o555)
        before = contents(out)
        told = without_rights(lambda: write(out, inputs))
        assert "\n" not in told, told
        assert re.search(f"{SENTENCE}|cannot be made|expected a new", told) or told == DONE, told
        assert contents(out) == before

    def test_an_empty_folder(self, place: Path, inputs: Path, write: Write) -> None:
        out = place / "out"
        out.mkdir(mode=0o555)
        told = without_rights(lambda: write(out, inputs))
        assert re.search(rf"{SENTENCE}|cannot be made", told), told
        assert "Permission denied" in told or "could not write" in told
        assert "\n" not in told
        assert contents(out) == {}


class TestInputsThatGoAway:
    def test_a_volume_of_a_training(self, cohort: Path, pipeline: Pipeline, tmp_path: Path) -> None:
        """The manifest was checked when it was there."""
        data = Path(shutil.copytree(cohort.parent, tmp_path / "data"))
        plan = small_plan(data / cohort.name, tmp_path / "run", pipeline)
        (data / "sub-001" / "t2.nii.gz").unlink()
        told = writing_at_most(2**40, lambda: train(plan))
        assert re.match(rf"{data}/sub-001/t2\.nii\.gz: there is no such file", told), told

    def test_a_volume_that_may_not_be_read(self, place: Path, identity_model: Path) -> None:
        path = helpers.write_nifti(place / "t1.nii.gz", *helpers.head())
        translator = Translator.load(identity_model, "cpu")
        path.chmod(0o000)
        told = without_rights(lambda: translator.translate_file(Job(path), Settings()))
        assert re.match(rf"{path}: the file cannot be read \(Permission denied\)", told), told
