"""Simulation, calibration and evaluation, each against the least that the work needs."""

import itertools
import os
import statistics
from pathlib import Path

import numpy as np

from benchmarks.measure import interleave, ratio
from jobs import calibrate, evaluate, ingest
from jobs.study import Study
from pipeline.calibrate import calibrate_part
from pipeline.evaluation.plan import needed_columns, plan_evaluation
from pipeline.formats.card import read_card
from pipeline.formats.manifest import read_manifest, read_part
from pipeline.formats.seeds import generator
from pipeline.generator.sample import draw_clusters
from pipeline.generator.settings import GeneratorSettings

CLUSTERS = 200_000


def measure_simulation() -> dict[str, float]:
    """Clusters that one core draws in a second, features and targets."""

    def draw() -> None:
        draw_clusters(GeneratorSettings(), generator(1, "benchmark"), CLUSTERS)

    seconds = interleave({"draw": draw})
    return {"simulate.clusters_per_second": CLUSTERS / statistics.median(seconds["draw"])}


def measure_calibration(study: Study, name: str, folder: Path) -> dict[str, float]:
    """Calibrating a part against the bare matrix products of its networks."""
    manifest = read_manifest(ingest.dataset_folder(study))
    card = read_card(study.folder / "models" / name)
    source = calibrate.model_source(study, name, manifest)
    plan = calibrate.plan_parts(study, manifest, source, folder=folder)[0]
    hidden = card.settings["hidden"]
    sizes = [len(card.inputs), *hidden, 3 * card.num_components]
    rng = np.random.default_rng(0)
    weights = [
        rng.standard_normal((card.num_networks, a, b), dtype=np.float32)
        for a, b in itertools.pairwise(sizes)
    ]
    rows = plan.part.rows

    def products() -> None:
        for start in range(0, rows, 512):
            x = np.ones((card.num_networks, min(512, rows - start), sizes[0]), np.float32)
            for weight in weights:
                x = x @ weight

    seconds = interleave({
        "products": products,
        "calibrate": lambda: calibrate_part(plan),
    })
    return {
        "calibrate.ratio_to_gemm": ratio(seconds, "calibrate", "products"),
        "calibrate.rows_per_second": rows / statistics.median(seconds["calibrate"]),
    }


def measure_evaluation(study: Study) -> dict[str, float]:
    """Evaluating a part against reading its columns."""
    manifest = read_manifest(ingest.dataset_folder(study))
    sets = {
        source.name: calibrate.open_set(study, manifest, source)
        for source in calibrate.find_sources(study, manifest)
    }
    plan = plan_evaluation(study.evaluate, manifest)
    needed = needed_columns(study.evaluate, manifest)
    aligned = evaluate.align_parts(study, manifest, sets)[0]

    def read() -> None:
        read_part(aligned.dataset, aligned.part, needed.dataset)
        for folder, part in aligned.calibrated.values():
            read_part(folder, part, needed.calibrated)

    def whole() -> None:
        evaluate.evaluate_part(aligned, plan=plan, needed=needed, baseline=None)

    seconds = interleave({"read": read, "evaluate": whole})
    return {"evaluate.ratio_to_read": ratio(seconds, "evaluate", "read")}


def limit_threads() -> None:
    """One compute thread, as on a farm; called before NumPy's libraries are loaded."""
    for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
        os.environ[name] = "1"
