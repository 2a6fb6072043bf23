"""The end of what Dask has opened, which is after the work and cannot fail it."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TypeVar

from distributed import Client
from distributed.deploy.cluster import Cluster

from pipeline.formats.errors import cause_of

Opened = TypeVar("Opened", bound=Client | Cluster)

log = logging.getLogger(__name__)


@contextmanager
def closed_at_the_end(opened: Opened) -> Iterator[Opened]:
    """Close a client or a farm.

    On a machine under load workers may not end in the time that Dask gives them. Those of this
    machine end with this process, and jobs of a batch system when their scheduler is gone.
    """
    try:
        yield opened
    finally:
        try:
            opened.close()
        except (OSError, RuntimeError) as error:  # Dask's TimeoutError is an OSError
            log.warning("dask: not everything has ended in time (%s)", cause_of(error))
