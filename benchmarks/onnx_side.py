"""What one cluster costs with a model's ONNX files alone, on one core.

Run: python -m benchmarks.onnx_side MODEL [MODEL ...]
"""

import json
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
from numpy.typing import NDArray

from benchmarks.measure import interleave
from pipeline.formats.card import ModelCard, read_card
from pipeline.formats.seeds import generator

ROWS = (1, 64, 1024)  # calibrated together
AT_LEAST = 64  # rows of one measurement
OUTPUTS = {"model": ["central", "sigma_syst", "sigma_stat"], "networks": ["networks"]}


def measure_onnx(folder: Path) -> dict[str, float]:
    """Microseconds of one core per cluster by file and by rows at a time."""
    card = read_card(folder)
    works: dict[str, Callable[[], object]] = {}
    counts: dict[str, int] = {}
    for artefact, outputs in OUTPUTS.items():
        session = _open(folder / f"{artefact}.onnx")
        for rows in ROWS:
            name = f"onnx.{artefact}_us_per_cluster_{rows}"
            repeats = max(1, AT_LEAST // rows)
            counts[name] = rows * repeats
            works[name] = _work(session, outputs, _features(card, rows), repeats)
    seconds = interleave(works)
    return {name: 1e6 * statistics.median(seconds[name]) / counts[name] for name in works}


def _open(path: Path) -> Any:  # noqa: ANN401 - ONNX Runtime is untyped
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    return onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])


def _features(card: ModelCard, rows: int) -> NDArray[np.float32]:
    """Rows within the training range, [rows, features]."""
    ranges = [card.input_ranges[feature.name] for feature in card.inputs]
    low = np.array([reach.minimum for reach in ranges])
    high = np.array([reach.maximum for reach in ranges])
    shares = generator(1, "benchmark").uniform(0.01, 0.1, (rows, len(ranges)))
    features: NDArray[np.float32] = (low + shares * (high - low)).astype(np.float32)
    return features


def _work(
    session: Any,  # noqa: ANN401 - ONNX Runtime is untyped
    outputs: list[str],
    features: NDArray[np.float32],
    repeats: int,
) -> Callable[[], object]:
    def run() -> float:
        start = time.process_time()  # one thread: what others do on the machine counts little
        for _ in range(repeats):
            session.run(outputs, {"features": features})
        return time.process_time() - start

    return run


if __name__ == "__main__":
    for model in sys.argv[1:]:
        figures = {name: round(value, 1) for name, value in measure_onnx(Path(model)).items()}
        print(json.dumps({model: figures}, indent=1))
