"""One process at a time in a folder."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from medtrans.errors import OutputError
from medtrans.system import locks
from medtrans.system.locks import LOCK_FILE, only_one_in

HOLD = """
import sys, time
from pathlib import Path
from medtrans.system.locks import only_one_in
with only_one_in(Path(sys.argv[1]), "training"):
    print("held", flush=True)
    time.sleep(60)
"""


@contextmanager
def holding(folder: Path) -> Iterator[subprocess.Popen[str]]:
    """Another process that holds the folder's lock."""
    command = [sys.executable, "-c", HOLD, str(folder)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "held\n"
        yield process
        process.kill()


def left_by(folder: Path, host: str, process: int, silent_s: float) -> Path:
    """A lock file that a process left so long ago."""
    path = folder / LOCK_FILE
    path.write_text(json.dumps({"host": host, "process": process}))
    then = time.time() - silent_s
    os.utime(path, (then, then))
    return path


def test_another_process_is_named(tmp_path: Path) -> None:
    with holding(tmp_path) as other:
        expected = rf"another training .*process {other.pid} on {socket.gethostname()}\."
        with pytest.raises(OutputError, match=expected), only_one_in(tmp_path, "training"):
            pass
        other.send_signal(signal.SIGKILL)
        other.wait()
        assert (tmp_path / LOCK_FILE).exists()
        with only_one_in(tmp_path, "training"):  # what the dead one left is taken over
            assert json.loads((tmp_path / LOCK_FILE).read_text())["process"] == os.getpid()
    assert list(tmp_path.iterdir()) == []


def test_a_child_does_not_hold_it_for_its_dead_parent(tmp_path: Path) -> None:
    """Loader workers outlive a killed training by seconds; a resumed one need not wait."""
    program = HOLD.replace('print("held"', 'import os; child = os.fork(); child and print("held"')
    command = [sys.executable, "-c", program, str(tmp_path)]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, text=True, start_new_session=True
    ) as parent:
        assert parent.stdout is not None
        parent.stdout.readline()
        parent.kill()
        os.waitid(os.P_PID, parent.pid, os.WEXITED | os.WNOWAIT)
        try:
            with only_one_in(tmp_path, "training"):
                pass
        finally:
            os.killpg(parent.pid, signal.SIGKILL)


def test_threads_of_one_process_are_parted_too(tmp_path: Path) -> None:
    caught: list[OutputError] = []

    def second() -> None:
        try:
            with only_one_in(tmp_path / ".." / tmp_path.name, "training"):
                pass
        except OutputError as error:
            caught.append(error)

    with only_one_in(tmp_path, "training"):
        thread = threading.Thread(target=second)
        thread.start()
        thread.join()
    assert f"process {os.getpid()} " in str(caught[0])
    with only_one_in(tmp_path, "training"):
        pass


@pytest.mark.parametrize(("silent_s", "is_refused"), [(10.0, True), (1000.0, False)])
@pytest.mark.parametrize("has_locks", [True, False])
def test_another_machines_process_counts_while_it_touches_the_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, silent_s: float, *, is_refused: bool,
    has_locks: bool,
) -> None:  # fmt: skip
    if not has_locks:
        monkeypatch.setattr(locks, "_lock", lambda _: None)
    left_by(tmp_path, "node7", 4711, silent_s)
    if is_refused:
        with (
            pytest.raises(OutputError, match="process 4711 on node7"),
            only_one_in(tmp_path, "training"),
        ):
            pass
    else:
        with only_one_in(tmp_path, "training"):
            pass


def test_the_holder_touches_its_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(locks, "_TOUCH_EVERY_S", 0.01)
    with only_one_in(tmp_path, "training"):
        path = tmp_path / LOCK_FILE
        os.utime(path, (1, 1))
        deadline = time.monotonic() + 10
        while path.stat().st_mtime < 2 and time.monotonic() < deadline:
            time.sleep(0.01)
        assert path.stat().st_mtime > 2


def test_a_holder_that_was_taken_for_dead_leaves_the_others_file(tmp_path: Path) -> None:
    with only_one_in(tmp_path, "training"):
        path = left_by(tmp_path, "node7", 4711, 0.0)
    assert json.loads(path.read_text())["host"] == "node7"


@pytest.mark.parametrize("content", ["", "{", "[]", '{"host": 1}'])
def test_a_file_that_does_not_say_who_is_taken_over(tmp_path: Path, content: str) -> None:
    (tmp_path / LOCK_FILE).write_text(content)
    with only_one_in(tmp_path, "training"):
        pass


def test_a_lock_that_was_removed_in_the_meantime_is_made_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between opening and locking, the holder ends and a third process makes its own file."""
    real, calls = locks._lock, 0

    def late(handle: int) -> bool | None:
        nonlocal calls
        calls += 1
        if calls == 1:
            (tmp_path / LOCK_FILE).unlink()
        return real(handle)

    monkeypatch.setattr(locks, "_lock", late)
    with only_one_in(tmp_path, "training"):
        assert (tmp_path / LOCK_FILE).exists()
    assert calls == 2


def test_a_folder_that_cannot_be_written(tmp_path: Path) -> None:
    with (
        pytest.raises(OutputError, match=r"gone: cannot be written"),
        only_one_in(tmp_path / "gone", "training"),
    ):
        pass
