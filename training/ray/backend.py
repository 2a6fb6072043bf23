"""The meeting of workers in torch, through a file where one machine is all there is.

Ray Train lets torch's workers meet at a TCP store of torch, which listens on every interface and
asks nobody for a token. Workers of one machine meet in a file that its owner alone can open.
"""

import uuid
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

import ray
from ray.train.torch import TorchConfig
from torch import distributed


@dataclass
class MeetingInFile(TorchConfig):
    """Workers of one machine meet in a new file of a folder.

    Attributes:
        folder: That its owner alone can open.
    """

    folder: str = ""

    @property
    def backend_cls(self) -> type:
        """What Ray Train starts the workers' process group with."""
        return _FileBackend


class _FileBackend(TorchConfig().backend_cls):  # type: ignore[misc]  # a class as a value
    """Ray's own, but for the meeting."""

    def on_start(self, worker_group: Any, backend_config: MeetingInFile) -> None:  # noqa: ANN401
        """Let the workers meet; a group that starts again meets in another file."""
        path = Path(backend_config.folder) / uuid.uuid4().hex
        size = len(worker_group)
        ray.get([
            worker_group.execute_single_async(
                rank, _join, backend_config.backend, str(path), rank, size, backend_config.timeout_s
            )
            for rank in range(size)
        ])


def _join(backend: str, path: str, rank: int, size: int, seconds: float) -> None:
    distributed.init_process_group(
        backend=backend,
        init_method=f"file://{path}",
        rank=rank,
        world_size=size,
        timeout=timedelta(seconds=seconds),
    )
