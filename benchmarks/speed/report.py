"""docs/performance.md from what was measured."""

from __future__ import annotations

import csv
from collections.abc import Mapping
from pathlib import Path
from typing import Any

ARCHITECTURES = Path(__file__).with_name("architectures.csv")
NOTES = Path(__file__).with_name("notes.md")  # what was tried by hand, and why it was not kept
_HEAD = """# Performance

`python -m benchmarks.speed --brain BRAIN.nii.gz` writes this page. Numbers are medians of repeated
runs. The brain has {shape} voxels.

"""


def write(found: Mapping[str, Any], path: Path) -> None:
    """Write the tables and, below them, benchmarks/speed/notes.md."""
    path.write_text(page(found), encoding="utf-8")


def page(found: Mapping[str, Any]) -> str:
    """Return the page in Markdown."""
    text = _HEAD.format(shape=found["shape"])
    sections = [("The machine", _rows(found["machine"]))]
    sections += [("Targets", _targets(found))]
    sections += [(name, _rows_or_table(value)) for name, value in found["measured"].items()]
    sections += [("Architectures", _architectures())] if ARCHITECTURES.is_file() else []
    body = "\n".join(f"## {name}\n\n{table}" for name, table in sections)
    return text + body + "\n" + NOTES.read_text(encoding="utf-8")


def _architectures() -> str:
    """Lay out what `python -m benchmarks.speed.architectures` measured."""
    with ARCHITECTURES.open(newline="") as file:
        lines = [f"| {' | '.join(row)} |" for row in csv.reader(file)]
    return "\n".join([lines[0], "|---" * (lines[0].count("|") - 1) + "|", *lines[1:]]) + "\n"


def _rows_or_table(value: Mapping[str, Any]) -> str:
    nested = all(isinstance(v, Mapping) for v in value.values())
    return _table(value) if nested else _rows(value)


def _rows(values: Mapping[str, Any]) -> str:
    lines = [f"| {name} | {_text(value)} |" for name, value in values.items()]
    return "\n".join(["| | |", "|---|---|", *lines]) + "\n"


def _table(columns: Mapping[str, Mapping[str, Any]]) -> str:
    names = list(next(iter(columns.values())))
    head = ["| | " + " | ".join(columns) + " |", "|---" * (len(columns) + 1) + "|"]
    lines = [
        f"| {name} | "
        + " | ".join(_text(column.get(name, "")) for column in columns.values())
        + " |"
        for name in names
    ]
    return "\n".join([*head, *lines]) + "\n"


def _targets(found: Mapping[str, Any]) -> str:
    """Compare the targets with what was measured."""
    m = found["measured"]
    nets, shell, training = m["Networks"], m["From the shell"], m["Training"]
    wanted: list[tuple[str, float, str, float]] = []
    for stage, rates in nets.items():
        wanted += [
            (f"{stage} forward, share of ceiling", rates["forward, share of ceiling"], ">=", 0.8),
            (
                f"{stage} step, share of ceiling",
                rates["training step, share of ceiling"],
                ">=",
                0.5,
            ),
            (f"{stage} loader over step", training[stage]["loader over step"], ">=", 5),
        ]
    wanted += [
        ("fidelity from the shell, s", shell["fidelity"]["wall, s"], "<=", 15),
        ("2 + 2 from the shell, s", shell["realistic"]["wall, s"], "<=", 40),
        ("outside the network, s", m["Parts, s"]["fidelity"]["outside the network"], "<=", 6),
        ("peak memory, MB", max(s["peak memory, MB"] for s in shell.values()), "<=", 2048),
        ("faster than the reference size", m["A 256 x 256 slice at 2 + 2"]["ratio"], ">=", 40),
        ("medtrans --help, s", m["Start-up, s"]["medtrans --help"], "<=", 0.5),
        ("import medtrans, s", m["Start-up, s"]["import medtrans"], "<=", 0.3),
    ]
    lines = [
        f"| {name} | {sign} {goal:g} | {_text(value)} | {_verdict(value, sign, goal)} |"
        for name, value, sign, goal in wanted
    ]
    return "\n".join(["| | target | measured | |", "|---|---|---|---|", *lines]) + "\n"


def _verdict(value: float, sign: str, goal: float) -> str:
    return "met" if (value >= goal if sign == ">=" else value <= goal) else "not met"


def _text(value: Any) -> str:
    return (
        f"{value:.3g}"
        if isinstance(value, float) and value < 1000
        else str(round(value) if isinstance(value, float) else value)
    )
