"""The page of one translation."""

from __future__ import annotations

from dataclasses import asdict, replace
from pathlib import Path
from tempfile import TemporaryDirectory

from medtrans.inference.translator import Written
from medtrans.report.page import save_html, save_picture
from medtrans.volumes import read_volume, to_volume
from medtrans.volumes.voxels import Loaded


def save_translation(page: Path, source: Loaded, written: Written) -> None:
    """Write the HTML page of a translation, with nothing of the input but its picture.

    Parameters
    ----------
    page : Path
    source : Loaded
        The input's voxels (X, Y, Z), as read.
    written : Written
        Its translation; the picture is of the file that was written.
    """
    synthetic = read_volume(written.outputs[0])
    with TemporaryDirectory() as folder:
        picture = Path(folder) / "picture.png"
        save_picture(picture, {"source": to_volume(source), "SYNTHETIC": synthetic})
        facts = asdict(replace(written.provenance, extra={}))
        warnings = list(written.translation.warnings)
        sections = {"How it was made": facts, "Warnings": warnings}
        save_html(page, f"medtrans: {facts['task']}", picture, sections)
