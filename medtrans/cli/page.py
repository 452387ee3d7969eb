"""The page of `medtrans translate --report`: what can be refused early, and writing it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from medtrans.errors import FileError, UsageError
from medtrans.inference.jobs import ReadJob
from medtrans.volumes import marks, require_same_grid
from medtrans.volumes.files import load
from medtrans.volumes.voxels import Voxels

if TYPE_CHECKING:
    from medtrans.inference.translator import Written


@dataclass(frozen=True)
class PageRequest:
    """The page of one input.

    Attributes
    ----------
    path : Path
        The HTML file.
    reference : Path or None
        The real image of the target contrast.
    uncertainty : bool
        Whether to show the uncertainty map.
    """

    path: Path
    reference: Path | None
    uncertainty: bool

    def __post_init__(self) -> None:
        if self.path.suffix.lower() not in (".html", ".htm"):
            raise UsageError(f"--report writes an HTML page: {self.path} should end in .html.")


@dataclass(frozen=True)
class PageJob:
    """A page that can be written.

    Attributes
    ----------
    request : PageRequest
    read : ReadJob
    reference : array of float32 or None
        Shape (X, Y, Z), on the input's grid.
    """

    request: PageRequest
    read: ReadJob
    reference: Voxels | None

    def save(self, written: Written) -> None:
        """Write the page of a translation."""
        from medtrans.report.translation import Extras, save_translation

        spread = written.translation.spread if self.request.uncertainty else None
        extras = Extras(self.reference, uncertainty=spread)
        save_translation(self.request.path, self.read.image, written, extras)


def check_page(request: PageRequest, read: ReadJob) -> PageJob:
    """Refuse, while nothing heavy is imported, a page that cannot be written.

    Raises
    ------
    OutputError
        When the file cannot be written, or is somebody else's.
    FileError
        When the reference cannot be read, has one value, or lies on another grid.
    """
    marks.require_page(request.path, overwrite=read.job.overwrite)
    if request.reference is None:
        return PageJob(request, read, None)
    reference = load(request.reference, None, None)
    require_same_grid(reference, read.image, f"The reference {request.reference} and the image")
    if reference.voxels.min() == reference.voxels.max():
        raise FileError(
            f"The reference {request.reference} has one value in all its voxels; expected an "
            "image. Check that this is the right file."
        )
    return PageJob(request, read, reference.voxels)
