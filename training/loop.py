"""The training loop: a plain function, with or without other workers.

On a GPU the steps of a chunk are one captured CUDA graph: a step is some two hundred small kernels,
each shorter than its launch from the host.
"""

import logging
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor

from training.checkpoint import (
    Checkpoint,
    Index,
    NetworkState,
    newest_checkpoint,
    remove_foreign_checkpoints,
    save_index,
    save_network,
)
from training.data.rows import Chunk, Passes, RowSource
from training.data.training_data import TrainingData
from training.epoch import Advance, Buffers, Run, State, take_steps, train_epoch
from training.history import append_history, write_history
from training.kinds import kind_of
from training.learners.protocol import Learner
from training.settings import NetworkSettings
from training.steps.noise import StepRows
from training.tensorboard import open_board
from training.worker import Worker

log = logging.getLogger(__name__)

CPU_CHUNK = 8  # steps whose rows are gathered at once: they stay in the cache until used
GPU_CHUNKS = range(128, 63, -1)


def cut_plan(plan: list[StepRows], batch_rows: int, device: torch.device) -> list[list[StepRows]]:
    """The steps of an epoch in chunks: all of the same number of full batches but the last."""
    if device.type == "cpu":
        count = CPU_CHUNK
    else:
        full = sum(step.batch_rows == batch_rows for step in plan)
        count = min(GPU_CHUNKS, key=lambda steps: full % steps)
    return [plan[first : first + count] for first in range(0, len(plan), count)]


def advance_on(run: Run, state: State) -> Advance:
    """What takes the steps of a chunk: one after the other, on a GPU as a graph if it can be.

    Workers that share batches take them one after the other too: their sums are exchanged in
    between.
    """

    def step_by_step(steps: list[StepRows]) -> None:
        take_steps(run, state, steps)

    if not can_capture(run):
        return step_by_step
    first = run.chunks[0]
    replay: list[Callable[[], None]] = []

    def graphed(steps: list[StepRows]) -> None:
        if len(steps) < len(first) or steps[-1].batch_rows < first[0].batch_rows:
            step_by_step(steps)
            return
        if not replay:
            replay.append(_capture(lambda: step_by_step(first), run.buffers.fault))
        replay[0]()

    return graphed


def can_capture(run: Run) -> bool:
    """Whether there is a GPU, no other worker, a chunk of full batches and no lists in them."""
    if run.data.train.table_widths:  # their sizes, and with them what a graph knows, change
        return False
    first, worker = run.chunks[0], run.worker
    is_full = first[-1].batch_rows == run.settings.batch_rows
    return worker.device.type == "cuda" and worker.world_size == 1 and is_full


def _capture(work: Callable[[], None], fault: Tensor) -> Callable[[], None]:
    """The work as a graph; it is done once before, as for a fault: without any update."""
    aside = torch.cuda.Stream()  # type: ignore[no-untyped-call]
    aside.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(aside):
        fault.fill_(1.0)
        work()
        fault.fill_(0.0)
    torch.cuda.current_stream().wait_stream(aside)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        work()
    return graph.replay


def train_network(  # noqa: PLR0913 - wiring
    data: TrainingData,
    settings: NetworkSettings,
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
        settings: Of the networks and their training.
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
    with compute_threads(worker.threads):
        if worker.rank == 0:
            remove_foreign_checkpoints(folder, fingerprint)
        for stage, end in enumerate(settings.stage_ends):
            done = newest_checkpoint(folder, fingerprint)
            if done is not None and done.epoch >= end and end < settings.epochs:
                continue
            run = _prepare(data, settings.in_stage(stage), seed, worker, should_stop)
            _train_until(end, run, folder, fingerprint, tensorboard=tensorboard)
            _count(worker)  # the first has written the index, with which the next stage begins


def _train_until(end: int, run: Run, folder: Path, fingerprint: str, *, tensorboard: bool) -> None:
    """Train, or continue, to the end of a stage."""
    state, is_first = _start(run, folder, fingerprint), run.worker.rank == 0
    if is_first:
        write_history(folder, state.history)
    advance = advance_on(run, state)
    with _board(folder, state, is_wished=tensorboard and is_first) as add_to_board:
        while state.epoch < end:
            train_epoch(run, state, advance)
            _keep_epoch(run, state, folder, fingerprint)
            add_to_board(state.history[-1])


def _keep_epoch(run: Run, state: State, folder: Path, fingerprint: str) -> None:
    """Let the workers write their networks, then the first the index and the line of history."""
    learner, worker = run.learner, run.worker
    if worker.rank == 0 or not learner.shares_rows:
        for number, theta_P in zip(learner.numbers, learner.networks, strict=True):
            network = _network_state(theta_P, state.optimizer)
            save_network(folder, fingerprint, state.epoch, number, network)
    _count(worker)  # all have written
    if worker.rank == 0:
        save_index(folder, _index_of(run, state, fingerprint))
        append_history(folder, state.history[-1])


def _board(
    folder: Path, state: State, *, is_wished: bool
) -> AbstractContextManager[Callable[[Mapping[str, float]], None]]:
    return open_board(folder, state.epoch) if is_wished else nullcontext(lambda _: None)


def _prepare(
    data: TrainingData,
    settings: NetworkSettings,
    seed: int,
    worker: Worker,
    should_stop: Callable[[], bool],
) -> Run:
    """What stays the same, with the parameters of a new training."""
    device = worker.device
    train = data.train.to(device)
    if settings.steps_per_epoch is not None:
        train = Passes(train, settings.rows_of_epoch(len(train)))
    data = replace(data, train=train, validation=data.validation.to(device))
    learner_class = kind_of(settings).open_learner(settings)
    learner: Learner = learner_class(data, settings, seed=seed, worker=worker)
    chunks = cut_plan(learner.plan, settings.batch_rows, device)
    return Run(
        settings=settings,
        seed=seed,
        worker=worker,
        data=data,
        learner=learner,
        chunks=chunks,
        buffers=_buffers(chunks, data.train, learner, device),
        should_stop=should_stop,
    )


def _buffers(
    chunks: list[list[StepRows]], train: RowSource, learner: Learner, device: torch.device
) -> Buffers:
    rows = max(sum(step.rows for step in steps) for steps in chunks)
    count = max(map(len, chunks))
    several = [train.num_targets] if train.num_targets > 1 else []
    return Buffers(
        chunk=Chunk(
            torch.empty(rows, train.num_features, device=device),
            torch.empty(rows, *several, device=device),
            torch.ones(rows, device=device),
            [],
        ),
        keys=torch.empty(count, 2, dtype=torch.int32, device=device),
        trace=torch.empty(2 + len(learner.figures), count, device=device),
        fault=torch.zeros((), device=device),
    )


def _start(run: Run, folder: Path, fingerprint: str) -> State:
    """The state after the newest checkpoint, or the initial one."""
    settings, worker = run.settings, run.worker
    rate = torch.tensor(settings.optimizer.learning_rate, device=worker.device)
    optimizer = torch.optim.Adam(run.learner.networks, lr=rate, fused=True, capturable=True)
    state = State(optimizer, 0, [])
    found = newest_checkpoint(folder, fingerprint)
    if found is not None:
        _compare(found, run)
        _restore(found, run.learner, optimizer)
        optimizer.param_groups[0]["lr"] = rate
        state.epoch, state.history = found.epoch, list(found.history)
        for theta_P in run.learner.renewed_at(state.epoch):
            optimizer.state.pop(theta_P, None)
        if worker.rank == 0 and state.epoch not in settings.stage_ends[:-1]:
            log.info("continue after epoch %d of %d", found.epoch, settings.epochs)
    # torch's own way to leave out an update without asking the device
    cast("Any", optimizer).found_inf = run.buffers.fault
    if _count(worker, state.epoch) != state.epoch * worker.world_size:
        msg = f"{folder}: the workers see different checkpoints; is it on a shared file system?"
        raise RuntimeError(msg)
    return state


def _restore(found: Checkpoint, learner: Learner, optimizer: torch.optim.Adam) -> None:
    """Parameters and moments of this worker's networks."""
    moments = {}
    for place, (number, theta_P) in enumerate(zip(learner.numbers, learner.networks, strict=True)):
        network = found.networks[number]
        theta_P.detach().copy_(network.theta_P)
        moments[place] = {
            "step": network.step,
            "exp_avg": network.exp_avg_P,
            "exp_avg_sq": network.exp_avg_sq_P,
        }
    groups = optimizer.state_dict()["param_groups"]
    optimizer.load_state_dict({"state": moments, "param_groups": groups})


def _compare(found: Checkpoint, run: Run) -> None:
    """Tell when a continued training will equal an uninterrupted one only to rounding."""
    worker, shares_rows = run.worker, run.learner.shares_rows
    before = (found.world_size, found.threads, found.torch_version)
    now = (
        worker.world_size if shares_rows else found.world_size,
        worker.threads,
        torch.__version__,
    )
    if before != now and worker.rank == 0:
        log.warning(
            "the checkpoint is from (workers, threads, torch) = %s, now %s: "
            "the result equals an uninterrupted one only to rounding",
            before,
            now,
        )


def _count(worker: Worker, value: float = 1.0) -> float:
    """The sum of a value over the workers; all have come here when it is known."""
    total = torch.tensor(float(value), device=worker.device)
    worker.all_reduce(total)
    return total.item()


def _network_state(theta_P: torch.Tensor, optimizer: torch.optim.Adam) -> NetworkState:
    moments = optimizer.state.get(theta_P) or {
        "exp_avg": torch.zeros_like(theta_P),  # not trained yet
        "exp_avg_sq": torch.zeros_like(theta_P),
        "step": torch.zeros(()),
    }
    return NetworkState(
        theta_P.detach().cpu().clone(),  # a view's file would hold all networks
        moments["exp_avg"].detach().cpu().clone(),
        moments["exp_avg_sq"].detach().cpu().clone(),
        moments["step"].cpu(),
    )


def _index_of(run: Run, state: State, fingerprint: str) -> Index:
    return Index(
        epoch=state.epoch,
        num_networks=run.learner.num_networks,
        history=state.history,
        seed=run.seed,
        fingerprint=fingerprint,
        sizes=list(run.learner.sizes),
        num_rows=len(run.data.train),
        world_size=run.worker.world_size,
        threads=run.worker.threads,
        torch_version=str(torch.__version__),
    )


@contextmanager
def compute_threads(count: int) -> Iterator[None]:
    """Within the block torch computes with so many threads."""
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)
