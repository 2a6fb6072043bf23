"""One epoch of a training, on one of the workers that share it.

Rows come in chunks of several batches; on a GPU the steps of a whole chunk are one captured
graph, and the host waits for the GPU at the end of an epoch only.

Shape letters: C figures of a step, T steps.

A loss or gradient that is not finite ends it with the batch and the columns at fault.

Shape letters: B rows of a batch, F features.
"""

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from pipeline.formats.errors import StoppedBySignal, UserError
from training.data.rows import Chunk
from training.data.training_data import TrainingData
from training.learners.protocol import Learner
from training.settings import NetworkSettings
from training.steps.noise import StepRows, keys_of_epoch
from training.steps.sampled import Batch
from training.worker import Worker, sum_over_workers

log = logging.getLogger(__name__)

EXTREME = 20.0  # of a scaled value, or target


class LossNotFiniteError(UserError):
    """The loss became infinite or NaN; the last good checkpoint is kept."""


def name_columns(
    data: TrainingData, batch: Chunk, rows: int, all_reduce: Callable[[Tensor], None]
) -> str:
    """Which columns have values that are not finite, or are extreme after scaling.

    Args:
        data: Knows the columns' names.
        batch: Holds this worker's rows of the batch first.
        rows: How many they are.
        all_reduce: Sums over all workers.
    """
    values_BC = torch.cat([batch.x_NF[:rows], batch.target_N[:rows].reshape(rows, -1)], dim=1)
    words = dict.fromkeys(data.columns, "rows")
    values = [values_BC]
    for names, table in zip(data.table_columns, batch.tables or (), strict=True):
        words |= dict.fromkeys(names, "elements")
        values.append(table[:rows].x_EC)
    bad = [(~(each.abs() <= EXTREME)).sum(0, dtype=torch.float32) for each in values]
    counts_C = torch.cat(bad)
    all_reduce(counts_C)
    found = [
        f"{name} ({count:.0f} {words[name]})"
        for name, count in zip(words, counts_C.tolist(), strict=True)
        if count
    ]
    if not found:
        return (
            f"all scaled values are finite and within {EXTREME:.0f}: lower optimizer.learning_rate"
        )
    return f"values not finite or beyond {EXTREME:.0f} after scaling: {', '.join(found)}"


@dataclass
class State:
    """What changes beside the parameters: Adam's moments, completed epochs and their records."""

    optimizer: torch.optim.Adam
    epoch: int
    history: list[dict[str, float]]


@dataclass(frozen=True)
class Buffers:
    """Tensors that the steps overwrite; their addresses stay the same.

    Attributes:
        chunk: Rows of the steps of a chunk.
        keys: Of the noise of those steps, int32 [T, 2].
        trace: Figures of those steps, [C, T].
        fault: 1 from the first loss or gradient on that is not finite, and no update follows.
    """

    chunk: Chunk
    keys: Tensor
    trace: Tensor
    fault: Tensor


@dataclass(frozen=True)
class Run:
    """What stays the same over all epochs.

    Attributes:
        settings: Of the network and its training.
        seed: Of the training.
        worker: This process.
        data: Training and validation rows.
        learner: What is trained.
        chunks: The worker's plan of an epoch, in chunks.
        buffers: What the steps overwrite.
        should_stop: Asked at every step, on a GPU at every epoch.
    """

    settings: NetworkSettings
    seed: int
    worker: Worker
    data: TrainingData
    learner: Learner
    chunks: list[list[StepRows]]
    buffers: Buffers
    should_stop: Callable[[], bool]

    @property
    def epoch_rows(self) -> int:
        """Number of rows that an epoch sees, over all workers."""
        return self.settings.rows_of_epoch(len(self.data.train))

    @property
    def is_stepwise(self) -> bool:
        """Whether the host looks at each step; on a GPU it would wait for it."""
        return self.worker.device.type == "cpu"


Advance = Callable[[list[StepRows]], None]


def train_epoch(run: Run, state: State, advance: Advance) -> None:
    """Advance the state by one epoch and its record.

    Args:
        run: What stays the same.
        state: What changes.
        advance: Takes the steps of one chunk.

    Raises:
        StoppedBySignal: should_stop returned True; the state is that of no complete epoch.
        LossNotFiniteError: A loss or gradient is not finite.
    """
    started = time.perf_counter()
    rate = run.settings.rate_at(state.epoch)
    state.optimizer.param_groups[0]["lr"].fill_(rate)
    run.learner.start_epoch(state.epoch)
    if not run.is_stepwise:
        run.learner.sums.stop.fill_(float(run.should_stop()))
        run.worker.all_reduce(run.learner.sums.buffer)
        stop_if_told(run, state)
    trace_CT = _run_chunks(run, state, advance)
    trained = time.perf_counter() - started
    record = _record_of(run, state, trace_CT)
    seconds = time.perf_counter() - started
    state.epoch += 1
    clock = {
        "seconds": seconds,
        "rows_per_second": run.epoch_rows / trained,
        "seconds_left": seconds * (run.settings.epochs - state.epoch),
    }
    state.history.append({"epoch": state.epoch, "learning_rate": rate, **record, **clock})
    if run.worker.rank == 0:
        log.debug("epoch %d done in %.2f s", state.epoch, seconds)


def _run_chunks(run: Run, state: State, advance: Advance) -> Tensor:
    """One pass over the training rows; the figures of each step, on the CPU."""
    buffers = run.buffers
    keys_T2 = keys_of_epoch(run.seed, state.epoch, sum(map(len, run.chunks)))
    sample = run.data.train.sampler(run.seed, state.epoch)
    traces = []
    for steps in run.chunks:
        first, count = steps[0].step, len(steps)
        sample(steps, buffers.chunk)
        buffers.keys[:count].copy_(keys_T2[first : first + count], non_blocking=True)
        advance(steps)
        traces.append(buffers.trace[:, :count].clone())
    trace_CT = torch.cat(traces, dim=1).cpu()
    bad = torch.nonzero(~torch.isfinite(trace_CT[:2].sum(0)))
    if len(bad):
        raise_fault(run, state, trace_CT[:, int(bad[0])], int(bad[0]))
    return trace_CT


def take_steps(run: Run, state: State, steps: list[StepRows]) -> None:
    """The steps of one chunk, whose rows and keys the buffers hold."""
    first = 0
    for index, step in enumerate(steps):
        rows = slice(first, first + step.rows)
        first += step.rows
        _add_up(run, rows, index, step)
        _update(run, state, index, step)


def _add_up(run: Run, rows: slice, index: int, step: StepRows) -> None:
    """The sums over the batch, of all workers."""
    buffers, chunk, sums = run.buffers, run.buffers.chunk, run.learner.sums
    if step.rows:
        run.learner.fill(
            Batch(
                chunk.x_NF[rows],
                chunk.target_N[rows],
                chunk.weight_N[rows],
                buffers.keys[index],
                step.first_block,
                tuple(table[rows] for table in chunk.tables or ()),
            )
        )
    else:
        sums.buffer.zero_()
    if run.is_stepwise:
        sums.stop.fill_(float(run.should_stop()))
    run.worker.all_reduce(sums.buffer)


def _update(run: Run, state: State, index: int, step: StepRows) -> None:
    """One step of Adam, if all is finite."""
    buffers = run.buffers
    figures_C = buffers.trace[:, index]
    run.learner.reduce_gradients(step.batch_rows, figures_C)
    buffers.fault.clamp_(min=(~torch.isfinite(figures_C[:2].sum())).float())
    if run.is_stepwise:
        stop_if_told(run, state)
        if buffers.fault.item():
            raise_fault(run, state, figures_C, step.step)
    state.optimizer.step()


def stop_if_told(run: Run, state: State) -> None:
    """Raise StoppedBySignal if any worker was told to stop."""
    if run.learner.sums.stop.item() > 0.0:
        msg = f"training stopped after epoch {state.epoch} of {run.settings.epochs}; run again"
        raise StoppedBySignal(msg)


def raise_fault(run: Run, state: State, figures_C: Tensor, step: int) -> None:
    """Raise LossNotFiniteError with the batch and the columns that are at fault.

    Args:
        run: What stays the same.
        state: Before the epoch's end.
        figures_C: Of the step: its summed loss, the norm of its gradient, then others.
        step: Number of the step.
    """
    (rows,) = [item for steps in run.chunks for item in steps if item.step == step]
    run.data.train.sampler(run.seed, state.epoch)([rows], run.buffers.chunk)
    # a learner that shares members instead has all rows
    add = run.worker.all_reduce if run.learner.shares_rows else sum_over_workers(1)
    columns = name_columns(run.data, run.buffers.chunk, rows.rows, add)
    loss, norm, *_ = figures_C.tolist()
    what = f"loss is {loss}" if loss - loss != 0.0 else f"norm of the gradient is {norm}"
    msg = (
        f"epoch {state.epoch + 1}, batch {step + 1}: the {what}; in this batch {columns}; "
        "the last checkpoint is kept"
    )
    raise LossNotFiniteError(msg)


def _record_of(run: Run, state: State, trace_CT: Tensor) -> dict[str, float]:
    """What the history tells of an epoch, without times."""
    total = run.learner.validate(run.data.validation)
    if not torch.isfinite(total):
        msg = (
            f"epoch {state.epoch + 1}: the validation loss is {total.item()}; the last checkpoint "
            "is kept; lower optimizer.learning_rate"
        )
        raise LossNotFiniteError(msg)
    loss_T, norm_T, *others = trace_CT.double()
    return {
        f"train_{run.learner.score}": loss_T.sum().item() / run.epoch_rows,
        f"validation_{run.learner.score}": total.item() / len(run.data.validation),
        "gradient_norm": norm_T.mean().item(),
        "gradient_norm_max": norm_T.max().item(),
        **{
            name: figure_T.mean().item()
            for name, figure_T in zip(run.learner.figures, others, strict=True)
        },
        **run.learner.describe(),
    }
