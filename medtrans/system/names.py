"""Names that become folders: plain ones only, and nothing leads out of where it belongs."""

from __future__ import annotations

from pathlib import Path, PurePosixPath, PureWindowsPath

from medtrans.errors import OutputError

_LONGEST = 120  # bytes; file systems take 255, and a name of ours may follow


def is_plain_name(name: str) -> bool:
    """Whether a text is one name on every system: no separator, drive, `..` or control character.

    Parameters
    ----------
    name
        Not empty.
    """
    one_part = PurePosixPath(name).name == name == PureWindowsPath(name).name
    return one_part and name not in (".", "..") and name.isprintable() and _fits(name)


def require_inside(path: Path, folder: Path) -> None:
    """Refuse a path that lies outside a folder once links are resolved.

    Parameters
    ----------
    path, folder
        Need not exist.

    Raises
    ------
    OutputError
    """
    if not path.resolve().is_relative_to(folder.resolve()):
        raise OutputError(
            f"{path}: it leads out of {folder}, where it should be written. Remove the link or "
            "the '..' in it, or name another folder."
        )


def _fits(name: str) -> bool:
    return len(name.encode("utf-8", "replace")) <= _LONGEST
