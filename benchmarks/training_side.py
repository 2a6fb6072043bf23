"""The training step against the matrix products of one plain forward and backward pass."""

import itertools
import tempfile
from pathlib import Path

import torch

from benchmarks.measure import interleave, ratio
from training import network
from training.data import Rows, TrainingData
from training.epoch import Worker
from training.history import read_history
from training.loop import train_network
from training.settings import BnnSettings

STEPS = 16


def measure_bnn_step() -> dict[str, float]:
    """Seconds of a step of the paper's network and batch over those of its products."""
    settings = BnnSettings(epochs=1)
    batch = settings.batch_rows
    generator = torch.Generator().manual_seed(1)
    features = 15
    rows = Rows(
        torch.randn(STEPS * batch, features, generator=generator),
        torch.randn(STEPS * batch, generator=generator),
        None,
    )
    few = Rows(rows.x_NF[:512], rows.target_N[:512], None)
    data = TrainingData(rows, few)
    sizes = network.layer_sizes(features, settings.hidden, settings.components)
    shapes = list(itertools.pairwise(sizes))
    weights = [torch.randn(inputs, outputs) for inputs, outputs in shapes]
    inputs = [torch.randn(batch, size) for size in sizes]

    def products() -> None:
        for _ in range(STEPS):
            for index, weight in enumerate(weights):
                inputs[index] @ weight
                inputs[index].T @ inputs[index + 1]
                if index:  # the features need no gradient
                    inputs[index + 1] @ weight.T

    def train() -> float:
        with tempfile.TemporaryDirectory() as folder:
            train_network(
                data,
                settings,
                seed=1,
                fingerprint="benchmark",
                folder=Path(folder),
                worker=Worker(),
            )
            return len(rows) / read_history(Path(folder))[-1]["rows_per_second"]

    torch.set_num_threads(1)
    seconds = interleave({"products": products, "train": train})
    return {"bnn_step.ratio_to_gemm": ratio(seconds, "train", "products")}
