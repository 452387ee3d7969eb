"""All of a file or nothing of it."""

import pytest

from medtrans.errors import OutputError
from medtrans.system.atomic import replacing, replacing_folder


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
