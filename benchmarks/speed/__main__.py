"""Measure everything: `python -m benchmarks.speed --brain BRAIN.nii.gz`."""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks.speed import machine, networks, report, training, translation
from medtrans.package.store import load_package
from medtrans.system.devices import tune_process
from medtrans.volumes import read_volume

Section = Callable[[], dict[str, Any]]


def main() -> None:
    """Measure section by section into the JSON, and write the page from it."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.speed", description=__doc__)
    parser.add_argument("--brain", type=Path, help="a source volume of 1 mm")
    parser.add_argument("--model", default="brain_mri")
    parser.add_argument("--repeats", type=int, default=3, help="runs from the shell")
    parser.add_argument("--json", type=Path, default=Path("performance.json"))
    parser.add_argument("--page", type=Path, default=Path("docs/performance.md"))
    parser.add_argument("--only", nargs="*", metavar="SECTION", help="measure these again")
    chosen = parser.parse_args()
    again = chosen.only is not None and chosen.json.is_file()
    found = json.loads(chosen.json.read_text(encoding="utf-8")) if again else {}
    if chosen.brain is not None:
        measure(chosen.brain, chosen.model, chosen.repeats, found, chosen.json, chosen.only)
    report.write(found, chosen.page)


def measure(
    brain: Path,
    model: str,
    repeats: int,
    found: dict[str, Any],
    goal: Path,
    only: list[str] | None,
) -> None:
    """Fill `found`, which is saved after each section: a stopped run loses one section."""
    tune_process()  # as the commands do
    found["machine"] = machine.description()
    found["shape"] = " x ".join(map(str, read_volume(brain).shape))
    for name, section in sections(brain, model, repeats).items():
        if only and name not in only:
            continue
        print(name, flush=True)
        found.setdefault("measured", {})[name] = section()
        goal.write_text(json.dumps(found, indent=1), encoding="utf-8")


def sections(brain: Path, model: str, repeats: int) -> dict[str, Section]:
    """Return what is measured; the parts of `translate` are processes of their own."""
    package = load_package(model)
    modes = translation.MODES
    return {
        "Start-up, s": translation.start_up,
        "Parts, s": lambda: {m: translation.parts(brain, model, m) for m in modes},
        "From the shell": lambda: {
            m: translation.from_the_shell(brain, model, m, repeats) for m in modes
        },
        "Ceilings": machine.ceilings,
        "Networks": lambda: networks.shipped(package),
        "A 256 x 256 slice at 2 + 2": lambda: networks.per_slice(package),
        "Training": lambda: training.throughput(package.pipeline),
        "Milliseconds a slice by its size": lambda: networks.by_slice_size(package),
        "Seconds by number of volumes (slabs of 16 slices)": lambda: translation.volumes(
            brain, model
        ),
    }


if __name__ == "__main__":
    main()
