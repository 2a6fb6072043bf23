"""Simulation, calibration and evaluation, each against the least that the work needs."""

import functools
import itertools
import multiprocessing
import os
import statistics
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Executor, ProcessPoolExecutor
from pathlib import Path

import numpy as np

from benchmarks.measure import interleave, ratio
from jobs import calibrate, evaluate, ingest
from jobs.apply import AppliedSettings, prepare
from jobs.simulate import simulated_inputs
from jobs.study import Study
from pipeline.apply.inputs import open_input
from pipeline.apply.run import apply_chunk, finish_input, plan_input
from pipeline.calibrators.calibrate import CalibrationPlan, calibrate_part
from pipeline.evaluation.evaluation import Evaluation
from pipeline.evaluation.plan import needed_columns, plan_evaluation
from pipeline.evaluation.summary import summarise
from pipeline.evaluation.tables.make import make_tables
from pipeline.formats.card import read_card
from pipeline.formats.manifest import read_manifest, read_part
from pipeline.formats.seeds import generator
from pipeline.numerics.arrays import Float32Array
from pipeline.root.files import Access
from pipeline.root.inspect import MODEL_PURPOSE, Wanted
from pipeline.simulators.known_density.sample import draw_clusters
from pipeline.simulators.known_density.settings import GeneratorSettings

CLUSTERS = 200_000
PRODUCT_ROWS = (128, 512, 2048)  # the fastest of these is the bare time of the networks
PROCESSES = 2  # that calibrate at a time
STARTS = 3


def measure_simulation() -> dict[str, float]:
    """Clusters that one core draws in a second, features and targets."""

    def draw() -> None:
        draw_clusters(GeneratorSettings(), generator(1, "benchmark"), CLUSTERS)

    seconds = interleave({"draw": draw})
    return {"simulate.clusters_per_second": CLUSTERS / statistics.median(seconds["draw"])}


def measure_calibration(study: Study, name: str, folder: Path) -> dict[str, float]:
    """Calibrating two parts in two processes against the bare matrix products of their networks.

    One process a core, as `topocal calibrate` works, and the products in the same two.
    """
    manifest = read_manifest(ingest.dataset_folder(study))
    study = _without_crps(study)
    card = read_card(study.folder / "models" / name)
    source = calibrate.model_source(study, name, manifest)
    plans = calibrate.plan_parts(study, manifest, source, folder=folder)[:PROCESSES]
    assert card.num_networks is not None
    assert card.num_components is not None
    sizes = (len(card.inputs), *card.settings["hidden"], 3 * card.num_components)
    shapes = [(sizes, card.num_networks, plan.part.rows) for plan in plans]
    # A start of the processes settles where their memory lies; no two starts are alike.
    ratios: list[float] = []
    rates: list[float] = []
    for _ in range(STARTS):
        spawn = multiprocessing.get_context("spawn")
        with ProcessPoolExecutor(PROCESSES, mp_context=spawn) as pool:
            products = {
                f"products of {rows} rows": _in_all(pool, _multiply, [(*s, rows) for s in shapes])
                for rows in PRODUCT_ROWS
            }
            together = _in_all(pool, _calibrate, [(plan,) for plan in plans])
            seconds = interleave({**products, "calibrate": together})
        fastest = min(products, key=lambda work: statistics.median(seconds[work]))
        ratios.append(ratio(seconds, "calibrate", fastest))
        rates.append(
            sum(plan.part.rows for plan in plans) / statistics.median(seconds["calibrate"])
        )
    return {
        "calibrate.ratio_to_gemm": statistics.median(ratios),
        "calibrate.rows_per_second": statistics.median(rates),
    }


def _in_all(
    pool: Executor, work: Callable[..., None], words: Sequence[tuple[object, ...]]
) -> Callable[[], None]:
    """The work in all processes of a pool at a time."""

    def together() -> None:
        for done in [pool.submit(work, *each) for each in words]:
            done.result()

    return together


def _calibrate(plan: CalibrationPlan) -> None:
    calibrate_part(plan)


def _multiply(sizes: tuple[int, ...], networks: int, rows: int, at_a_time: int) -> None:
    """The products of all networks on some rows, network by network into the same memory.

    One product over all networks, whose activations do not fit into the cache, is slower.
    """
    weights, features, room = _arrays_of(sizes, networks, at_a_time)
    for start in range(0, rows, at_a_time):
        count = min(at_a_time, rows - start)
        for network in weights:
            x = features[:count]
            for weight, out in zip(network, room, strict=True):
                x = np.matmul(x, weight, out=out[:count])


@functools.cache  # once in each process
def _arrays_of(
    sizes: tuple[int, ...], networks: int, at_a_time: int
) -> tuple[list[list[Float32Array]], Float32Array, list[Float32Array]]:
    """Weights of all networks, the features, and room for each layer."""
    rng = np.random.default_rng(0)
    shapes = list(itertools.pairwise(sizes))
    weights = [
        [rng.standard_normal(shape, dtype=np.float32) for shape in shapes] for _ in range(networks)
    ]
    room = [np.empty((at_a_time, size), np.float32) for size in sizes[1:]]
    return weights, np.ones((at_a_time, sizes[0]), np.float32), room


def _without_crps(study: Study) -> Study:
    """The study without the CRPS, which has a number of rows whatever the size of the sample."""
    settings = study.calibrate.model_copy(update={"crps_rows": 0})
    return study.model_copy(update={"calibrate": settings})


def measure_apply(study: Study, name: str, folder: Path) -> dict[str, float]:
    """Applying a model to a ROOT file against calibrating a part, row for row."""
    manifest = read_manifest(ingest.dataset_folder(study))
    study = _without_crps(study)
    source = calibrate.model_source(study, name, manifest)
    part = calibrate.plan_parts(study, manifest, source, folder=folder / "part")[0]
    model = study.folder / "models" / name
    calibration, columns = prepare(model, read_card(model), AppliedSettings())
    path = simulated_inputs(study)[0]
    units = {feature.name: feature.unit for feature in calibration.features}
    wanted = Wanted(dict.fromkeys(calibration.needed, MODEL_PURPOSE), (), units)
    opened = open_input(path, study.dataset.layout, wanted, Access())
    names = tuple(column.name for column in columns)
    plan = plan_input(opened, "applied", folder, calibration, names, Access(), wanted="root")

    def whole() -> float:
        start = time.perf_counter()
        for chunk in plan.chunks:
            apply_chunk(chunk)
        finish_input(plan)
        return (time.perf_counter() - start) / opened.rows

    def one_part() -> float:
        start = time.perf_counter()
        calibrate_part(part)
        return (time.perf_counter() - start) / part.part.rows

    seconds = interleave({"calibrate": one_part, "apply": whole})
    return {"apply.ratio_to_calibrate": ratio(seconds, "apply", "calibrate")}


def measure_evaluation(study: Study) -> dict[str, float]:
    """Evaluating the parts of the study's split, tables included, against reading their columns."""
    manifest = read_manifest(ingest.dataset_folder(study))
    sets = {
        source.name: calibrate.open_set(study, manifest, source)
        for source in calibrate.find_sources(study, manifest)
    }
    plan = plan_evaluation(study.evaluate, manifest)
    needed = needed_columns(study.evaluate, manifest)
    parts = evaluate.align_parts(study, manifest, sets)

    def read() -> None:
        for aligned in parts:
            read_part(aligned.dataset, aligned.part, needed.dataset)
            for folder, part, columns in aligned.calibrated.values():
                read_part(folder, part, [name for name in needed.calibrated if name in columns])

    def reduce() -> Evaluation:
        return evaluate.evaluate_parts(parts, plan=plan, needed=needed, baseline=None)

    done = reduce()

    def tables() -> None:
        make_tables(done)
        summarise(done)

    seconds = interleave({"read": read, "evaluate": reduce, "tables": tables})
    return {
        "evaluate.ratio_to_read": ratio(seconds, "evaluate", "read"),
        "evaluate.rows_per_second": sum(aligned.part.rows for aligned in parts)
        / statistics.median(seconds["evaluate"]),
        "evaluate.seconds_of_tables": statistics.median(seconds["tables"]),
    }


def limit_threads() -> None:
    """One compute thread, as on a farm; called before NumPy's libraries are loaded."""
    for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
        os.environ[name] = "1"
