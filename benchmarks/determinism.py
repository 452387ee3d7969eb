"""Does a translation depend on batch size or threads? `python -m benchmarks.determinism VOLUME`.

Prints a table: for each precision and mode, how far the voxels of each batch size and number of
threads are from those of the first, at most, in % of the output's standard deviation, and their
hash. Every number of threads is a process of its own.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple, cast, get_args

import numpy as np

from medtrans.config.terms import Mode
from medtrans.volumes.voxels import Voxels

DEFAULT = "default"


class Cell(NamedTuple):
    """One translation: with what the networks computed, and the file its voxels are in."""

    precision: str
    mode: str
    threads: str
    batch_size: str
    voxels: Path


def main() -> None:
    """Translate in every way that is asked for, and print how the results differ."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.determinism", description=__doc__)
    parser.add_argument("volume", type=Path)
    parser.add_argument("--model", default="brain_mri")
    parser.add_argument("--precisions", nargs="+", default=["float32", "bfloat16"])
    parser.add_argument("--modes", nargs="+", choices=get_args(Mode), default=["fidelity"])
    parser.add_argument("--threads", nargs="+", default=["1", "2"])
    parser.add_argument("--batch-sizes", nargs="+", default=["1", "4", "16", DEFAULT])
    parser.add_argument("--slices", type=int, help="translate so many in the middle, not all")
    parser.add_argument(
        "--whole-batches", action="store_true", help="call the networks with whole batches"
    )
    parser.add_argument("--into", type=Path, help=argparse.SUPPRESS)
    chosen = parser.parse_args()
    if chosen.into is not None:
        translate_all(chosen)
        return
    print("| precision | mode | threads | batch size | largest difference, % of std | sha256 |")
    print("|---|---|---|---|---|---|")
    with tempfile.TemporaryDirectory() as folder:
        for threads in chosen.threads:
            _in_a_process(threads, Path(folder) / threads)
        for precision in chosen.precisions:
            for mode in chosen.modes:
                _print_rows(list(_cells(Path(folder), precision, mode)))


def translate_all(chosen: argparse.Namespace) -> None:
    """Translate in every precision, mode and batch size; one .npy of voxels each."""
    from medtrans.inference.settings import Settings
    from medtrans.inference.translator import Translator
    from medtrans.networks.slice_by_slice import SliceBySlice
    from medtrans.volumes import read_volume

    volume = read_volume(chosen.volume)
    if chosen.slices is not None:
        first = (volume.shape[2] - chosen.slices) // 2
        volume = volume[:, :, first : first + chosen.slices]
    for precision in chosen.precisions:
        translator = Translator.load(chosen.model, "cpu", precision)
        if chosen.whole_batches:
            for stage in ("residual", "noise"):
                network = getattr(translator.sampler, stage)
                if isinstance(network, SliceBySlice):
                    setattr(translator.sampler, stage, network.network)
        for mode in chosen.modes:
            for size in chosen.batch_sizes:
                batch_size = None if size == DEFAULT else int(size)
                settings = Settings(mode=mode, batch_size=batch_size)
                voxels = translator.translate_volume(volume, settings).voxels
                folder = chosen.into / precision / mode
                folder.mkdir(parents=True, exist_ok=True)
                np.save(folder / f"{size}.npy", voxels)


def _in_a_process(threads: str, into: Path) -> None:
    arguments = [sys.executable, "-m", "benchmarks.determinism", *sys.argv[1:], "--into", str(into)]
    subprocess.run(arguments, check=True, env={**os.environ, "OMP_NUM_THREADS": threads})


def _cells(folder: Path, precision: str, mode: str) -> Iterator[Cell]:
    for path in sorted(folder.glob(f"*/{precision}/{mode}/*.npy"), key=lambda p: (p.stem, p)):
        threads = path.relative_to(folder).parts[0]
        yield Cell(precision, mode, threads, path.stem, path)


def _print_rows(cells: list[Cell]) -> None:
    base = cast(Voxels, np.load(cells[0].voxels))
    spread = base[base != base.min()].std()
    for cell in cells:
        voxels = cast(Voxels, np.load(cell.voxels))
        off = 100 * np.abs(voxels - base).max() / spread
        digest = hashlib.sha256(voxels.tobytes()).hexdigest()[:12]
        print("|", " | ".join((*cell[:4], f"{off:.2g}", digest)), "|", flush=True)


if __name__ == "__main__":
    main()
