"""What a fault of ours leaves behind: a short file that says where, and nothing of a patient.

No message, value or source line of the exception is written down, and of the command only its name
and the names of its options: any of the rest may hold a path or what a header says.
"""

from __future__ import annotations

import os
import platform
import sys
import tempfile
import traceback
from collections.abc import Iterator, Sequence
from importlib import metadata
from pathlib import Path

from medtrans.version import __version__

_LIBRARIES = ("torch", "monai", "numpy", "nibabel", "pydicom", "SimpleITK", "pandas", "pydantic")
_MOST_FRAMES = 30


def report(error: BaseException, arguments: Sequence[str], known: frozenset[str]) -> str:
    """Write a report of an unexpected exception, and say in a sentence where it is.

    Parameters
    ----------
    error
        What was raised.
    arguments
        The command line without the program's name.
    known
        The words of `arguments` that may be told: names of commands and options.
    """
    try:
        number, name = tempfile.mkstemp(".txt", "medtrans-crash-", folder())
        with os.fdopen(number, "w", encoding="utf-8") as file:
            file.write(text(error, arguments, known))
    except OSError:
        return "No report could be written: the folder for temporary files is full or locked."
    return (
        f"A report is in {name}: versions, the command without paths, and the place in the code. "
        "Read it through, and add it to an issue in the repository of medtrans."
    )


def text(error: BaseException, arguments: Sequence[str], known: frozenset[str]) -> str:
    """Return the report; parameters as for `report`."""
    told = [word for word in (a.partition("=")[0] for a in arguments) if word in known]
    lines = [
        f"medtrans {__version__}",
        f"Python {platform.python_version()}, {platform.system()} {platform.machine()}",
        ", ".join(f"{library} {_version(library)}" for library in _LIBRARIES),
        f"command: medtrans {' '.join(told)}",
        "",
        *_causes(error),
    ]
    return "\n".join(lines) + "\n"


def folder() -> str:
    """Where reports are written: the folder for temporary files."""
    return tempfile.gettempdir()


def place(error: BaseException) -> str:
    """Where an exception was raised, as module:line; our own innermost frame where there is one."""
    frames = traceback.extract_tb(error.__traceback__)
    places = [_place(frame) for frame in frames]
    ours = [where for where in places if where.startswith("medtrans.")]
    return (ours or places or ["an unknown place"])[-1]


def _causes(error: BaseException) -> Iterator[str]:
    seen: BaseException | None = error
    for _ in range(5):
        if seen is None:
            return
        yield type(seen).__name__
        for frame in traceback.extract_tb(seen.__traceback__)[-_MOST_FRAMES:]:
            yield f"  {_place(frame)} in {frame.name}"
        seen = seen.__cause__ or seen.__context__


def _place(frame: traceback.FrameSummary) -> str:
    """Spell a frame's place without the folders above its package."""
    file = Path(frame.filename)
    roots = [Path(root or ".").resolve() for root in sys.path]
    inside = [file.relative_to(root) for root in roots if file.is_relative_to(root)]
    short = min(inside, key=lambda path: len(path.parts), default=Path(file.name))
    return f"{'.'.join(short.with_suffix('').parts)}:{frame.lineno}"


def _version(library: str) -> str:
    try:
        return metadata.version(library)
    except metadata.PackageNotFoundError:
        return "missing"
