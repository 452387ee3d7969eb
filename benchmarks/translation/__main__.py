"""Run or report the translation benchmark; see benchmarks/translation/README.md."""

from __future__ import annotations

import argparse
import csv
import fcntl
import subprocess
import sys
import time
import tomllib
from pathlib import Path
from typing import IO

import torch

from benchmarks.translation.cells import BASELINES, LONGER, Cell, run_cell
from benchmarks.translation.cohorts import HERE, Cohort, leave_one_out, leave_site_out
from benchmarks.translation.scoring import Scores
from medtrans.config.terms import MODES, Task

RESULTS = HERE / "results.csv"
METHODS = "identity,tone curve,regression l1,regression l2,pix2pix,rddm,drdd"
MODES_SCORED = ",".join([*MODES, "2+10"])


def main() -> None:
    """Train and score the cells that have no row yet."""
    arguments = _arguments()
    torch.set_num_threads(arguments.threads)
    variants = tomllib.loads((HERE / "variants.toml").read_text())
    methods = arguments.methods.split(",")
    known_methods = {*BASELINES, *variants, "identity", "tone curve"}
    unknown = {method.removesuffix(LONGER) for method in methods} - known_methods
    if unknown:
        sys.exit(f"There is no method {', '.join(sorted(unknown))}; see variants.toml.")
    known = tomllib.loads((HERE / "cohorts.toml").read_text())[arguments.cohort]
    recipe, task = known.get("recipe", {}), Task.parse(known["task"])
    numbers = arguments.pairs.split(",") if arguments.pairs else known["pairs"]
    for seed in map(int, arguments.seeds.split(",")):
        manifest = arguments.manifest
        if known.get("leave_one_out"):
            manifest = leave_one_out(manifest, seed, arguments.folder)
        if "site" in known:
            manifest = leave_site_out(
                manifest,
                known["site"],
                task.source,
                arguments.folder,
                its_targets=known["its_targets"],
            )
        cohort = Cohort(arguments.cohort, task, manifest, recipe, known.get("related", ()))
        for pairs in numbers:
            for method in methods:
                cell = Cell(
                    cohort,
                    method,
                    variants.get(method.removesuffix(LONGER), {}),
                    pairs,
                    seed,
                    tuple(arguments.modes.split(",")),
                )
                if pairs == "none" and cell.needs_pairs:
                    print(f"{cell.name}: {method} needs pairs, left out")
                    continue
                _run(cell, arguments)


def _run(cell: Cell, arguments: argparse.Namespace) -> None:
    key = {
        "cohort": cell.cohort.name,
        "task": str(cell.cohort.task),
        "method": cell.method,
        "pairs": cell.pairs,
        "seed": str(cell.seed),
        "split": arguments.split,
    }
    marker = arguments.folder / "claims" / cell.name.replace("/", "--")
    if not _claim(marker, key, arguments.results):
        return
    rows = run_cell(cell, arguments.split, arguments.folder)
    stamp = {"version": _version(), "date": time.strftime("%Y-%m-%d %H:%M")}
    append(arguments.results, [{**key, **row, **stamp} for row in rows])
    best = max(row["psnr_fit"] for row in rows)
    print(cell.name, arguments.split, f"{best:.2f} dB", flush=True)


def append(path: Path, rows: list[Scores]) -> None:
    """Add rows; two processes may do so at the same time."""
    with path.open("a", newline="") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        known = _header(path)
        writer = csv.DictWriter(file, known or list(rows[0]))  # refuses columns it does not know
        if not known:
            writer.writeheader()
        writer.writerows(_rounded(row) for row in rows)


def _header(path: Path) -> list[str]:
    with path.open(newline="") as file:
        return next(csv.reader(file), [])


def read(path: Path) -> list[dict[str, str]]:
    """Read rows as they are written; none where there is no file."""
    if not path.exists():
        return []
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def _claim(marker: Path, key: dict[str, str], results: Path) -> bool:
    """Take a cell that has no row and that no other process is at."""
    if any(all(row[k] == v for k, v in key.items()) for row in read(results)):
        return False
    marker.parent.mkdir(parents=True, exist_ok=True)
    file = marker.open("w")
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    _HELD.append(file)
    return not any(all(row[k] == v for k, v in key.items()) for row in read(results))


_HELD: list[IO[str]] = []  # locks that last as long as the process


def _rounded(row: Scores) -> Scores:
    return {k: f"{v:.5g}" if isinstance(v, float) else v for k, v in row.items()}


def _version() -> str:
    git = ["git", "rev-parse", "--short", "HEAD"]
    return subprocess.run(git, cwd=HERE, capture_output=True, text=True, check=False).stdout.strip()


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="benchmarks.translation")
    parser.add_argument("--manifest", type=Path, required=True)
    parser.add_argument("--cohort", default="brain", help="a name of cohorts.toml")
    parser.add_argument("--methods", default=METHODS, help="also variants.toml's, and any with x4")
    parser.add_argument("--pairs", help="instead of the cohort's, with commas")
    parser.add_argument("--seeds", default="0,1,2")
    parser.add_argument("--split", default="test")
    parser.add_argument("--modes", default=MODES_SCORED, help="of DRDD; also fidelity x4 and flips")
    parser.add_argument("--folder", type=Path, default=Path("runs/translation"))
    parser.add_argument("--results", type=Path, default=RESULTS)
    parser.add_argument("--threads", type=int, default=1)
    return parser.parse_args()


if __name__ == "__main__":
    main()
