"""Checkpoints of a training, one an epoch: all that continues it as if it had never stopped.

A checkpoint is a file for each network, which its worker writes, and an index. The index is
written last and makes the checkpoint exist, so that any number of workers can share the networks
and any other number continue.

Shape letters: P parameters.
"""

import io
import logging
import pickle
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from pipeline.formats.files import TEMPORARY, replacing

CHECKPOINTS = "checkpoints"
KEPT = 2

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class NetworkState:
    """Parameters of a network with Adam's moments and step, on the CPU."""

    theta_P: Tensor
    exp_avg_P: Tensor
    exp_avg_sq_P: Tensor
    step: Tensor


@dataclass(frozen=True)
class Index:
    """What a checkpoint says beside its networks.

    Attributes:
        epoch: Completed epochs.
        num_networks: How many networks it has.
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
    num_networks: int
    history: list[dict[str, float]]
    seed: int
    fingerprint: str
    sizes: list[int]
    num_rows: int
    world_size: int
    threads: int
    torch_version: str


@dataclass(frozen=True)
class Checkpoint(Index):
    """The state after an epoch, with its networks in order."""

    networks: list[NetworkState]


def save_network(
    folder: Path, fingerprint: str, epoch: int, number: int, state: NetworkState
) -> None:
    """Write one network of a checkpoint that does not exist yet."""
    content = {"fingerprint": fingerprint, **vars(state)}
    with replacing(_network_path(folder, epoch, number)) as temporary:
        _save(content, temporary)


def save_index(folder: Path, index: Index) -> None:
    """Let the checkpoint whose networks are written exist; the last two stay."""
    with replacing(folder / CHECKPOINTS / f"{_stem(index.epoch)}.pt") as temporary:
        _save(asdict(index), temporary)
    for path in _paths(folder)[KEPT:]:
        _remove(path)


def newest_checkpoint(folder: Path, fingerprint: str) -> Checkpoint | None:
    """The newest readable checkpoint of a run with this fingerprint, if there is one."""
    for path in _paths(folder):
        checkpoint = _read(folder, path)
        if checkpoint is not None and checkpoint.fingerprint == fingerprint:
            return checkpoint
    return None


def remove_foreign_checkpoints(folder: Path, fingerprint: str) -> None:
    """Remove what cannot be continued: damaged, half-written or of other settings or data."""
    for leftover in (folder / CHECKPOINTS).glob(f"{TEMPORARY}*"):
        leftover.unlink(missing_ok=True)
    for path in _paths(folder):
        checkpoint = _read(folder, path)
        if checkpoint is None:
            log.warning("%s: cannot be read, removed", path)
            _remove(path)
        elif checkpoint.fingerprint != fingerprint:
            log.info("%s: from other settings or data, removed", path)
            _remove(path)
    complete = {path.stem for path in _paths(folder)}
    for network in (folder / CHECKPOINTS).glob("epoch-*-network-*.pt"):
        if network.name.partition("-network-")[0] not in complete:
            network.unlink(missing_ok=True)


def _stem(epoch: int) -> str:
    return f"epoch-{epoch:06d}"


def _network_path(folder: Path, epoch: int, number: int) -> Path:
    return folder / CHECKPOINTS / f"{_stem(epoch)}-network-{number:03d}.pt"


def _paths(folder: Path) -> list[Path]:
    """The indices of a run's checkpoints, newest first."""
    return sorted((folder / CHECKPOINTS).glob("epoch-??????.pt"), reverse=True)


def _remove(path: Path) -> None:
    """Remove an index, and then what it made a checkpoint of."""
    path.unlink(missing_ok=True)
    for network in path.parent.glob(f"{path.stem}-network-*.pt"):
        network.unlink(missing_ok=True)


def _read(folder: Path, path: Path) -> Checkpoint | None:
    """The checkpoint of an index; None if a file of it is gone or damaged."""
    try:
        index = Index(**_load(path))
        networks = []
        for number in range(index.num_networks):
            content = _load(_network_path(folder, index.epoch, number))
            if content.pop("fingerprint") != index.fingerprint:
                return None
            networks.append(NetworkState(**content))
        return Checkpoint(**vars(index), networks=networks)
    # Another error of the disk or the network says nothing of the file, which is kept.
    except (FileNotFoundError, _DamagedError, TypeError, KeyError):
        return None


def _save(content: dict[str, Any], path: Path) -> None:
    with path.open("wb") as file:  # torch would hide what the system says of a full disk
        torch.save(content, file)


def _load(path: Path) -> dict[str, Any]:
    content = io.BytesIO(path.read_bytes())
    try:
        loaded: dict[str, Any] = torch.load(content, map_location="cpu", weights_only=True)
    except (OSError, EOFError, RuntimeError, ValueError, KeyError, pickle.UnpicklingError) as error:
        raise _DamagedError from error
    return loaded


class _DamagedError(Exception):
    """A file's content is no checkpoint."""
