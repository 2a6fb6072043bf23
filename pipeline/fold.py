"""Map over parts on a Dask farm and merge in a fixed order: all that pipeline knows of Dask."""

import uuid
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from distributed import Client, Semaphore, as_completed
from distributed.scheduler import KilledWorker, NoWorkerError

from pipeline.formats.errors import UserError
from pipeline.progress import Shown


@dataclass(frozen=True, slots=True)
class _Refused:
    """A UserError as a value: Dask would repeat what failed and print a traceback each time."""

    message: str


@dataclass(frozen=True, slots=True)
class _Guarded:
    """The function, with its UserError as a value."""

    function: Callable[[Any], Any]

    def __call__(self, item: Any) -> Any:  # noqa: ANN401 - any part, any result
        try:
            return self.function(item)
        except UserError as error:
            return _Refused(str(error))


Item = TypeVar("Item")
Result = TypeVar("Result")
Summary = TypeVar("Summary")

# Sums of floats depend on how they are grouped, so the width of the merge tree is a constant:
# any number of workers, and any order of completion, gives the same bits.
MERGE_WIDTH = 8
RETRIES = 2


def map_parts(
    client: Client,
    function: Callable[[Item], Result],
    items: Sequence[Item],
    *,
    label: str,
    sizes: Sequence[int] | None = None,
    unit: str = "parts",
) -> list[Result]:
    """The function's results for all items, in the order of the items.

    Args:
        client: A farm.
        function: Importable on the workers; raises on bad input.
        items: Small values; data travels by path.
        label: Names the tasks in the log and on the dashboard.
        sizes: What each item counts in the progress that is shown; 1 each if None.
        unit: Of the sizes.

    Raises:
        Exception: What the function raised for the item that failed first; the others are not
            waited for.
    """
    futures = _submit(client, function, items, label)
    by_key: dict[str, Result] = {}
    try:
        for future in _completed(futures, label, sizes, unit):
            by_key[future.key] = future.result()
            _raise_if_refused(by_key[future.key])
            future.release()  # a worker that leaves takes no result with it that is at hand
    except KilledWorker as error:
        raise _worker_died(error, label) from error
    except NoWorkerError as error:
        raise _none_left(error, label) from None
    finally:
        client.cancel([future for future in futures if future.key not in by_key])
    return [by_key[future.key] for future in futures]


def limits(client: Client, places: Iterable[str], leases: int) -> dict[str, Any]:
    """By place: something to enter, on any worker, that at most `leases` hold at a time."""
    with client.as_current():  # a farm keeps a semaphore of a name, with its leases
        return {place: Semaphore(leases, name=f"topocal-{leases}-{place}") for place in places}


def fold(
    client: Client,
    summarise: Callable[[Item], Summary],
    items: Sequence[Item],
    merge: Callable[[Summary, Summary], Summary],
    *,
    label: str,
    unit: str = "parts",
) -> Summary:
    """The merged summary of all items: groups of eight in order, until one is left.

    The merging happens on the workers, so that large summaries do not meet in the client, and
    before further items are begun, so that few wait to be merged.
    """
    first = _submit(client, summarise, items, label)
    level = list(first)
    while len(level) > 1:
        level = [
            client.submit(_merge_group, merge, list(group), pure=False, priority=1)
            for group in batched(level, MERGE_WIDTH)
        ]
    last = level[0]
    waiting = as_completed(first)
    num_items = len(first)
    if len(first) > 1:
        first.clear()  # what is merged may go
    try:
        with Shown(label, num_items, unit) as shown:
            for future in waiting:
                _raise_if_failed(future)
                shown.advance(1)
        merged: Summary = last.result()
    except KilledWorker as error:
        raise _worker_died(error, label) from error
    except NoWorkerError as error:
        raise _none_left(error, label) from None
    finally:
        client.cancel([last])
    _raise_if_refused(merged)
    return merged


def batched(items: Sequence[Item], size: int) -> list[Sequence[Item]]:
    """The items in groups of a size, in order; the last one may be smaller."""
    return [items[i : i + size] for i in range(0, len(items), size)]


def merge_in_order(
    summaries: Sequence[Summary], merge: Callable[[Summary, Summary], Summary]
) -> Summary:
    """The same merge tree as `fold`, for summaries that are at hand."""
    level: Sequence[Summary] = summaries
    while len(level) > 1:
        level = [_merge_group(merge, group) for group in batched(level, MERGE_WIDTH)]
    return level[0]


def _merge_group(merge: Callable[[Summary, Summary], Summary], group: Sequence[Summary]) -> Summary:
    total = group[0]
    for summary in group[1:]:
        if isinstance(total, _Refused):
            break
        total = summary if isinstance(summary, _Refused) else merge(total, summary)
    return total


def _raise_if_refused(result: object) -> None:
    if isinstance(result, _Refused):
        raise UserError(result.message)


def _submit(
    client: Client, function: Callable[..., Any], items: Sequence[Any], label: str
) -> list[Any]:
    run = uuid.uuid4().hex[:8]  # results of an earlier fold on the same farm are not reused
    keys = [f"{label}-{run}-{index:06d}" for index in range(len(items))]
    return list(client.map(_Guarded(function), items, key=keys, retries=RETRIES))


def _completed(
    futures: Sequence[Any], label: str, sizes: Sequence[int] | None = None, unit: str = "parts"
) -> Iterator[Any]:
    """The futures as they end well, with their progress shown."""
    sizes = sizes or [1] * len(futures)
    by_key = {future.key: size for future, size in zip(futures, sizes, strict=True)}
    with Shown(label, sum(sizes), unit) as shown:
        for future in as_completed(futures):
            _raise_if_failed(future)
            yield future
            shown.advance(by_key[future.key])


def _raise_if_failed(future: Any) -> None:  # noqa: ANN401 - Dask's
    """Raises what the function raised, unless it is a UserError, which comes as a value."""
    if future.status == "error":
        future.result()


def _worker_died(error: KilledWorker, label: str) -> RuntimeError:
    msg = (
        f"{label}: the workers that ran task {error.task} died {error.allowed_failures + 1} times; "
        "most often the memory limit of a worker is too low for dataset.rows_per_part"
    )
    return RuntimeError(msg)


def _none_left(error: NoWorkerError, label: str) -> UserError:
    msg = (
        f"{label}: no worker was left for {error.timeout / 60:g} minutes; the log says what became "
        "of the jobs, run again to continue"
    )
    return UserError(msg)
