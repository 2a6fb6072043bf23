"""Wall time, preemption and Ctrl-C: what a job does about signals."""

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

from pipeline.formats.errors import StoppedBySignal

STOP_SIGNALS = (signal.SIGTERM, signal.SIGUSR1, signal.SIGINT)


class SignalArrived(BaseException):
    """Raised where a signal finds the job; no Exception, which what it interrupts could handle.

    The log does: a signal while a line is written would be one more line, and the job would go on.
    """


@contextmanager
def stopping_on_signals() -> Iterator[None]:
    """Within the block a signal raises SignalArrived, so that what is half done is cleared.

    Further ones, of impatience, change nothing: the clearing goes on.

    Raises:
        StoppedBySignal: In its place, at the end of the block.
    """

    def stop(number: int, _frame: FrameType | None) -> None:
        for each in STOP_SIGNALS:
            signal.signal(each, signal.SIG_IGN)
        msg = f"stopped by {signal.Signals(number).name}; run again to continue"
        raise SignalArrived(msg)

    try:
        with _handled_by(stop):
            yield
    except SignalArrived as arrived:
        raise StoppedBySignal(str(arrived)) from None


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
    # What a shell has started in the background ignores Ctrl-C, and goes on to do so.
    heard = [number for number in STOP_SIGNALS if signal.getsignal(number) != signal.SIG_IGN]
    before = {number: signal.signal(number, handler) for number in heard}
    try:
        yield
    finally:
        for number, old in before.items():
            signal.signal(number, old)


@contextmanager
def deaf_to_interrupts() -> Iterator[None]:
    """What is started within does not hear Ctrl-C, which a terminal sends to all of a job.

    The job itself hears it afterwards, and ends what it has started.
    """
    if threading.current_thread() is not threading.main_thread():
        yield  # no other may say what becomes of signals
        return
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
