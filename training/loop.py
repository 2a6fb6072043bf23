"""The training loop of the Bayesian network: a plain function, with or without other workers.

Shape letters: N rows, B rows of this worker in a step, F features, P parameters.
"""

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import torch

from pipeline.formats.seeds import derive_seed
from training import network
from training.checkpoint import (
    Checkpoint,
    newest_checkpoint,
    remove_foreign_checkpoints,
    save_checkpoint,
)
from training.data import Rows, TrainingData
from training.epoch import Run, State, Worker, noise_maker, train_epoch
from training.history import append_history, write_history
from training.noise import plan_epoch
from training.settings import BnnSettings

log = logging.getLogger(__name__)


def train_network(  # noqa: PLR0913 - wiring
    data: TrainingData,
    settings: BnnSettings,
    *,
    seed: int,
    fingerprint: str,
    folder: Path,
    worker: Worker | None = None,
    should_stop: Callable[[], bool] = lambda: False,
) -> None:
    """Train, or continue, until all epochs have their checkpoint and line of history.

    Args:
        data: All rows, the same in each worker.
        settings: Of the network and its training.
        seed: Initial weights, permutations and noise follow from it.
        fingerprint: Of settings and data; checkpoints with another one are removed.
        folder: Of the run; shared by all workers.
        worker: This process's place among the workers; alone if None.
        should_stop: Asked at every step; True ends the training at its last complete epoch.

    Raises:
        StoppedBySignal: The training was asked to stop; running it again continues it.
        LossNotFiniteError: The loss became infinite or NaN.
    """
    worker = worker or Worker()
    with _threads(worker.threads):
        if worker.rank == 0:
            remove_foreign_checkpoints(folder, fingerprint)
        run = _prepare(data, settings, seed, worker, should_stop)
        state = _start(run, folder, fingerprint)
        if worker.rank == 0:
            write_history(folder, state.history)
        with noise_maker(worker) as maker:
            while state.epoch < settings.epochs:
                train_epoch(run, state, maker)
                _keep_epoch(run, state, folder, fingerprint)


def _keep_epoch(run: Run, state: State, folder: Path, fingerprint: str) -> None:
    """Let the first worker write the checkpoint, then the line of history."""
    if run.worker.rank == 0:
        save_checkpoint(folder, _checkpoint_of(run, state, fingerprint))
        append_history(folder, state.history[-1])


def _prepare(
    data: TrainingData,
    settings: BnnSettings,
    seed: int,
    worker: Worker,
    should_stop: Callable[[], bool],
) -> Run:
    device = worker.device
    data = TrainingData(data.train.to(device), data.validation.to(device))
    num_features = data.train.x_NF.shape[1]
    sizes = network.layer_sizes(num_features, settings.hidden, settings.components)
    num_weights = network.count_weights(sizes)
    plan = plan_epoch(len(data.train), settings.batch_rows, worker.rank, worker.world_size)
    rows, batch = sum(step.rows for step in plan), max(step.rows for step in plan)
    buffers = [[torch.empty(batch, size, device=device) for size in sizes[1:]] for _ in range(2)]
    weight_N = None if data.train.weight_N is None else torch.empty(rows, device=device)
    shuffled = Rows(
        torch.empty(rows, num_features, device=device), torch.empty(rows, device=device), weight_N
    )
    return Run(
        settings=settings,
        seed=seed,
        worker=worker,
        data=data,
        sizes=sizes,
        num_weights=num_weights,
        plan=plan,
        shuffled=shuffled,
        noise=(buffers[0], buffers[1]),
        sums=torch.zeros(2 * num_weights + sum(sizes[1:]) + 2, device=device),
        should_stop=should_stop,
    )


def _start(run: Run, folder: Path, fingerprint: str) -> State:
    """The state after the newest checkpoint, or the initial one."""
    settings, worker = run.settings, run.worker
    generator = torch.Generator().manual_seed(derive_seed(run.seed, "initial weights"))
    theta_P = network.initial_parameters(run.sizes, settings.initial_log_variance, generator)
    found = newest_checkpoint(folder, fingerprint)
    if found is not None:
        _compare(found, worker)
        theta_P = found.theta_P
    theta_P = theta_P.to(worker.device).requires_grad_()
    theta_P.grad = run.sums[: len(theta_P)]
    optimizer = torch.optim.Adam([theta_P], lr=settings.optimizer.learning_rate, fused=True)
    state = State(theta_P, optimizer, 0, [])
    if found is not None:
        optimizer.load_state_dict(found.optimizer)
        state.epoch, state.history = found.epoch, list(found.history)
        if worker.rank == 0:
            log.info("continue after epoch %d of %d", found.epoch, settings.epochs)
    _agree(state.epoch, folder, worker)
    return state


def _compare(found: Checkpoint, worker: Worker) -> None:
    """Tell when a continued training will equal an uninterrupted one only to rounding."""
    before = (found.world_size, found.threads, found.torch_version)
    now = (worker.world_size, worker.threads, torch.__version__)
    if before != now and worker.rank == 0:
        log.warning(
            "the checkpoint is from (workers, threads, torch) = %s, now %s: "
            "the result equals an uninterrupted one only to rounding",
            before,
            now,
        )


def _agree(epoch: int, folder: Path, worker: Worker) -> None:
    total = torch.tensor(float(epoch), device=worker.device)
    worker.all_reduce(total)
    if total.item() != epoch * worker.world_size:
        msg = f"{folder}: the workers see different checkpoints; is it on a shared file system?"
        raise RuntimeError(msg)


def _checkpoint_of(run: Run, state: State, fingerprint: str) -> Checkpoint:
    return Checkpoint(
        epoch=state.epoch,
        theta_P=state.theta_P.detach().cpu(),
        optimizer=state.optimizer.state_dict(),
        history=state.history,
        seed=run.seed,
        fingerprint=fingerprint,
        sizes=list(run.sizes),
        num_rows=len(run.data.train),
        world_size=run.worker.world_size,
        threads=run.worker.threads,
        torch_version=str(torch.__version__),
    )


@contextmanager
def _threads(count: int) -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)
