"""All of a file or nothing of it."""

import os
import pathlib
import sys

import pytest

from medtrans.errors import OutputError
from medtrans.system import atomic
from medtrans.system.atomic import remove_leftovers, replacing, replacing_folder
from tests.faults.kills import kills


def names(folder):
    return sorted(p.name for p in folder.iterdir())


def test_a_file_appears_when_it_is_whole(tmp_path):
    goal = tmp_path / "a.nii.gz"
    goal.write_text("old")
    with replacing(goal) as temporary:
        temporary.write_text("new")
        assert goal.read_text() == "old"
        assert temporary.name.endswith("a.nii.gz")
    assert goal.read_text() == "new"
    assert names(tmp_path) == ["a.nii.gz"]


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
def test_nothing_is_left_of_a_failure(tmp_path, error):
    with pytest.raises(error), replacing(tmp_path / "a") as temporary:
        temporary.write_text("half")
        raise error
    with pytest.raises(error), replacing_folder(tmp_path / "b") as temporary:
        (temporary / "x").write_text("half")
        raise error
    assert names(tmp_path) == []


def test_a_folder_appears_when_it_is_whole(tmp_path):
    (tmp_path / "goal").mkdir()
    with replacing_folder(tmp_path / "goal") as temporary:
        (temporary / "x").write_text("x")
        assert names(tmp_path / "goal") == []
    assert names(tmp_path / "goal") == ["x"]
    with pytest.raises(OutputError, match="new or empty"), replacing_folder(tmp_path / "goal"):
        pass


def test_a_folder_is_replaced_when_the_new_one_is_whole(tmp_path):
    goal = tmp_path / "goal"
    goal.mkdir()
    (goal / "old").write_text("x")
    with pytest.raises(ValueError), replacing_folder(goal, anew=True):
        raise ValueError
    assert names(goal) == ["old"]
    with replacing_folder(goal, anew=True) as temporary:
        (temporary / "new").write_text("x")
        assert names(goal) == ["old"]
    assert names(tmp_path) == ["goal"]
    assert names(goal) == ["new"]


def test_places_that_cannot_be_written_are_refused(tmp_path):
    with pytest.raises(OutputError, match="no such folder"), replacing(tmp_path / "x" / "a"):
        pass
    with pytest.raises(OutputError, match="found a folder"), replacing(tmp_path):
        pass
    with pytest.raises(OutputError, match="No space left"), replacing(tmp_path / "a") as temporary:
        temporary.write_text("x")
        raise OSError(28, "No space left on device")


def write_anew(goal, text):
    """A folder of a file and one within, in place of the one that is there."""
    with replacing_folder(goal, anew=True) as temporary:
        (temporary / "inner").mkdir()
        for name in ("a", "inner/b"):
            (temporary / name).write_text(text)


def whole(goal):
    """What the files of such a folder say; one text, and no file is missing."""
    assert names(goal) == ["a", "inner"]
    [text] = {(goal / name).read_text() for name in ("a", "inner/b")}
    return text


class TestKilled:
    """At every moment the old or the new is there, and the next write leaves nothing else."""

    def test_replacing_a_file(self, tmp_path):
        goal = tmp_path / "a"
        goal.write_text("old")
        seen = set()
        for _ in kills(lambda: write_text(goal, "new")):
            seen.add(goal.read_text())
            goal.write_text("old")
        assert seen == {"old", "new"}
        assert goal.read_text() == "new"
        remove_leftovers(tmp_path)
        assert names(tmp_path) == ["a"]

    @pytest.mark.skipif(sys.platform != "linux", reason="only Linux exchanges names")
    def test_replacing_a_folder(self, tmp_path):
        goal = tmp_path / "goal"
        write_anew(goal, "old")
        seen = set()
        for _ in kills(lambda: write_anew(goal, "new")):
            seen.add(whole(goal))
            write_anew(goal, "old")
            remove_leftovers(tmp_path)
            assert names(tmp_path) == ["goal"]
        assert seen == {"old", "new"}
        assert whole(goal) == "new"

    def test_replacing_a_folder_where_names_cannot_be_exchanged(self, tmp_path, monkeypatch):
        monkeypatch.setattr(atomic, "_exchange", lambda *_: False)
        goal = tmp_path / "goal"
        write_anew(goal, "old")
        seen = set()
        for _ in kills(lambda: write_anew(goal, "new")):
            if not goal.exists():  # between two renames: the next write finds the old one
                seen.add("aside")
                with pytest.raises(ValueError), replacing_folder(goal, anew=True):
                    raise ValueError
            seen.add(whole(goal))
            write_anew(goal, "old")
            remove_leftovers(tmp_path)
            assert names(tmp_path) == ["goal"]
        assert seen == {"old", "aside", "new"}

    def test_a_failed_rename_puts_the_old_folder_back(self, tmp_path, monkeypatch):
        monkeypatch.setattr(atomic, "_exchange", lambda *_: False)
        goal = tmp_path / "goal"
        write_anew(goal, "old")
        with pytest.raises(OutputError), replacing_folder(goal, anew=True) as temporary:
            monkeypatch.setattr(type(temporary), "replace", failing_second(type(temporary)))
        assert whole(goal) == "old"
        assert [name for name in names(tmp_path) if "old" in name] == []


def failing_second(kind):
    """`Path.replace`, whose second call fails as on a disk that went away."""
    calls, real = [], kind.replace

    def replace(self, target):
        calls.append(target)
        if len(calls) == 2:
            raise OSError(5, "Input/output error")
        return real(self, target)

    return replace


def write_text(goal, text):
    with replacing(goal) as temporary:
        temporary.write_text(text)


def test_what_is_renamed_is_on_the_disk_before_and_its_folder_after(tmp_path, monkeypatch):
    """A power cut leaves the old or the new: the order of fsync and rename decides."""
    done = []
    replace = pathlib.Path.replace

    def renamed(path, target):
        done.append(("rename", path))
        return replace(path, target)

    monkeypatch.setattr(atomic, "_sync", lambda path: done.append(("sync", path)))
    monkeypatch.setattr(pathlib.Path, "replace", renamed)
    with replacing(tmp_path / "a") as file:
        file.write_text("x")
    assert done == [("sync", file), ("rename", file), ("sync", tmp_path)]
    done.clear()
    with replacing_folder(tmp_path / "b") as folder:
        (folder / "x").write_text("x")
    assert done == [
        ("sync", folder / "x"), ("sync", folder), ("rename", folder), ("sync", tmp_path)
    ]  # fmt: skip


def test_leftovers_of_killed_processes_alone_are_removed(tmp_path):
    kept = [".hidden", ".medtrans-old-goal", "medtrans-01234567-a", ".medtrans-lock", "a"]
    for name in (*kept, ".medtrans-01234567-a", ".medtrans-89abcdef-a.nii.gz"):
        (tmp_path / name).write_text("x")
    (tmp_path / ".medtrans-0123abcd-folder" / "deep").mkdir(parents=True)
    os.utime(tmp_path / ".medtrans-89abcdef-a.nii.gz", (1, 1))
    remove_leftovers(tmp_path, idle_s=3600)
    assert ".medtrans-01234567-a" in names(tmp_path)
    assert ".medtrans-89abcdef-a.nii.gz" not in names(tmp_path)
    remove_leftovers(tmp_path)
    assert names(tmp_path) == sorted(kept)
    remove_leftovers(tmp_path / "missing")
