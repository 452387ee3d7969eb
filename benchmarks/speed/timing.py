"""Medians of repeated runs."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence


def median_s(call: Callable[[], object], repeats: int = 5) -> float:
    """Seconds of one call, after one that warms up."""
    return medians_s([call], repeats)[0]


def medians_s(calls: Sequence[Callable[[], object]], repeats: int = 5) -> list[float]:
    """Median seconds of each call, taken in turns so that a busy machine slows all alike."""
    for call in calls:
        call()
    seconds: list[list[float]] = [[] for _ in calls]
    for _ in range(repeats):
        for call, taken in zip(calls, seconds, strict=True):
            start = time.perf_counter()
            call()
            taken.append(time.perf_counter() - start)
    return [statistics.median(taken) for taken in seconds]
