"""The history of a training, one line an epoch, and the progress that a job shows of it."""

import json
import logging
import sys
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from pipeline.formats.files import write_text

HISTORY = "history.jsonl"
# Between two lines; in a batch log more as a training goes on, so that hours leave some hundred.
TERMINAL_SECONDS, BATCH_SECONDS, BATCH_SHARE, OF_ELAPSED = 1.0, 10.0, 0.1, 0.01
POLL_SECONDS = 0.2

log = logging.getLogger(__name__)


def write_history(folder: Path, records: Sequence[Mapping[str, float]]) -> None:
    """Write the history of a run anew, as its checkpoint has it."""
    write_text(folder / HISTORY, "".join(json.dumps(record) + "\n" for record in records))


def append_history(folder: Path, record: Mapping[str, float]) -> None:
    """Add the line of one epoch."""
    with (folder / HISTORY).open("a", encoding="utf-8") as file:
        file.write(json.dumps(record) + "\n")


def read_history(folder: Path) -> list[dict[str, float]]:
    """The complete lines of a run's history; a line that is being written does not count."""
    try:
        text = (folder / HISTORY).read_text(encoding="utf-8")
    except FileNotFoundError:
        return []
    return [json.loads(line) for line in text.splitlines(keepends=True) if line.endswith("\n")]


@contextmanager
def showing_progress(folder: Path, epochs: int) -> Iterator[None]:
    """Log the epochs of a training as its history grows, from a thread, until the block ends.

    On a terminal at most one line a second, else one for each tenth of the epochs or every ten
    seconds, later every hundredth of the time.
    """
    finished = threading.Event()
    follower = threading.Thread(target=_follow, args=(folder, epochs, finished), daemon=True)
    follower.start()
    try:
        yield
    finally:
        finished.set()
        follower.join()


def _follow(folder: Path, epochs: int, finished: threading.Event) -> None:
    on_terminal = sys.stderr.isatty()
    shown, began = len(read_history(folder)), time.monotonic()
    shown_at = began
    while True:
        ended = finished.wait(POLL_SECONDS)
        records = read_history(folder)
        waited, share = time.monotonic() - shown_at, (len(records) - shown) / epochs
        is_due = (
            waited >= TERMINAL_SECONDS
            if on_terminal
            else waited >= max(BATCH_SECONDS, OF_ELAPSED * (shown_at - began))
            or share >= BATCH_SHARE
        )
        if len(records) > shown and (is_due or ended):
            log.info("%s", describe_epoch(records[-1], epochs))
            shown, shown_at = len(records), time.monotonic()
        shown = min(shown, len(records))  # a resumed run rewrites its history
        if ended:
            return


def describe_epoch(record: Mapping[str, float], epochs: int) -> str:
    """One line about an epoch: number, losses, rate and time left."""
    minutes, seconds = divmod(round(record["seconds_left"]), 60)
    known = {
        "train_nll": "train NLL",
        "train_loss": "train loss",
        "kl": "KL/row",
        "prior": "prior/row",
        "validation_nll": "validation NLL",
        "validation_loss": "validation loss",
    }
    told = [f"{text} {record[name]:.4f}" for name, text in known.items() if name in record]
    return (
        f"epoch {record['epoch']:.0f}/{epochs}: {', '.join(told)}, "
        f"{record['rows_per_second']:.3g} rows/s, {minutes}:{seconds:02d} left"
    )
