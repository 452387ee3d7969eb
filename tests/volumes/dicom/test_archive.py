"""A zipped DICOM study: read as its folder is; whatever leads elsewhere or swells is refused."""

import stat
import tempfile
import zipfile

import numpy as np
import pytest

from medtrans.errors import GeometryError, UnreadableFileError
from medtrans.volumes import describe, output_path, write_volume
from medtrans.volumes.dicom import archive
from medtrans.volumes.files import kind_of, load
from tests.volumes.builders import dicom_series, dicom_slice, provenance, save


@pytest.fixture(autouse=True)
def scratch(tmp_path, monkeypatch):
    """A folder of the test's own for temporary files, which has to be empty in the end."""
    folder = tmp_path / "scratch"
    folder.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    yield folder
    assert not list(folder.iterdir())


def zipped(path, folder, method=zipfile.ZIP_DEFLATED):
    with zipfile.ZipFile(path, "w", method) as file:
        for item in sorted(folder.rglob("*")):
            file.write(item, item.relative_to(folder))
    return path


@pytest.mark.parametrize("method", [zipfile.ZIP_DEFLATED, zipfile.ZIP_STORED])
@pytest.mark.parametrize("name", ["study.zip", "STUDY.ZIP", "download"])
def test_is_read_as_the_folder_is(tmp_path, name, method):
    dicom_series(tmp_path / "study" / "a" / "b")
    (tmp_path / "study" / "README").write_text("junk")
    path = zipped(tmp_path / name, tmp_path / "study", method)
    folder, loaded = load(tmp_path / "study", None, None), load(path, None, None)
    assert kind_of(path) == "dicom"
    assert np.array_equal(loaded.voxels, folder.voxels)
    assert loaded.source.sha256 == folder.source.sha256
    assert loaded.source.path == path
    assert output_path(loaded.source, "t1-to-t2").name == f"{path.stem}_t2-synthetic"
    out, _ = write_volume(loaded.voxels, tmp_path / "o", loaded.source, provenance())
    assert np.array_equal(load(out, None, None).voxels, folder.voxels)


def test_a_series_is_chosen_and_described(tmp_path):
    dicom_series(tmp_path / "study" / "a")
    dicom_series(tmp_path / "study" / "b", series="1.2.3.5", number=5)
    path = zipped(tmp_path / "s.zip", tmp_path / "study")
    with pytest.raises(GeometryError, match="found 2") as caught:
        load(path, None, None)
    assert str(caught.value).startswith(f"{path}: ")
    assert load(path, "5", None).source.series == "1.2.3.5"
    facts = describe(path, series="4")
    assert facts["readable"]
    assert [series["number"] for series in facts["series"]] == ["4", "5"]


def test_sentences_name_the_archive_and_what_is_in_it(tmp_path, scratch):
    study = dicom_series(tmp_path / "study")
    save(dicom_slice(9, ImageType=["ORIGINAL", "PRIMARY", "LOCALIZER"]), study / "scout.dcm")
    path = zipped(tmp_path / "s.zip", study)
    (warning,) = load(path, None, None).source.warnings
    assert "scout.dcm" in warning
    assert warning.startswith(str(path))
    (study / "003.dcm").write_bytes((study / "003.dcm").read_bytes()[:400])
    zipped(path, study)
    with pytest.raises(UnreadableFileError) as caught:
        load(path, None, None)
    assert str(caught.value).startswith(f"{path}/003.dcm: ")
    assert str(scratch) not in str(caught.value)


@pytest.mark.parametrize(
    "name", ["../evil.dcm", "/evil.dcm", "a/../../evil.dcm", "C:/evil.dcm", "a\\..\\evil.dcm",
             "./evil.dcm", "a//evil.dcm", "x" * 300],
)  # fmt: skip
def test_a_name_that_leads_elsewhere(tmp_path, name):
    path = tmp_path / "s.zip"
    with zipfile.ZipFile(path, "w") as file:
        file.writestr(zipfile.ZipInfo(name), b"x")
    with pytest.raises(UnreadableFileError, match="outside its folder"):
        load(path, None, None)
    assert not list(tmp_path.rglob("evil*"))


@pytest.mark.parametrize("kind", [stat.S_IFLNK, stat.S_IFIFO, stat.S_IFCHR])
def test_a_link_or_device(tmp_path, kind):
    entry = zipfile.ZipInfo("a.dcm")
    entry.create_system, entry.external_attr = 3, (kind | 0o777) << 16
    with zipfile.ZipFile(tmp_path / "s.zip", "w") as file:
        file.writestr(entry, "/etc/passwd")
    with pytest.raises(UnreadableFileError, match="a link or a device"):
        load(tmp_path / "s.zip", None, None)


def test_one_name_twice_is_written_once(tmp_path):
    with zipfile.ZipFile(tmp_path / "s.zip", "w") as file:
        file.writestr("a", b"one")
        with pytest.warns(UserWarning, match="Duplicate name"):
            file.writestr("a", b"two")
    with pytest.raises(UnreadableFileError):
        load(tmp_path / "s.zip", None, None)


class TestBombs:
    """Refused by what they declare, before a byte is unpacked."""

    @pytest.fixture
    def swollen(self, tmp_path, monkeypatch):
        path = tmp_path / "s.zip"
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as file:
            file.writestr("a.dcm", bytes(2**22))

        def opened(*_):
            raise AssertionError("unpacked")

        monkeypatch.setattr(zipfile.ZipFile, "open", opened)
        return path

    def refused(self, path, words):
        with pytest.raises(UnreadableFileError, match=words):
            load(path, None, None)

    def test_far_more_than_the_archive(self, swollen, monkeypatch):
        monkeypatch.setattr(archive, "HARMLESS_BYTES", 2**20)
        self.refused(swollen, "declares 4194304 bytes in 1 files; expected at most")

    def test_more_than_any_study(self, swollen, monkeypatch):
        monkeypatch.setattr(archive, "MAX_UNPACKED_BYTES", 2**20)
        self.refused(swollen, "expected at most 1048576 bytes")

    def test_one_large_file(self, swollen, monkeypatch):
        monkeypatch.setattr(archive.geometry, "MAX_BYTES", 2**20)
        self.refused(swollen, "1048576 bytes in each")

    def test_many_files(self, swollen, monkeypatch):
        monkeypatch.setattr(archive, "MAX_ENTRIES", 0)
        self.refused(swollen, "in 0 files")

    def test_a_full_disk(self, swollen, monkeypatch):
        monkeypatch.setattr(archive.shutil, "disk_usage", lambda _: type("", (), {"free": 100}))
        self.refused(swollen, "needs 4194304 bytes .* has 100")

    def test_a_large_directory(self, swollen, monkeypatch):
        monkeypatch.setattr(archive, "MAX_DIRECTORY_BYTES", 40)
        self.refused(swollen, "or is damaged")


def test_entries_that_share_their_bytes(tmp_path):
    """Many names for one kernel of deflated bytes, as the best bombs have."""
    path = tmp_path / "s.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as file:
        file.writestr("a", np.random.default_rng(0).bytes(5000))
        first = file.filelist[0]
        for k in range(3):
            again = zipfile.ZipInfo(f"b{k}")
            for name in ("compress_size", "file_size", "CRC", "header_offset", "compress_type"):
                setattr(again, name, getattr(first, name))
            file.filelist.append(again)
    with pytest.raises(UnreadableFileError, match="in 4 files; expected at most"):
        load(path, None, None)


@pytest.mark.parametrize("what", ["encrypted", "lzma"])
def test_what_cannot_be_unpacked(tmp_path, what):
    path = tmp_path / "s.zip"
    method = zipfile.ZIP_LZMA if what == "lzma" else zipfile.ZIP_STORED
    with zipfile.ZipFile(path, "w", method) as file:
        file.writestr("a.dcm", b"x" * 100)
    if what == "encrypted":
        content = bytearray(path.read_bytes())
        at = content.rfind(b"PK\1\2")
        content[at + 8] |= 1
        path.write_bytes(content)
    with pytest.raises(UnreadableFileError, match="encrypted, or packed in another way"):
        load(path, None, None)


def test_a_64_bit_archive(tmp_path):
    path = zipped(tmp_path / "s.zip", dicom_series(tmp_path / "study"))
    content = path.read_bytes()
    at = content.rfind(b"PK\5\6")
    path.write_bytes(content[:at] + b"PK\6\7" + bytes(16) + content[at:])
    with pytest.raises(UnreadableFileError, match="larger than 4 GiB"):
        load(path, None, None)


def test_damage_is_seen(tmp_path):
    path = zipped(tmp_path / "s.zip", dicom_series(tmp_path / "study"), zipfile.ZIP_STORED)
    content = path.read_bytes()
    for end in (5, 1000, len(content) - 1):
        path.write_bytes(content[:end])
        with pytest.raises(UnreadableFileError):
            load(path, None, None)
    flipped = bytearray(content)
    flipped[content.index(b"DICM") + 500] ^= 1
    path.write_bytes(flipped)
    with pytest.raises(UnreadableFileError):
        load(path, None, None)
    path.write_bytes(content[: content.rfind(b"PK\5\6") + 20] + b"\5\0hello")  # a comment
    load(path, None, None)


@pytest.mark.parametrize("content", [b"PK\5\6" + bytes(18), b"no zip"])
def test_nothing_in_it(tmp_path, content):
    path = tmp_path / "s.zip"
    path.write_bytes(content)
    with pytest.raises(UnreadableFileError):
        load(path, None, None)
