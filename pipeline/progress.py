"""What a user sees of work in progress: a bar on a terminal, plain lines in a batch log."""

import logging
import sys
import time
from types import TracebackType
from typing import Any, Self

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

LINE_SECONDS = 10.0  # between two lines of a batch log

log = logging.getLogger(__name__)


class Shown:
    """Progress of one piece of work, from `with` to its end."""

    def __init__(self, label: str, total: int, unit: str) -> None:
        self._label, self._total, self._unit = label, total, unit
        self._done = 0
        self._bar: Progress | None = None
        self._task: Any = None

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
                self._label, total=self._total, unit=self._unit, rate=""
            )
            self._bar.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._bar is not None:
            self._bar.stop()

    def advance(self, amount: int) -> None:
        """Count what is done now in addition."""
        self._done += amount
        now = time.monotonic()
        rate = self._done / max(now - self._began, 1e-9)
        if self._bar is not None:
            self._bar.update(self._task, completed=self._done, rate=_told_rate(rate))
        elif now - self._told >= LINE_SECONDS:
            self._told = now
            log.info("%s", self.describe(rate))

    def describe(self, rate: float) -> str:
        """One line: how much, how fast, how long still."""
        minutes, seconds = divmod(round((self._total - self._done) / max(rate, 1e-9)), 60)
        share = 100 * self._done // max(self._total, 1)
        return (
            f"{self._label}: {self._done:,} of {self._total:,} {self._unit} ({share} %), "
            f"{_told_rate(rate)}, {minutes}:{seconds:02d} left"
        )


def _told_rate(rate: float) -> str:
    """A rate per second as it is said; what is slow by the minute."""
    return f"{rate:,.0f}/s" if rate >= 10.0 else f"{60.0 * rate:,.3g}/min"
