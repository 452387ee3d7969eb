"""What all pages have in common: one HTML file that needs no network, and its pieces.

The markup around a page and its style are the files beside this module: page.html and page.css. A
page lets the browser load nothing, and run nothing but the program that it was written with.
"""

from __future__ import annotations

import base64
import hashlib
import json
import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from html import escape, unescape
from pathlib import Path
from string import Template
from typing import Any

from medtrans.system.atomic import replacing
from medtrans.volumes import marks
from medtrans.volumes.provenance import NOT_FOR_DIAGNOSIS

Row = Mapping[str, object]
Section = Mapping[str, object] | Collection[str] | Sequence[Row]
"""The content of one section: names and values, sentences, or the rows of a table."""

_FACTS = "medtrans-facts"
_LONGEST_FACTS = 1 << 17  # bytes of a page within which its facts are
_FACTS_PATTERN = re.compile(rf'<meta name="{_FACTS}" content="([^"]*)">')


@dataclass(frozen=True)
class Document:
    """A page, as HTML.

    Attributes
    ----------
    title : str
        Text.
    body : str
        HTML below the title.
    data : str
        HTML that is not shown, and that the program reads.
    script : str
        The program; empty for none.
    refresh_s : int or None
        After how many seconds the browser reads the file again.
    facts : mapping
        What `read_facts` gives back; as JSON.
    """

    title: str
    body: str
    data: str = ""
    script: str = ""
    refresh_s: int | None = None
    facts: Mapping[str, object] = field(default_factory=dict)


def save_document(path: Path, document: Document) -> None:
    """Write one self-contained HTML file; raises `OutputError` if it cannot be written."""
    text = _text(document)
    with replacing(path) as partial:
        partial.write_text(text, encoding="utf-8")


def read_facts(path: Path) -> dict[str, Any]:
    """Read the facts of a page that medtrans wrote; empty for any other file, or none."""
    try:
        with path.open("rb") as file:
            head = file.read(_LONGEST_FACTS).decode("utf-8", "replace")
        found = _FACTS_PATTERN.search(head) if marks.HTML.decode() in head else None
        facts = json.loads(unescape(found[1])) if found else {}
    except (OSError, ValueError, RecursionError):
        return {}
    return facts if isinstance(facts, dict) else {}


def template(name: str) -> str:
    """Read a file beside this module."""
    return Path(__file__).with_name(name).read_text(encoding="utf-8")


def warning_box(heading: str, sentences: Sequence[str]) -> str:
    """Put sentences that must not be overlooked into a box; nothing for none."""
    if not sentences:
        return ""
    items = "".join(f"<li>{escape(sentence)}</li>" for sentence in sentences)
    return f'<section class="warnings"><h2>{escape(heading)}</h2><ul>{items}</ul></section>'


def sections(content: Mapping[str, Section]) -> str:
    """Lay out sections below each other; an empty one is left out."""
    return "\n".join(_section(*item) for item in content.items())


def data_url(image: bytes) -> str:
    """Spell a PNG or JPEG as what `src` of an image takes."""
    kind = "jpeg" if image.startswith(b"\xff\xd8") else "png"
    return f"data:image/{kind};base64,{base64.b64encode(image).decode('ascii')}"


def _text(document: Document) -> str:
    style = template("page.css")
    return Template(template("page.html")).substitute(
        mark=marks.HTML.decode(),
        head=_refresh(document.refresh_s) + _meta(document.facts),
        style_hash=_hash(style),
        script_hash=_hash(document.script),
        title=escape(document.title),
        notice=f"{NOT_FOR_DIAGNOSIS.capitalize()}.",
        body=document.body,
        data=document.data,
        style=style,
        script=document.script,
    )


def _hash(text: str) -> str:
    """Give what a content security policy names an inline style or program by."""
    return base64.b64encode(hashlib.sha256(text.encode("utf-8")).digest()).decode("ascii")


def _refresh(seconds: int | None) -> str:
    return "" if seconds is None else f'\n<meta http-equiv="refresh" content="{seconds}">'


def _meta(facts: Mapping[str, object]) -> str:
    return f'\n<meta name="{_FACTS}" content="{escape(json.dumps(facts))}">' if facts else ""


def _section(heading: str, content: Section) -> str:
    if not content:
        return ""
    title = f"<h2>{escape(heading)}</h2>"
    if isinstance(content, Mapping):
        cells = "".join(
            f'<tr><th scope="row">{escape(str(k))}</th><td>{escape(str(v))}</td></tr>'
            for k, v in content.items()
        )
        return f"{title}<table>{cells}</table>"
    rows = [item for item in content if isinstance(item, Mapping)]
    if rows:
        return f"{title}{_table(heading, rows)}"
    items = "".join(f"<li>{escape(str(line))}</li>" for line in content)
    return f"{title}<ul>{items}</ul>"


def _table(name: str, rows: Sequence[Row]) -> str:
    """Lay rows out; a table that is wider than the screen is scrolled by itself, also by keys."""
    columns = list(dict.fromkeys(column for row in rows for column in row))
    head = "".join(f'<th scope="col">{escape(column)}</th>' for column in columns)
    lines = []
    for row in rows:
        first, *rest = (escape(str(row.get(column, "-"))) for column in columns)
        cells = "".join(f"<td>{cell}</td>" for cell in rest)
        lines.append(f'<tr><th scope="row">{first}</th>{cells}</tr>')
    return (
        f'<div class="wide" role="region" tabindex="0" aria-label="{escape(name)}">'
        f"<table><thead><tr>{head}</tr></thead><tbody>{''.join(lines)}</tbody></table></div>"
    )
