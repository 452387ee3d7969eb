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


_SHELL_S = {"fidelity": 15.0, "realistic": 40.0}  # targets, by mode

Results = dict[str, Any]
"""The JSON: the machine, the brain's shape, and what was measured, by section."""


def write(results: Results, path: Path) -> None:
    """Write the tables and, below them, benchmarks/speed/notes.md."""
    path.write_text(page(results), encoding="utf-8")


def page(results: Results) -> str:
    """Return the page in Markdown."""
    text = _HEAD.format(shape=results["shape"])
    sections = [("The machine", _rows(results["machine"]))]
    sections += [("Targets", _targets(results["measured"]))]
    sections += [(name, _rows_or_table(value)) for name, value in results["measured"].items()]
    sections += [("Architectures", _architectures())] if ARCHITECTURES.is_file() else []
    body = "\n".join(f"## {name}\n\n{table}" for name, table in sections)
    return text + body + "\n" + NOTES.read_text(encoding="utf-8")


def _architectures() -> str:
    """Lay out what `python -m benchmarks.speed.architectures` measured."""
    with ARCHITECTURES.open(newline="") as file:
        lines = [f"| {' | '.join(row)} |" for row in csv.reader(file)]
    return "\n".join([lines[0], "|---" * (lines[0].count("|") - 1) + "|", *lines[1:]]) + "\n"


def _rows_or_table(value: Mapping[str, object]) -> str:
    columns = {name: column for name, column in value.items() if isinstance(column, Mapping)}
    return _table(columns) if len(columns) == len(value) else _rows(value)


def _rows(values: Mapping[str, object]) -> str:
    lines = [f"| {name} | {_text(value)} |" for name, value in values.items()]
    return "\n".join(["| | |", "|---|---|", *lines]) + "\n"


def _table(columns: Mapping[str, Mapping[str, object]]) -> str:
    names = list(next(iter(columns.values())))
    head = ["| | " + " | ".join(columns) + " |", "|---" * (len(columns) + 1) + "|"]
    lines = [
        f"| {name} | "
        + " | ".join(_text(column.get(name, "")) for column in columns.values())
        + " |"
        for name in names
    ]
    return "\n".join([*head, *lines]) + "\n"


def _targets(measured: Mapping[str, Any]) -> str:
    """Compare the targets with what was measured."""
    nets, shell, training = (measured[k] for k in ("Networks", "From the shell", "Training"))
    start_up, parts = measured["Start-up, s"], measured["Parts, s"]
    rows: list[tuple[str, float, str, float]] = []
    for stage, rates in nets.items():
        step = rates["training step, share of ceiling"]
        rows += [
            (f"{stage} forward, share of ceiling", rates["forward, share of ceiling"], ">=", 0.8),
            (f"{stage} step, share of ceiling", step, ">=", 0.5),
            (f"{stage} loader over step", training[stage]["loader over step"], ">=", 5),
        ]
    ratio = measured["A 256 x 256 slice at 2 + 2"]["ratio"]
    rows += [
        *(
            (f"{name} from the shell, s", wall["wall, s"], "<=", _SHELL_S[name.partition(",")[0]])
            for name, wall in shell.items()
        ),
        ("outside the network, s", parts["fidelity"]["outside the network"], "<=", 6),
        ("peak memory, MB", max(s["peak memory, MB"] for s in shell.values()), "<=", 2048),
        ("faster than the reference size", ratio, ">=", 40),
        ("medtrans --help, s", start_up["medtrans --help"], "<=", 0.5),
        ("import medtrans, s", start_up["import medtrans"], "<=", 0.3),
    ]
    lines = [
        f"| {name} | {sign} {target:g} | {_text(value)} | {_verdict(value, sign, target)} |"
        for name, value, sign, target in rows
    ]
    return "\n".join(["| | target | measured | |", "|---|---|---|---|", *lines]) + "\n"


def _verdict(value: float, sign: str, target: float) -> str:
    return "met" if (value >= target if sign == ">=" else value <= target) else "not met"


def _text(value: object) -> str:
    if not isinstance(value, float):
        return str(value)
    return f"{value:.3g}" if value < 1000 else str(round(value))
