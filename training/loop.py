"""The training loop of the Bayesian network: a plain function, with or without other workers.

Shape letters: N rows, B rows of this worker in a step, F features, P parameters.
"""

import logging
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor

from pipeline.formats.seeds import derive_seed
from training import network
from training.board import open_board
from training.capture import advance_on, cut_plan
from training.checkpoint import (
    Checkpoint,
    newest_checkpoint,
    remove_foreign_checkpoints,
    save_checkpoint,
)
from training.data import TrainingData
from training.epoch import Buffers, Run, State, Worker, train_epoch
from training.history import append_history, write_history
from training.noise import StepRows, plan_epoch
from training.operations import operations_on
from training.rows import Chunk
from training.settings import BnnSettings
from training.step import SampledStep, Step
from training.sub_batches import PairedStep

log = logging.getLogger(__name__)


def train_network(  # noqa: PLR0913 - wiring
    data: TrainingData,
    settings: BnnSettings,
    *,
    seed: int,
    fingerprint: str,
    folder: Path,
    worker: Worker | None = None,
    tensorboard: bool = False,
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
        tensorboard: Write the history for TensorBoard as well.
        should_stop: Asked at every step, on a GPU at every epoch; True ends the training at its
            last complete epoch.

    Raises:
        StoppedBySignal: The training was asked to stop; running it again continues it.
        LossNotFiniteError: A loss or gradient became infinite or NaN.
        UserError: TensorBoard is wished for and not installed.
    """
    worker = worker or Worker()
    with _threads(worker.threads):
        if worker.rank == 0:
            remove_foreign_checkpoints(folder, fingerprint)
        run, theta_P = _prepare(data, settings, seed, worker, should_stop)
        state = _start(run, theta_P, folder, fingerprint)
        if worker.rank == 0:
            write_history(folder, state.history)
        advance = advance_on(run, state)
        with _board(folder, state, is_wished=tensorboard and worker.rank == 0) as add_to_board:
            while state.epoch < settings.epochs:
                train_epoch(run, state, advance)
                _keep_epoch(run, state, folder, fingerprint)
                add_to_board(state.history[-1])


def _keep_epoch(run: Run, state: State, folder: Path, fingerprint: str) -> None:
    """Let the first worker write the checkpoint, then the line of history."""
    if run.worker.rank == 0:
        save_checkpoint(folder, _checkpoint_of(run, state, fingerprint))
        append_history(folder, state.history[-1])


def _board(
    folder: Path, state: State, *, is_wished: bool
) -> AbstractContextManager[Callable[[Mapping[str, float]], None]]:
    return open_board(folder, state.epoch) if is_wished else nullcontext(lambda _: None)


def _prepare(
    data: TrainingData,
    settings: BnnSettings,
    seed: int,
    worker: Worker,
    should_stop: Callable[[], bool],
) -> tuple[Run, Tensor]:
    """What stays the same, and the parameters that its step reads: those of a new training."""
    device = worker.device
    data = TrainingData(data.train.to(device), data.validation.to(device), data.columns)
    sizes = network.layer_sizes(data.train.num_features, settings.hidden, settings.components)
    generator = torch.Generator().manual_seed(derive_seed(seed, "initial weights"))
    theta_P = network.initial_parameters(sizes, settings.initial_log_variance, generator)
    theta_P = theta_P.to(device).requires_grad_()
    plan = plan_epoch(len(data.train), settings.batch_rows, worker.rank, worker.world_size)
    chunks = cut_plan(plan, settings.batch_rows, device)
    sums = torch.zeros(len(theta_P) + 2, device=device)
    run = Run(
        settings=settings,
        seed=seed,
        worker=worker,
        data=data,
        sizes=sizes,
        num_weights=network.count_weights(sizes),
        chunks=chunks,
        buffers=_buffers(chunks, data.train.num_features, sums),
        step=_make_step(settings, theta_P, sums, sizes, plan, worker),
        should_stop=should_stop,
    )
    return run, theta_P


def _buffers(chunks: list[list[StepRows]], num_features: int, sums: Tensor) -> Buffers:
    rows = max(sum(step.rows for step in steps) for steps in chunks)
    count, device = max(map(len, chunks)), sums.device
    return Buffers(
        chunk=Chunk(
            torch.empty(rows, num_features, device=device),
            torch.empty(rows, device=device),
            torch.ones(rows, device=device),
        ),
        keys=torch.empty(count, 2, dtype=torch.int32, device=device),
        trace=torch.empty(2, count, device=device),
        sums=sums,
        fault=torch.zeros((), device=device),
    )


def _make_step(
    settings: BnnSettings,
    theta_P: Tensor,
    sums: Tensor,
    sizes: tuple[int, ...],
    plan: list[StepRows],
    worker: Worker,
) -> Step:
    operations = operations_on(worker.device, fuse=worker.fuse)
    rows, bounds = max(step.rows for step in plan), settings.log_variance_bounds
    if settings.estimator == "antithetic":
        return PairedStep(theta_P, sums, sizes, rows, bounds=bounds, operations=operations)
    return SampledStep(
        theta_P,
        sums,
        sizes,
        rows,
        bounds=bounds,
        operations=operations,
        precision=settings.variance_precision,
    )


def _start(run: Run, theta_P: Tensor, folder: Path, fingerprint: str) -> State:
    """The state after the newest checkpoint, or the initial one."""
    settings, worker = run.settings, run.worker
    theta_P.grad = run.buffers.sums[: len(theta_P)]
    rate = torch.tensor(settings.optimizer.learning_rate, device=worker.device)
    optimizer = torch.optim.Adam([theta_P], lr=rate, fused=True, capturable=True)
    state = State(theta_P, optimizer, 0, [])
    found = newest_checkpoint(folder, fingerprint)
    if found is not None:
        _compare(found, worker)
        theta_P.detach().copy_(found.theta_P)
        optimizer.load_state_dict(found.optimizer)
        optimizer.param_groups[0]["lr"] = rate
        state.epoch, state.history = found.epoch, list(found.history)
        if worker.rank == 0:
            log.info("continue after epoch %d of %d", found.epoch, settings.epochs)
    # torch's own way to leave out an update without asking the device
    cast("Any", optimizer).found_inf = run.buffers.fault
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
