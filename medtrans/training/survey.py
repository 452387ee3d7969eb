"""What is odd about the volumes and pairs of a manifest, before hours are spent on them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple

import numpy as np
from monai.data import MetaTensor

from medtrans.config.terms import Contrast, Task
from medtrans.data.manifest import Entry, Manifest, Pair
from medtrans.errors import FileError
from medtrans.inference.input_checks import check_values
from medtrans.preprocessing.foreground import constant_background, find_foreground
from medtrans.registration.placed import Placed
from medtrans.registration.rigid import COARSE_MM, register
from medtrans.registration.similarity import similarity
from medtrans.volumes import read_volume, require_same_grid
from medtrans.volumes.geometry import numbers, orientation, spacing_mm

_FEWEST = 4  # volumes of a contrast, before one can be said to be unlike the others
_FACTOR = {"spacing_mm": 1.5, "litres": 2.0, "median": 10.0}  # from the median of its contrast
_DISPLACED_MM = 1.0

Update = Callable[[int, int], None]


class Facts(NamedTuple):
    """What is compared of a volume.

    Attributes
    ----------
    spacing_mm : tuple of float
        In RAS order, so that the orientation of the file does not matter.
    litres : float
        Of foreground.
    masked : bool
        Whether software has masked the background out.
    median : float
        Of the foreground's intensities.
    """

    spacing_mm: tuple[float, ...]
    litres: float
    masked: bool
    median: float


class Survey(NamedTuple):
    """What was found: sentences, each about one file or pair."""

    problems: list[str]
    warnings: list[str]


def survey(manifest: Manifest, tasks: Sequence[Task], update: Update) -> Survey:
    """Read every volume and pair of the tasks, in all splits.

    Parameters
    ----------
    manifest : Manifest
    tasks : sequence of Task
    update : callable
        Told how many volumes and pairs are done, and of how many.

    Returns
    -------
    Survey
        Its problems are what training would stop at.
    """
    wanted = dict.fromkeys(contrast for task in tasks for contrast in task)
    entries = [entry for contrast in wanted for entry in manifest.entries(contrast=contrast)]
    pairs = [pair for task in tasks for pair in manifest.pairs(*task, None)]
    found = Survey([], [])
    facts: dict[Contrast, dict[Entry, Facts]] = {contrast: {} for contrast in wanted}
    total = len(entries) + len(pairs)
    for done, entry in enumerate(entries, start=1):
        try:
            read = _read(entry)
            facts[entry.contrast][entry] = _facts(read)
            found.warnings.extend(f"{entry.path}: {w}" for w in _oddities(read, entry, tasks))
        except FileError as error:
            found.problems.append(str(error))
        update(done, total)
    for done, pair in enumerate(pairs, start=len(entries) + 1):
        if all(e in facts[e.contrast] for e in (pair.source, pair.target)):
            _look_at_pair(pair, found)
        update(done, total)
    for of_contrast in facts.values():
        found.warnings.extend(outliers(of_contrast))
    return found


def outliers(facts: dict[Entry, Facts]) -> Iterable[str]:
    """Say which volumes of one contrast are unlike the others of it.

    Parameters
    ----------
    facts : dict
        Of every volume of one contrast.
    """
    if len(facts) < _FEWEST:
        return
    masked = [f.masked for f in facts.values()]
    usually = sum(masked) * 2 >= len(masked)
    spacing = np.median([f.spacing_mm for f in facts.values()], axis=0).tolist()
    litres = float(np.median([f.litres for f in facts.values()]))
    median = float(np.median([f.median for f in facts.values()]))
    for entry, fact in facts.items():
        if not _near(fact.spacing_mm, spacing, _FACTOR["spacing_mm"]):
            yield (
                f"{entry.path}: its voxels are {numbers(fact.spacing_mm)} mm; those of the other "
                f"{entry.contrast} volumes are {numbers(spacing)} mm"
            )
        if not _near([fact.litres], [litres], _FACTOR["litres"]):
            yield (
                f"{entry.path}: it shows {fact.litres:.2f} litres; the other {entry.contrast} "
                f"volumes show {litres:.2f}"
            )
        if fact.masked != usually:
            yield (
                f"{entry.path}: its background is {'' if fact.masked else 'not '}masked out, "
                f"unlike that of most other {entry.contrast} volumes"
            )
        if median > 0 and not _near([max(fact.median, 1e-9)], [median], _FACTOR["median"]):
            yield (
                f"{entry.path}: the median of its foreground is {fact.median:.4g}; that of the "
                f"other {entry.contrast} volumes is {median:.4g}"
            )


def _near(values: Sequence[float], usual: Sequence[float], factor: float) -> bool:
    ratio = np.asarray(values) / np.asarray(usual)
    return bool(((ratio <= factor) & (ratio >= 1 / factor)).all())


def _read(entry: Entry) -> MetaTensor:
    entry.verify()
    return read_volume(entry.path, series=entry.series)


def _facts(volume: MetaTensor) -> Facts:
    voxels, affine = volume.numpy(), np.asarray(volume.affine, dtype=np.float64)
    foreground, spacing = find_foreground(voxels), spacing_mm(affine)
    order = [
        next(i for i, letter in enumerate(orientation(affine)) if letter in pair)
        for pair in ("LR", "PA", "IS")
    ]
    return Facts(
        tuple(spacing[order].tolist()),
        float(foreground.sum() * spacing.prod() / 1e6),
        constant_background(voxels) is not None,
        float(np.median(voxels[foreground])),
    )


def _oddities(volume: MetaTensor, entry: Entry, tasks: Sequence[Task]) -> Iterable[str]:
    source = volume.meta["source"]
    yield from source.warnings
    task = next((task for task in tasks if task.source == entry.contrast), None)
    if task is not None:
        yield from check_values(volume.numpy(), task, source)
    elif source.contrast not in (None, entry.contrast, "mr") and entry.contrast != "mr":
        yield f"its name or header says {source.contrast}, and the manifest {entry.contrast}"


def _look_at_pair(pair: Pair, found: Survey) -> None:
    source, target = _read(pair.source), _read(pair.target)
    names = f"{pair.source.path} and {pair.target.path}"
    try:
        require_same_grid(source, target, names)
    except FileError as error:
        found.problems.append(str(error))
        return
    fixed, moving = _placed(target), _placed(source)
    doubt = similarity(fixed, moving, np.eye(4)).doubt()
    displaced = _displacement_mm(fixed, moving)
    if displaced > _DISPLACED_MM:
        found.warnings.append(
            f"{names} seem to lie {displaced:.1f} mm apart: look at both, and register them anew"
        )
    elif doubt is not None:
        found.warnings.append(f"{names}: {doubt}; do both show one patient?")


def _placed(volume: MetaTensor) -> Placed:
    return Placed.of(volume.numpy(), np.asarray(volume.affine, dtype=np.float64))


def _displacement_mm(fixed: Placed, moving: Placed) -> float:
    """How far a registration moves the middle of a pair, if that makes the two more alike."""
    try:
        movement = register(fixed, moving, COARSE_MM)
    except FileError:
        return 0.0
    if similarity(fixed, moving, movement).nmi <= similarity(fixed, moving, np.eye(4)).nmi:
        return 0.0
    centre = [*fixed.centre_mm, 1]
    return float(np.linalg.norm((movement @ centre - centre)[:3]))
