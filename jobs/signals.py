"""Wall time and preemption: what a job does about SIGTERM and SIGUSR1."""

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

from pipeline.formats.errors import StoppedBySignal

STOP_SIGNALS = (signal.SIGTERM, signal.SIGUSR1)


@contextmanager
def stopping_on_signals() -> Iterator[None]:
    """Within the block a signal raises StoppedBySignal, so that what is half done is cleared."""

    def stop(number: int, _frame: FrameType | None) -> None:
        msg = f"stopped by {signal.Signals(number).name}; run again to continue"
        raise StoppedBySignal(msg)

    with _handled_by(stop):
        yield


@contextmanager
def stop_requests() -> Iterator[Callable[[], bool]]:
    """Whether a signal has arrived since the block began: a question asked between steps."""
    told = threading.Event()

    def tell(_number: int, _frame: FrameType | None) -> None:
        told.set()

    with _handled_by(tell):
        yield told.is_set


@contextmanager
def _handled_by(handler: Callable[[int, FrameType | None], None]) -> Iterator[None]:
    before = {number: signal.signal(number, handler) for number in STOP_SIGNALS}
    try:
        yield
    finally:
        for number, old in before.items():
            signal.signal(number, old)
