"""Medians of interleaved repeats, so that a drift of the machine's speed hits all alike."""

import statistics
import time
from collections.abc import Callable

REPEATS = 11


def interleave(works: dict[str, Callable[[], object]]) -> dict[str, list[float]]:
    """Seconds of each work, repeat by repeat; a work that returns a float tells its own."""
    for work in works.values():
        work()  # a first time for compilers and caches, not counted
    seconds: dict[str, list[float]] = {name: [] for name in works}
    for _ in range(REPEATS):
        for name, work in works.items():
            start = time.perf_counter()
            own = work()
            seconds[name].append(own if isinstance(own, float) else time.perf_counter() - start)
    return seconds


def ratio(seconds: dict[str, list[float]], of: str, to: str) -> float:
    """The median over the repeats of one work's seconds over another's."""
    pairs = zip(seconds[of], seconds[to], strict=True)
    return statistics.median(first / second for first, second in pairs)
