"""A file and an image of a Python library are read, checked, warned of and answered alike."""

from __future__ import annotations

import gzip
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import nibabel as nib
import numpy as np
import pytest
import SimpleITK as sitk
import torch
from monai.data import MetaTensor

from medtrans.errors import GeometryError, InputWarning, MedtransError, UsageError
from medtrans.inference.translator import Translator
from medtrans.volumes import read_volume
from tests import helpers

CANARY = b"DOE^JANE 1950"
UNITS = {"meter": 0.001, "micron": 1000.0, "mm": 1.0}


@pytest.fixture(scope="module")
def identity(identity_model: Path) -> Translator:
    return Translator.load(identity_model, "cpu")


def as_file(image: nib.Nifti1Image, folder: Path) -> Path:
    """Write header fields as they are: nibabel would tidy them up."""
    codes = {name: image.header[name].copy() for name in ("sform_code", "qform_code", "qoffset_x")}
    raw = bytearray(image.to_bytes())
    header = nib.Nifti1Header(bytes(raw[:348]), check=False)
    for name, value in codes.items():
        header[name] = value
    raw[:348] = header.binaryblock
    (folder / "scan.nii.gz").write_bytes(gzip.compress(bytes(raw), 1))
    return folder / "scan.nii.gz"


def as_loaded(image: nib.Nifti1Image, folder: Path) -> nib.Nifti1Image:
    return nib.load(as_file(image, folder))


def as_volume(image: nib.Nifti1Image, folder: Path) -> MetaTensor:
    return read_volume(as_file(image, folder))


def as_made(image: nib.Nifti1Image, folder: Path) -> nib.Nifti1Image:
    return image


def as_itk(image: nib.Nifti1Image, folder: Path) -> sitk.Image:
    out = sitk.GetImageFromArray(np.asarray(image.dataobj).T)
    out.SetSpacing(np.diag(image.affine)[:3].tolist())
    return out


def as_array(image: nib.Nifti1Image, folder: Path) -> tuple[np.ndarray, np.ndarray]:
    return np.asarray(image.dataobj), image.affine


Way = Callable[[nib.Nifti1Image, Path], Any]
WAYS = [as_file, as_loaded, as_made, as_volume]
EVERY_WAY = [*WAYS, as_itk, as_array]


class Answer(NamedTuple):
    image: Any
    voxels: np.ndarray
    said: list[str]


def translate(translator: Translator, given: Any) -> Answer:
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        out = translator.translate(given)
    said = [str(w.message) for w in caught if issubclass(w.category, InputWarning)]
    image = nib.load(out) if isinstance(out, Path) else out
    if isinstance(image, sitk.Image):
        return Answer(image, sitk.GetArrayFromImage(image).T, said)
    if isinstance(image, tuple):
        return Answer(image, image[0], said)
    return Answer(image, np.asarray(getattr(image, "dataobj", image)), said)


def nifti(voxels: np.ndarray | None = None, unit: str = "mm", **fields: Any) -> nib.Nifti1Image:
    voxels = helpers.head()[0] if voxels is None else voxels
    affine = np.diag([*(UNITS[unit] * np.array(helpers.SPACING_MM)), 1.0])
    image = nib.Nifti1Image(voxels, affine)
    image.set_qform(affine, 1)
    image.header.set_xyzt_units(unit, "sec")
    for name, value in fields.items():
        image.header[name] = value
    return image


@pytest.mark.parametrize("way", EVERY_WAY)
class TestEveryWay:
    def test_voxels_and_nothing_to_say(
        self, identity: Translator, tmp_path: Path, way: Way
    ) -> None:
        found = translate(identity, way(nifti(), tmp_path))
        np.testing.assert_allclose(found.voxels, np.clip(helpers.head()[0], 0, 1000), atol=1e-3)
        assert found.said == []

    def test_nan_and_infinity_become_0_and_are_counted(
        self, identity: Translator, tmp_path: Path, way: Way
    ) -> None:
        voxels = helpers.head()[0].astype(np.float32)
        voxels[12, 14, 10], voxels[12, 14, 11] = np.nan, np.inf
        found = translate(identity, way(nifti(voxels), tmp_path))
        [said] = found.said
        assert f"2 of {voxels.size} voxels were NaN or infinite and were set to 0" in said
        assert np.isfinite(found.voxels).all()
        assert np.abs(found.voxels[12, 14, 10:12]).max() < 1e-3

    def test_hu_are_no_mr(self, identity: Translator, tmp_path: Path, way: Way) -> None:
        voxels = helpers.head()[0].astype(np.float32)
        voxels[0, 0, 0] = -1000
        [said] = translate(identity, way(nifti(voxels), tmp_path)).said
        assert "it seems to be ct" in said

    def test_a_label_map(self, identity: Translator, tmp_path: Path, way: Way) -> None:
        labels = (helpers.head()[0] > 0).astype(np.uint8)
        labels[10:14, 10:14, 8:12] = 3
        [said] = translate(identity, way(nifti(labels), tmp_path)).said
        assert "as a label map does" in said

    @pytest.mark.parametrize("share", [0.6, 1.0])
    def test_mostly_nan_is_refused(
        self, identity: Translator, tmp_path: Path, way: Way, share: float
    ) -> None:
        voxels = helpers.head()[0].astype(np.float32)
        voxels.flat[: int(share * voxels.size)] = np.nan
        with pytest.raises(MedtransError, match="NaN or infinite; expected numbers"):
            translate(identity, way(nifti(voxels), tmp_path))

    def test_one_value_is_refused(self, identity: Translator, tmp_path: Path, way: Way) -> None:
        flat = np.full((6, 6, 6), 8, dtype=np.int16)
        with pytest.raises(MedtransError, match="value 8"):
            translate(identity, way(nifti(flat), tmp_path))


@pytest.mark.parametrize("way", WAYS)
class TestHeader:
    @pytest.mark.parametrize("unit", UNITS)
    def test_units(self, identity: Translator, tmp_path: Path, way: Way, unit: str) -> None:
        image = nifti(unit=unit)
        found = translate(identity, way(image, tmp_path))
        assert found.said == []
        np.testing.assert_allclose(found.voxels, np.clip(helpers.head()[0], 0, 1000), atol=1e-3)
        if way is not as_volume:
            assert np.array_equal(found.image.affine, image.affine)
            assert found.image.header.get_xyzt_units() == (unit, "sec")

    def test_unknown_units_are_refused(
        self, identity: Translator, tmp_path: Path, way: Way
    ) -> None:
        with pytest.raises(GeometryError, match="xyzt_units"):
            translate(identity, way(nifti(xyzt_units=7), tmp_path))

    def test_a_spacing_in_no_unit_of_ours_is_refused(
        self, identity: Translator, tmp_path: Path, way: Way
    ) -> None:
        with pytest.raises(GeometryError, match="spacing"):
            translate(identity, way(nifti(unit="micron", xyzt_units=1), tmp_path))

    def test_no_text_survives(self, identity: Translator, tmp_path: Path, way: Way) -> None:
        image = nifti(descrip=CANARY, aux_file=CANARY, db_name=CANARY, intent_name=CANARY)
        image.header.extensions.append(nib.nifti1.Nifti1Extension("comment", CANARY))
        out = translate(identity, way(image, tmp_path)).image
        if isinstance(out, MetaTensor):
            assert CANARY.decode() not in repr(out.meta)
            return
        assert CANARY not in out.to_bytes()
        assert b"SYNTHETIC" in out.header["descrip"].tobytes()
        for name in ("aux_file", "db_name", "intent_name"):
            assert out.header[name].tobytes().strip(b"\0") == b""
        assert not out.header.extensions

    def test_forms_that_disagree_are_said_and_kept(
        self, identity: Translator, tmp_path: Path, way: Way
    ) -> None:
        image = nifti(qoffset_x=50.0)
        found = translate(identity, way(image, tmp_path))
        [said] = found.said
        assert "disagree" in said
        if way is not as_volume:
            for code in ("qform_code", "sform_code", "qoffset_x", "srow_x"):
                assert np.array_equal(found.image.header[code], image.header[code])

    def test_no_form_at_all_is_said(self, identity: Translator, tmp_path: Path, way: Way) -> None:
        if way is as_made:
            pytest.skip("an image made in memory has its affine, whatever its header says")
        [said] = translate(identity, way(nifti(sform_code=0, qform_code=0), tmp_path)).said
        assert "assumed, not known" in said

    def test_a_single_slice(self, identity: Translator, tmp_path: Path, way: Way) -> None:
        plane = helpers.marked_head()[:, :, 4]
        found = translate(identity, way(nifti(plane), tmp_path))
        np.testing.assert_allclose(np.squeeze(found.voxels), plane, atol=1e-3)
        assert found.image.shape == ((13, 14, 1) if way is as_volume else (13, 14))

    def test_one_time_point(self, identity: Translator, tmp_path: Path, way: Way) -> None:
        series = helpers.marked_head()[..., None]
        found = translate(identity, way(nifti(series), tmp_path))
        np.testing.assert_allclose(np.squeeze(found.voxels), series[..., 0], atol=1e-3)

    @pytest.mark.parametrize(
        "voxels",
        [np.zeros((6, 6, 6, 2), np.int16), np.zeros((6, 6, 6), np.complex64)],
        ids=["several", "complex"],
    )
    def test_what_is_no_volume(
        self, identity: Translator, tmp_path: Path, way: Way, voxels: np.ndarray
    ) -> None:
        with pytest.raises(MedtransError):
            translate(identity, way(nifti(voxels), tmp_path))


@pytest.mark.parametrize("thing", [np.zeros((6, 6, 6)), b"t1.nii.gz", None, (np.zeros(3),)])
def test_a_thing_that_is_no_image_is_refused(identity: Translator, thing: object) -> None:
    with pytest.raises(UsageError, match=f"found .*{type(thing).__name__}"):
        translate(identity, thing)


def test_a_file_s_name_is_known_to_its_image(identity: Translator, tmp_path: Path) -> None:
    path = tmp_path / "sub-1_FLAIR.nii.gz"
    nifti().to_filename(path)
    for given in (path, nib.load(path), read_volume(path)):
        [said] = translate(identity, given).said
        assert "it seems to be flair" in said


def test_an_affine_that_the_header_does_not_know_counts(identity: Translator) -> None:
    image = nifti(unit="meter")
    image.header["srow_x"] = 0, 0, 0, 7.0
    found = translate(identity, image)
    assert np.array_equal(found.image.affine, image.affine)
    np.testing.assert_allclose(found.voxels, np.clip(helpers.head()[0], 0, 1000), atol=1e-3)


def test_other_images_of_nibabel(identity: Translator) -> None:
    voxels, affine = helpers.head()
    image = nib.MGHImage(voxels.astype(np.float32), affine)
    found = translate(identity, image)
    assert type(found.image) is nib.MGHImage
    assert np.array_equal(found.image.affine, image.affine)


def test_colours_are_refused(identity: Translator) -> None:
    image = sitk.GetImageFromArray(np.zeros((5, 6, 3), np.uint8), isVector=True)
    with pytest.raises(MedtransError, match="one value a voxel"):
        identity.translate(image)


def test_a_volume_keeps_the_warnings_of_its_file(identity: Translator, tmp_path: Path) -> None:
    head = torch.from_numpy(helpers.head()[0].astype(np.float32))
    given = MetaTensor(head, affine=torch.diag(torch.tensor([8.0, 8.0, 8.0, 1.0])))
    assert translate(identity, given).said == []
    with_warning = as_volume(nifti(sform_code=0, qform_code=0), tmp_path)
    assert len(translate(identity, with_warning).said) == 1
