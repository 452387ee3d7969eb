"""Writing under a temporary name beside the goal, then renaming: all of it or nothing."""

from __future__ import annotations

import os
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from medtrans.errors import OutputError


@contextmanager
def replacing(goal: Path) -> Iterator[Path]:
    """Give a temporary path that becomes the file `goal` when the block ends well.

    The temporary name ends as the goal does, because some writers choose their format by it.

    Raises
    ------
    OutputError
        If the folder is missing, not writable or full, or the goal is a folder.
    """
    if goal.is_dir():
        raise OutputError(
            f"{goal}: expected a file name to write to, found a folder. Name a file inside it."
        )
    temporary = _beside(goal)
    with _output_errors(goal):
        try:
            yield temporary
            _sync(temporary)
            temporary.replace(goal)
        finally:
            temporary.unlink(missing_ok=True)


@contextmanager
def replacing_folder(goal: Path, *, anew: bool = False) -> Iterator[Path]:
    """Give a temporary folder that becomes the folder `goal` when the block ends well.

    With `anew` it takes the place of a folder that is there, which is removed only then.

    Raises
    ------
    OutputError
        If the goal exists and is not a folder, or not empty without `anew`, or cannot be made.
    """
    if not (anew and goal.is_dir()):
        require_new_folder(goal)
    temporary = _beside(goal)
    with _output_errors(goal):
        temporary.mkdir()
        try:
            yield temporary
            for file in filter(Path.is_file, temporary.rglob("*")):
                _sync(file)
            if goal.is_dir():
                shutil.rmtree(goal)
            temporary.replace(goal)
        finally:
            shutil.rmtree(temporary, ignore_errors=True)


def require_new_folder(goal: Path) -> None:
    """Refuse a folder that holds something, or a file in its place."""
    if goal.exists() and not (goal.is_dir() and not any(goal.iterdir())):
        raise OutputError(
            f"{goal}: expected a new or empty folder to write the series to, found something "
            "there. Choose another name or remove it."
        )


def make_folder(folder: Path) -> Path:
    """Make a folder and its parents; raises `OutputError`."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(
            f"{folder} cannot be made ({error.strerror}). Name another folder."
        ) from None
    return folder


def require_writable(goal: Path) -> None:
    """Refuse a goal that could not be written, before hours of work; raises `OutputError`."""
    with _output_errors(goal):
        probe = _beside(goal)
        probe.touch()
        probe.unlink()


def _beside(goal: Path) -> Path:
    if not goal.parent.is_dir():
        raise OutputError(
            f"{goal.parent}: there is no such folder to write {goal.name} to. Make it first."
        )
    return goal.with_name(f".{secrets.token_hex(4)}-{goal.name}")


def _sync(file: Path) -> None:
    with file.open("rb") as handle:
        os.fsync(handle.fileno())


@contextmanager
def _output_errors(goal: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise OutputError(
            f"{goal}: cannot be written ({error.strerror or 'input/output error'}). "
            "Check the folder's permissions and the free space, or choose another place."
        ) from None
