"""The whole `translate`: its parts, the wall clock from the shell, and peak memory."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple
from unittest.mock import patch

if TYPE_CHECKING:  # `measure_parts` times the import
    from medtrans.config.terms import Axis, Mode


class Way(NamedTuple):
    """How a volume is translated; without axes, along those that the model knows."""

    mode: Mode
    axes: tuple[Axis, ...] = ()


WAYS = {
    "fidelity": Way("fidelity"),
    "fidelity, axial alone": Way("fidelity", ("axial",)),
    "realistic": Way("realistic"),
}


def parts(image: Path, model: str, name: str) -> dict[str, float]:
    """Seconds of each part of one of `WAYS`, in a process of its own."""
    arguments = [sys.executable, "-m", "benchmarks.speed.translation", str(image), model, name]
    done = subprocess.run(arguments, check=True, capture_output=True, text=True)
    return dict(json.loads(done.stdout.splitlines()[-1]))


def from_the_shell(image: Path, model: str, way: Way, repeats: int) -> dict[str, float]:
    """Wall seconds (median) and peak memory in MB of the command."""
    seconds, peaks = [], []
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "out.nii.gz"
        command = [sys.executable, "-m", "medtrans", "translate", str(image), "-o", str(out)]
        command += ["--model", model, "--mode", way.mode]
        command += ["--axes", ",".join(way.axes)] if way.axes else []
        for _ in range(repeats):
            start = time.perf_counter()
            process = subprocess.Popen(
                command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
            )
            _, status, usage = os.wait4(process.pid, 0)
            process.returncode = os.waitstatus_to_exitcode(status)
            seconds.append(time.perf_counter() - start)
            peaks.append(usage.ru_maxrss / 1024)
            if process.returncode:
                raise RuntimeError(f"translate ended with {process.returncode}")
    return {"wall, s": sorted(seconds)[len(seconds) // 2], "peak memory, MB": max(peaks)}


def start_up(repeats: int = 3) -> dict[str, float]:
    """Seconds of `medtrans --help` and of `import medtrans`, each beside a bare python."""
    commands = {
        "python -c pass": ["-c", "pass"],
        "import medtrans": ["-c", "import medtrans"],
        "medtrans --help": ["-m", "medtrans", "--help"],
    }
    seconds = {}
    for name, arguments in commands.items():
        taken = []
        for _ in range(repeats + 1):  # the first fills the file cache
            start = time.perf_counter()
            subprocess.run([sys.executable, *arguments], check=True, stdout=subprocess.DEVNULL)
            taken.append(time.perf_counter() - start)
        seconds[name] = sorted(taken[1:])[repeats // 2]
    return seconds


def volumes(image: Path, model: str, slices: int = 16) -> dict[str, float]:
    """Seconds for 1, 2, 4 and 8 volumes with one loaded model; a slab of the image each."""
    from medtrans.inference.settings import Settings
    from medtrans.inference.translator import Translator
    from medtrans.volumes import read_volume

    translator = Translator.load(model, "cpu")
    whole = read_volume(image)
    middle = whole.shape[2] // 2
    slab = whole[:, :, middle - slices // 2 : middle + slices // 2]
    translator.translate_volume(slab, Settings())
    seconds = {}
    for count in (1, 2, 4, 8):
        start = time.perf_counter()
        for _ in range(count):
            translator.translate_volume(slab, Settings())
        seconds[f"{count}"] = time.perf_counter() - start
    return seconds


class Laps:
    """Seconds between calls, by name."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self.last = time.perf_counter()

    def __call__(self, name: str) -> None:
        now = time.perf_counter()
        self.seconds[name] = now - self.last
        self.last = now


def measure_parts(image: Path, model: str, way: Way) -> dict[str, float]:
    """Do what `translate_file` does, one part after the other."""
    lap = Laps()
    from medtrans.inference import sampling
    from medtrans.inference import translator as translate
    from medtrans.inference.settings import Settings
    from medtrans.preprocessing import slices
    from medtrans.volumes import read_volume, write_volume

    lap("import")
    translator = translate.Translator.load(model, "cpu")
    lap("load model")
    volume = read_volume(image)
    lap("read")
    settings = Settings(mode=way.mode, axes=way.axes)
    prepared = translator.prepare(volume, settings)
    lap("preprocess")
    reassembled, place = [0.0], slices.place

    def timed(*arguments: object) -> None:
        start = time.perf_counter()
        place(*arguments)
        reassembled[0] += time.perf_counter() - start

    with patch.object(sampling, "place", timed):
        draws = translator.sample(prepared, settings)
    lap("network")
    lap.seconds["network"] -= reassembled[0]
    lap.seconds["reassemble"] = reassembled[0]
    result = translator.restore(draws, prepared.plan)
    lap("restore")
    source = volume.meta["source"]
    with tempfile.TemporaryDirectory() as folder:
        label = translator.provenance(result, settings, source)
        write_volume(result.voxels, Path(folder) / "out.nii.gz", source, label)
        lap("write")
    outside = sum(v for k, v in lap.seconds.items() if k != "network")
    return {**lap.seconds, "outside the network": outside, "slices": result.slices}


if __name__ == "__main__":
    _, given, package, named = sys.argv
    print(json.dumps(measure_parts(Path(given), package, WAYS[named])))
