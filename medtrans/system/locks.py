"""One process at a time in a folder, on one machine and on several that share it.

The lock is the system's own on a small file in the folder, which a process loses when it ends,
however it ends: a file that a dead process left does not keep anybody out. The file says which
process holds it. Not every network file system passes locks on to other machines, so the holder
also touches the file now and then; what another machine has not touched for minutes is stale.
"""

from __future__ import annotations

import errno
import json
import os
import socket
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path

from medtrans.errors import OutputError

if sys.platform != "win32":
    import fcntl

LOCK_FILE = ".medtrans-lock"
_TOUCH_EVERY_S = 30.0
_SILENT_S = 300.0  # so long untouched, the process on another machine counts as dead
_held: set[tuple[int, Path]] = set()  # (process, file): the system's locks do not part threads
_guard = threading.Lock()


@dataclass(frozen=True)
class Holder:
    """Which process holds a lock, and where it runs."""

    host: str
    process: int

    def __str__(self) -> str:
        return f"process {self.process} on {self.host}"


@contextmanager
def only_one_in(folder: Path, work: str) -> Iterator[None]:
    """Keep every other process and thread that asks for it out of a folder.

    Parameters
    ----------
    folder : Path
        It exists.
    work : str
        What is done there, in a word or two, for the sentence that others get.

    Raises
    ------
    OutputError
        When another process works there, with its number and its machine; or the folder cannot be
        written to.
    """
    path = folder.resolve() / LOCK_FILE
    key = (os.getpid(), path)
    with _guard:
        if key in _held:
            raise _refusal(folder, work, _own())
        _held.add(key)
    try:
        with _locked(path, folder, work), _touching(path):
            yield
    finally:
        _held.discard(key)


@contextmanager
def _locked(path: Path, folder: Path, work: str) -> Iterator[None]:
    handle = _opened(path, folder, work)
    try:
        os.truncate(handle, 0)
        os.lseek(handle, 0, os.SEEK_SET)
        with suppress(OSError):  # on a full disk it is held all the same
            os.write(handle, json.dumps(asdict(_own())).encode())
        yield
    finally:
        if _written(handle) in (None, _own()):  # else another machine took this process for dead
            path.unlink(missing_ok=True)  # before the lock is lost with the handle
        os.close(handle)


def _opened(path: Path, folder: Path, work: str) -> int:
    """Open and lock the file; anew where another process has removed it in the meantime."""
    while True:
        try:
            handle = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
        except OSError as error:
            raise OutputError(
                f"{folder}: cannot be written to ({error.strerror}). Check the folder's "
                "permissions and the free space, or choose another place."
            ) from None
        try:
            if (holder := _other_holder(handle)) is not None:
                raise _refusal(folder, work, holder)
            if _is_still(path, handle):
                return handle
        except BaseException:
            os.close(handle)
            raise
        os.close(handle)


def _other_holder(handle: int) -> Holder | None:
    """Lock an open file; where that cannot be, return who holds it."""
    locked = _lock(handle)
    written = _written(handle)
    if locked is False:
        return written or Holder("this machine or another", 0)
    if written is None or (locked and written.host == _own().host):
        return None  # what a dead process left
    silent = time.time() - os.fstat(handle).st_mtime
    return written if silent < _SILENT_S else None


def _lock(handle: int) -> bool | None:
    """Take the system's lock; False when another process has it, None where there are none."""
    if sys.platform == "win32":
        return None
    try:
        fcntl.lockf(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        return False if error.errno in (errno.EACCES, errno.EAGAIN) else None
    return True


def _written(handle: int) -> Holder | None:
    """Who the file says holds it; None where it does not say."""
    os.lseek(handle, 0, os.SEEK_SET)
    try:
        return Holder(**json.loads(os.read(handle, 1024)))
    except (ValueError, TypeError):
        return None


def _is_still(path: Path, handle: int) -> bool:
    try:
        there = path.stat()
    except FileNotFoundError:
        return False
    mine = os.fstat(handle)
    return (there.st_dev, there.st_ino) == (mine.st_dev, mine.st_ino)


@contextmanager
def _touching(path: Path) -> Iterator[None]:
    done = threading.Event()

    def touch() -> None:
        while not done.wait(_TOUCH_EVERY_S):
            with suppress(OSError):
                os.utime(path)

    thread = threading.Thread(target=touch, name="medtrans-lock", daemon=True)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()


def _own() -> Holder:
    return Holder(socket.gethostname(), os.getpid())


def _refusal(folder: Path, work: str, holder: Holder) -> OutputError:
    return OutputError(
        f"{folder}: another {work} works in this folder, {holder}. Wait until it has ended, or "
        "choose another folder."
    )
