"""What hospitals' folders hold beside the slices: copies, localizers, junk, rounded cosines."""

import shutil

import numpy as np
import pydicom
import pytest
from pydicom.uid import MediaStorageDirectoryStorage

from medtrans.errors import GeometryError
from medtrans.volumes import describe, write_volume
from medtrans.volumes.dicom import stack
from medtrans.volumes.files import load
from tests.volumes.builders import (
    OBLIQUE,
    dicom_series,
    dicom_slice,
    enhanced,
    provenance,
    save,
    stored_values,
)

ACROSS = [*OBLIQUE[0], *np.cross(*OBLIQUE)]  # a plane at a right angle to the stack's


class TestCopies:
    def test_are_left_out_and_counted(self, tmp_path):
        folder = dicom_series(tmp_path / "s")
        for name in ("001", "003"):
            shutil.copy(folder / f"{name}.dcm", folder / f"{name} (1).dcm")
        loaded = load(folder, None, None)
        assert np.array_equal(loaded.voxels, stored_values())
        assert any("2 image(s) are there twice" in w for w in loaded.source.warnings)

    def test_of_a_whole_series(self, tmp_path):
        alone = load(dicom_series(tmp_path / "a"), None, None)
        dicom_series(tmp_path / "b")
        loaded = load(tmp_path, None, None)
        assert np.array_equal(loaded.voxels, alone.voxels)
        assert loaded.source.sha256 == alone.source.sha256

    def test_in_another_compression_are_copies(self, tmp_path):
        folder = dicom_series(tmp_path / "s")
        again = pydicom.dcmread(folder / "002.dcm")
        again.compress(pydicom.uid.RLELossless, generate_instance_uid=False)
        again.save_as(folder / "again.dcm")
        assert np.array_equal(load(folder, None, None).voxels, stored_values())

    def test_of_a_multi_frame_file(self, tmp_path):
        (tmp_path / "s").mkdir()
        enhanced(tmp_path / "s" / "a.dcm", 5)
        enhanced(tmp_path / "s" / "b.dcm", 5)
        loaded = load(tmp_path / "s", None, None)
        assert np.array_equal(loaded.voxels, stored_values())
        assert "5 image(s)" in loaded.source.warnings[0]

    @pytest.mark.parametrize(
        "values",
        [{"PixelData": bytes(60)}, {"SOPInstanceUID": "1.2.3.4.99"}, {"RescaleSlope": 2}],
    )
    def test_what_differs_is_no_copy(self, tmp_path, values):
        folder = dicom_series(tmp_path / "s")
        save(dicom_slice(2, **values), folder / "other.dcm")
        with pytest.raises(GeometryError, match="duplicate slices"):
            load(folder, None, None)

    def test_without_a_uid_nothing_is_a_copy(self, tmp_path):
        folder = dicom_series(tmp_path / "s")
        for file in folder.iterdir():
            dataset = pydicom.dcmread(file)
            dataset.SOPInstanceUID = dataset.file_meta.MediaStorageSOPInstanceUID = ""
            dataset.save_as(file)
        shutil.copy(folder / "001.dcm", folder / "again.dcm")
        with pytest.raises(GeometryError, match="duplicate slices"):
            load(folder, None, None)


class TestLocalizers:
    """Each way in which an image that was used for planning gets among the slices."""

    def plan(self, folder, count=1, first=10, **values):
        for k in range(first, first + count):
            save(dicom_slice(k, **values), folder / f"scout{k}.dcm")

    def test_under_the_uid_of_the_series(self, tmp_path):
        folder = dicom_series(tmp_path / "s")
        self.plan(folder, 3, ImageType=["ORIGINAL", "PRIMARY", "LOCALIZER"], rows=9, columns=9,
                  PixelData=bytes(162))  # fmt: skip
        loaded = load(folder, None, None)
        assert np.array_equal(loaded.voxels, stored_values())
        (warning,) = loaded.source.warnings
        assert "3 image(s) of a localizer were left out: scout10.dcm, scout11.dcm" in warning

    def test_in_a_series_of_its_own(self, tmp_path):
        folder = dicom_series(tmp_path / "s")
        self.plan(folder, 3, ImageType=["ORIGINAL", "PRIMARY", "LOCALIZER"], series="1.9", number=1)
        self.plan(folder, 1, 20, series="1.8", number=2)
        loaded = load(folder, None, None)
        assert np.array_equal(loaded.voxels, stored_values())
        assert "2 other series" in loaded.source.warnings[0]
        assert (
            "1 (localizer, scout10.dcm), 2 (1 image(s), scout20.dcm)" in (loaded.source.warnings[0])
        )
        assert describe(folder)["contrast"] == "t2"

    def test_that_is_asked_for_is_refused(self, tmp_path):
        folder = dicom_series(tmp_path / "s")
        self.plan(folder, 3, ImageType=["ORIGINAL", "PRIMARY", "LOCALIZER"], series="1.9", number=1)
        with pytest.raises(GeometryError, match="LOCALIZER"):
            load(folder, "1", None)

    def test_in_another_plane(self, tmp_path):
        folder = dicom_series(tmp_path / "s")
        self.plan(folder, 7, ImageOrientationPatient=ACROSS, SOPInstanceUID="1.5")
        (folder / "scout10.dcm").rename(folder / "000.dcm")  # read first, which makes no difference
        for k in range(11, 15):
            (folder / f"scout{k}.dcm").unlink()
        self.plan(folder, 1, 10, ImageOrientationPatient=[*ACROSS[3:], *ACROSS[:3]])
        with pytest.raises(GeometryError, match="not parallel"):
            load(folder, None, None)  # four across are a second stack
        (folder / "scout10.dcm").unlink()
        (folder / "scout15.dcm").unlink()
        loaded = load(folder, None, None)
        assert np.array_equal(loaded.voxels, stored_values())
        (warning,) = loaded.source.warnings
        assert "2 image(s) in another plane than the others were left out: 000.dcm, scout16" in (
            warning
        )

    def test_a_stack_with_a_hole_stays_refused(self, tmp_path):
        folder = dicom_series(
            tmp_path / "s", 7,
            ImageOrientationPatient=lambda k: ACROSS if k == 3 else OBLIQUE.ravel().tolist(),
        )  # fmt: skip
        with pytest.raises(GeometryError, match=r"1 slice\(s\) are missing"):
            load(folder, None, None)

    def test_a_slice_that_leans_is_no_other_plane(self, tmp_path):
        leaning = [*OBLIQUE[0], *(np.cos(0.5) * OBLIQUE[1] + np.sin(0.5) * np.cross(*OBLIQUE))]
        folder = dicom_series(
            tmp_path / "s",
            ImageOrientationPatient=lambda k: leaning if k == 4 else OBLIQUE.ravel().tolist(),
        )
        with pytest.raises(GeometryError, match="not parallel"):
            load(folder, None, None)

    def test_many_are_named_in_part(self, tmp_path):
        folder = dicom_series(tmp_path / "s")
        self.plan(folder, 8, ImageType=["ORIGINAL", "PRIMARY", "LOCALIZER"])
        assert "scout14.dcm and 3 more" in load(folder, None, None).source.warnings[0]


class TestRoundedCosines:
    """Cosines with three or four decimals, which differ from slice to slice."""

    def series(self, folder, step, **values):
        def cosines(k):
            return [float(v) + (step if (k + i) % 2 else 0) for i, v in enumerate(OBLIQUE.ravel())]

        return dicom_series(folder, ImageOrientationPatient=cosines, **values)

    @pytest.mark.parametrize("step", [1.5e-4, 5e-4])
    def test_the_mean_is_taken_where_it_moves_nothing_far(self, tmp_path, step):
        loaded = load(self.series(tmp_path / "s", step), None, None)
        assert np.array_equal(loaded.voxels, stored_values())
        (warning,) = loaded.source.warnings
        assert "differs between slices by up to" in warning
        unit = loaded.affine[:3, :2] / np.linalg.norm(loaded.affine[:3, :2], axis=0)
        assert abs(unit[:, 0] @ unit[:, 1]) < 1e-12
        assert np.allclose(unit.T * [-1, -1, 1], OBLIQUE, atol=step)
        assert np.allclose(np.linalg.norm(loaded.affine[:3, :2], axis=0), [1.5, 0.75])

    def test_by_a_tenth_of_a_voxel_and_no_more(self):
        """A row of 100 mm turned by 1e-3 moves its end by 0.1 mm: 0.05 either way of the mean."""
        turned = np.array([[1, 0, 0, 0, 1, 0], [1, 1e-3, 0, -1e-3, 1, 0]])
        sides = np.array([100.0, 0.0])
        mean, warnings = stack.common_orientation(turned, sides, 0.51, "x")
        assert len(warnings) == 1
        assert mean[1] == pytest.approx(5e-4)
        with pytest.raises(GeometryError, match="not parallel"):
            stack.common_orientation(turned, sides, 0.49, "x")

    def test_thin_slices_count_too(self, tmp_path):
        large = {"rows": 100, "columns": 100, "PixelData": bytes(20_000)}
        load(self.series(tmp_path / "thick", 2e-4, **large), None, None)
        self.series(tmp_path / "thin", 2e-4, spacing=0.2, **large)
        with pytest.raises(GeometryError, match="not parallel"):
            load(tmp_path / "thin", None, None)

    def test_a_derived_series_repeats_the_source_text(self, tmp_path):
        loaded = load(self.series(tmp_path / "s", 2e-4), None, None)
        out, _ = write_volume(loaded.voxels, tmp_path / "o", loaded.source, provenance())
        again = load(out, None, None)
        assert np.array_equal(again.affine, loaded.affine)
        assert np.array_equal(again.voxels, loaded.voxels)


class TestInvertedGrey:
    def test_values_of_mr_are_as_they_are(self, tmp_path):
        folder = dicom_series(tmp_path / "s", PhotometricInterpretation="MONOCHROME1")
        loaded = load(folder, None, None)
        assert np.array_equal(loaded.voxels, stored_values())
        assert "MONOCHROME1: low values are meant to be shown bright" in loaded.source.warnings[0]
        out, _ = write_volume(loaded.voxels, tmp_path / "o", loaded.source, provenance())
        derived = load(out, None, None)
        assert not derived.source.warnings
        assert np.array_equal(derived.voxels, loaded.voxels)

    def test_through_simpleitk_too(self, shared_data, tmp_path, monkeypatch):
        """JPEG-LS, which pydicom alone does not decode, and which GDCM would invert."""

        def no_decoder(*_, **__):
            raise RuntimeError

        folder = shared_data / "dicom" / "dicom2nifti" / "generic" / "compressed_jpegls" / "001"
        for file in folder.iterdir():
            dataset = pydicom.dcmread(file)
            dataset.PhotometricInterpretation = "MONOCHROME1"
            dataset.save_as(tmp_path / file.name)
        monkeypatch.setattr("medtrans.volumes.dicom.dataset.pixel_array", no_decoder)
        assert np.array_equal(load(tmp_path, None, None).voxels, load(folder, None, None).voxels)


@pytest.mark.filterwarnings("ignore:Invalid value for VR")
def test_a_dicomdir_with_junk_beside_it(tmp_path):
    """As on a disc: the images deep below, a viewer and its text beside them."""
    series = dicom_series(tmp_path / "DICOM" / "PAT0" / "ST0")
    directory = dicom_slice(0, Rows=None, Columns=None, PixelData=None)
    directory.SOPClassUID = MediaStorageDirectoryStorage
    save(directory, tmp_path / "DICOMDIR")
    for name in ("AUTORUN.INF", "viewer.exe", "Thumbs.db", "README", "DICOM/index.html"):
        (tmp_path / name).write_bytes(b"MZ junk that is no image" * 20)
    (tmp_path / "._README").write_bytes(b"\0\5\x16\7")
    loaded = load(tmp_path, None, None)
    assert np.array_equal(loaded.voxels, load(series, None, None).voxels)
    assert not loaded.source.warnings
