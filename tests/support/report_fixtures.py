"""What tests of the report draw it from."""

import numpy as np
import pyarrow.parquet as pq
from evaluation_fixtures import (
    TOPO,
    add_places,
    make_calibrated,
    make_manifest,
    make_table,
)

from pipeline.evaluation.baseline import BaselineHistogram
from pipeline.evaluation.evaluation import Evaluation
from pipeline.evaluation.plan import plan_evaluation
from pipeline.evaluation.settings import EvaluateSettings
from pipeline.evaluation.summary import summarise
from pipeline.evaluation.tables.make import make_tables
from pipeline.formats.card import ModelCard
from pipeline.report.settings import ReportSettings
from pipeline.report.write import write_report

HISTORY = [
    {
        "epoch": epoch,
        "learning_rate": 1e-3 if epoch < 8 else 1e-4,
        "train_nll": -1.0 + 0.5**epoch,
        "gradient_norm": 2.0,
        "gradient_norm_max": 5.0,
        "kl": 0.01,
        "validation_nll": -0.9 + 0.5**epoch,
        "seconds": 1.0,
    }
    for epoch in range(12)
]

RECORD = {
    "git_hash": "0123456789abcdef",
    "versions": {"torch": "2.0"},
    "counts": {"bnn": {"rows": 8000, "epochs": 12}, "cut_flow": [{"rule": "x > 0"}]},
    "wall_seconds": 12.5,
    "peak_memory_mib": 300,
}


def make_card(manifest):
    return ModelCard(
        name="bnn",
        kind="bnn",
        artefacts={},
        num_networks=50,
        num_components=3,
        inputs=manifest.features,
        input_ranges={},
        targets=(manifest.target,),
        target_ranges={},
        outputs=(),
        settings={},
        scores={"nll": -1.2},
        fingerprint="a",
        data_fingerprint="b",
        git_hash="0123456789abcdef+changes",
        versions={},
    )


def make_inputs(*, target=TOPO, rows=8_000, given=None, models=("bnn", "re"), broken=0):
    """What a study leaves for its report; the first model gives some rows density 0."""
    table = add_places(make_table(rows, target=target))
    manifest = make_manifest(table, target=target)
    plan = plan_evaluation(EvaluateSettings.model_validate(given or {}), manifest)
    sets = {
        name: make_calibrated(table, target=target, shift=0.004 * at, stretch=1.1)
        for at, name in enumerate(models, 1)
    }
    sets[models[0]]["log_density"][:broken] = -np.inf
    sets["oracle"] = make_calibrated(table, target=target)
    baseline = BaselineHistogram.of(make_table(rows, seed=2, target=target), plan)
    evaluation = Evaluation.of(table, sets, plan, baseline=baseline)
    return {
        "study_name": "small <study> & more",
        "manifest": manifest,
        "summary": summarise(evaluation),
        "tables": make_tables(evaluation),
        "cards": {"bnn": make_card(manifest)},
        "histories": {"bnn": HISTORY},
        "settings": ReportSettings(dpi=72),
        "records": {"train": RECORD},
        "study": {"name": "small", "evaluate": {"sigma_window": [0.1, 0.4]}},
    }


def make_full_inputs():
    """With a panel of every kind."""
    return make_inputs(
        given={
            "regions": {"low": {"of": "numerator", "to": 3.0}},
            "pairs": [["re", "bnn"]],
            "axes": {"denominator": {"of": "denominator"}},
            "planes": ["denominator"],
            "closure_min_rows": 100,
            "sigma_window": [0.1, 0.4],
            "slices": [2.5],
        }
    )


def draw(inputs, folder):
    """The report, drawn from tables that were written and read back."""
    tables = {}
    for name, table in inputs["tables"].items():
        pq.write_table(table, folder / f"{name}.parquet")
        tables[name] = pq.read_table(folder / f"{name}.parquet")
    write_report(folder / "report", **(inputs | {"tables": tables}))
    return folder / "report"
