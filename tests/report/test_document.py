"""The pieces of every page: facts that are read again, tables, a page that reads itself anew."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from medtrans.report.document import Document, data_url, read_facts, save_document, sections
from medtrans.volumes import marks

FACTS = {"name": '"><script>', "notes": ["a < b", "ü"], "of": {"a.nii": "12"}}


def saved(path: Path, document: Document) -> str:
    save_document(path, document)
    return path.read_text(encoding="utf-8")


def test_facts_come_back_and_are_not_shown(tmp_path: Path) -> None:
    html = saved(tmp_path / "a.html", Document("T", "", facts=FACTS))
    assert read_facts(tmp_path / "a.html") == FACTS
    assert "<script>" not in html.partition("<body>")[0]


def test_a_page_without_facts_and_other_files_have_none(tmp_path: Path) -> None:
    saved(tmp_path / "a.html", Document("T", ""))
    (tmp_path / "b.html").write_text('<meta name="medtrans-facts" content="{&quot;a&quot;:1}">')
    (tmp_path / "c.html").write_bytes(marks.HTML + b'<meta name="medtrans-facts" content="{">')
    (tmp_path / "d.html").write_bytes(marks.HTML + b'<meta name="medtrans-facts" content="[1]">')
    for name in "abcde":
        assert read_facts(tmp_path / f"{name}.html") == {}


@pytest.mark.parametrize(("seconds", "said"), [(None, []), (15, ["15"])])
def test_a_page_that_reads_itself_anew(tmp_path: Path, seconds: int | None, said: list) -> None:
    html = saved(tmp_path / "a.html", Document("T", "", refresh_s=seconds))
    assert re.findall(r'<meta http-equiv="refresh" content="(\d+)">', html) == said


def test_a_table_has_all_columns_of_its_rows() -> None:
    html = sections({"Scores <1>": [{"method": "a<b", "psnr": "20"}, {"method": "c", "ssim": "1"}]})
    cells = re.findall(r"<t[hd][^>]*>([^<]*)</t[hd]>", html)
    assert cells == ["method", "psnr", "ssim", "a&lt;b", "20", "-", "c", "-", "1"]
    assert 'tabindex="0" aria-label="Scores &lt;1&gt;"' in html


def test_an_empty_section_is_left_out() -> None:
    assert sections({"None": [], "Nothing": {}}).strip() == ""


def test_data_urls_say_what_they_are() -> None:
    assert data_url(b"\xff\xd8a").startswith("data:image/jpeg;base64,")
    assert data_url(b"\x89PNG").startswith("data:image/png;base64,")
