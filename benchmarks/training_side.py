"""The training step against the matrix products of one plain forward and backward pass."""

import itertools
import multiprocessing
import socket
import statistics
import tempfile
import time
from collections.abc import Callable
from multiprocessing.synchronize import Barrier
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import distributed

from benchmarks.measure import interleave, ratio
from jobs.ingest import dataset_folder
from jobs.study import Study
from training.data.rows import TrainingRows
from training.data.stream import SHARES
from training.data.training_data import TrainingData, read_training_data
from training.history import read_history
from training.loop import train_network
from training.networks import mlp as network
from training.settings import BnnSettings, DensitySettings
from training.steps.noise import keys_of_epoch
from training.steps.operations import operations_on
from training.steps.sampled import Batch
from training.steps.sums import GradientSums
from training.steps.weight_sets import PlainStep, mixture_loss, rectified
from training.worker import Worker, sum_over_workers

if TYPE_CHECKING:
    from multiprocessing.queues import Queue

STEPS = 16
FEATURES = 15
EPOCHS_OF_WORKERS, STARTS_OF_WORKERS, TURNS_OF_PRODUCTS = 12, 3, 40


def measure_bnn_steps() -> dict[str, float]:
    """Seconds of a step of the paper's network and batch over those of its products."""
    figures = {}
    for threads, suffix in ((1, ""), (2, "_2_threads")):
        torch.set_num_threads(threads)
        works: dict[str, Callable[[], object]] = {
            "products": products(),
            "bnn": training(BnnSettings(epochs=1), threads),
        }
        if threads == 1:
            works["antithetic"] = training(BnnSettings(epochs=1, estimator="antithetic"), threads)
            works["plain"] = plain_training()
        seconds = interleave(works)
        figures[f"bnn_step{suffix}.ratio_to_gemm"] = ratio(seconds, "bnn", "products")
        if threads == 1:
            figures["bnn_step_antithetic.ratio_to_gemm"] = ratio(seconds, "antithetic", "products")
            figures["dnn_step.ratio_to_gemm"] = ratio(seconds, "plain", "products")
            rows = STEPS * BnnSettings().batch_rows
            figures["bnn.rows_per_second"] = rows / statistics.median(seconds["bnn"])
    torch.set_num_threads(1)
    return figures


def random_rows(steps: int = STEPS) -> TrainingRows:
    """Rows of a few batches: a step's speed does not depend on the values."""
    generator = torch.Generator().manual_seed(1)
    count = steps * BnnSettings().batch_rows
    x_NF = torch.randn(count, FEATURES, generator=generator)
    return TrainingRows(x_NF, torch.randn(count, generator=generator), None)


def random_data(steps: int = STEPS) -> TrainingData:
    """The same as a training takes them, with few validation rows."""
    rows = random_rows(steps)
    few = TrainingRows(rows.x_NF[:512], rows.target_N[:512], None)
    return TrainingData(rows, few, tuple(str(column) for column in range(FEATURES + 1)))


def products(steps: int = STEPS) -> Callable[[], None]:
    """The products of so many plain steps, into tensors that are there already."""
    settings = BnnSettings()
    sizes = (FEATURES, *settings.hidden, settings.num_outputs)
    weights = [torch.randn(outputs, inputs) for inputs, outputs in itertools.pairwise(sizes)]
    inputs = [torch.randn(settings.batch_rows, size) for size in sizes]
    outs = [torch.empty_like(each) for each in inputs]
    gradients = [torch.empty_like(weight_OF) for weight_OF in weights]

    def work() -> None:
        for _ in range(steps):
            for index, weight_OF in enumerate(weights):
                torch.mm(inputs[index], weight_OF.t(), out=outs[index + 1])
                torch.mm(inputs[index + 1].t(), inputs[index], out=gradients[index])
                if index:  # the features need no gradient
                    torch.mm(inputs[index + 1], weight_OF, out=outs[index])

    return work


def training(
    settings: DensitySettings, threads: int, data: TrainingData | None = None
) -> Callable[[], float]:
    """An epoch of the loop, without its validation: the seconds that the history tells."""
    data = data or random_data()

    def work() -> float:
        with tempfile.TemporaryDirectory() as folder:
            worker = Worker(threads=threads)
            train_network(
                data, settings, seed=1, fingerprint="x", folder=Path(folder), worker=worker
            )
            return len(data.train) / read_history(Path(folder))[-1]["rows_per_second"]

    return work


def plain_training() -> Callable[[], None]:
    """STEPS steps of an ordinary network with the same loss, checked and updated as the others."""
    settings, data = BnnSettings(), random_rows()
    batch_rows = settings.batch_rows
    sizes = (FEATURES, *settings.hidden, settings.num_outputs)
    theta_P = (0.1 * torch.randn(network.count_weights(sizes) + sum(sizes[1:]))).requires_grad_()
    sums = GradientSums.of(torch.zeros(len(theta_P) + 2))
    theta_P.grad = sums.gradient_P
    operations = operations_on(torch.device("cpu"))
    step = PlainStep(
        theta_P,
        sums,
        sizes,
        batch_rows,
        units=rectified(operations),
        loss=mixture_loss(operations, settings.log_variance_bounds),
    )
    optimizer = torch.optim.Adam([theta_P], lr=torch.tensor(1e-4), fused=True, capturable=True)
    weight_B = torch.ones(batch_rows)
    key = keys_of_epoch(1, 0, 1)[0]

    def work() -> None:
        order_N = torch.randperm(len(data))
        for rows in order_N.split_with_sizes([batch_rows] * STEPS):
            step(Batch(data.x_NF[rows], data.target_N[rows], weight_B, key, 0))
            sums.buffer.div_(batch_rows)
            if torch.isfinite(torch.linalg.vector_norm(sums.buffer)):
                optimizer.step()

    return work


def measure_two_workers() -> dict[str, float]:
    """Rows per second of two single-threaded workers over those of one, each in its process.

    Beside it the same of products in processes that have nothing to do with each other.
    """
    return {
        "bnn.speedup_2_workers": speedup(BnnSettings(epochs=EPOCHS_OF_WORKERS), STEPS),
        "gemm.speedup_2_processes": _speedup_of_products(),
    }


def _speedup_of_products() -> float:
    rates: dict[int, list[float]] = {1: [], 2: []}
    spawn = multiprocessing.get_context("spawn")
    for _ in range(STARTS_OF_WORKERS):
        for count, found in rates.items():
            together, seconds = spawn.Barrier(count), spawn.Queue()
            processes = [
                spawn.Process(target=_multiply, args=(together, seconds)) for _ in range(count)
            ]
            for process in processes:
                process.start()
            found.extend(count / seconds.get() for _ in processes)
            for process in processes:
                process.join()
    return statistics.median(rates[2]) / statistics.median(rates[1])


def _multiply(together: Barrier, seconds: "Queue[float]") -> None:
    torch.set_num_threads(1)
    work = products()
    work()
    together.wait()
    start = time.perf_counter()
    for _ in range(TURNS_OF_PRODUCTS):
        work()
    seconds.put(time.perf_counter() - start)


def speedup(settings: DensitySettings, steps: int) -> float:
    """Rows per second with two workers over those with one; the first two epochs do not count."""
    rates: dict[int, list[float]] = {1: [], 2: []}
    for _ in range(STARTS_OF_WORKERS):
        for world_size, found in rates.items():
            found.extend(_rates_of(world_size, settings, steps))
    return statistics.median(rates[2]) / statistics.median(rates[1])


def _rates_of(world_size: int, settings: DensitySettings, steps: int) -> list[float]:
    with socket.socket() as opened:
        opened.bind(("127.0.0.1", 0))
        port = opened.getsockname()[1]
    spawn = multiprocessing.get_context("spawn")
    with tempfile.TemporaryDirectory() as folder:
        processes = [
            spawn.Process(target=_work, args=(rank, world_size, port, folder, settings, steps))
            for rank in range(world_size)
        ]
        for process in processes:
            process.start()
        for process in processes:
            process.join()
            if process.exitcode != 0:
                msg = f"a worker of {world_size} ended with status {process.exitcode}"
                raise RuntimeError(msg)
        return [record["rows_per_second"] for record in read_history(Path(folder))[2:]]


def _work(
    rank: int, world_size: int, port: int, folder: str, settings: DensitySettings, steps: int
) -> None:
    distributed.init_process_group(
        "gloo", init_method=f"tcp://127.0.0.1:{port}", rank=rank, world_size=world_size
    )
    worker = Worker(rank=rank, world_size=world_size, all_reduce=sum_over_workers(world_size))
    train_network(
        random_data(steps), settings, seed=1, fingerprint="x", folder=Path(folder), worker=worker
    )
    distributed.destroy_process_group()


def measure_streaming(study: Study) -> dict[str, float]:
    """Seconds of an epoch of streamed rows over those of resident ones; a pool holds an eighth."""
    dataset = dataset_folder(study)
    resident = read_training_data(dataset, None)
    recipe_bytes = 4 * (resident.train.num_features + 2)
    memory_mib = SHARES * len(resident.train) * recipe_bytes / 8 / 2**20
    settings = BnnSettings(epochs=1)
    seconds = interleave({
        "resident": training(settings, 1, resident),
        "streaming": training(settings, 1, read_training_data(dataset, None, memory_mib)),
    })
    return {"bnn_streaming.ratio_to_resident": ratio(seconds, "streaming", "resident")}
