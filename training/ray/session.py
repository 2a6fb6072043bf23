"""A connection to Ray: one that is started here, or a cluster; and what all its nodes must see."""

import logging
import os
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import ray
from ray.exceptions import GetTimeoutError, RayError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from pipeline.formats.errors import UserError, cause_of
from pipeline.formats.files import TEMPORARY
from training.ray.environment import (
    LOCAL,
    ensure_token,
    own_signals,
    ray_environment,
    shared_sessions,
    worker_environment,
)

OBJECT_STORE_BYTES = 128 * 2**20  # nothing large is shipped; each worker reads its rows itself
LOOK_SECONDS = 120.0  # that a node gets to look for a file

log = logging.getLogger(__name__)


@contextmanager
def ray_session(address: str, num_cpus: int, interface: str | None = None) -> Iterator[None]:
    """A connection to Ray; what was started here is ended here.

    Args:
        address: "local" starts a Ray of this process alone and never joins another one.
        num_cpus: That the workers need; a Ray that is started here has as many.
        interface: That the workers talk through.

    Raises:
        UserError: The cluster cannot be reached or does not accept this client.
    """
    if ray.is_initialized():
        yield
        return
    shared = shared_sessions()
    if shared is None or address != LOCAL:
        with _open_session(address, num_cpus, interface):
            yield
        return
    shared.enter_context(_open_session(address, max(num_cpus, os.cpu_count() or 1), interface))
    yield


@contextmanager
def _open_session(address: str, num_cpus: int, interface: str | None) -> Iterator[None]:
    environment = worker_environment(address, interface)
    options: dict[str, Any] = {"runtime_env": {"env_vars": environment}}
    if address == LOCAL:
        ensure_token()
        options |= {
            "num_cpus": num_cpus,
            "object_store_memory": OBJECT_STORE_BYTES,
            "include_dashboard": True,  # without it a helper of Ray complains every second
            "dashboard_host": "127.0.0.1",
        }
    with ray_environment(address):
        with own_signals():
            _connect(address, options)
        try:
            yield
        finally:
            ray.shutdown()


def _connect(address: str, options: dict[str, Any]) -> None:
    try:
        ray.init(address=address, log_to_driver=False, logging_level=logging.ERROR, **options)
    except (OSError, RuntimeError, ValueError, RayError) as error:
        if address == LOCAL:
            raise
        msg = (
            f"ray.address: the Ray cluster at {address} cannot be joined ({cause_of(error)}); is "
            "it running, and ray.token the file with its token?"
        )
        raise UserError(msg) from error


def require_shared(folder: Path) -> None:
    """Make sure that every node of the cluster sees a folder.

    Raises:
        UserError: A node does not.
    """
    probe = folder / f"{TEMPORARY}{uuid.uuid4().hex}-probe"
    probe.touch()
    try:
        blind = _nodes_without(probe)
    finally:
        probe.unlink(missing_ok=True)
    if blind:
        msg = (
            f"{folder}: not seen by {', '.join(blind)} of the Ray cluster; dataset and output must "
            "lie on a file system that all nodes see under the same path"
        )
        raise UserError(msg)


def _nodes_without(probe: Path) -> list[str]:
    """The addresses of the nodes that do not see a file."""
    listed: Any = ray.nodes  # without annotations
    nodes = [node for node in listed() if node["Alive"] and node["Resources"].get("CPU")]
    looks = [
        ray
        .remote(_sees)
        .options(
            num_cpus=0,
            scheduling_strategy=NodeAffinitySchedulingStrategy(node["NodeID"], soft=False),
        )
        .remote(str(probe))
        for node in nodes
    ]
    try:
        seen = ray.get(looks, timeout=LOOK_SECONDS)
    except GetTimeoutError:
        msg = f"{probe.parent}: not all nodes of the cluster told whether they see it in time"
        raise UserError(msg) from None
    return [node["NodeManagerAddress"] for node, sees in zip(nodes, seen, strict=True) if not sees]


def _sees(path: str) -> bool:
    return Path(path).exists()


def cluster_resources() -> dict[str, float]:
    """What the whole cluster has now, by kind such as CPU and GPU."""
    asked: Any = ray.cluster_resources  # without annotations
    return dict(asked())
