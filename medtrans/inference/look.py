"""A look at an input: which contrast it shows, which way up, how large, beside the training's.

The contrast and the orientation are told by a small network that is trained with the model, from
ranks within the foreground; the file's name and header have no part in it. Left cannot be told from
right: a head and its mirror image look alike.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch

from medtrans.config.terms import Contrast, Task
from medtrans.networks.look import tissue_statistics
from medtrans.package.look import Extent, Known, Span
from medtrans.preprocessing.coarse import ORIENTATIONS, Orientation, cells_of, fine_cube
from medtrans.volumes.voxels import Voxels

# Chosen on train and val subjects; see docs/look.md.
_LEAST_EXPECTED = 0.2  # confidence in the task's source, below which the contrast is doubted
_LEAST_TURNED = 0.7  # confidence in another orientation, from which the header is doubted
_LEAST_SEEN_MM = 60.0  # along every axis, to tell an orientation
_SIZE_SLACK = 1.3  # beyond the training's largest, and below its smallest
_VOLUME_SLACK = 1.6
_SPACING_SLACK = 2.5
_MOST_AT_TOP = 0.05  # of the foreground: percentiles leave a hundredth there at most

_SIDES = (("left", "right"), ("posterior", "anterior"), ("inferior", "superior"))


@dataclass(frozen=True)
class Look:
    """What a look at an input found.

    Attributes
    ----------
    contrast : Contrast or None
        The likeliest of those the model knows; None for none of them.
    confidence : float
        In that answer, from 0 to 1.
    expected : float
        Confidence in the contrast that the task takes.
    orientation : Orientation or None
        The likeliest; None where too little is seen to tell.
    orientation_confidence : float
    extent : Extent
    unusual : tuple of str
        What is unlike the training volumes and what it may do, a sentence each.
    """

    contrast: Contrast | None
    confidence: float
    expected: float
    orientation: Orientation | None
    orientation_confidence: float
    extent: Extent
    unusual: tuple[str, ...] = ()

    @property
    def seems_turned(self) -> bool:
        """Whether the image contradicts the header's orientation."""
        upright = self.orientation in (None, ORIENTATIONS[0])
        return not upright and self.orientation_confidence >= _LEAST_TURNED

    @property
    def entries(self) -> dict[str, object]:
        """The entries of a sidecar, in its spelling."""
        return {
            "Contrast": self.contrast or "none of those the model knows",
            "ContrastConfidence": round(self.confidence, 3),
            "ExpectedContrastConfidence": round(self.expected, 3),
            "Orientation": describe_orientation(self.orientation),
            "OrientationConfidence": round(self.orientation_confidence, 3),
            "SpacingMm": [round(mm, 3) for mm in self.extent.spacing_mm],
            "ForegroundMm": [round(mm, 1) for mm in self.extent.size_mm],
            "ForegroundLitres": round(self.extent.litres, 3),
        }


def look_at(
    image: Voxels, spacing_mm: Sequence[float], task: Task, tasks: Sequence[Task], known: Known
) -> Look:
    """Compare a volume with what a model knows of its training volumes.

    Parameters
    ----------
    image : array of float32
        Shape (X, Y, Z), RAS, in [-1, 1]; -1 outside the foreground.
    spacing_mm : sequence of float
        Along each axis.
    task : Task
        What is asked for.
    tasks : sequence of Task
        What the model can do.
    known : Known
    """
    contrasts, orientations = _answers(image, spacing_mm, known)
    best = int(contrasts.argmax())
    contrast = known.contrasts[best] if best < len(known.contrasts) else None
    extent = Extent.of(image, spacing_mm)
    turned = int(orientations.argmax()) if min(extent.size_mm) >= _LEAST_SEEN_MM else None
    look = Look(
        contrast,
        float(contrasts[best]),
        _expected(contrasts, task, known),
        None if turned is None else ORIENTATIONS[turned],
        0.0 if turned is None else float(orientations[turned]),
        extent,
    )
    return Look(**{**vars(look), "unusual": tuple(_unusual(look, task, tasks, known))})


def describe_orientation(orientation: Orientation | None) -> str:
    """Say in words how a head lies in what its header calls RAS."""
    if orientation is None:
        return "cannot be told"
    if orientation == ORIENTATIONS[0]:
        return "as the header says; left and right cannot be told apart"
    front, top = (_pointing(orientation, axis) for axis in (1, 2))
    return f"the top of the head points to the header's {top} side, its front to the {front} side"


@torch.no_grad()
def _answers(image: Voxels, spacing_mm: Sequence[float], known: Known) -> tuple[torch.Tensor, ...]:
    """Ask the network; the orientation of the mirror image, too."""
    cells = cells_of(fine_cube(image, spacing_mm))
    contrast = known.network.contrast(tissue_statistics(cells)[None])
    orientation = known.network.orientation(torch.stack([cells, cells.flip(1)]))
    return contrast.softmax(1)[0], orientation.softmax(1).mean(0)


def _expected(contrasts: torch.Tensor, task: Task, known: Known) -> float:
    """Give the confidence in the task's source; 1 where the model never saw one, to doubt none."""
    if task.source not in known.contrasts:
        return 1.0
    return float(contrasts[known.contrasts.index(task.source)])


def _pointing(orientation: Orientation, axis: int) -> str:
    """Name the side, by the header, that the far end of a head's axis points to."""
    along = orientation.axes.index(axis)
    return _SIDES[along][not orientation.flipped[along]]


def _unusual(look: Look, task: Task, tasks: Sequence[Task], known: Known) -> Iterator[str]:
    if look.expected < _LEAST_EXPECTED:
        yield _of_contrast(look, task, tasks, known)
    if look.seems_turned:
        yield (
            f"it seems not to lie as its header says: {describe_orientation(look.orientation)} "
            f"({look.orientation_confidence:.0%} sure). The model would see it turned; correct the "
            "orientation in the header first"
        )
    yield from _of_extent(look.extent, known)


def _of_contrast(look: Look, task: Task, tasks: Sequence[Task], known: Known) -> str:
    sure = f"({look.confidence:.0%} sure)"
    if look.contrast is None:
        return (
            f"its voxels look like none of the contrasts that the model knows "
            f"({', '.join(known.contrasts)}) {sure}: another contrast or body part, or no image. "
            f"The result may show a {task.target} that the patient does not have"
        )
    other = Task(look.contrast, task.target)
    remedy = f"choose --task {other}" if other in tasks else "choose another --task or --model"
    return (
        f"its voxels look like {look.contrast} {sure}, and {task} expects {task.source}: tissues "
        f"would be taken for others. If it is {look.contrast}, {remedy}"
    )


def _of_extent(extent: Extent, known: Known) -> Iterator[str]:
    usual = known.usual
    if _any_beyond(extent.spacing_mm, usual.spacing_mm, _SPACING_SLACK):
        yield (
            f"its slices lie {_lengths(extent.spacing_mm)} apart, and those of the training "
            f"{_ranges(usual.spacing_mm)}: details between them are lost or repeated, and "
            "neighbouring slices tell less of each other"
        )
    if _any_beyond(extent.size_mm, usual.size_mm, _SIZE_SLACK):
        yield (
            f"what it shows measures {_lengths(extent.size_mm)}, and in the training "
            f"{_ranges(usual.size_mm)}: a part, more than the part that the model knows, another "
            "body part, or a wrong spacing in the header. The model was not trained for it"
        )
    elif _any_beyond([extent.litres], [usual.litres], _VOLUME_SLACK):
        yield (
            f"what it shows has {extent.litres:.2g} litres, and in the training "
            f"{_range(usual.litres)}: intensities are scaled by what is inside, so that tissues "
            "may come out too bright or too dark"
        )
    if extent.at_top > max(_MOST_AT_TOP, 2 * usual.at_top[1]):
        yield (
            f"{extent.at_top:.0%} of it is as bright as the model sees anything: clipped values, "
            "another unit, or no image. Differences there are lost"
        )


def _any_beyond(values: Sequence[float], usual: Sequence[Span], slack: float) -> bool:
    spans = zip(values, usual, strict=True)
    return any(not low / slack <= value <= high * slack for value, (low, high) in spans)


def _lengths(values: Sequence[float]) -> str:
    """Spell lengths from left to right, back to front and bottom to top."""
    return f"{' x '.join(f'{value:.3g}' for value in values)} mm (left-right, front-back, up-down)"


def _ranges(spans: Sequence[Span]) -> str:
    return f"{' x '.join(map(_range, spans))} mm"


def _range(span: Span) -> str:
    low, high = (f"{value:.3g}" for value in span)
    return low if low == high else f"{low} to {high}"
