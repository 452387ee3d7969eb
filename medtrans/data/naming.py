"""Whose image a file is, by its path alone: BIDS, or a tree of folders as people make them."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Mapping
from pathlib import PurePosixPath
from typing import NamedTuple

from medtrans.config.terms import Contrast
from medtrans.volumes.contrast import from_name, without_contrast

# Folders that name a kind of data, not a person.
_GENERAL = frozenset((
    "anat", "brain", "data", "dataset", "dicom", "dicoms", "image", "images", "imagestr",
    "imagests", "mri", "nifti", "niftis", "nii", "raw", "scans", "test", "testing", "train",
    "training", "val", "valid", "validation", "volumes",
))  # fmt: skip
# What ends a name when it tells visits of one person apart. Two visits that are taken for two
# persons may come to lie in two splits; one person's name that is cut too short may not.
_VISIT = re.compile(
    r"(?i)^(?P<subject>.+?)[-_ .](?P<session>(?:ses(?:sion)?|study|visit|tp|time(?:point)?|exam|"
    r"follow-?up|fu|baseline|bl|day|week|month|year)[-_ ]?\d*)$"
)


class Name(NamedTuple):
    """Subject and session; the session is empty where there is one only."""

    subject: str
    session: str


def bids_entities(path: PurePosixPath) -> dict[str, str] | None:
    """Entities of a BIDS image, for instance ``{"sub": "01", "ce": "gad", "suffix": "T1w"}``.

    Parameters
    ----------
    path
        Below the data set's folder.

    Returns
    -------
    dict or None
        None for a name that is not BIDS'.
    """
    stem = path.name.split(".", 1)[0]
    if not re.fullmatch(r"sub-[A-Za-z0-9]+(_[a-z]+-[A-Za-z0-9+]+)*_[A-Za-z0-9]+", stem):
        return None
    *pairs, suffix = stem.split("_")
    return {**dict(pair.split("-", 1) for pair in pairs), "suffix": suffix}


def bids_name(entities: Mapping[str, str]) -> Name:
    """Subject and session of a BIDS image, spelt as BIDS spells its folders."""
    session = entities.get("ses", "")
    return Name(f"sub-{entities['sub']}", f"ses-{session}" if session else "")


def tree_names(
    images: Iterable[tuple[PurePosixPath, Contrast | None]], root: str
) -> dict[PurePosixPath, Name]:
    """Name the images of a plain tree by folders or, where a folder has several, by file names.

    Parameters
    ----------
    images
        Paths below the tree's folder without suffix, and the contrast of each.
    root
        Name of the tree's folder: the subject of images that nothing else names.

    Returns
    -------
    dict of path to Name
    """
    listed = list(images)
    keys = _without_common({path: _telling(path) for path, _ in listed})
    groups: dict[tuple[str, ...], list[tuple[PurePosixPath, Contrast | None]]] = defaultdict(list)
    for path, contrast in listed:
        groups[keys[path]].append((path, contrast))
    owners: dict[str, set[tuple[str, ...]]] = defaultdict(set)
    for path, _ in listed:
        owners[without_contrast(path.name)].add(keys[path])
    names = {}
    for key, members in groups.items():
        by_file = not key or _holds_several(members, owners)
        for path, _ in members:
            rest = without_contrast(path.name)
            names[path] = _visit(rest or root) if by_file else _by_folders(key)
    return names


def plain(name: str) -> str:
    """Replace what no folder of an output may be called."""
    return re.sub(r"[^\w .+=@-]", "-", name).strip(" .") or "unnamed"


def _telling(path: PurePosixPath) -> tuple[str, ...]:
    """Folders that may name a person or a visit: no general ones, and none for a contrast."""
    return tuple(
        part
        for part in path.parent.parts
        if part.lower() not in _GENERAL and not (from_name(part) and not without_contrast(part))
    )


def _without_common(
    keys: dict[PurePosixPath, tuple[str, ...]],
) -> dict[PurePosixPath, tuple[str, ...]]:
    """Drop leading folders that all share, as long as another is left for each."""
    while len(set(keys.values())) > 1 and all(len(key) > 1 for key in keys.values()):
        if len({key[0] for key in keys.values()}) > 1:
            break
        keys = {path: key[1:] for path, key in keys.items()}
    return keys


def _holds_several(
    members: list[tuple[PurePosixPath, Contrast | None]],
    owners: Mapping[str, set[tuple[str, ...]]],
) -> bool:
    """Whether one folder has one contrast of several persons, whose names no other folder has."""
    by_contrast: dict[Contrast | None, set[str]] = defaultdict(set)
    for path, contrast in members:
        by_contrast[contrast].add(without_contrast(path.name))
    rests = max(by_contrast.values(), key=len)
    return len(rests) > 1 and all(rest and len(owners[rest]) == 1 for rest in rests)


def _by_folders(key: tuple[str, ...]) -> Name:
    if len(key) == 1:
        return _visit(key[0])
    return Name(plain(key[0]), plain("-".join(key[1:])))


def _visit(name: str) -> Name:
    """Tell a visit at the end of a name from the person's."""
    if found := _VISIT.match(name):
        return Name(plain(found["subject"]), plain(found["session"]))
    return Name(plain(name), "")
