"""An index lists cases in order, links each to its page, and replaces nobody else's file."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import pytest

from medtrans.errors import OutputError
from medtrans.report import index as index_module
from medtrans.report.index import CASES, Card, Index, file_name, require_pages, save_index
from medtrans.report.page import Page, save_page

PICTURE = b"\xff\xd8small"
CARD = Card("s 1/<t1>", "s.html", PICTURE, "source", ["odd & <b>"], {"psnr": "20"}, {"a": "12"})


def saved(folder: Path, index: Index) -> str:
    return save_index(folder, index).read_text(encoding="utf-8")


def test_cases_stand_in_their_order_below_their_headings(tmp_path: Path) -> None:
    groups = {"Failed": [Card("b")], "None": [], "Fine": [Card("c", "c.html"), Card("a", "é.html")]}
    html = saved(tmp_path, Index("T", "<lead>", groups, {"Above": {"x": 1}}, {"Below": ["y"]}))
    wanted = ["Above", "Failed (1)", "Fine (2)", "Below"]
    assert re.findall(r"<h2>(.*?)</h2>", html) == wanted
    assert re.findall(r"<b>(.*?)</b>", html) == ["b", "c", "a"]
    assert re.findall(r'href="(.*?)"', html) == ["cases/c.html", "cases/%C3%A9.html"]
    assert "&lt;lead&gt;" in html


def test_a_card_is_escaped(tmp_path: Path) -> None:
    html = saved(tmp_path, Index("T", "", {"Cases": [CARD]}))
    for text in (
        "s 1/&lt;t1&gt;",
        "odd &amp; &lt;b&gt;",
        "<dt>psnr</dt><dd>20</dd>",
        'alt="source"',
    ):
        assert text in html
    assert html.count("data:image/jpeg") == 1


def test_very_many_pictures_are_left_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(index_module, "_MOST_PICTURES", 10)
    assert "<img" in saved(tmp_path, Index("T", "", {"Cases": [CARD]}))
    assert "<img" not in saved(tmp_path, Index("T", "", {"Cases": [CARD, CARD]}))


class TestCard:
    def written(self, folder: Path, facts: dict) -> None:
        (folder / CASES).mkdir(exist_ok=True)
        save_page(folder / CASES / file_name(CARD.name), Page("T", facts=facts))

    def test_comes_back_from_the_page(self, tmp_path: Path) -> None:
        self.written(tmp_path, CARD.facts())
        found = Card.read(tmp_path, CARD.name)
        assert found == replace(CARD, page=file_name(CARD.name))

    @pytest.mark.parametrize("change", [{"notes": "odd"}, {"figures": []}, {"shows": 1}])
    def test_of_another_page_is_none(self, tmp_path: Path, change: dict) -> None:
        assert Card.read(tmp_path, CARD.name) is None
        self.written(tmp_path, {**CARD.facts(), **change})
        assert Card.read(tmp_path, CARD.name) is None

    def test_a_damaged_picture_is_left_out(self, tmp_path: Path) -> None:
        self.written(tmp_path, {**CARD.facts(), "picture": '"><b>'})
        found = Card.read(tmp_path, CARD.name)
        assert found is not None
        assert found.picture == b""


@pytest.mark.parametrize("name", ["../a", "a/b", "a b", ".a", "ü", "a\nb", "x" * 300, "con:"])
def test_names_of_files_are_plain(name: str) -> None:
    assert re.fullmatch(r"[A-Za-z0-9_-][A-Za-z0-9_.-]{1,110}\.html", file_name(name))
    assert file_name(name) != file_name(name + " ")
    assert file_name("sub-01_T1w.nii.gz") == "sub-01_T1w.nii.gz.html"


def test_names_that_differ_in_odd_letters_only_have_two_files() -> None:
    assert len({file_name(name) for name in ("a b", "a_b", "a/b", "a:b")}) == 4


@pytest.mark.parametrize("name", ["index.html", "cases/mine.html"])
def test_somebody_elses_page_is_kept(tmp_path: Path, name: str) -> None:
    require_pages(tmp_path, overwrite=False)
    (tmp_path / name).write_text("mine")
    with pytest.raises(OutputError, match=Path(name).name):
        require_pages(tmp_path, overwrite=False)
    require_pages(tmp_path, overwrite=True)
