"""Ray wiring: many small pieces of work side by side, each a plain task.

A task takes milliseconds to start in a worker process that is there already, where Ray Train takes
seconds for each training.
"""

import logging
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import ray
from ray.exceptions import RayError, RayTaskError

from pipeline.formats.errors import StoppedBySignal, UserError
from training.ray.environment import POLL_SECONDS
from training.ray.workers import STOP_SECONDS

RETRIES = 3  # of a task whose process was killed; what it raises is not repeated

Item = TypeVar("Item")

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Needs:
    """What a task occupies.

    Attributes:
        cpus: Cores.
        gpus: GPUs; a part of one where several tasks share it.
    """

    cpus: int = 1
    gpus: float = 0.0


def run_tasks(
    function: Callable[[Item], Any],
    items: Sequence[Item],
    needs: Needs,
    should_stop: Callable[[], bool] = lambda: False,
) -> Iterator[tuple[int, Any]]:
    """Number and result of each item, as they end; within a session of `ray_session`.

    Args:
        function: Importable on the workers. It ends soon when it is told to stop, by whatever
            means the caller has.
        items: What it is called with; the first are started first.
        needs: Of each.
        should_stop: Asked several times a second; True interrupts what is running, waits
            until it has ended, and raises.

    Raises:
        UserError: What a task raised.
        StoppedBySignal: should_stop returned True.
        RuntimeError: A task's process died more often than is repeated, or it raised another
            error.
    """
    remote: Any = ray.remote(
        num_cpus=needs.cpus, num_gpus=needs.gpus, max_retries=RETRIES, retry_exceptions=False
    )(function)
    waiting = {remote.remote(item): number for number, item in enumerate(items)}
    while waiting:
        ready, _ = ray.wait(list(waiting), timeout=POLL_SECONDS)
        if should_stop():
            _wait_for(list(waiting))
            msg = "stopped; what was finished is kept: run again to continue"
            raise StoppedBySignal(msg)
        for reference in ready:
            yield waiting.pop(reference), _result(reference)


def capacity(needs: Needs) -> int:
    """How many tasks with these needs the session's Ray can do at once."""
    asked: Any = ray.cluster_resources  # without annotations
    present = asked()
    fits = [int(present.get("CPU", 0) // needs.cpus)]
    if needs.gpus:
        fits.append(int(present.get("GPU", 0) // needs.gpus))
    return max(1, min(fits))


def _wait_for(references: list[Any]) -> None:
    """Cancel what has not begun, interrupt the others and give them time to end."""
    for reference in references:
        ray.cancel(reference, force=False, recursive=False)
    ray.wait(references, num_returns=len(references), timeout=STOP_SECONDS)


def _result(reference: Any) -> Any:  # noqa: ANN401 - of any task
    try:
        return ray.get(reference)
    except RayTaskError as error:
        if isinstance(error.cause, UserError | StoppedBySignal):
            raise error.cause from None
        msg = f"a task failed: {error.cause!r}"
        raise RuntimeError(msg) from error
    except RayError as error:  # the process or its node is gone, or Ray ended it for its memory
        log.debug("what Ray tells of a task", exc_info=error)
        msg = f"the process of a task died {RETRIES + 1} times; is there enough memory?"
        raise RuntimeError(msg) from error
