"""What it costs to hand out a cohort: stand-in cases, which workers answer at once.

    python -m benchmarks.scheduling [--cases 100000] [--workers 2]

Prints, ten times on the way, the time a case and the memory of the process that schedules, Dask's
scheduler included. Processor time is what other programs on the machine do not change.
"""

from __future__ import annotations

import argparse
import os
import time
from collections.abc import Iterator
from pathlib import Path

import psutil

from medtrans.inference.cluster import Case, SharedModel
from medtrans.inference.jobs import Job
from medtrans.inference.settings import Settings
from medtrans.system.cluster import local_workers, results_of


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cases", type=int, default=100_000)
    parser.add_argument("--workers", type=int, default=2)
    arguments = parser.parse_args()
    print("| cases | ms a case | processor ms a case | memory (MB) |\n|---|---|---|---|")
    with local_workers(arguments.workers, threads=1) as client:
        wall, busy, me = time.perf_counter(), time.process_time(), psutil.Process(os.getpid())
        for done, _ in enumerate(results_of(client, answer, cases(arguments.cases)), 1):
            if done % max(1, arguments.cases // 10) == 0:
                ms = 1000 * (time.perf_counter() - wall) / done
                cpu_ms = 1000 * (time.process_time() - busy) / done
                memory = me.memory_info().rss / 1e6
                print(f"| {done} | {ms:.2f} | {cpu_ms:.2f} | {memory:.0f} |", flush=True)


def cases(count: int) -> Iterator[Case]:
    """Make what `translate_on_workers` would send for so many volumes."""
    model = SharedModel("brain_mri", "0" * 64, "auto", "auto")
    for number in range(count):
        subject = f"sub-{number:06d}"
        job = Job(Path("/data") / subject / "t1.nii.gz", Path("/out") / subject)
        yield Case(job, Settings(), model)


def answer(case: Case) -> str:
    """Stand in for a translation."""
    return str(case.job.out)


if __name__ == "__main__":
    main()
