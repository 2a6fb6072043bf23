"""One epoch of the Bayesian network's training, on one of the workers that share it.

Every worker takes its blocks of each global batch. The gradient is the sum of the workers' sums
over the rows of the batch; the KL term is added by each worker alike, so all workers keep the
same parameters. Rows come in chunks of several batches; on a GPU the steps of a whole chunk are
one captured graph, and the host waits for the GPU at the end of an epoch only.

Shape letters: N rows, B rows of this worker in a step, F features, P parameters, W weights,
T steps.
"""

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from pipeline.formats.errors import StoppedBySignal
from training import network
from training.data import TrainingData
from training.faults import LossNotFiniteError, name_columns
from training.noise import StepRows, keys_of_epoch
from training.rows import Chunk
from training.settings import BnnSettings
from training.step import Batch, Step
from training.validation import validation_nll

CPU = torch.device("cpu")
QUANTILES = (0.05, 0.5, 0.95)  # of the weights' log sigma^2, in the history

log = logging.getLogger(__name__)


def _keep(_summed: Tensor) -> None:
    """The sum over one worker."""


@dataclass(frozen=True)
class Worker:
    """One of the processes that share a training.

    Attributes:
        rank: Its number.
        world_size: How many there are.
        threads: Compute threads of each.
        device: Where it computes.
        fuse: Let torch compile what lies between the matrix products, on a GPU.
        all_reduce: Replaces a tensor by its sum over all workers, in place.
    """

    rank: int = 0
    world_size: int = 1
    threads: int = 1
    device: torch.device = CPU
    fuse: bool = False
    all_reduce: Callable[[Tensor], None] = _keep


@dataclass
class State:
    """What changes: parameters with Adam's moments, completed epochs and their records."""

    theta_P: Tensor
    optimizer: torch.optim.Adam
    epoch: int
    history: list[dict[str, float]]


@dataclass(frozen=True)
class Buffers:
    """Tensors that the steps overwrite; their addresses stay the same.

    Attributes:
        chunk: Rows of the steps of a chunk.
        keys: Of the noise of those steps, int32 [T, 2].
        trace: Summed NLL and norm of the gradient of those steps, [2, T].
        sums: The gradient [P], the summed NLL, and the number of workers told to stop.
        fault: 1 from the first loss or gradient on that is not finite, and no update follows.
    """

    chunk: Chunk
    keys: Tensor
    trace: Tensor
    sums: Tensor
    fault: Tensor


@dataclass(frozen=True)
class Run:
    """What stays the same over all epochs.

    Attributes:
        settings: Of the network and its training.
        seed: Of the training.
        worker: This process.
        data: Training and validation rows.
        sizes: Units per layer.
        num_weights: Weights of all layers.
        chunks: The worker's plan of an epoch, in chunks.
        buffers: What the steps overwrite.
        step: Fills the sums with this worker's share.
        should_stop: Asked at every step, on a GPU at every epoch.
    """

    settings: BnnSettings
    seed: int
    worker: Worker
    data: TrainingData
    sizes: tuple[int, ...]
    num_weights: int
    chunks: list[list[StepRows]]
    buffers: Buffers
    step: Step
    should_stop: Callable[[], bool]

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
    rate = run.settings.optimizer.rate_at(state.epoch)
    state.optimizer.param_groups[0]["lr"].fill_(rate)
    if not run.is_stepwise:
        run.buffers.sums[-1] = float(run.should_stop())
        run.worker.all_reduce(run.buffers.sums)
        stop_if_told(run, state)
    trace_2T = _run_chunks(run, state, advance)
    trained = time.perf_counter() - started
    record = _record_of(run, state, trace_2T)
    seconds = time.perf_counter() - started
    state.epoch += 1
    clock = {
        "seconds": seconds,
        "rows_per_second": len(run.data.train) / trained,
        "seconds_left": seconds * (run.settings.epochs - state.epoch),
    }
    state.history.append({"epoch": state.epoch, "learning_rate": rate, **record, **clock})
    if run.worker.rank == 0:
        log.debug("epoch %d done in %.2f s", state.epoch, seconds)


def _run_chunks(run: Run, state: State, advance: Advance) -> Tensor:
    """One pass over the training rows; summed NLL and gradient norm of each step, on the CPU."""
    buffers = run.buffers
    keys_T2 = keys_of_epoch(run.seed, state.epoch, sum(map(len, run.chunks)))
    deal = run.data.train.deal(run.seed, state.epoch)
    traces = []
    for steps in run.chunks:
        first, count = steps[0].step, len(steps)
        deal(steps, buffers.chunk)
        buffers.keys[:count].copy_(keys_T2[first : first + count], non_blocking=True)
        advance(steps)
        traces.append(buffers.trace[:, :count].clone())
    trace_2T = torch.cat(traces, dim=1).cpu()
    bad = torch.nonzero(~torch.isfinite(trace_2T.sum(0)))
    if len(bad):
        raise_fault(run, state, trace_2T[:, int(bad[0])], int(bad[0]))
    return trace_2T


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
    buffers, chunk = run.buffers, run.buffers.chunk
    if step.rows:
        run.step(
            Batch(
                chunk.x_NF[rows],
                chunk.target_N[rows],
                chunk.weight_N[rows],
                buffers.keys[index],
                step.first_block,
            )
        )
    else:
        buffers.sums.zero_()
    if run.is_stepwise:
        buffers.sums[-1] = float(run.should_stop())
    run.worker.all_reduce(buffers.sums)


def _update(run: Run, state: State, index: int, step: StepRows) -> None:
    """One step of Adam on the mean NLL of the global batch plus KL / N, if all is finite."""
    buffers = run.buffers
    grad_P, nll = buffers.sums[:-2].div_(step.batch_rows), buffers.sums[-2]
    network.add_kl_gradient(
        grad_P,
        state.theta_P.detach(),
        num_weights=run.num_weights,
        prior_sigma=run.settings.prior_sigma,
        num_rows=len(run.data.train),
    )
    norm = torch.linalg.vector_norm(grad_P)
    buffers.trace[0, index] = nll
    buffers.trace[1, index] = norm
    buffers.fault.clamp_(min=(~torch.isfinite(nll + norm)).float())
    if run.is_stepwise:
        stop_if_told(run, state)
        if buffers.fault.item():
            raise_fault(run, state, buffers.trace[:, index], step.step)
    state.optimizer.step()


def stop_if_told(run: Run, state: State) -> None:
    """Raise StoppedBySignal if any worker was told to stop."""
    if run.buffers.sums[-1].item() > 0.0:
        msg = f"training stopped after epoch {state.epoch} of {run.settings.epochs}; run again"
        raise StoppedBySignal(msg)


def raise_fault(run: Run, state: State, trace_2: Tensor, step: int) -> None:
    """Raise LossNotFiniteError with the batch and the columns that are at fault.

    Args:
        run: What stays the same.
        state: Before the epoch's end.
        trace_2: Summed NLL and norm of the gradient of the step.
        step: Number of the step.
    """
    (rows,) = [item for steps in run.chunks for item in steps if item.step == step]
    run.data.train.deal(run.seed, state.epoch)([rows], run.buffers.chunk)
    columns = name_columns(run.data, run.buffers.chunk, rows.rows, run.worker.all_reduce)
    nll, norm = trace_2.tolist()
    what = f"loss is {nll}" if nll - nll != 0.0 else f"norm of the gradient is {norm}"
    msg = (
        f"epoch {state.epoch + 1}, batch {step + 1}: the {what}; in this batch {columns}; "
        "the last checkpoint is kept"
    )
    raise LossNotFiniteError(msg)


def _record_of(run: Run, state: State, trace_2T: Tensor) -> dict[str, float]:
    """What the history tells of an epoch, without times."""
    theta_P, num_rows = state.theta_P.detach(), len(run.data.train)
    kl = network.kl_divergence(theta_P, run.num_weights, run.settings.prior_sigma)
    log_variance_W = theta_P[run.num_weights : 2 * run.num_weights]
    spread = torch.quantile(log_variance_W, torch.tensor(QUANTILES, device=theta_P.device))
    nll_T, norm_T = trace_2T.double()
    layers = network.split_parameters(theta_P, run.sizes)
    bounds, seed = run.settings.log_variance_bounds, run.seed
    total = torch.zeros((), dtype=torch.float64, device=theta_P.device)
    total += validation_nll(
        layers, run.data.validation.slabs(run.worker.rank, run.worker.world_size), bounds, seed
    )
    run.worker.all_reduce(total)
    if not torch.isfinite(total):
        msg = (
            f"epoch {state.epoch + 1}: the validation loss is {total.item()}; the last checkpoint "
            "is kept; lower optimizer.learning_rate"
        )
        raise LossNotFiniteError(msg)
    return {
        "train_nll": nll_T.sum().item() / num_rows,
        "kl": kl.item() / num_rows,
        "validation_nll": total.item() / len(run.data.validation),
        "gradient_norm": norm_T.mean().item(),
        "gradient_norm_max": norm_T.max().item(),
        **{
            f"log_variance_q{100 * level:02.0f}": value
            for level, value in zip(QUANTILES, spread.tolist(), strict=True)
        },
    }
