"""What a person looks at after a translation: one picture, or one HTML page with it."""

from __future__ import annotations

import base64
from collections.abc import Collection, Mapping
from html import escape
from pathlib import Path

import numpy as np
from monai.data import MetaTensor
from monai.transforms import Orientation
from numpy.typing import NDArray

from medtrans.preprocessing.foreground import find_foreground
from medtrans.report.pictures import save_grid, upright
from medtrans.system.atomic import replacing
from medtrans.volumes import marks
from medtrans.volumes.geometry import RAS_LABELS, spacing_mm
from medtrans.volumes.voxels import Mask, Voxels

Section = Mapping[str, object] | Collection[str]
"""The content of one section of a page: names and values, or sentences."""

_WHITE = 99.5  # percentile of the foreground that is shown white
_MARGIN = 6  # voxels of background around the patient
_SMALLEST = 8  # planes thinner than this are left out of the picture


def save_picture(path: Path, volumes: Mapping[str, MetaTensor]) -> None:
    """Write a PNG: a column for each volume, a row for each plane through the middle.

    Parameters
    ----------
    path : Path
        The file to write or replace.
    volumes : mapping
        Caption -> volume (X, Y, Z); all on one grid. The first one's foreground is shown, each
        from its lowest value to the 99.5th percentile of what it shows there.

    Raises
    ------
    OutputError
        If the file cannot be written.
    """
    oriented = {caption: _in_ras(volume) for caption, volume in volumes.items()}
    first = next(iter(oriented.values()))
    spacing, mask = spacing_mm(first.affine), find_foreground(first.numpy())
    shown = {caption: _grey(volume.numpy(), mask) for caption, volume in oriented.items()}
    spans = [np.flatnonzero(mask.any(axis=_others(axis))) for axis in range(3)]
    box = tuple(slice(max(s[0] - _MARGIN, 0), s[-1] + 1 + _MARGIN) for s in spans)
    shown = {caption: values[box] for caption, values in shown.items()}
    centre = [int(np.median(span)) - window.start for span, window in zip(spans, box, strict=True)]
    rows = [
        [_isotropic(upright(np.take(v, centre[axis], axis)), axis, spacing) for v in shown.values()]
        for axis in _worth_showing([window.stop - window.start for window in box])
    ]
    save_grid(path, rows, list(volumes), scale=2)


def save_html(path: Path, title: str, picture: Path, sections: Mapping[str, Section]) -> None:
    """Write one self-contained page: the picture, and a table for each section.

    Parameters
    ----------
    path : Path
        The file to write or replace.
    title : str
    picture : Path
        A PNG, embedded.
    sections : mapping
        Heading -> mapping of names to values, or a list of sentences.

    Raises
    ------
    OutputError
        If the file cannot be written.
    """
    image = base64.b64encode(picture.read_bytes()).decode("ascii")
    body = "\n".join(_section(heading, content) for heading, content in sections.items())
    page = _PAGE.format(title=escape(title), image=image, body=body, mark=marks.HTML.decode())
    with replacing(path) as partial:
        partial.write_text(page, encoding="utf-8")


def _section(heading: str, content: Section) -> str:
    if isinstance(content, Mapping):
        cells = "".join(
            f"<tr><th>{escape(str(k))}</th><td>{escape(str(v))}</td></tr>"
            for k, v in content.items()
        )
        return f"<h2>{escape(heading)}</h2><table>{cells}</table>"
    items = "".join(f"<li>{escape(str(line))}</li>" for line in content)
    return f"<h2>{escape(heading)}</h2><ul>{items}</ul>" if items else ""


def _in_ras(volume: MetaTensor) -> MetaTensor:
    plain = MetaTensor(volume.as_tensor()[None], affine=volume.affine)
    oriented = Orientation("RAS", labels=RAS_LABELS)(plain)
    return MetaTensor(oriented.as_tensor()[0], affine=oriented.affine)


def _grey(values: Voxels, mask: Mask) -> Voxels:
    low, high = float(values.min()), float(np.percentile(values[mask], _WHITE))
    return ((values - low) / max(high - low, 1e-6)).astype(np.float32)


def _isotropic(plane: Voxels, axis: int, spacing: NDArray[np.float64]) -> Voxels:
    """Repeat rows or columns so that a millimetre is as long in both directions."""
    across, up = (spacing[a] for a in range(3) if a != axis)
    step = min(across, up)
    rows = np.round(np.arange(0, plane.shape[0], step / up)).clip(0, plane.shape[0] - 1)
    columns = np.round(np.arange(0, plane.shape[1], step / across)).clip(0, plane.shape[1] - 1)
    return np.ascontiguousarray(plane[np.ix_(rows.astype(int), columns.astype(int))])


def _worth_showing(sizes: list[int]) -> list[int]:
    """Which axes to look along: axial, coronal, sagittal, without those whose plane is thin."""
    thickness = {axis: min(sizes[a] for a in _others(axis)) for axis in (2, 1, 0)}
    return [a for a, t in thickness.items() if t >= min(_SMALLEST, max(thickness.values()))]


def _others(axis: int) -> tuple[int, ...]:
    return tuple(a for a in range(3) if a != axis)


_PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8">{mark}<title>{title}</title>
<style>
body {{ font: 15px/1.5 system-ui, sans-serif; margin: 2rem auto; max-width: 60rem; padding: 0 1rem;
  color: #1c2430; background: #fff; }}
.notice {{ background: #fff3cd; border-left: 4px solid #d39e00; padding: .6rem 1rem; }}
img {{ max-width: 100%; background: #000; border-radius: 4px; }}
table {{ border-collapse: collapse; }}
th, td {{ text-align: left; padding: .2rem 1rem .2rem 0; vertical-align: top;
  border-bottom: 1px solid #e4e8ee; overflow-wrap: anywhere; }}
th {{ font-weight: 600; white-space: nowrap; }}
</style></head><body>
<h1>{title}</h1>
<p class="notice"><strong>Synthetic image. Not acquired, not for diagnosis.</strong></p>
<img alt="source beside synthetic volume, three planes" src="data:image/png;base64,{image}">
{body}
</body></html>
"""
