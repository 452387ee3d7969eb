"""What commands share: options, and printing as lines for a person or JSON for a program."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from typing import Annotated, Any

import typer

from medtrans.errors import MedtransError

Json = Annotated[bool, typer.Option("--json", help="Print the result as one JSON object.")]
Device = Annotated[str, typer.Option(help="Where to compute: auto, cpu or cuda.")]
Seed = Annotated[int, typer.Option(help="Seed of all random numbers.")]
Overwrite = Annotated[
    bool,
    typer.Option("--overwrite", help="Replace files that medtrans did not write for this result."),
]


class Output:
    """Where a command's result goes.

    Parameters
    ----------
    as_json : bool
        One JSON object on stdout, everything else on stderr.
    """

    def __init__(self, as_json: bool) -> None:
        self.as_json = as_json

    def result(self, result: Mapping[str, Any], plain: Mapping[str, Any] | None = None) -> None:
        """Print what a command found or did; for a person only `plain`, where it is given."""
        if self.as_json:
            sys.stdout.write(json.dumps(result, default=str) + "\n")
        else:
            shown = result if plain is None else plain
            sys.stdout.write("\n".join(_lines(shown)) + "\n")

    def error(self, error: MedtransError, code: int) -> None:
        """Print why a command did not do what was asked."""
        if self.as_json:
            body = {"error": type(error).__name__, "message": str(error), "exit_code": code}
            sys.stdout.write(json.dumps(body) + "\n")
        sys.stderr.write(f"medtrans: {error}\n")


def _lines(value: Any, indent: str = "") -> list[str]:
    """Lay nested mappings and lists out as indented lines; lists of mappings as a table."""
    lines: list[str] = []
    for key, item in value.items():
        name = str(key).replace("_", " ")
        if isinstance(item, Mapping) and item:
            lines += [f"{indent}{name}:", *_lines(item, indent + "  ")]
        elif isinstance(item, list) and item and isinstance(item[0], Mapping):
            lines += [f"{indent}{name}:", *(indent + "  " + row for row in _table(item))]
        elif isinstance(item, list | tuple):
            lines += [f"{indent}{name}: {', '.join(map(str, item)) or 'none'}"]
        elif item is not None:
            lines += [f"{indent}{name}: {_plain(item)}"]
    return lines


def _table(rows: list[Mapping[str, Any]]) -> list[str]:
    head = list(dict.fromkeys(name for row in rows for name in row))
    cells = [head, *([_plain(row.get(name, "")) for name in head] for row in rows)]
    widths = [max(len(row[i]) for row in cells) for i in range(len(head))]
    return [
        "  ".join(c.ljust(w) for c, w in zip(row, widths, strict=True)).rstrip() for row in cells
    ]


def _plain(value: Any) -> str:
    if value is None:
        return "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    return f"{value:.4g}" if isinstance(value, float) else str(value)
