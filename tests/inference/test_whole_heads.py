"""A whole head given to a model of skull-stripped brains."""

from __future__ import annotations

import json
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from medtrans.brain.finder import Brain
from medtrans.cli.translate import choose_mask
from medtrans.errors import FileError, UsageError
from medtrans.inference import patient
from medtrans.inference.cohort import Unchanged, translate_cohort
from medtrans.inference.jobs import Job
from medtrans.inference.settings import Settings
from medtrans.inference.translator import Translator
from tests import helpers

FOUND = Brain(1.234567, 0.95, "a" * 64)


@pytest.fixture(scope="module")
def translator(tmp_path_factory: pytest.TempPathFactory) -> Translator:
    """Load a model of skull-stripped brains."""
    return load_stripped(tmp_path_factory.mktemp("m") / "m", brains=True)


def load_stripped(model: Path, *, brains: bool) -> Translator:
    helpers.save_model(model, helpers.tiny_pipeline(volume={"brains": brains}))
    metadata = model / "configs" / "metadata.json"
    text = metadata.read_text()
    metadata.write_text(text.replace('"masked_background": false', '"masked_background": true'))
    return Translator.load(model, "cpu")


@pytest.fixture
def head(tmp_path: Path) -> Path:
    image, affine = helpers.head(skull_stripped=False)
    noisy = image + np.random.default_rng(0).random(image.shape).astype(np.float32)
    return helpers.write_nifti(tmp_path / "head.nii.gz", noisy, affine)


@pytest.fixture
def brain(monkeypatch: pytest.MonkeyPatch) -> np.ndarray:
    """Let the brain be found."""
    inside = helpers.head()[0] > 0
    monkeypatch.setattr(patient, "find_brain", lambda *_: (inside, FOUND))
    return inside


@pytest.fixture
def no_search(monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(*_: object) -> None:
        raise AssertionError("a brain was looked for")

    monkeypatch.setattr(patient, "find_brain", fails)


def shown(path: Path) -> np.ndarray:
    return np.asarray(nib.load(path).dataobj)


def sidecar(path: Path) -> dict[str, object]:
    return json.loads(path.with_name(path.name.replace(".nii.gz", ".json")).read_text())


def test_its_brain_is_translated_and_nothing_else(
    translator: Translator, head: Path, brain: np.ndarray
) -> None:
    job = Job(head, head.with_name("out.nii.gz"), save_mask=head.with_name("mask.nii.gz"))
    written = translator.translate_file(job)
    assert written.translation.warnings == ()
    assert written.translation.brain == FOUND
    assert not shown(job.out)[~brain].any()
    assert shown(job.out)[brain].any()
    mask = shown(job.save_mask)
    assert mask.dtype.kind in "iu"
    assert np.array_equal(mask > 0, brain)
    said = sidecar(job.out)
    assert said["BrainExtraction"] == "auto"
    assert said["BrainLitres"] == 1.235
    assert sidecar(job.save_mask)["Content"] == "mask of what was translated"


def test_it_equals_the_translation_of_the_stripped_head(
    translator: Translator, brain: np.ndarray
) -> None:
    image, affine = helpers.head()
    whole = np.where(brain, image, 100 + np.random.default_rng(0).random(image.shape))
    result = translator.translate_volume(helpers.volume(whole, affine), Settings())
    stripped = translator.translate_volume(helpers.volume(image, affine), Settings())
    assert result.brain is not None
    assert stripped.brain is None
    assert np.array_equal(result.voxels, stripped.voxels)


@pytest.mark.usefixtures("no_search")
def test_a_stripped_brain_and_an_own_mask_need_no_search(
    translator: Translator, head: Path
) -> None:
    image, affine = helpers.head()
    assert translator.translate_volume(helpers.volume(image, affine), Settings()).warnings == ()
    mask = helpers.write_nifti(head.with_name("m.nii.gz"), (image > 0).astype(np.uint8), affine)
    written = translator.translate_file(Job(head, head.with_name("out.nii.gz"), mask=mask))
    assert "BrainExtraction" not in sidecar(written.outputs[0])
    assert np.array_equal(written.translation.support, image > 0)


@pytest.mark.usefixtures("no_search")
def test_none_takes_the_head_as_it_is_and_says_so(translator: Translator, head: Path) -> None:
    written = translator.translate_file(head, Settings(brain="none"))
    [warning] = written.translation.warnings
    assert "skull" in warning
    assert "--brain auto" in warning
    assert sidecar(written.outputs[0])["BrainExtraction"] == "none"


@pytest.mark.usefixtures("no_search")
def test_a_label_map_is_refused(translator: Translator) -> None:
    _, affine = helpers.head()
    labels = np.random.default_rng(0).integers(1, 9, helpers.SHAPE).astype(np.float32)
    with pytest.raises(FileError, match=r"8 different values.*--brain none"):
        translator.translate_volume(helpers.volume(labels, affine), Settings())


@pytest.mark.usefixtures("no_search")
def test_a_model_of_whole_heads_takes_them(identity_model: Path, head: Path) -> None:
    written = Translator.load(identity_model, "cpu").translate_file(head)
    assert "BrainExtraction" not in sidecar(written.outputs[0])


@pytest.mark.usefixtures("no_search")
def test_a_model_of_other_stripped_things_has_nothing_looked_for(
    tmp_path: Path, head: Path
) -> None:
    written = load_stripped(tmp_path / "m", brains=False).translate_file(head)
    [warning] = written.translation.warnings
    assert "as a whole head does" in warning
    assert "BrainExtraction" not in sidecar(written.outputs[0])


def test_a_rerun_leaves_a_result_unless_the_search_is_another(
    translator: Translator, head: Path, brain: np.ndarray
) -> None:
    jobs = [Job(head, head.with_name("out.nii.gz"), save_mask=head.with_name("mask.nii.gz"))]

    def results(settings: Settings) -> list[object]:
        return translate_cohort(translator, jobs, settings, strict=True, on_done=lambda *_: None)

    assert not isinstance(results(Settings())[0], Unchanged)
    assert isinstance(results(Settings())[0], Unchanged)
    assert not isinstance(results(Settings(brain="none"))[0], Unchanged)


def test_mask_and_brain_are_one_wish() -> None:
    assert choose_mask("auto", None) == ("auto", None)
    assert choose_mask("none", Path("m.nii")) == ("none", Path("m.nii"))
    assert choose_mask("m.nii", None) == ("auto", Path("m.nii"))
    with pytest.raises(UsageError, match="both name a mask"):
        choose_mask("a.nii", Path("b.nii"))
    with pytest.raises(UsageError, match="auto, none"):
        Settings(brain="m.nii")  # type: ignore[arg-type]
