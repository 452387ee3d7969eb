"""The documentation names only files, modules, commands and options that exist."""

from __future__ import annotations

import re
import warnings
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from pkgutil import resolve_name
from typing import Any, NamedTuple

import pytest
from typer.main import get_command

from medtrans.cli.app import app

ROOT = Path(__file__).parents[1]
SOURCES = ("medtrans", "tests", "benchmarks")
FOLDERS = (*SOURCES, "pipelines", "docs", "bundles", "data_manifests")
PACKAGES = tuple(path.parent.name for path in (ROOT / "medtrans").glob("*/__init__.py"))
PATTERNS = ("*.md", "docs/*.md", "benchmarks/**/*.md", "data_manifests/*.md")
HISTORY = "CHANGELOG.md"  # names what there was
PAGES = sorted(path for pattern in PATTERNS for path in ROOT.glob(pattern) if path.name != HISTORY)

FENCE = re.compile(r"^```[^\n]*\n(.*?)^```", re.MULTILINE | re.DOTALL)
COMMAND_LINE = re.compile(r"(?:[^\n]*\\\n)*[^\n]+")  # with the lines that it continues on
SPAN = re.compile(r"`([^`]+)`")
LINK = re.compile(r"\]\(([^)#:]+)\)")
PATH = re.compile(r"[\w.*/-]+")
MODULE = re.compile(rf"\b(?:{'|'.join(SOURCES)})(?:\.[a-z_]+)+\b")
COMMAND = re.compile(r"(?<![\w./-])medtrans\s+(\S.*)")


class Code(NamedTuple):
    """Code in a page: a span in backticks, or a command of a block without its comment."""

    line: int
    text: str
    is_span: bool


def code(page: str) -> Iterator[Code]:
    for block in FENCE.finditer(page):
        for command in COMMAND_LINE.finditer(page, block.start(1), block.end(1)):
            text = re.sub(r"(^|\s)#.*", "", command[0].replace("\\\n", " "))
            yield Code(line_of(page, command), text, is_span=False)
    outside = FENCE.sub(lambda block: "\n" * block[0].count("\n"), page)
    for span in SPAN.finditer(outside):
        yield Code(line_of(outside, span), " ".join(span[1].split()), is_span=True)


def line_of(page: str, match: re.Match[str]) -> int:
    return page.count("\n", 0, match.start()) + 1


def problems(page: str, folder: Path) -> list[str]:
    """Return what a page names and is not there, each with its line."""
    lines = []
    for piece in code(page):
        lines += [f"{piece.line}: {text}" for text in code_problems(piece, folder)]
    for link in LINK.finditer(page):
        if not (folder / link[1]).exists():
            lines.append(f"{line_of(page, link)}: no file {link[1]}")
    return lines


def code_problems(piece: Code, folder: Path) -> Iterator[str]:
    if piece.is_span and names_a_path(piece.text) and not is_there(piece.text, folder):
        yield f"no file {piece.text}"
    for module in MODULE.findall(piece.text):
        if not is_module(module):
            yield f"no module {module}"
    if command := COMMAND.search(piece.text):
        yield from command_problems(command[1].split())
    elif piece.is_span and piece.text.startswith("-"):
        unknown = set(options_in(piece.text.split())) - every_option()
        yield from (f"no command has {option}" for option in sorted(unknown))


def names_a_path(text: str) -> bool:
    """`volumes/`, `training/loop.py`, `errors.py` and `pipelines/*.toml`, but not `run/model`."""
    if not PATH.fullmatch(text):
        return False
    first, slash, _ = text.partition("/")
    return text.endswith(".py") or (bool(slash) and first in (*FOLDERS, *PACKAGES))


def is_there(text: str, folder: Path) -> bool:
    """Look from the root, from medtrans/ and from the page's folder."""
    return any(any(base.glob(text.rstrip("/"))) for base in (ROOT, ROOT / "medtrans", folder))


def is_module(name: str) -> bool:
    """Accept a module and a name in one, but no former name that only old packages may use."""
    with warnings.catch_warnings():
        warnings.filterwarnings("error", message="medtrans", category=DeprecationWarning)
        try:
            resolve_name(name)
        except (ImportError, AttributeError, DeprecationWarning):
            return False
    return True


def command_problems(words: list[str]) -> Iterator[str]:
    command: Any = get_command(app)
    for word in words:
        if not hasattr(command, "commands"):
            break
        if word.startswith("-"):
            continue
        if word not in command.commands:
            yield f"no command {word}"
            return
        command = command.commands[word]
    unknown = sorted(set(options_in(words)) - options(command))
    yield from (f"{command.name} has no {option}" for option in unknown)


def options_in(words: list[str]) -> list[str]:
    return [word.partition("=")[0] for word in words if re.match(r"--?[a-z]", word)]


def options(command: Any) -> set[str]:
    names = {n for param in command.params for n in (*param.opts, *param.secondary_opts)}
    return {name for name in names if name.startswith("-")} | {"--help", "-h"}


@cache
def every_option() -> set[str]:
    def walk(command: Any) -> Iterator[str]:
        yield from options(command)
        for inner in getattr(command, "commands", {}).values():
            yield from walk(inner)

    return set(walk(get_command(app)))


@pytest.mark.parametrize("path", PAGES, ids=lambda path: str(path.relative_to(ROOT)))
def test_what_a_page_names_exists(path: Path) -> None:
    wrong = problems(path.read_text(encoding="utf-8"), path.parent)
    assert not wrong, "\n".join(f"{path.relative_to(ROOT)}:{line}" for line in wrong)


@pytest.mark.parametrize(
    ("page", "expected"),
    [
        ("`pipelines/*.toml`, `volumes/geometry.py`, `errors.py`, `tests/`, `run/model`", []),
        ("text\n\nand `volumes/none.py`", ["3: no file volumes/none.py"]),
        ("`sampler.py` and `tests/none/`", ["1: no file sampler.py", "1: no file tests/none/"]),
        ("[page](none.md), [site](https://none.example)", ["1: no file none.md"]),
        ("`medtrans.diffusion.sampler.translate`, `medtrans.MedtransError`", []),
        ("`medtrans.translate`", ["1: no module medtrans.translate"]),
        ("`medtrans.devices`", ["1: no module medtrans.devices"]),
        ("```\npython -m benchmarks.none\n```", ["2: no module benchmarks.none"]),
        ("```\nmedtrans translate a.nii -o b.nii  # --none\n```", []),
        ("```\nmedtrans train \\\n  --pear 3\n```", ["2: train has no --pear"]),
        ("```\nls \\\n  a\nmedtrans demo --pear\n```", ["4: demo has no --pear"]),
        ("as `medtrans bundle\ncheck --pear` does", ["1: check has no --pear"]),
        ("`medtrans aline`", ["1: no command aline"]),
        ("`--pairs 0` and `--pear`", ["1: no command has --pear"]),
    ],
)
def test_what_does_not_exist_is_seen(page: str, expected: list[str]) -> None:
    assert problems(page, ROOT) == expected
