"""The page of a translation: what was written, how it was made, and nothing of the patient."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from medtrans.config.terms import Kind
from medtrans.errors import GeometryError
from medtrans.inference.jobs import Job
from medtrans.inference.settings import Settings
from medtrans.inference.translator import Translator, Written
from medtrans.report.translation import Extras, describe, save_translation, translation_scene
from medtrans.volumes.files import load
from medtrans.volumes.voxels import Loaded
from tests import helpers
from tests.volumes.builders import dicom_series

Translate = Callable[..., tuple[Loaded, Written]]


@pytest.fixture
def translate(random_model: Path, tmp_path: Path) -> Translate:
    translator = Translator.load(random_model, "cpu")

    def run(voxels: np.ndarray, affine: np.ndarray, name: str = "t1.nii.gz") -> tuple:
        path = helpers.write_nifti(tmp_path / name, voxels, affine)
        written = translator.translate_file(Job(path, tmp_path / "out.nii.gz"), Settings(seed=12))
        return load(path, None, None), written

    return run


def test_layers_and_facts(translate: Translate) -> None:
    source, written = translate(*helpers.head())
    scene = translation_scene(source, written)
    assert [shown.layer.name for shown in scene.shown] == ["Source T1", "SYNTHETIC T2"]
    page = describe(scene, source.source, written)
    assert page.title == "Synthetic T2 from T1"
    made = dict(page.sections["How it was made"])
    assert made["Model"] == written.provenance.model
    assert made["Model SHA256"] == written.provenance.model_sha256
    assert made["Source SHA256"] == source.source.sha256
    assert made["Seed"] == "12"
    assert {
        "Task",
        "Mode",
        "Noise steps",
        "Device",
        "Precision",
        "Time taken",
        "Page written",
    } <= made.keys()
    for name in ("medtrans", "PyTorch", "MONAI", "NumPy", "Python"):
        assert f"{name} " in made["Versions"]
    figures = dict(page.sections["Numbers"])
    assert figures["Grid"] == "24 x 28 x 20 voxels of 8 x 8 x 8 mm"
    assert figures["Source T1"].startswith("median ")


def test_what_is_shown_is_the_file(translate: Translate) -> None:
    """Also where something changed it after the translation."""
    source, written = translate(*helpers.head())
    changed = nib.load(written.outputs[0])
    changed = nib.Nifti1Image(changed.get_fdata() + 5, changed.affine, changed.header)
    changed.to_filename(written.outputs[0])
    synthetic = translation_scene(source, written).shown[1].voxels
    assert synthetic.max() == pytest.approx(written.translation.voxels.max() + 5, abs=1e-3)


def test_reference_error_and_uncertainty(translate: Translate) -> None:
    voxels, affine = helpers.head()
    source, written = translate(voxels, affine)
    reference = (3 * written.translation.voxels + 7).astype(np.float32)
    scene = translation_scene(source, written, Extras(reference, uncertainty=0 * reference))
    roles = [shown.layer.role for shown in scene.shown]
    assert roles == ["source", "synthetic", "reference", "error", "uncertainty"]
    figures = dict(describe(scene, source.source, written).sections["Numbers"])
    assert "after a linear fit" in figures["Absolute error"]
    assert np.abs(scene.shown[3].voxels).max() < 1e-2  # MR has no unit: a gain is no error
    given = translation_scene(source, written, Extras(reference, error=reference))
    assert np.array_equal(given.shown[3].voxels, given.shown[2].voxels)


def test_another_shape_is_refused(translate: Translate, tmp_path: Path) -> None:
    source, written = translate(*helpers.head())
    other = Extras(uncertainty=np.ones((3, 4, 5), dtype=np.float32))
    with pytest.raises(GeometryError, match="Uncertainty and Source T1"):
        save_translation(tmp_path / "page.html", source, written, other)


@pytest.mark.parametrize("kind", ["dicom", "nifti"])
def test_a_series(random_model: Path, tmp_path: Path, kind: Kind) -> None:
    """The output is read again, in whatever order it was stored."""
    series = dicom_series(tmp_path / "study", 9, rows=8, columns=9, PixelData=pixels)
    translator = Translator.load(random_model, "cpu")
    job = Job(series, tmp_path / ("out.nii.gz" if kind == "nifti" else "out"), kind=kind)
    written = translator.translate_file(job)
    source, spread = load(series, None, None), written.translation.voxels
    scene = translation_scene(source, written, Extras(reference=spread, uncertainty=spread))
    synthetic, reference = scene.shown[1].voxels, scene.shown[2].voxels
    assert np.abs(synthetic - reference).max() <= 0.01 * np.ptp(reference)
    save_translation(tmp_path / "page.html", source, written)
    assert "Doe" not in re.sub(r"[\w+/=]{500,}", "", (tmp_path / "page.html").read_text())


def pixels(k: int) -> bytes:
    return np.random.default_rng(k).integers(1, 900, (8, 9)).astype("<u2").tobytes()


def test_no_name_of_a_patient(translate: Translate, tmp_path: Path) -> None:
    """A warning of the reader names its file; the page does not."""
    voxels, affine = helpers.head()
    voxels = voxels.copy()
    voxels[12, 14, 10] = np.nan
    source, written = translate(voxels, affine, "DOE^JANE_1970.nii.gz")
    assert any("DOE" in sentence for sentence in written.translation.warnings)
    page = tmp_path / "page.html"
    save_translation(page, source, written)
    text = re.sub(r"[\w+/=]{500,}", "", page.read_text(encoding="utf-8"))  # without the voxels
    assert "the input: 1 of 13440 voxels were NaN" in text
    for part in ("DOE", "1970", str(tmp_path), "out.nii"):
        assert part not in text
