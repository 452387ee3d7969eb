"""A zipped DICOM study, unpacked into a temporary folder that is gone afterwards.

Every name, size and kind of entry is checked before the first byte is written, so that an archive
can neither reach out of the folder nor fill the disk.
"""

from __future__ import annotations

import shutil
import stat
import tempfile
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from medtrans.errors import MedtransError, UnreadableFileError
from medtrans.system.names import is_plain_name
from medtrans.volumes import geometry
from medtrans.volumes.source import unreadable_on_error
from medtrans.volumes.voxels import Loaded

MAX_ENTRIES = 65_535  # what an archive without the 64-bit extension holds
MAX_DIRECTORY_BYTES = 2**24
# Bytes once unpacked: a study, and no more than so many times the archive, above a size that does
# no harm. Pixels deflate to a half or a third.
MAX_UNPACKED_BYTES = 2**33
MAX_RATIO = 100
HARMLESS_BYTES = 2**28
_END, _END_64 = b"PK\5\6", b"PK\6\7"  # end of the directory, and where that of a 64-bit one lies
_END_BYTES, _LOCATOR_BYTES, _LONGEST_COMMENT = 22, 20, 65_535
_METHODS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)
_ENCRYPTED = 1
_UNPACK = "Unpack it yourself, look at what is in it, and name the folder."


@contextmanager
def unpacked(path: Path) -> Iterator[Path]:
    """Give a path itself, or in the place of a zip a temporary folder with its content.

    In the message of an error the archive's name stands for the folder's.

    Parameters
    ----------
    path
        Any file or folder; the content decides.

    Raises
    ------
    UnreadableFileError
        If the archive is damaged, too large, encrypted, or has a name or a link that leads
        elsewhere.
    """
    if not _is_zip(path):
        yield path
        return
    with tempfile.TemporaryDirectory(prefix="medtrans-") as name:
        folder = Path(name)
        with unreadable_on_error(path):
            _unpack(path, folder)
        try:
            yield folder
        except MedtransError as error:
            raise type(error)(str(error).replace(name, str(path))) from None


def renamed(loaded: Loaded, place: Path, path: Path) -> Loaded:
    """Name the archive, not the temporary folder, as the source of a volume.

    Parameters
    ----------
    loaded
        As read from `place`.
    place, path
        What `unpacked` gave, and what it was given.
    """
    if place == path:
        return loaded
    warnings = tuple(text.replace(str(place), str(path)) for text in loaded.source.warnings)
    return replace(loaded, source=replace(loaded.source, path=path, warnings=warnings))


def _is_zip(path: Path) -> bool:
    if not path.is_file():
        return False
    with unreadable_on_error(path), path.open("rb") as file:
        return file.read(4) in (b"PK\3\4", _END)


def _unpack(path: Path, folder: Path) -> None:
    _check_directory(path)
    with zipfile.ZipFile(path) as archive:
        entries = [entry for entry in archive.infolist() if not entry.is_dir()]
        for entry in entries:
            _check_entry(entry, path)
        _check_sizes(entries, path, folder)
        for entry in entries:
            target = folder / entry.filename
            target.parent.mkdir(parents=True, exist_ok=True)
            with archive.open(entry) as content, target.open("xb") as file:
                shutil.copyfileobj(content, file, 1 << 20)


def _check_directory(path: Path) -> None:
    """Bound the directory, which zipfile reads into memory whole."""
    with path.open("rb") as file:
        size = file.seek(0, 2)
        start = file.seek(max(0, size - _LONGEST_COMMENT - _END_BYTES - _LOCATOR_BYTES))
        tail = file.read()
    end = len(tail) - _END_BYTES
    if tail[end : end + 4] != _END or tail[-2:] != b"\0\0":  # as zipfile looks for it
        end = tail.rfind(_END)
    if end < 0 or len(tail) < end + _END_BYTES:
        raise UnreadableFileError(
            f"{path}: the zip archive has no directory at its end; it is truncated or damaged. "
            "Copy or download it again."
        )
    directory = int.from_bytes(tail[end + 12 : end + 16], "little")
    before = max(end - _LOCATOR_BYTES, 0)
    if tail[before : before + 4] == _END_64 or directory > min(start + end, MAX_DIRECTORY_BYTES):
        raise UnreadableFileError(
            f"{path}: the zip archive is larger than 4 GiB, has more than {MAX_ENTRIES} files, or "
            f"is damaged. {_UNPACK}"
        )


def _check_entry(entry: zipfile.ZipInfo, path: Path) -> None:
    parts = entry.filename.split("/")
    if not all(part and is_plain_name(part) for part in parts):
        raise UnreadableFileError(
            f"{path}: the zip archive names a file that would lie outside its folder, or under a "
            f"name that not every system has. {_UNPACK}"
        )
    kind = stat.S_IFMT(entry.external_attr >> 16)
    if kind not in (0, stat.S_IFREG):
        raise UnreadableFileError(
            f"{path}: the zip archive holds a link or a device, which medtrans does not follow. "
            f"{_UNPACK}"
        )
    if entry.flag_bits & _ENCRYPTED or entry.compress_type not in _METHODS:
        raise UnreadableFileError(
            f"{path}: the zip archive is encrypted, or packed in another way than deflate. "
            f"{_UNPACK}"
        )


def _check_sizes(entries: list[zipfile.ZipInfo], path: Path, folder: Path) -> None:
    packed = sum(entry.compress_size for entry in entries)
    total = sum(entry.file_size for entry in entries)
    size = path.stat().st_size
    most = min(MAX_UNPACKED_BYTES, max(HARMLESS_BYTES, MAX_RATIO * size))
    largest = max((entry.file_size for entry in entries), default=0)
    if packed > size or total > most or largest > geometry.MAX_BYTES or len(entries) > MAX_ENTRIES:
        raise UnreadableFileError(
            f"{path}: the zip archive of {size} bytes declares {total} bytes in {len(entries)} "
            f"files; expected at most {most} bytes in {MAX_ENTRIES} files, and "
            f"{geometry.MAX_BYTES} bytes in each. {_UNPACK}"
        )
    free = shutil.disk_usage(folder).free
    if total > free:
        raise UnreadableFileError(
            f"{path}: the zip archive needs {total} bytes in the folder for temporary files, which "
            f"has {free}. Make room, or let TMPDIR name another folder."
        )
