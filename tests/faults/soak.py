"""The long tests of faults: kills, full disks, many files, many volumes.

``python -m tests.faults.soak`` is the long run of ``make soak``; it prints what was seen, a row for
each fault, and exits with 1 where that is not what is expected.
"""

from __future__ import annotations

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")  # before torch: its threads do not outlive a fork

import argparse
import random
import resource
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from medtrans.cli.train import LESS_MEMORY
from medtrans.inference.cohort import translate_cohort
from medtrans.inference.jobs import jobs_from_inputs
from medtrans.inference.settings import Settings
from medtrans.inference.translator import Translator
from medtrans.system.devices import memory_errors
from medtrans.system.progress import be_silent
from medtrans.training.run import train
from tests import helpers
from tests.faults.children import fork, in_child
from tests.faults.limits import DONE, with_memory, writing_at_most
from tests.faults.trainings import WEIGHTS, look_into, small_pipeline, small_plan

Row = dict[str, str]
_MOST_GROWTH = 0.05  # of the memory between a tenth of a cohort and its end


def kills(folder: Path, count: int, seed: int) -> Row:
    """Kill a training `count` times at random moments, resume it, and compare the weights."""
    manifest = helpers.write_cohort(folder / "data")
    recipe = small_pipeline(iterations=40)
    started = time.monotonic()
    whole = train(small_plan(manifest, folder / "whole", recipe)).parent
    longest = time.monotonic() - started
    rng, out = random.Random(seed), folder / "killed"
    done, lost, unreadable, finished, leftovers = 0, 0, 0, 0, 0
    steps: dict[str, int] = {}
    while done < count:
        # So many kills a run that they meet all of its parts: preparing, both stages, the package.
        moment = rng.uniform(0, longest / 4)
        if not _killed_after(moment, lambda: train(small_plan(manifest, out, recipe, resume=True))):
            finished += 1
            shutil.rmtree(out)
            steps = {}
            continue
        done += 1
        found = look_into(out)
        unreadable += len(found.unreadable)
        leftovers = max(leftovers, found.leftovers)
        lost += sum(found.steps.get(stage, 0) < step for stage, step in steps.items())
        steps = found.steps
        for line in found.unreadable:
            sys.stderr.write(f"{line}\n")
    in_child(lambda: train(small_plan(manifest, out, recipe, resume=True)))
    same = helpers.digest(out / WEIGHTS) == helpers.digest(whole / WEIGHTS)
    good = not lost and not unreadable and same
    return _row(
        f"{done} kill -9 in a training",
        "no checkpoint lost or unreadable, no file half-written, the same weights",
        f"{lost} lost, {unreadable} unreadable, weights {'the same' if same else 'DIFFERENT'}; "
        f"{finished} runs ended before their kill, at most {leftovers} temporary files at a time",
        good,
    )


def disk_limits(folder: Path, count: int, seed: int, iterations: int = 12) -> Row:
    """Resume a training whose disk is full at `count` sizes of a file, then without a limit."""
    manifest, rng = helpers.write_cohort(folder / "data"), random.Random(seed)
    recipe = small_pipeline(iterations)
    whole, out = folder / "whole", folder / "full"
    in_child(lambda: train(small_plan(manifest, whole, recipe)))
    largest = max(path.stat().st_size for path in helpers.files_below(whole))
    told = bad = 0
    for _ in range(count):
        size = int(10 ** rng.uniform(1, len(str(largest))))
        said = writing_at_most(size, lambda: train(small_plan(manifest, out, recipe, resume=True)))
        found = look_into(out)
        is_sentence = "\n" not in said and "written" in said
        told += is_sentence
        if found.unreadable or found.leftovers or not (is_sentence or said == DONE):
            bad += 1
            sys.stderr.write(f"{size} bytes: {said}\n{found}\n")
    in_child(lambda: train(small_plan(manifest, out, recipe, resume=True)))
    same = helpers.digest(out / WEIGHTS) == helpers.digest(whole / WEIGHTS)
    return _row(
        f"{count} full disks in a training",
        "a sentence, every file whole, no temporary file, the same weights",
        f"{told} sentences, {bad} otherwise, weights {'the same' if same else 'DIFFERENT'}",
        not bad and same,
    )


def memory_limits(folder: Path, count: int, seed: int) -> Row:
    """Resume a training that may have so much memory more, `count` times, then without a limit."""
    manifest, rng = helpers.write_cohort(folder / "data"), random.Random(seed)
    recipe = small_pipeline()
    whole, out = folder / "whole", folder / "starved"
    in_child(lambda: train(small_plan(manifest, whole, recipe)))

    def starved() -> None:
        with memory_errors("Training", LESS_MEMORY):
            train(small_plan(manifest, out, recipe, resume=True))

    told = bad = 0
    for _ in range(count):
        said = with_memory(int(2 ** rng.uniform(20, 28)), starved)
        found = look_into(out)
        is_sentence = "\n" not in said and "memory" in said
        told += is_sentence
        if found.unreadable or found.leftovers or not (is_sentence or said == DONE):
            bad += 1
            sys.stderr.write(f"{said}\n{found}\n")
    in_child(lambda: train(small_plan(manifest, out, recipe, resume=True)))
    same = helpers.digest(out / WEIGHTS) == helpers.digest(whole / WEIGHTS)
    return _row(
        f"{count} trainings with 1 to 256 MiB of memory more",
        "a sentence, every file whole, no temporary file, the same weights",
        f"{told} sentences, {bad} otherwise, weights {'the same' if same else 'DIFFERENT'}",
        not bad and same,
    )


def many_volumes(folder: Path, count: int) -> Row:
    """Train on `count` volumes where a process may have 256 files open."""
    one = helpers.write_cohort(folder / "data", 1, shape=(6, 6, 6)).parent / "sub-001" / "t2.nii.gz"
    rows = ["subject,contrast,path,split"]
    for number in range(count):
        path = folder / f"{number}.nii.gz"
        shutil.copy(one, path)
        rows.append(f"s{number},t2,{path.name},train")
    manifest = folder / "manifest.csv"
    manifest.write_text("\n".join(rows) + "\n")
    recipe = helpers.tiny_pipeline(
        noise={"iterations": 2 + count // 8, "batch_size": 32, "patch": [4, 4]}
    )

    def limited() -> None:
        hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
        resource.setrlimit(resource.RLIMIT_NOFILE, (256, hard))
        train(small_plan(manifest, folder / "run", recipe, stages="noise"))

    code = in_child(limited)
    return _row(
        f"{count} volumes, 256 open files", "training ends well", f"exit code {code}", code == 0
    )


def cohort(folder: Path, count: int) -> Row:
    """Translate `count` volumes with one model, and watch the memory."""
    model = helpers.save_model(folder / "identity", helpers.linear_pipeline(), identity=True)
    inputs = folder / "inputs"
    inputs.mkdir()
    first = helpers.write_nifti(inputs / "00000.nii.gz", *helpers.head())
    paths = [first]
    for number in range(1, count):
        paths.append(inputs / f"{number:05d}.nii.gz")
        os.link(first, paths[-1])
    translator = Translator.load(model, "cpu")
    sizes: list[int] = []
    results = translate_cohort(
        translator,
        jobs_from_inputs(paths, folder / "out"),
        Settings(),
        strict=True,
        on_done=lambda *_: sizes.append(_memory()),
    )
    early, late = sizes[len(sizes) // 10], max(sizes[-len(sizes) // 10 :])
    growth = late / early - 1
    written = len(list((folder / "out").glob("*.nii.gz")))
    rest = len(list((folder / "out").rglob(".*")))
    good = growth < _MOST_GROWTH and written == len(results) == count and not rest
    return _row(
        f"{count} volumes through a cohort",
        f"memory grows by less than {_MOST_GROWTH:.0%}, every volume written",
        f"{growth:+.2%} ({early >> 20} to {late >> 20} MiB), {written} written, {rest} left over",
        good,
    )


def _memory() -> int:
    """Resident bytes of this process."""
    pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


def _killed_after(seconds: float, work: Callable[[], object]) -> bool:
    """Do work in a child for some seconds; whether it had to be killed."""
    child = fork(work)
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        ended, status = os.waitpid(child, os.WNOHANG)
        if ended:
            assert os.waitstatus_to_exitcode(status) == 0, "the training failed by itself"
            return False
        time.sleep(0.005)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    return True


def _row(fault: str, expected: str, seen: str, good: bool) -> Row:
    return {"fault": fault, "expected": expected, "seen": seen, "": "ok" if good else "BAD"}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=100, help="kills in a training")
    parser.add_argument("--disks", type=int, default=40, help="full disks in a training")
    parser.add_argument("--memories", type=int, default=20, help="limits of a training's memory")
    parser.add_argument("--volumes", type=int, default=3000, help="volumes of a training")
    parser.add_argument("--cohort", type=int, default=2000, help="volumes of a cohort")
    parser.add_argument("--seed", type=int, default=0)
    chosen = parser.parse_args()
    be_silent()
    tests: list[tuple[int, Callable[[Path], Row]]] = [
        (chosen.kills, lambda at: kills(at, chosen.kills, chosen.seed)),
        (chosen.disks, lambda at: disk_limits(at, chosen.disks, chosen.seed)),
        (chosen.memories, lambda at: memory_limits(at, chosen.memories, chosen.seed)),
        (chosen.volumes, lambda at: many_volumes(at, chosen.volumes)),
        (chosen.cohort, lambda at: cohort(at, chosen.cohort)),
    ]
    rows = []
    for count, test in tests:
        if count:
            start = time.monotonic()
            with tempfile.TemporaryDirectory(prefix="medtrans-soak-") as folder:
                rows.append(test(Path(folder)))
            seconds = time.monotonic() - start
            sys.stdout.write(" | ".join((*rows[-1].values(), f"{seconds:.0f} s")) + "\n")
            sys.stdout.flush()
    return int(any(row[""] != "ok" for row in rows))


if __name__ == "__main__":
    sys.exit(main())
