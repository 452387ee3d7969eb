"""Measure everything: `python -m benchmarks.speed --brain BRAIN.nii.gz`."""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Mapping
from pathlib import Path

from benchmarks.speed import machine, networks, report, training, translation
from benchmarks.speed.report import Results
from medtrans.package.store import load_package
from medtrans.system.devices import tune_process
from medtrans.volumes import read_volume

Section = Callable[[], Mapping[str, object]]


def main() -> None:
    """Measure section by section into the JSON, and write the page from it."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.speed", description=__doc__)
    parser.add_argument("--brain", type=Path, help="a source volume of 1 mm")
    parser.add_argument("--model", default="brain_mri")
    parser.add_argument("--repeats", type=int, default=3, help="runs from the shell")
    parser.add_argument("--json", type=Path, default=Path("performance.json"))
    parser.add_argument("--page", type=Path, default=Path("docs/performance.md"))
    parser.add_argument("--only", nargs="*", metavar="SECTION", help="measure these again")
    arguments = parser.parse_args()
    again = arguments.only is not None and arguments.json.is_file()
    results = json.loads(arguments.json.read_text(encoding="utf-8")) if again else {}
    if arguments.brain is not None:
        results["shape"] = " x ".join(map(str, read_volume(arguments.brain).shape))
        every = sections(arguments.brain, arguments.model, arguments.repeats)
        chosen = {name: s for name, s in every.items() if name in (arguments.only or every)}
        measure(chosen, results, arguments.json)
    report.write(results, arguments.page)


def measure(chosen: Mapping[str, Section], results: Results, path: Path) -> None:
    """Fill `results`, which are saved after each section: a stopped run loses one section."""
    tune_process()  # as the commands do
    results["machine"] = machine.description()
    for name, section in chosen.items():
        print(name, flush=True)
        results.setdefault("measured", {})[name] = section()
        path.write_text(json.dumps(results, indent=1), encoding="utf-8")


def sections(brain: Path, model: str, repeats: int) -> dict[str, Section]:
    """Return what is measured; the parts of `translate` are processes of their own."""
    package = load_package(model)
    ways = translation.WAYS
    return {
        "Start-up, s": translation.start_up,
        "Parts, s": lambda: {name: translation.parts(brain, model, name) for name in ways},
        "From the shell": lambda: {
            name: translation.from_the_shell(brain, model, way, repeats)
            for name, way in ways.items()
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
