"""The pages of `medtrans translate --report`: what can be refused early, and writing them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from medtrans.errors import FileError, UsageError
from medtrans.inference.jobs import Job, ReadJob
from medtrans.inference.settings import Settings
from medtrans.report.index import INDEX, require_pages
from medtrans.volumes import marks, require_same_grid
from medtrans.volumes.files import load
from medtrans.volumes.voxels import Voxels

if TYPE_CHECKING:
    from medtrans.inference.cohort import OnDone, Result
    from medtrans.inference.translator import Translator, Written


def names_page(path: Path) -> bool:
    """Whether --report names the page of one input, and not a folder for those of many."""
    return path.suffix.lower() in (".html", ".htm")


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
        if not names_page(self.path):
            raise UsageError(
                f"--report writes an HTML page, or pages into a folder: {self.path} should end in "
                ".html, or have no suffix."
            )


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

        shown = written.translation.uncertainty if self.request.uncertainty else None
        extras = Extras(self.reference, uncertainty=shown)
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


def check_pages(folder: Path, *, overwrite: bool) -> None:
    """Make the folder for the pages of many inputs; raises `OutputError` for others' pages."""
    require_pages(folder, overwrite=overwrite)


@contextmanager
def pages_of(
    folder: Path | None,
    jobs: Sequence[Job | ReadJob],
    translator: Translator,
    settings: Settings,
) -> Iterator[OnDone]:
    """Give what is to be told of each result, whose page it writes.

    The index is written at the end, also of a cohort that was stopped. Without a folder nothing
    is written.
    """
    if folder is None:
        yield _told_nothing
        return
    from medtrans.report.cohort import CohortPages

    plain = [job.job if isinstance(job, ReadJob) else job for job in jobs]
    pages = CohortPages(folder, plain, translator, settings)
    try:
        yield pages.add
    finally:
        pages.save()


def first_page(report: Path) -> Path:
    """Which page to open."""
    return report if names_page(report) else report / INDEX


def _told_nothing(job: Job, result: Result) -> None:
    """Write no page."""
