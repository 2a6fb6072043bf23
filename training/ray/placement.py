"""How many workers train, on what, and how they talk: from what is wanted and what is there."""

from collections.abc import Mapping
from dataclasses import dataclass

from pipeline.formats.errors import UserError
from training.job import Resources
from training.kinds import kind_of
from training.settings import NetworkSettings
from training.steps.noise import BLOCK_ROWS

_SHARES = {"rows": "a slice of every batch", "members": "some members"}


@dataclass(frozen=True, slots=True)
class Placement:
    """Workers and what each of them has.

    Attributes:
        num_workers: Processes.
        threads: CPUs of each.
        gpus: Of each, which may be a part of one.
        backend: Of torch, that the workers talk through.
    """

    num_workers: int
    threads: int
    gpus: float
    backend: str

    def describe(self, settings: NetworkSettings) -> str:
        """The placement as a line for the log."""
        each = f"{self.gpus:g} GPU" if self.gpus else f"{self.threads} CPU"
        share = _SHARES[kind_of(settings).workers_share]
        if self.num_workers == 1:
            return f"1 worker with {each}"
        return f"{self.num_workers} workers with {each} and {share} each, through {self.backend}"


def place_workers(
    settings: NetworkSettings, wanted: Resources, there: Mapping[str, float]
) -> Placement:
    """Workers for a training.

    Args:
        settings: Of the training.
        wanted: What the site asks for.
        there: CPU and GPU that can be had now.

    Raises:
        UserError: Some workers would have nothing to do, or no GPU.
    """
    most = most_workers(settings)
    places = _places(wanted, there)
    num_workers = wanted.workers or max(1, min(most, places))
    if num_workers > most:
        shared = (
            f"{settings.num_networks} members"
            if kind_of(settings).workers_share == "members"
            else f"a batch of {settings.batch_rows} rows in blocks of {BLOCK_ROWS}"
        )
        msg = (
            f"ray.workers: {num_workers} workers share {shared}, so {num_workers - most} would "
            f"idle; set at most {most}"
        )
        raise UserError(msg)
    if wanted.gpu and num_workers > places:
        msg = (
            f"ray.gpu: {num_workers} workers want 1/{wanted.workers_per_gpu} GPU each, there are "
            f"{there.get('GPU', 0):g}; set ray.gpu=false, fewer ray.workers or more "
            "ray.workers_per_gpu"
        )
        raise UserError(msg)
    # NCCL wants a GPU for each worker
    has_own_gpu = wanted.gpu and wanted.workers_per_gpu == 1
    return Placement(
        num_workers=num_workers,
        threads=wanted.threads,
        gpus=1 / wanted.workers_per_gpu if wanted.gpu else 0.0,
        backend="nccl" if has_own_gpu else "gloo",
    )


def most_workers(settings: NetworkSettings) -> int:
    """How many workers a training can keep busy: the blocks of a batch, or the members."""
    if kind_of(settings).workers_share == "members":
        return settings.num_networks
    return -(-settings.batch_rows // BLOCK_ROWS)


def _places(wanted: Resources, there: Mapping[str, float]) -> int:
    """How many workers find a place now."""
    if wanted.gpu:
        return int(there.get("GPU", 0)) * wanted.workers_per_gpu
    return int(there.get("CPU", 0)) // wanted.threads
