"""A page that lists cases, each with a small picture and linked to its own page."""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from html import escape
from pathlib import Path
from urllib.parse import quote

from medtrans.report.document import (
    Document,
    Section,
    data_url,
    read_facts,
    save_document,
    sections,
)
from medtrans.system.atomic import make_folder
from medtrans.volumes import marks

INDEX = "index.html"
CASES = "cases"  # the folder of the cases' own pages, beside the index
_MOST_PICTURES = 8_000_000  # bytes of all small pictures together


@dataclass(frozen=True)
class Card:
    """A case on an index.

    Attributes
    ----------
    name : str
    page : str or None
        The name of its own page's file in the folder of the cases.
    picture : bytes
        A PNG or JPEG; empty for none.
    shows : str
        What the picture shows.
    notes : sequence of str
        What is unusual about it, or why it failed.
    figures : mapping
        Names and values.
    of : object
        What tells the result that it shows from another, as JSON.
    """

    name: str
    page: str | None = None
    picture: bytes = b""
    shows: str = ""
    notes: Sequence[str] = ()
    figures: Mapping[str, str] = field(default_factory=dict)
    of: object = None

    def facts(self) -> dict[str, object]:
        """Say what `read` reads from the case's own page."""
        return {
            "picture": base64.b64encode(self.picture).decode("ascii"),
            "shows": self.shows,
            "notes": list(self.notes),
            "figures": dict(self.figures),
            "of": self.of,
        }

    @classmethod
    def read(cls, folder: Path, name: str) -> Card | None:
        """Read the card of a case from its page below the index's folder; None without one."""
        page = file_name(name)
        match read_facts(folder / CASES / page):
            case {
                "picture": str(picture),
                "shows": str(shows),
                "notes": list(notes),
                "figures": dict(figures),
                "of": of,
            }:
                said = {str(key): str(value) for key, value in figures.items()}
                notes = [str(note) for note in notes]
                return cls(name, page, _decoded(picture), shows, notes, said, of)
        return None


@dataclass(frozen=True)
class Index:
    """What an index page shows, from the top down.

    Attributes
    ----------
    title : str
    lead : str
        A sentence or two.
    groups : mapping
        Heading -> cases, in their order; an empty group is left out.
    above, below : mapping
        Sections as those of a `Page`, above and below the cases.
    """

    title: str
    lead: str
    groups: Mapping[str, Sequence[Card]]
    above: Mapping[str, Section] = field(default_factory=dict)
    below: Mapping[str, Section] = field(default_factory=dict)


def save_index(folder: Path, index: Index) -> Path:
    """Write the index page of a folder; raises `OutputError` if it cannot be written."""
    size = sum(len(card.picture) for cards in index.groups.values() for card in cards)
    pictured = size <= _MOST_PICTURES
    groups = (_group(*group, pictured=pictured) for group in index.groups.items())
    lead = f'<p class="lead">{escape(index.lead)}</p>'
    body = "\n".join((lead, sections(index.above), *groups, sections(index.below)))
    path = folder / INDEX
    save_document(path, Document(index.title, body))
    return path


def require_pages(folder: Path, *, overwrite: bool) -> None:
    """Make the folders of an index and its cases, and refuse pages there that are not ours.

    Raises
    ------
    OutputError
    """
    cases = make_folder(folder / CASES)
    found = [folder / INDEX, *sorted(cases.glob("*.html"))]
    marks.require_marked(found, marks.HTML, overwrite=overwrite)


def file_name(case: str) -> str:
    """Name the page of a case: plain on every system, and no other case's."""
    plain = re.sub(r"[^A-Za-z0-9_.-]+|^[.]", "_", case)[:80]
    digest = hashlib.sha256(case.encode("utf-8", "surrogatepass")).hexdigest()[:6]
    return f"{plain}.html" if plain == case else f"{plain}-{digest}.html"


def _decoded(text: str) -> bytes:
    """Read an image from a page; empty where somebody has changed it."""
    try:
        return base64.b64decode(text, validate=True)
    except ValueError:
        return b""


def _group(heading: str, cards: Sequence[Card], *, pictured: bool) -> str:
    if not cards:
        return ""
    items = "\n".join(_item(card, pictured=pictured) for card in cards)
    return f'<h2>{escape(heading)} ({len(cards)})</h2><ol class="cases">\n{items}\n</ol>'


def _item(card: Card, *, pictured: bool) -> str:
    picture = ""
    if card.picture and pictured:
        shows = escape(card.shows)
        picture = f'<img loading="lazy" alt="{shows}" src="{data_url(card.picture)}">'
    name = f"{picture}<b>{escape(card.name)}</b>"
    if card.page is not None:
        name = f'<a href="{CASES}/{quote(card.page)}">{name}</a>'
    figures = "".join(
        f"<div><dt>{escape(key)}</dt><dd>{escape(value)}</dd></div>"
        for key, value in card.figures.items()
    )
    notes = "".join(f"<li>{escape(note)}</li>" for note in card.notes)
    return (
        f'<li class="case">{name}'
        + (f'<ul class="notes">{notes}</ul>' if notes else "")
        + (f"<dl>{figures}</dl>" if figures else "")
        + "</li>"
    )
