"""From a folder of images to the rows of a manifest: whose, which contrast, which split."""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath

from medtrans.config.terms import Contrast
from medtrans.data.layouts import Layout
from medtrans.data.naming import Name, bids_entities, bids_name, plain, tree_names
from medtrans.data.search import Candidate, LeftOut, OnFile, pseudonym, search
from medtrans.data.splits import TEST_SHARE, VAL_SHARE, split_by_name
from medtrans.errors import UsageError
from medtrans.volumes.contrast import from_bids, from_name, is_no_image, refined
from medtrans.volumes.source import split_suffix

MASK, UNKNOWN, TWICE = (
    "a mask, a map or another kind of image, by its name",
    "its contrast cannot be told",
    "another volume of the same subject, session and contrast is listed",
)


@dataclass(frozen=True)
class Volume:
    """One row of a manifest; `split` is empty until `split_cohort` fills it in."""

    path: Path
    subject: str
    session: str
    contrast: Contrast
    series: str = ""
    split: str = ""

    def row(self, folder: Path) -> dict[str, str]:
        """Give the columns of a manifest that lies in `folder`."""
        return {
            "subject": self.subject,
            "contrast": self.contrast,
            "path": _relative(self.path, folder),
            "split": self.split,
            "session": self.session,
            "series": self.series,
        }


@dataclass(frozen=True)
class Cohort:
    """What there is in a folder.

    Attributes
    ----------
    volumes : tuple of Volume
        By subject, session and contrast; each of these once.
    left_out : tuple of LeftOut
    others : int
        How many files are of no image.
    """

    volumes: tuple[Volume, ...]
    left_out: tuple[LeftOut, ...]
    others: int


@dataclass(frozen=True)
class Options:
    """How to name and split what is found.

    Attributes
    ----------
    layout : Layout or None
        None: BIDS, DICOM's attributes, or folders and names.
    val, test : float
        Share of the subjects in each.
    keep_ids : bool
        Name subjects by the PatientID of DICOM, instead of by a hash of it.
    """

    layout: Layout | None = None
    val: float = VAL_SHARE
    test: float = TEST_SHARE
    keep_ids: bool = False


def find_cohort(root: Path, options: Options, on_file: OnFile) -> Cohort:
    """List the volumes below a folder, named, each contrast of a session once, and split.

    Parameters
    ----------
    root, on_file
        As for `search`.
    options
        How.

    Raises
    ------
    UsageError
        If `root` is no folder, or holds no volume that could be listed.
    """
    if not root.is_dir():
        raise UsageError(f"{root}: expected a folder with images. Check the path.")
    split_by_name([], options.val, options.test)  # refuses wrong shares before the work
    layout = options.layout
    found, left_out, others = search(root, by_folder=layout is not None, on_file=on_file)
    if layout is not None:
        named, unnamed = _by_layout(root, found, layout)
    else:
        named, unnamed = _by_guess(root, found, keep_ids=options.keep_ids)
    once, twice = _each_once(named)
    left_out = sorted([*left_out, *unnamed, *twice], key=lambda item: str(item.path))
    if not once:
        first = f"; the first, {left_out[0].path}: {left_out[0].why}" if left_out else ""
        raise UsageError(
            f"{root}: found no volume to list ({len(left_out)} left out{first}). Check the folder, "
            "or describe its names in a layout (docs/manifest.md) and give it with --layout."
        )
    return Cohort(tuple(_split(once, options)), tuple(left_out), others)


def _by_layout(
    root: Path, found: Iterable[Candidate], layout: Layout
) -> tuple[list[tuple[Volume, int]], list[LeftOut]]:
    named: list[tuple[Volume, int]] = []
    left_out = []
    for item in found:
        match = layout.match(_relative(item.path, root))
        contrast = match.contrast or item.contrast
        if match.why or contrast is None:
            left_out.append(LeftOut(item.path, match.why or UNKNOWN))
            continue
        subject, session = plain(match.subject), match.session and plain(match.session)
        volume = Volume(item.path, subject, session, contrast, item.series, match.split)
        named.append((volume, item.slices))
    return named, left_out


def _by_guess(
    root: Path, found: list[Candidate], *, keep_ids: bool
) -> tuple[list[tuple[Volume, int]], list[LeftOut]]:
    """Name by BIDS, else by DICOM's attributes, else by the path; the contrast likewise."""
    left_out: list[LeftOut] = []
    known: list[tuple[Candidate, Contrast, Name | None]] = []
    studies = _studies(found)
    for item in found:
        entities = bids_entities(PurePosixPath(_relative(item.path, root)))
        if entities is not None and not item.patient:
            contrast = from_bids(entities["suffix"], agent="ce" in entities)
            name: Name | None = bids_name(entities)
        else:
            contrast = refined(item.contrast, _by_name(item.path, root))
            name = _patient(item, studies, keep_ids=keep_ids)
        if contrast is None:
            why = MASK if is_no_image(split_suffix(item.path)[0]) else UNKNOWN
            left_out.append(LeftOut(item.path, why))
        else:
            known.append((item, contrast, name))
    stems = {item.path: _stem(item.path, root) for item, _, _ in known}
    unnamed = [(stems[item.path], contrast) for item, contrast, name in known if name is None]
    names = tree_names(unnamed, plain(root.resolve().name))
    return [
        (Volume(item.path, *(name or names[stems[item.path]]), contrast, item.series), item.slices)
        for item, contrast, name in known
    ], left_out


def _by_name(path: Path, root: Path) -> Contrast | None:
    """Tell by the name of the file, or else by that of the nearest folder that tells anything."""
    stem = split_suffix(path)[0]
    if is_no_image(stem):
        return None
    folders = PurePosixPath(_relative(path, root)).parent.parts
    return next(filter(None, map(from_name, (stem, *reversed(folders)))), None)


def _studies(found: Iterable[Candidate]) -> dict[str, list[str]]:
    """List the studies of each patient, in the order of their time."""
    times: dict[str, set[tuple[str, str]]] = defaultdict(set)
    for item in found:
        if item.patient:
            times[item.patient].add((item.time, item.study))
    return {
        patient: list(dict.fromkeys(study for _, study in sorted(those)))
        for patient, those in times.items()
    }


def _patient(item: Candidate, studies: Mapping[str, list[str]], *, keep_ids: bool) -> Name | None:
    if not item.patient:
        return None
    those = studies[item.patient]
    session = f"study{those.index(item.study) + 1}" if len(those) > 1 else ""
    return Name(plain(item.patient) if keep_ids else pseudonym(item.patient), session)


def _each_once(named: Iterable[tuple[Volume, int]]) -> tuple[list[Volume], list[LeftOut]]:
    """Keep one of each subject, session and contrast: most slices, then the shortest name."""
    same: dict[tuple[str, str, str], list[tuple[Volume, int]]] = defaultdict(list)
    for volume, slices in named:
        same[volume.subject, volume.session, volume.contrast].append((volume, slices))
    kept, twice = [], []
    for key in sorted(same):
        first, *others = sorted(same[key], key=_preference)
        kept.append(first[0])
        twice += [LeftOut(v.path, TWICE, f"{first[0].path} is listed.") for v, _ in others]
    return kept, twice


def _preference(pair: tuple[Volume, int]) -> tuple[int, int, str, str]:
    volume, slices = pair
    return -slices, len(volume.path.name), str(volume.path), volume.series


def _split(volumes: list[Volume], options: Options) -> list[Volume]:
    """Fill in the split: the layout's, and by the subject's name where it states none."""
    stated = {volume.subject: volume.split for volume in volumes if volume.split}
    rest = {volume.subject for volume in volumes} - stated.keys()
    splits = {**split_by_name(rest, options.val, options.test), **stated}
    return [replace(volume, split=splits[volume.subject]) for volume in volumes]


def _stem(path: Path, root: Path) -> PurePosixPath:
    relative = PurePosixPath(_relative(path, root))
    return relative.with_name(split_suffix(path)[0]) if relative.name else relative


def _relative(path: Path, folder: Path) -> str:
    return Path(os.path.relpath(path, folder)).as_posix()
