"""What a person looks at after a translation: one HTML file that needs no network.

Its markup, style and program are the files beside this module: page.html, page.css, viewer.html
and viewer.js. The page lets the browser load nothing, and run nothing but that program.
"""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from html import escape
from pathlib import Path
from string import Template

import numpy as np

from medtrans.report.packing import Packed, pack
from medtrans.report.pictures import encode
from medtrans.report.scene import Scene
from medtrans.report.still import draw_scene
from medtrans.system.atomic import replacing
from medtrans.volumes import marks
from medtrans.volumes.geometry import spacing_mm
from medtrans.volumes.provenance import NOT_FOR_DIAGNOSIS

Section = Mapping[str, object] | Collection[str]
"""The content of one section of a page: names and values, or sentences."""

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
        Heading -> mapping of names to values, or a list of sentences.
    """

    title: str
    scene: Scene | None = None
    warnings: Sequence[str] = ()
    sections: Mapping[str, Section] = field(default_factory=dict)


def save_page(path: Path, page: Page) -> None:
    """Write one self-contained HTML file.

    Parameters
    ----------
    path : Path
        The file to write or replace.
    page : Page

    Raises
    ------
    OutputError
        If the file cannot be written.
    """
    text = _text(page)
    with replacing(path) as partial:
        partial.write_text(text, encoding="utf-8")


def _text(page: Page) -> str:
    viewer = data = script = ""
    if page.scene is not None:
        packed = pack(page.scene)
        viewer, data = _viewer(page.scene, packed), _data(packed)
        script = _template("viewer.js")
    style = _template("page.css")
    return Template(_template("page.html")).substitute(
        mark=marks.HTML.decode(),
        style_hash=_hash(style),
        script_hash=_hash(script),
        title=escape(page.title),
        notice=f"{NOT_FOR_DIAGNOSIS.capitalize()}.",
        warnings=_warnings(page.warnings),
        viewer=viewer,
        sections="\n".join(_section(*section) for section in page.sections.items()),
        data=data,
        style=style,
        script=script,
    )


def _template(name: str) -> str:
    return Path(__file__).with_name(name).read_text(encoding="utf-8")


def _hash(text: str) -> str:
    """Give what a content security policy names an inline style or program by."""
    return base64.b64encode(hashlib.sha256(text.encode("utf-8")).digest()).decode("ascii")


def _viewer(scene: Scene, packed: Packed) -> str:
    still = base64.b64encode(encode(draw_scene(scene))).decode("ascii")
    names = ", ".join(shown.layer.name for shown in scene.shown)
    return Template(_template("viewer.html")).substitute(
        alt=escape(f"{names}: planes through the middle of the patient"),
        still=still,
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


def _warnings(sentences: Sequence[str]) -> str:
    if not sentences:
        return ""
    items = "".join(f"<li>{escape(sentence)}</li>" for sentence in sentences)
    return f'<section class="warnings"><h2>Unusual about the input</h2><ul>{items}</ul></section>'


def _section(heading: str, content: Section) -> str:
    if isinstance(content, Mapping):
        cells = "".join(
            f'<tr><th scope="row">{escape(str(k))}</th><td>{escape(str(v))}</td></tr>'
            for k, v in content.items()
        )
        return f"<h2>{escape(heading)}</h2><table>{cells}</table>"
    items = "".join(f"<li>{escape(str(line))}</li>" for line in content)
    return f"<h2>{escape(heading)}</h2><ul>{items}</ul>" if items else ""
