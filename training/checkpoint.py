"""Checkpoints of a training, one an epoch: all that continues it as if it had never stopped.

Shape letters: P parameters.
"""

import logging
import pickle
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from pipeline.formats.files import TEMPORARY, replacing

CHECKPOINTS = "checkpoints"
KEPT = 2

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Checkpoint:
    """The state after an epoch.

    Attributes:
        epoch: Completed epochs.
        theta_P: Parameters, on the CPU.
        optimizer: State of Adam: both moments and the step.
        history: One record per completed epoch.
        seed: Of the training; permutations and noise follow from it and the epoch.
        fingerprint: Of the settings and data.
        sizes: Units per layer.
        num_rows: Training rows.
        world_size: Workers that shared each batch.
        threads: Compute threads of each worker.
        torch_version: Of the torch that computed it.
    """

    epoch: int
    theta_P: Tensor
    optimizer: dict[str, Any]
    history: list[dict[str, float]]
    seed: int
    fingerprint: str
    sizes: list[int]
    num_rows: int
    world_size: int
    threads: int
    torch_version: str


def save_checkpoint(folder: Path, checkpoint: Checkpoint) -> None:
    """Write the checkpoint of a run; it appears complete or not at all; the last two stay."""
    content = {field.name: getattr(checkpoint, field.name) for field in fields(checkpoint)}
    with replacing(folder / CHECKPOINTS / f"epoch-{checkpoint.epoch:06d}.pt") as temporary:
        torch.save(content, temporary)
    for path in _paths(folder)[KEPT:]:
        path.unlink(missing_ok=True)


def newest_checkpoint(folder: Path, fingerprint: str) -> Checkpoint | None:
    """The newest readable checkpoint of a run with this fingerprint, if there is one."""
    for path in _paths(folder):
        checkpoint = _read(path)
        if checkpoint is not None and checkpoint.fingerprint == fingerprint:
            return checkpoint
    return None


def remove_foreign_checkpoints(folder: Path, fingerprint: str) -> None:
    """Remove what cannot be continued: damaged, half-written or of other settings or data."""
    for leftover in (folder / CHECKPOINTS).glob(f"{TEMPORARY}*"):
        leftover.unlink(missing_ok=True)
    for path in _paths(folder):
        checkpoint = _read(path)
        if checkpoint is None:
            log.warning("%s: cannot be read, removed", path)
            path.unlink(missing_ok=True)
        elif checkpoint.fingerprint != fingerprint:
            log.info("%s: from other settings or data, removed", path)
            path.unlink(missing_ok=True)


def _paths(folder: Path) -> list[Path]:
    """The checkpoint files of a run, newest first."""
    return sorted((folder / CHECKPOINTS).glob("epoch-*.pt"), reverse=True)


def _read(path: Path) -> Checkpoint | None:
    """The checkpoint in a file; None if the file is gone or damaged."""
    try:
        return Checkpoint(**torch.load(path, map_location="cpu", weights_only=True))
    except (OSError, EOFError, RuntimeError, TypeError, pickle.UnpicklingError):
        return None
