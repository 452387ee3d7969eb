"""What lies in a series' folder and is no slice of its volume: copies, localizers, other planes.

Each is left out with a warning that names or counts it. Whether the rest is a volume is decided
afterwards, by the same checks as without strays.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from medtrans.volumes.dicom import stack
from medtrans.volumes.dicom.dataset import parse, pixels, quiet
from medtrans.volumes.dicom.frames import Frame, floats
from medtrans.volumes.dicom.series import Series
from medtrans.volumes.source import unreadable_on_error

_MOST_NAMES = 5


def without_copies(frames: list[Frame], where: str) -> tuple[list[Frame], list[str]]:
    """Leave out images that are there again: the same instance, attributes and pixels.

    Parameters
    ----------
    frames
        In any order; the first of equal ones stays.
    where
        What to name in the sentence.

    Returns
    -------
    list of Frame
    list of str
        A warning that counts the copies, if there are any.

    Raises
    ------
    UnreadableFileError
        If the pixels of an image with the UID of another cannot be decoded.
    """
    same: dict[tuple[str, int], list[Frame]] = {}
    for frame in frames:
        same.setdefault((frame.instance_uid, frame.index), []).append(frame)
    hashes: dict[Path, list[str]] = {}
    copies: set[int] = set()
    for (uid, _), (first, *others) in same.items():
        for other in others if uid else ():
            if replace(other, path=first.path) == first and (
                _pixel_hash(first, hashes) == _pixel_hash(other, hashes)
            ):
                copies.add(id(other))
    if not copies:
        return frames, []
    return [frame for frame in frames if id(frame) not in copies], [
        f"{where}: {len(copies)} image(s) are there twice, with the same SOP Instance UID and "
        "pixels; the copies were left out."
    ]


def without_other_planes(frames: list[Frame], where: str) -> tuple[list[Frame], list[str]]:
    """Leave out the few images that lie across the others; as `without_copies`."""
    across = set(stack.in_other_planes(np.array([floats(f.orientation) for f in frames])))
    if not across:
        return frames, []
    strays = [frames[index].path for index in sorted(across)]
    rest = [frame for index, frame in enumerate(frames) if index not in across]
    return rest, [left_out(where, strays, "in another plane than the others")]


def left_out(where: str, files: Sequence[Path], what: str) -> str:
    """Say which files were left out, and why.

    Parameters
    ----------
    where, files
        The series, and the files in it; at least one.
    what
        What they are.
    """
    return f"{where}: {len(files)} image(s) {what} were left out: {_some(f.name for f in files)}."


def left_beside(where: str, series: Series) -> list[str]:
    """Say which other series of the folder were left out since they cannot be a volume."""
    if not series.beside:
        return []
    lines = (
        f"{s.number or s.uid or 'one without a number'} "
        f"({'localizer' if s.localizer else f'{s.images} image(s)'}, {s.files[0].name})"
        for s in series.beside
    )
    return [f"{where}: {len(series.beside)} other series were left out: {_some(lines)}."]


def _some(names: Iterable[str]) -> str:
    listed = list(names)
    more = f" and {len(listed) - _MOST_NAMES} more" if len(listed) > _MOST_NAMES else ""
    return ", ".join(listed[:_MOST_NAMES]) + more


def _pixel_hash(frame: Frame, known: dict[Path, list[str]]) -> str:
    if frame.path not in known:
        with unreadable_on_error(frame.path), quiet():
            dataset, _ = parse(frame.path, with_pixels=True)
            planes = pixels(dataset, frame.path)
            known[frame.path] = [hashlib.sha256(plane.tobytes()).hexdigest() for plane in planes]
    return known[frame.path][frame.index]
