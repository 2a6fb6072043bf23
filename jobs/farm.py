"""The one place that opens a Dask farm."""

import logging
import os
import resource
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from tempfile import TemporaryDirectory

import dask
from distributed import Client, LocalCluster

from jobs.study import DaskSettings
from pipeline.fold import limits
from pipeline.root.files import Access
from pipeline.root.remote import server_of

log = logging.getLogger(__name__)

# One compute thread, and memory that the C library keeps for the next array: Dask's own setting
# gives it back to the system after each, and clearing it anew doubles the time of a part.
WORKER_ENVIRONMENT = {
    "OMP_NUM_THREADS": 1,
    "OPENBLAS_NUM_THREADS": 1,
    "MKL_NUM_THREADS": 1,
    "MALLOC_TRIM_THRESHOLD_": 1 << 28,
    "MALLOC_MMAP_THRESHOLD_": 1 << 25,
}


@contextmanager
def open_farm(settings: DaskSettings) -> Iterator[Client]:
    """A client of the farm that the site asks for; the embedded one is closed at the end.

    The embedded farm listens on loopback only. Workers are processes with
    one thread each, since NumPy and the compiled kernels of a part use one core.
    """
    workers = settings.workers or os.cpu_count() or 1
    with (
        dask.config.set({"distributed.nanny.pre-spawn-environ": WORKER_ENVIRONMENT}),
        TemporaryDirectory(prefix="topocal-dask-") as scratch,
        LocalCluster(
            n_workers=workers,
            threads_per_worker=1,
            processes=True,
            host="127.0.0.1",
            dashboard_address="127.0.0.1:0",
            local_directory=scratch,
            silence_logs="ERROR",
        ) as farm,
        Client(farm) as client,
    ):
        log.info("dask: %d workers, dashboard at %s", workers, client.dashboard_link)
        client.forward_logging("pipeline")  # a worker's warnings belong into the job's log
        yield client


def open_access(client: Client, settings: DaskSettings, paths: Iterable[str]) -> Access:
    """How workers reach these files: the site's settings, with its cap on reads of each server."""
    servers = {server for path in paths if (server := server_of(path)) is not None}
    remote = settings.remote
    caps = limits(client, servers, remote.reads_per_server)
    return Access(settings.read_rows, remote, caps)


def worker_peak_mib(client: Client) -> int:
    """The largest peak of memory of all workers [MiB], since each was started."""
    return max(client.run(_peak_mib).values(), default=0)


def _peak_mib() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
