"""One epoch of the Bayesian network's training, on one of the workers that share it.

Every worker holds all rows and takes its blocks of each global batch. The gradient is the sum of
the workers' sums over the rows of the batch; the KL term is added by each worker alike, so all
workers keep the same parameters.

Shape letters: N rows, B rows of this worker in a step, F features, O outputs of a layer,
P parameters.
"""

import logging
import os
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from pipeline.formats.errors import StoppedBySignal, UserError
from training import network
from training.data import Rows, TrainingData, permutation
from training.noise import BLOCK_ROWS, StepRows, noise_of_epoch
from training.objective import summed_nll
from training.settings import BnnSettings

VALIDATION_ROWS = 16 * BLOCK_ROWS  # of one forward pass
GPU_STOP_STEPS = 32  # reading the stop flag waits for the GPU, so it is read this seldom there
CPU = torch.device("cpu")

log = logging.getLogger(__name__)


class LossNotFiniteError(UserError):
    """The loss became infinite or NaN; the last good checkpoint is kept."""


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
        all_reduce: Replaces a tensor by its sum over all workers, in place.
    """

    rank: int = 0
    world_size: int = 1
    threads: int = 1
    device: torch.device = CPU
    all_reduce: Callable[[Tensor], None] = _keep


@dataclass
class State:
    """What changes: parameters with Adam's moments, completed epochs and their records."""

    theta_P: Tensor
    optimizer: torch.optim.Adam
    epoch: int
    history: list[dict[str, float]]


@dataclass(frozen=True)
class Run:
    """What stays the same over all epochs; the buffers are overwritten.

    `sums` holds the gradient [P], then the summed NLL, then the number of workers told to stop.
    """

    settings: BnnSettings
    seed: int
    worker: Worker
    data: TrainingData
    sizes: tuple[int, ...]
    num_weights: int
    plan: list[StepRows]
    shuffled: Rows
    noise: tuple[list[Tensor], list[Tensor]]
    sums: Tensor
    should_stop: Callable[[], bool]


def train_epoch(run: Run, state: State, maker: Executor) -> None:
    """Advance the state by one epoch and its record."""
    started = time.perf_counter()
    epoch, worker = state.epoch, run.worker
    rate = run.settings.optimizer.rate_at(epoch)
    for group in state.optimizer.param_groups:
        group["lr"] = rate
    train_nll = _run_steps(run, state, maker)
    trained = time.perf_counter() - started
    validation_nll = _validation_nll(run, state)
    kl = network.kl_divergence(state.theta_P.detach(), run.num_weights, run.settings.prior_sigma)
    seconds = time.perf_counter() - started
    state.epoch += 1
    state.history.append({
        "epoch": state.epoch,
        "learning_rate": rate,
        "train_nll": train_nll,
        "kl": kl.item() / len(run.data.train),
        "validation_nll": validation_nll,
        "seconds": seconds,
        "rows_per_second": len(run.data.train) / trained,
        "seconds_left": seconds * (run.settings.epochs - state.epoch),
    })
    if worker.rank == 0:
        log.debug("epoch %d done in %.2f s", state.epoch, seconds)


def _run_steps(run: Run, state: State, maker: Executor) -> float:
    """One pass over the training rows; the mean NLL of its batches, each before its update."""
    _shuffle(run, state.epoch)
    losses = torch.empty(len(run.plan), device=run.worker.device)
    noises = noise_of_epoch(run.seed, state.epoch, run.plan, run.noise, maker)
    first = 0
    for step, noise in zip(run.plan, noises, strict=True):
        run.sums.zero_()
        if step.rows:
            _add_local_sums(run, state, slice(first, first + step.rows), noise)
        first += step.rows
        if run.should_stop():
            run.sums[-1] = 1.0
        run.worker.all_reduce(run.sums)
        losses[step.step] = run.sums[-2]
        _stop_if_told(run, state, step)
        _update(run, state, step)
    _check_finite(losses, state.epoch)
    return losses.double().sum().item() / len(run.data.train)


def _shuffle(run: Run, epoch: int) -> None:
    """Copy this worker's rows of the epoch into the order in which its steps take them."""
    train, shuffled = run.data.train, run.shuffled
    order_N = permutation(len(train), run.seed, epoch)
    mine = torch.cat([order_N[step.start : step.start + step.rows] for step in run.plan])
    mine = mine.to(run.worker.device)
    torch.index_select(train.x_NF, 0, mine, out=shuffled.x_NF)
    torch.index_select(train.target_N, 0, mine, out=shuffled.target_N)
    if train.weight_N is not None and shuffled.weight_N is not None:
        torch.index_select(train.weight_N, 0, mine, out=shuffled.weight_N)


def _add_local_sums(run: Run, state: State, rows: slice, noise: list[Tensor]) -> None:
    """Add this worker's gradient and NLL, both summed over its rows, to the sums."""
    layers = network.split_parameters(state.theta_P, run.sizes)
    outputs = network.forward_sampled(layers, run.shuffled.x_NF[rows], noise)
    weight_B = None if run.shuffled.weight_N is None else run.shuffled.weight_N[rows]
    bounds = run.settings.log_variance_bounds
    nll = summed_nll(outputs, run.shuffled.target_N[rows], weight_B, bounds)
    nll.backward()  # type: ignore[no-untyped-call] # adds into theta_P.grad, a view of the sums
    run.sums[-2] = nll.detach()


def _stop_if_told(run: Run, state: State, step: StepRows) -> None:
    if run.worker.device.type == "cuda" and step.step % GPU_STOP_STEPS:
        return
    if run.sums[-1].item() > 0.0:
        msg = f"training stopped after epoch {state.epoch} of {run.settings.epochs}; run again"
        raise StoppedBySignal(msg)


def _update(run: Run, state: State, step: StepRows) -> None:
    """One step of Adam on the mean NLL of the global batch plus KL / N."""
    grad_P = run.sums[:-2].div_(step.batch_rows)
    network.add_kl_gradient(
        grad_P,
        state.theta_P.detach(),
        num_weights=run.num_weights,
        prior_sigma=run.settings.prior_sigma,
        num_rows=len(run.data.train),
    )
    state.optimizer.step()


def _check_finite(losses: Tensor, epoch: int) -> None:
    bad = torch.nonzero(~torch.isfinite(losses))
    if len(bad):
        batch = int(bad[0])
        msg = (
            f"the loss of epoch {epoch + 1}, batch {batch + 1} is {losses[batch].item()}; the last "
            "checkpoint is kept; lower optimizer.learning_rate or look for outliers in the features"
        )
        raise LossNotFiniteError(msg)


@torch.no_grad()
def _validation_nll(run: Run, state: State) -> float:
    """Mean NLL of the validation rows with the weights at the posterior's mean."""
    rows, worker, bounds = run.data.validation, run.worker, run.settings.log_variance_bounds
    layers = network.mean_weights(network.split_parameters(state.theta_P, run.sizes))
    total = torch.zeros((), dtype=torch.float64, device=worker.device)
    firsts = range(0, len(rows), VALIDATION_ROWS)
    for first in firsts[worker.rank :: worker.world_size]:
        part = slice(first, first + VALIDATION_ROWS)
        outputs = network.forward_fixed(layers, rows.x_NF[part])
        weight_B = None if rows.weight_N is None else rows.weight_N[part]
        total += summed_nll(outputs, rows.target_N[part], weight_B, bounds)
    worker.all_reduce(total)
    if not torch.isfinite(total):
        msg = (
            f"the validation loss of epoch {state.epoch + 1} is {total.item()}; the last "
            "checkpoint is kept; lower optimizer.learning_rate"
        )
        raise LossNotFiniteError(msg)
    return total.item() / len(rows)


class _AtOnce(Executor):
    """Runs each call where it is submitted."""

    def submit(self, call: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:  # noqa: ANN401
        done: Future[Any] = Future()
        done.set_result(call(*args, **kwargs))
        return done


@contextmanager
def noise_maker(worker: Worker) -> Iterator[Executor]:
    """Makes noise while a step computes, where that takes no core from the step's threads.

    Two compute threads that wait for each other lose more to a third one on their two cores than
    they gain. On a GPU the stream keeps the order. The numbers are the same either way.
    """
    is_spare = worker.threads == 1 or (os.cpu_count() or 1) > worker.threads
    ahead = is_spare and worker.device.type == "cpu"
    with ThreadPoolExecutor(max_workers=1) if ahead else _AtOnce() as maker:
        yield maker
