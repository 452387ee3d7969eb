"""An index and the page of a run in a browser: links, themes, a phone, keys; no word, no network.

Needs playwright and a Chromium.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from medtrans.report.chart import Chart, draw_chart
from medtrans.report.document import Document, save_document
from medtrans.report.index import CASES, Card, Index, file_name, require_pages, save_index
from medtrans.report.page import Page, save_page
from medtrans.report.pictures import encode
from tests.report import builders
from tests.report.tabs import PHONE, Tab

NAMES = ("sub 01/t1.nii.gz", "sub-02")
WIDE = [{f"column_{n}": f"20.{n} [19.1, 22.3]" for n in range(12)}]


@pytest.fixture(scope="module")
def index(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("pages")
    require_pages(folder, overwrite=False)
    scene = builders.scene("source", "synthetic")
    picture = encode(Image.new("L", (700, 200)))
    cards = []
    for name in NAMES:
        save_page(folder / CASES / file_name(name), Page(f"Page of {name}", scene))
        notes = ["odd" * 60] if name == NAMES[0] else []
        figures = {"psnr": "20.1", "sha256": "0" * 64}
        cards.append(Card(name, file_name(name), picture, "planes", notes, figures))
    failed = [Card("long" * 40, notes=["no image: /" + "folder" * 30])]
    groups = {"Failed": failed, "With a warning": cards[:1], "Translated": cards[1:]}
    return save_index(folder, Index("Two of three", "A lead.", groups, {"Mean": WIDE}))


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    curves = {name: [(10 * i, 20 + i % 5) for i in range(9)] for name in ("one_psnr", "two_psnr")}
    charts = "".join(draw_chart(Chart(title, curves, unit="dB")) for title in ("A", "B", "C"))
    path = tmp_path_factory.mktemp("run") / "index.html"
    save_document(path, Document("Training", f'<div class="charts">{charts}</div>'))
    return path


@pytest.fixture
def tab(browser: Any, index: Path) -> Iterator[Tab]:
    found = Tab(browser, index)
    yield found
    found.close()


def test_the_links_lead_to_the_pages_and_back(tab: Tab) -> None:
    assert all(url.startswith("data:image/png") for url in tab.requests[1:])
    for name in NAMES:
        tab.tab.get_by_role("link", name=name).click()
        tab.tab.wait_for_selector("#viewer:not([hidden])")
        assert tab.tab.inner_text("h1") == f"Page of {name}"
        tab.tab.go_back()
    assert tab.tab.inner_text("h1") == "Two of three"


def test_the_links_and_a_wide_table_are_reached_with_the_tab_key(tab: Tab) -> None:
    reached = []
    for _ in range(3):
        tab.tab.keyboard.press("Tab")
        reached.append(tab.tab.evaluate("document.activeElement.className || 'link'"))
        assert tab.tab.evaluate("getComputedStyle(document.activeElement).outlineStyle") == "solid"
    assert reached == ["wide", "link", "link"]
    tab.tab.keyboard.press("Enter")
    tab.tab.wait_for_selector("#viewer:not([hidden])")


def test_an_index_on_a_phone(browser: Any, index: Path) -> None:
    phone = Tab(browser, index, viewport=PHONE, has_touch=True, is_mobile=True)
    assert phone.wide() == PHONE["width"]
    table = phone.tab.locator(".wide")
    assert table.evaluate("e => e.scrollWidth") > PHONE["width"]
    for picture in phone.tab.locator(".case img").all():
        box = picture.bounding_box()
        assert box["x"] >= 0
        assert box["x"] + box["width"] <= PHONE["width"]
        assert picture.evaluate("e => e.naturalWidth") > 20
    phone.close()


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_both_themes_can_be_read(browser: Any, index: Path, run: Path, scheme: str) -> None:
    tab = Tab(browser, index, color_scheme=scheme)
    for selector in ("h1", ".lead", "a b", "thead th", ".case dt", ".case dd"):
        assert tab.contrast(selector) > 4.5, selector
    assert tab.contrast(".notes li", ".notes") > 4.5
    tab.close()
    tab = Tab(browser, run, color_scheme=scheme)
    for selector in (".c0", ".c1"):
        assert tab.contrast(selector) > 4.5, selector
    assert tab.contrast(".chart text", ink="fill") > 4.5
    tab.close()


def test_charts_on_a_phone(browser: Any, run: Path) -> None:
    phone = Tab(browser, run, viewport=PHONE, has_touch=True, is_mobile=True)
    assert phone.wide() == PHONE["width"]
    tick = phone.tab.locator(".chart text").first
    assert tick.bounding_box()["height"] > 7
    phone.close()


def test_a_running_page_reads_itself_anew_where_one_is(browser: Any, tmp_path: Path) -> None:
    """And stays where it has been scrolled to."""
    path, tall = tmp_path / "index.html", "<p>text</p>" * 99
    save_document(path, Document("Training", tall, refresh_s=1))
    tab = Tab(browser, path)
    tab.tab.evaluate("window.scrollTo(0, 300)")
    save_document(path, Document("Training", f'<p class="new">later</p>{tall}'))
    tab.tab.wait_for_selector(".new")
    tab.tab.wait_for_function("window.scrollY === 300")
    tab.close()
