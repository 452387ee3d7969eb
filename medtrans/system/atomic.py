"""Writing under a temporary name beside the output, then renaming: all of it or nothing.

What is renamed has reached the disk before, and the rename after it, so that a killed process or a
power cut leaves the old or the new, never neither. A killed process also leaves its temporary file:
`remove_leftovers` removes those of a folder.
"""

from __future__ import annotations

import ctypes
import os
import re
import secrets
import shutil
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from medtrans.errors import OutputError

_TEMPORARY = re.compile(r"\.medtrans-[0-9a-f]{8}-.+")
_AT_FDCWD, _RENAME_EXCHANGE = -100, 2  # of Linux's renameat2


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Give a temporary path that becomes the file `path` when the block ends well.

    The temporary name ends as the final one does, because some writers choose their format by it.

    Raises
    ------
    OutputError
        If the folder is missing, not writable or full, or `path` is a folder.
    """
    if path.is_dir():
        raise OutputError(
            f"{path}: expected a file name to write to, found a folder. Name a file inside it."
        )
    temporary = _temporary_beside(path)
    with output_errors(path):
        try:
            yield temporary
            _sync(temporary)
            temporary.replace(path)
            _sync(path.parent)
        finally:
            temporary.unlink(missing_ok=True)


@contextmanager
def replacing_folder(folder: Path, *, anew: bool = False) -> Iterator[Path]:
    """Give a temporary folder that becomes `folder` when the block ends well.

    Parameters
    ----------
    folder : Path
    anew : bool
        Take the place of a folder that is there, which is removed afterwards.

    Raises
    ------
    OutputError
        If `folder` exists and is not a folder, or not empty without `anew`, or cannot be made.
    """
    _put_back(folder)
    if not (anew and folder.is_dir()):
        require_new_folder(folder)
    temporary = _temporary_beside(folder)
    with output_errors(folder):
        temporary.mkdir()
        try:
            yield temporary
            for written in (*temporary.rglob("*"), temporary):
                _sync(written)
            _take_place(temporary, folder)
            _sync(folder.parent)
        finally:
            shutil.rmtree(temporary, ignore_errors=True)


def remove_leftovers(folder: Path, idle_s: float = 0.0) -> None:
    """Remove what killed processes were writing in a folder.

    Parameters
    ----------
    folder : Path
    idle_s : float
        Leave what was touched in so many seconds, where another process may be writing.
    """
    for path in folder.iterdir() if folder.is_dir() else ():
        with suppress(OSError):
            idle = time.time() - path.lstat().st_mtime
            if _TEMPORARY.fullmatch(path.name) and idle >= idle_s:
                shutil.rmtree(path) if path.is_dir() else path.unlink()


def require_new_folder(folder: Path) -> None:
    """Refuse a folder that holds something, or a file in its place; raises `OutputError`."""
    if folder.exists() and not (folder.is_dir() and not any(folder.iterdir())):
        there = "one that is not empty" if folder.is_dir() else "a file"
        raise OutputError(
            f"{folder}: expected a new or empty folder to write to, found {there}. Choose another "
            "name, or remove it."
        )


def make_folder(folder: Path) -> Path:
    """Make a folder and its parents, where they are missing; raises `OutputError`."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(
            f"{folder} cannot be made ({error.strerror}). Name another folder."
        ) from None
    return folder


def require_writable(path: Path) -> None:
    """Refuse a path that could not be written, before hours of work; raises `OutputError`."""
    with output_errors(path):
        probe = _temporary_beside(path)
        probe.touch()
        probe.unlink()


def _temporary_beside(path: Path) -> Path:
    if not path.parent.is_dir():
        raise OutputError(
            f"{path.parent}: there is no such folder to write {path.name} to. Make it first."
        )
    return path.with_name(f".medtrans-{secrets.token_hex(4)}-{path.name}")


def _take_place(temporary: Path, folder: Path) -> None:
    """Give `temporary` the name `folder`; a folder that is there stays until then."""
    if not folder.is_dir():
        temporary.replace(folder)
    elif not _exchange(temporary, folder):
        aside = folder.replace(_aside(folder))
        try:
            temporary.replace(folder)
        except BaseException:
            aside.replace(folder)
            raise
        shutil.rmtree(aside, ignore_errors=True)


def _aside(folder: Path) -> Path:
    """Where the old folder waits between two renames; a name that can be found again."""
    return folder.with_name(f".medtrans-old-{folder.name}")


def _put_back(folder: Path) -> None:
    """Mend what a process left that was killed between the two renames, or before it was done."""
    aside = _aside(folder)
    if folder.exists():
        shutil.rmtree(aside, ignore_errors=True)
    elif aside.is_dir():
        aside.replace(folder)


def _exchange(one: Path, other: Path) -> bool:
    """Exchange two names in one step; False where the system or the file system cannot."""
    if sys.platform != "linux":
        return False
    rename = getattr(ctypes.CDLL(None, use_errno=True), "renameat2", None)
    names = os.fsencode(one), os.fsencode(other)
    return rename is not None and not rename(
        _AT_FDCWD, names[0], _AT_FDCWD, names[1], _RENAME_EXCHANGE
    )


def _sync(path: Path) -> None:
    """Wait until a file, or what a folder lists, has reached the disk."""
    if path.is_dir() and not hasattr(os, "O_DIRECTORY"):
        return  # Windows opens no folders
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    except OSError:
        if not path.is_dir():  # some network file systems cannot for a folder
            raise
    finally:
        os.close(handle)


@contextmanager
def output_errors(path: Path) -> Iterator[None]:
    """Turn what the system says when `path` cannot be written into an `OutputError`."""
    try:
        yield
    except OSError as error:
        raise OutputError(
            f"{path}: cannot be written ({error.strerror or 'input/output error'}). "
            "Check the folder's permissions and the free space, or choose another place."
        ) from None
