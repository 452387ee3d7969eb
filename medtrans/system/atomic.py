"""Writing under a temporary name beside the output, then renaming: all of it or nothing."""

from __future__ import annotations

import os
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from medtrans.errors import OutputError


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
    with _output_errors(path):
        try:
            yield temporary
            _sync(temporary)
            temporary.replace(path)
        finally:
            temporary.unlink(missing_ok=True)


@contextmanager
def replacing_folder(folder: Path, *, anew: bool = False) -> Iterator[Path]:
    """Give a temporary folder that becomes `folder` when the block ends well.

    Parameters
    ----------
    folder : Path
    anew : bool
        Take the place of a folder that is there, which is removed only then.

    Raises
    ------
    OutputError
        If `folder` exists and is not a folder, or not empty without `anew`, or cannot be made.
    """
    if not (anew and folder.is_dir()):
        require_new_folder(folder)
    temporary = _temporary_beside(folder)
    with _output_errors(folder):
        temporary.mkdir()
        try:
            yield temporary
            for file in filter(Path.is_file, temporary.rglob("*")):
                _sync(file)
            if folder.is_dir():
                shutil.rmtree(folder)
            temporary.replace(folder)
        finally:
            shutil.rmtree(temporary, ignore_errors=True)


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
    with _output_errors(path):
        probe = _temporary_beside(path)
        probe.touch()
        probe.unlink()


def _temporary_beside(path: Path) -> Path:
    if not path.parent.is_dir():
        raise OutputError(
            f"{path.parent}: there is no such folder to write {path.name} to. Make it first."
        )
    return path.with_name(f".{secrets.token_hex(4)}-{path.name}")


def _sync(file: Path) -> None:
    with file.open("rb") as handle:
        os.fsync(handle.fileno())


@contextmanager
def _output_errors(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise OutputError(
            f"{path}: cannot be written ({error.strerror or 'input/output error'}). "
            "Check the folder's permissions and the free space, or choose another place."
        ) from None
