"""The one place that opens a Dask farm: processes of this machine, a farm that runs, or jobs."""

import logging
import os
import resource
from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from tempfile import TemporaryDirectory

import dask
from distributed import Client, LocalCluster, Security

from jobs.farm.closing import closed_at_the_end
from jobs.signals import deaf_to_interrupts
from jobs.sites import BatchSettings, DaskSettings
from pipeline.fold import limits
from pipeline.formats.errors import UserError, requiring_extra
from pipeline.formats.versions import describe_differences, versions_of
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


# Of the packages on which results or the talk between client and workers depend.
PACKAGES = (
    "awkward",
    "cloudpickle",
    "dask",
    "distributed",
    "msgpack",
    "numba",
    "onnxruntime",
    "pyarrow",
    "scipy",
    "tornado",
    "uproot",
)
CONNECT_SECONDS = 30.0


@dataclass(frozen=True, slots=True)
class _SharedFarms:
    """Farms that stay open until a block ends, by their settings."""

    ends: ExitStack
    clients: dict[str, Client]


_SHARED: ContextVar[_SharedFarms | None] = ContextVar("_SHARED", default=None)


@contextmanager
def sharing_farms() -> Iterator[None]:
    """Within the block stages that ask for the same farm get one, which ends with the block.

    To start processes that have imported everything takes longer than a stage of a small study.
    """
    with ExitStack() as ends:
        token = _SHARED.set(_SharedFarms(ends, {}))
        try:
            yield
        finally:
            _SHARED.reset(token)


@contextmanager
def open_farm(settings: DaskSettings) -> Iterator[Client]:
    """A client of the farm that the site asks for; what was started here is ended at the end.

    Workers are processes with one thread each, since NumPy and the compiled kernels of a part use
    one core.

    Raises:
        UserError: There are no workers, or they have other versions of packages.
    """
    shared, key = _SHARED.get(), settings.model_dump_json()
    if shared is None:
        with _open_farm(settings) as client:
            yield client
        return
    if key not in shared.clients:
        shared.clients[key] = shared.ends.enter_context(_open_farm(settings))
    yield shared.clients[key]


@contextmanager
def _open_farm(settings: DaskSettings) -> Iterator[Client]:
    with _open_client(settings) as client:
        refuse_other_versions(client)
        log.info("dask: %d workers, dashboard at %s", _count_workers(client), client.dashboard_link)
        client.forward_logging("pipeline")  # a worker's warnings belong into the job's log
        yield client


def _open_client(settings: DaskSettings) -> AbstractContextManager[Client]:
    if settings.farm == "local":
        return _open_local(settings.workers or os.cpu_count() or 1)
    if settings.farm == "address":
        return _join(settings)
    return _open_batch(settings.farm, settings.batch)


@contextmanager
def _open_local(workers: int) -> Iterator[Client]:
    """Processes of this machine, which listen on loopback only and thus need no TLS."""
    with (
        dask.config.set({"distributed.nanny.pre-spawn-environ": WORKER_ENVIRONMENT}),
        # what is left in it by workers that are slow to end is in nobody's way
        TemporaryDirectory(prefix="topocal-dask-", ignore_cleanup_errors=True) as scratch,
        closed_at_the_end(_start_local(workers, scratch)) as farm,
        closed_at_the_end(Client(farm)) as client,
    ):
        yield client


def _start_local(workers: int, scratch: str) -> LocalCluster:
    with deaf_to_interrupts():
        return LocalCluster(
            n_workers=workers,
            threads_per_worker=1,
            processes=True,
            host="127.0.0.1",
            dashboard_address="127.0.0.1:0",
            local_directory=scratch,
            silence_logs="ERROR",
        )


@contextmanager
def _join(settings: DaskSettings) -> Iterator[Client]:
    """A farm that somebody else has started and will end."""
    tls = settings.tls
    security = None
    if tls is not None:
        security = Security(
            tls_ca_file=tls.ca,
            tls_client_cert=tls.cert,
            tls_client_key=tls.key,
            require_encryption=True,
        )
    try:
        client = Client(settings.address, security=security, timeout=CONNECT_SECONDS)
    except (OSError, TypeError, ValueError) as error:
        msg = f"dask.address: {settings.address} cannot be reached ({error})"
        raise UserError(msg) from None
    with closed_at_the_end(client):
        if not _count_workers(client):
            msg = f"dask.address: the farm at {settings.address} has no workers"
            raise UserError(msg)
        yield client


@contextmanager
def _open_batch(kind: str, batch: BatchSettings) -> Iterator[Client]:
    with requiring_extra("farm", "a batch farm"):
        from jobs.farm.batch import open_batch_farm  # noqa: PLC0415 - local farms go without
    with (
        open_batch_farm(kind, batch, WORKER_ENVIRONMENT) as farm,
        closed_at_the_end(Client(farm)) as client,
    ):
        yield client


def refuse_other_versions(client: Client) -> None:
    """Make sure that client and workers run the same software.

    Raises:
        UserError: They do not; all differences.
    """
    here = versions_of(*PACKAGES)
    there = client.run(versions_of, *PACKAGES)
    differing = sorted({
        text for found in there.values() for text in describe_differences(here, found)
    })
    if differing:
        msg = (
            f"dask: workers have other versions than this job: {'; '.join(differing)}; use one "
            "environment or container for both, made with requirements.lock"
        )
        raise UserError(msg)


def _count_workers(client: Client) -> int:
    return len(client.scheduler_info(n_workers=-1)["workers"])


def open_access(client: Client, settings: DaskSettings, paths: Iterable[str]) -> Access:
    """How workers reach these files: the site's settings, with its cap on reads of each server."""
    servers = {server for path in paths if (server := server_of(path)) is not None}
    remote = settings.remote
    caps = limits(client, servers, remote.reads_per_server)
    return Access(settings.read_rows, remote, caps)


def worker_peak_mib(client: Client) -> int:
    """The largest peak of memory of all workers [MiB], since each was started."""
    peaks = client.run(_peak_mib, on_error="ignore")  # of those that are still there
    return max(peaks.values(), default=0)


def _peak_mib() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
