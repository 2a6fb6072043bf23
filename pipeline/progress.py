"""What a user sees of work in progress: a bar on a terminal, plain lines in a batch log."""

import logging
import sys
import threading
import time
from types import TracebackType
from typing import Any, Self

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

LINE_SECONDS = 10.0  # between two lines of a batch log
POLL_SECONDS = 1.0  # how often it is looked whether a line is due

log = logging.getLogger(__name__)


class Shown:
    """Progress of one piece of work, from `with` to its end.

    In a batch log at least a line every ten seconds, also while nothing is done.

    Args:
        label: What is done.
        total: Of how many pieces it consists.
        unit: Of the pieces.
        counts: Whether it will be told what is done; else the time alone is shown.
    """

    def __init__(self, label: str, total: int, unit: str, *, counts: bool = True) -> None:
        self._label, self._total, self._unit, self._counts = label, total, unit, counts
        self._done = 0
        # After the first piece, whose time is mostly that of a start.
        self._started: tuple[float, int] | None = None
        self._bar: Progress | None = None
        self._task: Any = None
        self._ended = threading.Event()

    def __enter__(self) -> Self:
        self._began = self._told = time.monotonic()
        if sys.stderr.isatty():
            self._bar = Progress(
                TextColumn("{task.description}"),
                BarColumn(),
                TextColumn("{task.completed:,.0f} of {task.total:,.0f} {task.fields[unit]}"),
                TextColumn("{task.fields[rate]}"),
                TimeRemainingColumn(),
                console=Console(stderr=True),
                transient=True,
            )
            self._task = self._bar.add_task(
                self._label, total=self._total if self._counts else None, unit=self._unit, rate=""
            )
            self._bar.start()
        else:
            threading.Thread(target=self._remind, daemon=True).start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._ended.set()
        if self._bar is not None:
            self._bar.stop()

    def advance(self, amount: int) -> None:
        """Count what is done now in addition."""
        self._done += amount
        now = time.monotonic()
        if self._started is None:
            self._started = now, self._done
        if self._bar is not None:
            rate = _told_rate(self._rate(now))
            self._bar.update(self._task, completed=self._done, rate=rate)
        elif now - self._told >= LINE_SECONDS:
            self._tell(now)

    def _remind(self) -> None:
        """Tell from a thread how it stands, where nothing else does."""
        while not self._ended.wait(POLL_SECONDS):
            now = time.monotonic()
            if now - self._told >= LINE_SECONDS:
                self._tell(now)

    def _tell(self, now: float) -> None:
        self._told = now
        log.info("%s", self.describe(self._rate(now), now - self._began))

    def _rate(self, now: float) -> float:
        """What is done a second: since the first piece if others followed."""
        since, before = self._began, 0
        if self._started is not None and self._done > self._started[1]:
            since, before = self._started
        return (self._done - before) / max(now - since, 1e-9)

    def describe(self, rate: float, elapsed: float) -> str:
        """One line: how much, how fast, how long still; how long already while nothing is done."""
        if not self._counts:
            return f"{self._label}: {self._total:,} {self._unit}, for {_clock(elapsed)}"
        share = 100 * self._done // max(self._total, 1)
        so_far = f"{self._label}: {self._done:,} of {self._total:,} {self._unit} ({share} %)"
        if not self._done:
            return f"{so_far} after {_clock(elapsed)}"
        left = _clock((self._total - self._done) / max(rate, 1e-9))
        return f"{so_far}, {_told_rate(rate)}, {left} left"


def _clock(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes}:{rest:02d}"


def _told_rate(rate: float) -> str:
    """A rate per second as it is said; what is slow by the minute."""
    return f"{rate:,.0f}/s" if rate >= 10.0 else f"{60.0 * rate:,.3g}/min"
