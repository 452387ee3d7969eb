"""A page is one file that loads nothing, and holds no text that it does not show."""

from __future__ import annotations

import base64
import hashlib
import json
import re
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest

from medtrans.report.page import Page, save_page
from medtrans.report.scene import arrange
from tests import helpers
from tests.report import builders


def saved(path: Path, page: Page) -> str:
    save_page(path / "page.html", page)
    return (path / "page.html").read_text(encoding="utf-8")


def block(html: str, tag: str, attributes: str = "") -> str:
    found = re.search(rf"<{tag}{attributes}>(.*?)</{tag}>", html, re.DOTALL)
    assert found is not None, tag
    return found[1]


class References(HTMLParser):
    """Whatever makes a browser load something."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.found: list[str] = []
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        wanted = ("src", "href", "action", "data", "poster", "srcset", "background")
        self.found += [value or "" for name, value in attrs if name in wanted]


def test_a_page_is_one_file(tmp_path: Path) -> None:
    html = saved(tmp_path, Page("T", builders.scene("source", "synthetic")))
    assert [p.name for p in tmp_path.iterdir()] == ["page.html"]
    assert References(html).found
    assert all(link.startswith("data:image/png;base64,") for link in References(html).found)
    assert not re.search(r"https?:|@import|url\(", html)


def test_the_browser_may_load_nothing_and_runs_our_program_alone(tmp_path: Path) -> None:
    html = saved(tmp_path, Page("T", builders.scene("source", "synthetic")))
    [policy] = re.findall(r'Content-Security-Policy" content="([^"]*)"', html)
    assert policy.startswith("default-src 'none'; img-src data:;")
    for tag, rule in (("script", "script-src"), ("style", "style-src")):
        digest = hashlib.sha256(block(html, tag).encode()).digest()
        assert f"{rule} 'sha256-{base64.b64encode(digest).decode()}'" in policy


def test_text_is_escaped(tmp_path: Path) -> None:
    [layer] = [builders.layer(builders.marked())]
    scene = arrange([layer._replace(name="</script><b>T1")])
    sections = {"Facts <1>": {"model": "<script>"}, "List": ["a < b"], "None": []}
    html = saved(tmp_path, Page("T1 & T2", scene, ["<i>odd</i>"], sections))
    for text in ("<b>", "<i>", "<1>", "a < b"):
        assert text not in html
    assert "T1 &amp; T2" in html
    assert "&lt;script&gt;" in html
    assert "<h2>None</h2>" not in html
    facts = json.loads(block(html, "script", ' type="application/json" id="scene"'))
    assert facts["layers"][0]["name"] == "</script><b>T1"


def test_every_page_says_that_it_is_synthetic(tmp_path: Path) -> None:
    for page in (Page("T"), Page("T", builders.scene("source", "synthetic"))):
        notice = block(saved(tmp_path, page), "p", ' class="notice" role="note"')
        assert "Synthetic, not for diagnosis" in notice


def test_a_page_without_volumes_has_no_program(tmp_path: Path) -> None:
    html = saved(tmp_path, Page("T", None, ["odd"], {"Facts": {"a": 1}}))
    assert "<canvas" not in html
    assert block(html, "script") == ""
    assert "<li>odd</li>" in html


def test_a_still_picture_is_there_before_and_without_the_program(tmp_path: Path) -> None:
    html = saved(tmp_path, Page("T", builders.scene("source", "synthetic")))
    assert 'alt="Source T1, SYNTHETIC T2: planes' in block(html, "figure", ' id="still"')
    assert '<section id="viewer" aria-label="Volumes" hidden>' in html


def test_five_noisy_volumes_stay_below_15_mb(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    noise = rng.normal(1000, 200, (160, 192, 64)).astype(np.float32)
    affine = np.diag([1.0, 1.0, 2.5, 1.0])
    scene = arrange([builders.layer(noise, affine, role) for role in builders.NAMES])
    save_page(tmp_path / "p.html", Page("T", scene))
    assert (tmp_path / "p.html").stat().st_size < 15e6


@pytest.mark.parametrize(("turned", "said"), [(False, False), (True, True)])
def test_a_turned_grid_is_said_to_be(tmp_path: Path, turned: bool, said: bool) -> None:
    affine = helpers.tilted(np.eye(4)) if turned else np.eye(4)
    html = saved(tmp_path, Page("T", builders.scene("source", affine=affine)))
    assert ("grid is turned by" in html) is said
    assert "Radiological convention" in html
