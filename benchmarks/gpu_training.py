"""The full training on a GPU, on a sample made there: needs torch, NumPy, pydantic, pyarrow.

Run from a checkout: python -m benchmarks.gpu_training [RESULT.json] [key=value ...]
Keys: rows (8.7 million), epochs (a full run of the Bayesian network, 150; 0: none), short (epochs
of each precision, 3), fuse (0 or 1: also with torch's compiler), members (of the ensemble, 50; 0:
none). Prints and writes what it found after each measurement; "extrapolated" is for 150 epochs.

An ensemble alone: python -m benchmarks.gpu_training RESULT.json short=0 epochs=0 members=50

Shape letters: N rows, F features.
"""

import itertools
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from training.data.rows import TrainingRows
from training.data.training_data import TrainingData
from training.history import read_history
from training.loop import train_network
from training.settings import (
    BnnSettings,
    DensitySettings,
    RepulsiveEnsembleSettings,
    VariancePrecision,
)
from training.worker import Worker

FEATURES = 15
VALIDATION_ROWS = 500_000
GEMM_STEPS, GEMM_REPEATS = 125, 7
SHORT_ENSEMBLE = 3  # epochs
PRECISIONS: tuple[VariancePrecision, ...] = ("float32", "tf32", "bfloat16")


def main(words: list[str]) -> int:
    if not torch.cuda.is_available():
        print("no GPU: torch sees none, and this benchmark measures nothing else", file=sys.stderr)
        return 2
    wanted = {"rows": 8_700_000, "epochs": 150, "short": 3, "fuse": 0, "members": 50}
    wanted |= {key: int(value) for key, value in (w.split("=") for w in words if "=" in w)}
    path = next((Path(word) for word in words if "=" not in word), None)
    device = torch.device("cuda")
    data = TrainingData(
        simulated_rows(wanted["rows"], 1, device),
        simulated_rows(VALIDATION_ROWS, 2, device),
        (*(f"feature {index}" for index in range(FEATURES)), "target"),
    )
    steps = -(-wanted["rows"] // BnnSettings().batch_rows)
    found: dict[str, Any] = {
        "device": torch.cuda.get_device_name(),
        "torch": str(torch.__version__),
        "rows": wanted["rows"],
        "gemm_seconds_per_step": products_floor(device),
    }
    _tell(found, path)
    runs = itertools.product(PRECISIONS if wanted["short"] else (), range(wanted["fuse"] + 1))
    for precision, fuse in runs:
        name = precision + ("_fused" if fuse else "")
        settings = BnnSettings(variance_precision=precision, epochs=wanted["short"])
        found[name] = measure(data, settings, steps, fuse=bool(fuse))
        _tell(found, path)
    for fuse in range(wanted["fuse"] + 1) if wanted["members"] else ():
        ensemble = RepulsiveEnsembleSettings(members=wanted["members"], epochs=SHORT_ENSEMBLE)
        found["ensemble" + ("_fused" if fuse else "")] = measure(
            data, ensemble, steps, fuse=bool(fuse)
        )
        _tell(found, path)
    if wanted["epochs"]:
        settings = BnnSettings(epochs=wanted["epochs"])
        found["full_run"] = measure(data, settings, steps, fuse=False)
        _tell(found, path)
    return 0


def simulated_rows(count: int, seed: int, device: torch.device) -> TrainingRows:
    """Features from N(0, 1) and a target with three components that follow them."""
    generator = torch.Generator(device).manual_seed(seed)
    x_NF = torch.randn(count, FEATURES, generator=generator, device=device)
    middle_N = 0.2 * torch.tanh(x_NF[:, 0]) + 0.1 * torch.sin(2.0 * x_NF[:, 1]) * x_NF[:, 2]
    width_N = 0.05 + 0.1 * torch.sigmoid(x_NF[:, 3])
    uniform_N = torch.rand(count, generator=generator, device=device)
    shift_N = 0.3 * (uniform_N > 0.7).float() - 0.4 * (uniform_N > 0.9).float()
    noise_N = torch.randn(count, generator=generator, device=device)
    return TrainingRows(x_NF, middle_N + shift_N + width_N * noise_N, None)


def measure(
    data: TrainingData, settings: DensitySettings, steps: int, *, fuse: bool
) -> dict[str, float]:
    """Times and losses of a training; the first epoch, which captures, counts as whole run only."""
    with tempfile.TemporaryDirectory() as folder:
        started = time.perf_counter()
        train_network(
            data,
            settings,
            seed=1,
            fingerprint="x",
            folder=Path(folder),
            worker=Worker(device=torch.device("cuda"), fuse=fuse),
        )
        whole = time.perf_counter() - started
        history = read_history(Path(folder))
    later = history[1:] or history
    seconds = statistics.median(record["seconds"] for record in later)
    trained = len(data.train) / statistics.median(record["rows_per_second"] for record in later)
    return {
        "epochs": settings.epochs,
        "seconds": whole,
        "seconds_first_epoch": history[0]["seconds"],
        "seconds_per_epoch": seconds,
        "seconds_extrapolated": 150 * seconds,
        "seconds_per_step": trained / steps,
        "train_nll": history[-1]["train_nll"],
        "validation_nll": history[-1]["validation_nll"],
        "validation_nll_first_epoch": history[0]["validation_nll"],
    }


def products_floor(device: torch.device) -> float:
    """Seconds of the float32 products of a step with local reparametrisation, as a graph."""
    settings = BnnSettings()
    sizes = (FEATURES, *settings.hidden, settings.num_outputs)
    shapes = list(itertools.pairwise(sizes))
    weights = [torch.randn(outputs, inputs, device=device) for inputs, outputs in shapes]
    inputs = [torch.randn(settings.batch_rows, size, device=device) for size in sizes]
    outs = [torch.empty_like(each) for each in inputs]
    gradients = [torch.empty_like(weight_OF) for weight_OF in weights]

    def step() -> None:
        for _ in range(2):  # of the means and of the variances
            for index, weight_OF in enumerate(weights):
                torch.mm(inputs[index], weight_OF.t(), out=outs[index + 1])
                torch.mm(inputs[index + 1].t(), inputs[index], out=gradients[index])
                if index:
                    torch.mm(inputs[index + 1], weight_OF, out=outs[index])

    replay = _graph(step)
    seconds = []
    for _ in range(GEMM_REPEATS):
        torch.cuda.synchronize()
        started = time.perf_counter()
        replay()
        torch.cuda.synchronize()
        seconds.append((time.perf_counter() - started) / GEMM_STEPS)
    return statistics.median(seconds)


def _graph(step: Callable[[], None]) -> Callable[[], None]:
    aside = torch.cuda.Stream()  # type: ignore[no-untyped-call]
    aside.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(aside):
        step()
    torch.cuda.current_stream().wait_stream(aside)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        for _ in range(GEMM_STEPS):
            step()
    return graph.replay


def _tell(found: dict[str, Any], path: Path | None) -> None:
    text = json.dumps(found, indent=1)
    print(text, flush=True)
    if path is not None:
        path.write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
