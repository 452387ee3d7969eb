"""What comes from elsewhere leads nowhere, and cannot make medtrans allocate what it likes.

Damaged and hostile images are in tests/volumes, damaged packages in tests/package.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pydicom
import pytest
from pydicom.dataset import Dataset
from pydicom.uid import ExplicitVRLittleEndian, MediaStorageDirectoryStorage

from medtrans.data import manifest_checks
from medtrans.data.manifest import Manifest
from medtrans.errors import ManifestError, OutputError, PackageError, UnreadableFileError
from medtrans.package import folder as package_folder
from medtrans.package import store
from medtrans.package.folder import METADATA, WEIGHTS, read_metadata
from medtrans.package.store import load_package
from medtrans.system.names import is_plain_name, require_inside
from medtrans.volumes import Source, read_volume, write_volume
from medtrans.volumes.dicom.series import list_series
from tests import helpers
from tests.volumes.builders import dicom_series, dicom_slice, enhanced, provenance, save


class TestOutputsStayInTheirFolder:
    @pytest.mark.parametrize("way", ["a", "a/b", ".", "deep/../a"])
    def test_inside(self, tmp_path: Path, way: str) -> None:
        require_inside(tmp_path / way, tmp_path)

    @pytest.mark.parametrize("way", ["..", "../a", "a/../../b", "/etc"])
    def test_outside(self, tmp_path: Path, way: str) -> None:
        with pytest.raises(OutputError, match="leads out of"):
            require_inside(tmp_path / "out" / way, tmp_path / "out")

    def test_by_a_link(self, tmp_path: Path) -> None:
        (tmp_path / "out").mkdir()
        (tmp_path / "out" / "link").symlink_to(tmp_path)
        with pytest.raises(OutputError, match="leads out of"):
            require_inside(tmp_path / "out" / "link" / "new", tmp_path / "out")

    @pytest.mark.parametrize(
        ("name", "plain"),
        [("sub-1", True), ("a b", True), ("..", False), ("a/b", False), ("/a", False),
         ("a\\b", False), ("C:a", False), ("a\n", False), ("a\0", False), ("é" * 61, False)],
    )  # fmt: skip
    def test_plain_names(self, name: str, plain: bool) -> None:
        assert is_plain_name(name) == plain


class TestLinks:
    """What lies under the name of an output is replaced, never what a link there points at."""

    @pytest.fixture
    def source(self, tmp_path: Path) -> Source:
        path = helpers.write_nifti(tmp_path / "t1.nii.gz", helpers.marked_head(), np.eye(4))
        return read_volume(path).meta["source"]

    def write(self, folder: Path, source: Source, *, overwrite: bool = False) -> None:
        voxels = np.zeros(source.shape, np.int16)
        write_volume(voxels, folder / "o.nii.gz", source, provenance(), overwrite=overwrite)

    @pytest.mark.parametrize("name", ["o.nii.gz", "o.json"])
    def test_a_link_to_a_file(self, tmp_path: Path, source: Source, name: str) -> None:
        victim = tmp_path / "victim"
        victim.write_text("mine")
        (tmp_path / name).symlink_to(victim)
        with pytest.raises(OutputError, match="--overwrite"):
            self.write(tmp_path, source)
        self.write(tmp_path, source, overwrite=True)
        assert victim.read_text() == "mine"
        assert not (tmp_path / name).is_symlink()

    @pytest.mark.parametrize("name", ["o.nii.gz", "o.json"])
    def test_a_link_to_nothing(self, tmp_path: Path, source: Source, name: str) -> None:
        (tmp_path / name).symlink_to(tmp_path / "victim")
        self.write(tmp_path, source)
        assert not (tmp_path / "victim").exists()

    def test_a_link_to_the_input(self, tmp_path: Path, source: Source) -> None:
        before = source.path.read_bytes()
        (tmp_path / "o.nii.gz").symlink_to(source.path)
        with pytest.raises(OutputError, match="replace its input"):
            self.write(tmp_path, source, overwrite=True)
        assert source.path.read_bytes() == before


class TestDicom:
    def media_directory(self, *way: str) -> Dataset:
        dataset, record = dicom_slice(0), Dataset()
        for keyword in ("Rows", "Columns", "PixelData"):
            del dataset[keyword]
        dataset.SOPClassUID = MediaStorageDirectoryStorage
        record.DirectoryRecordType, record.ReferencedFileID = "IMAGE", list(way)
        dataset.DirectoryRecordSequence = [record]
        return dataset

    @pytest.mark.filterwarnings("ignore:Invalid value for VR")
    def test_a_dicomdir_leads_to_no_file(self, tmp_path: Path) -> None:
        series = dicom_series(tmp_path / "study")
        secret = save(dicom_slice(0, series="9.9.9"), tmp_path / "secret.dcm")
        save(self.media_directory("..", secret.name), series / "DICOMDIR", ExplicitVRLittleEndian)
        assert [found.uid for found in list_series(series)] == ["1.2.3.4"]
        with pytest.raises(UnreadableFileError):
            read_volume(series / "DICOMDIR")

    def test_a_link_to_a_folder_is_not_followed(self, tmp_path: Path) -> None:
        series = dicom_series(tmp_path / "study")
        dicom_series(tmp_path / "other", series="9.9.9")
        (series / "link").symlink_to(tmp_path / "other")
        (series / "round").symlink_to(series)
        assert [found.uid for found in list_series(series)] == ["1.2.3.4"]

    @pytest.mark.parametrize("declared", [10**9, 2**31 - 1])
    def test_more_frames_than_there_are(self, tmp_path: Path, declared: int) -> None:
        path = enhanced(tmp_path / "e.dcm")
        dataset = pydicom.dcmread(path)
        dataset.NumberOfFrames = declared
        dataset.save_as(path)
        with pytest.raises(UnreadableFileError):
            read_volume(path)


class TestSizes:
    def test_of_a_manifest(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(manifest_checks, "MAX_BYTES", 100)
        (tmp_path / "m.csv").write_text("subject,contrast,path\n" + "a" * 100)
        with pytest.raises(ManifestError, match="larger than the 100 bytes"):
            Manifest.read(tmp_path / "m.csv")

    def test_of_metadata(
        self, random_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(package_folder, "MAX_METADATA_BYTES", 100)
        with pytest.raises(PackageError, match="too large"):
            read_metadata(random_model)

    def test_of_weights(self, random_model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(store, "MAX_WEIGHTS_BYTES", 100)
        with pytest.raises(PackageError, match="larger than the 100 bytes"):
            load_package(random_model)

    def test_of_a_network_that_only_a_recipe_declares(
        self, random_model: Path, tmp_path: Path
    ) -> None:
        """A network of terabytes is not built to find that the weights do not fit."""
        shutil.copytree(random_model, tmp_path / "m")
        metadata = json.loads((tmp_path / "m" / METADATA).read_text())
        metadata["medtrans"]["pipeline"]["network"]["channels"] = [1 << 12, 1 << 14]
        (tmp_path / "m" / METADATA).write_text(json.dumps(metadata))
        with pytest.raises(PackageError, match="does not fit together"):
            load_package(tmp_path / "m")


def test_a_package_reads_no_file_but_its_two(random_model: Path, tmp_path: Path) -> None:
    """Its other configs and its .pt may hold code; they are not even opened."""
    for name in (METADATA, WEIGHTS):
        (tmp_path / "m" / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(random_model / name, tmp_path / "m" / name)
    assert load_package(tmp_path / "m").sha256
