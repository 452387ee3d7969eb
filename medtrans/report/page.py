"""A page with volumes to move through, and what is to be said of them.

Its viewer's markup and program are the files beside this module: viewer.html and viewer.js.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from html import escape
from pathlib import Path
from string import Template

import numpy as np

from medtrans.report.chart import Chart, draw_chart
from medtrans.report.document import (
    Document,
    Section,
    data_url,
    save_document,
    sections,
    template,
    warning_box,
)
from medtrans.report.packing import MAX_BYTES, Packed, pack
from medtrans.report.pictures import encode
from medtrans.report.scene import Scene
from medtrans.report.still import draw_scene
from medtrans.volumes.geometry import spacing_mm

_OBLIQUE_DEGREES = 3.0  # a grid turned by more is said to be


@dataclass(frozen=True)
class Page:
    """What a page shows, from the top down.

    Attributes
    ----------
    title : str
    scene : Scene or None
        Volumes to move through; None for a page without pictures.
    warnings : sequence of str
        What is unusual about the input, a sentence each.
    sections : mapping
        Heading -> mapping of names to values, a list of sentences, or rows of a table.
    facts : mapping
        What `document.read_facts` gives back.
    charts : sequence of Chart
        Between the volumes and the sections.
    """

    title: str
    scene: Scene | None = None
    warnings: Sequence[str] = ()
    sections: Mapping[str, Section] = field(default_factory=dict)
    facts: Mapping[str, object] = field(default_factory=dict)
    charts: Sequence[Chart] = ()


def save_page(path: Path, page: Page, max_bytes: int = MAX_BYTES) -> None:
    """Write one self-contained HTML file.

    Parameters
    ----------
    path : Path
        The file to write or replace.
    page : Page
    max_bytes : int
        Of its volumes, compressed.

    Raises
    ------
    OutputError
        If the file cannot be written.
    """
    viewer = data = script = ""
    if page.scene is not None:
        packed = pack(page.scene, max_bytes)
        viewer, data = _viewer(page.scene, packed), _data(packed)
        script = template("viewer.js")
    warned = warning_box("Unusual about the input", page.warnings)
    charts = f'<div class="charts">{"".join(map(draw_chart, page.charts))}</div>'
    body = "\n".join((warned, viewer, charts if page.charts else "", sections(page.sections)))
    save_document(path, Document(page.title, body, data, script, facts=page.facts))


def _viewer(scene: Scene, packed: Packed) -> str:
    names = ", ".join(shown.layer.name for shown in scene.shown)
    return Template(template("viewer.html")).substitute(
        alt=escape(f"{names}: planes through the middle of the patient"),
        still=data_url(encode(draw_scene(scene))),
        grid=escape(_grid_note(scene, packed)),
    )


def _grid_note(scene: Scene, packed: Packed) -> str:
    """Say what a reader of positions should know of the grid."""
    unit = scene.affine[:3, :3] / spacing_mm(scene.affine)
    turned = float(np.degrees(np.arccos(np.clip(np.diag(unit).min(), -1, 1))))
    notes = [
        f" The volume's grid is turned by {turned:.0f}° against the patient; R, L, A, P, S and I"
        " name the nearest directions."
        if turned > _OBLIQUE_DEGREES
        else "",
        " To keep the page small, not every voxel is on it: one in "
        f"{' x '.join(map(str, packed.steps))} is."
        if max(packed.steps) > 1
        else "",
    ]
    return "".join(notes)


def _data(packed: Packed) -> str:
    facts = json.dumps(packed.facts).replace("<", "\\u003c")
    blocks = [f'<script type="application/json" id="scene">{facts}</script>']
    blocks += [
        f'<script type="text/plain" id="voxels-{number}">{text}</script>'
        for number, text in enumerate(packed.voxels)
    ]
    return "\n".join(blocks)
