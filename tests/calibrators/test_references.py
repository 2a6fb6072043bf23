"""Models that are no networks, and a scale of the input, in one study of other names."""

import json
from contextlib import nullcontext

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from toy_detector import DATASET, toy_columns, write_tree

from jobs import calibrate, evaluate, grow_trees, ingest
from jobs import fit_lookup_table as fit_table
from jobs.cli import main
from pipeline.fold import merge_in_order
from pipeline.formats.calibrated_set import read_calibrated
from pipeline.formats.card import read_card
from pipeline.formats.columns import Target
from pipeline.formats.manifest import read_manifest, read_part
from pipeline.lookup.fit import group_parts, plan_fit, sum_group
from pipeline.lookup.settings import LookupTableSettings
from pipeline.lookup.sums import TableSums
from pipeline.lookup.tables import make_tables, project_tables, read_tables
from pipeline.report.figures.lookup_table import lookup_panels
from pipeline.report.settings import ReportSettings
from pipeline.report.study_data import Scene

AXES = [
    {"of": "e_raw", "low": 0.1, "high": 1000.0, "bins": 12},
    {"of": "width", "scale": "linear", "low": 0.0, "high": 1.0, "bins": 4},
    {"of": "depth", "low": 10.0, "high": 3000.0, "bins": 4},
]
LAYOUT = {
    "tree": "Hits",
    "columns": {
        "event": {"level": "event", "role": "identity"},
        "index": {"role": "identity"},
    },
}
MODELS = {
    "table": {
        "kind": "lookup_table",
        "class_axes": AXES,
        "weight_axes": AXES[:2],
        "em_label": "em_share",
    },
    "trees": {
        "kind": "boosted_trees",
        "iterations": [20, 40],
        "learning_rate": [0.2],
        "leaves": [7],
        "min_leaf_rows": [20],
        "l2": [0.0],
        "search": {"rows": 1500, "candidates": 2, "folds": 2},
        "rows": 4000,
    },
}


@pytest.fixture(scope="module")
def study(tmp_path_factory, client):
    """The study, up to its metrics, on the session's farm."""
    folder = tmp_path_factory.mktemp("references")
    columns = toy_columns(9_000)
    rng = np.random.default_rng(5)
    is_low = columns["e_raw"] / columns["e_true"] < 0.75
    columns["em_share"] = np.where(is_low, 0.2, rng.uniform(0.8, 1.0, 9_000)).astype("f4")
    columns["w_had"] = (1.0 + 0.3 * is_low).astype("f4")
    # an identity of their own, or the split would follow from the files' random UUIDs
    columns["event"], columns["index"] = np.arange(9_000), np.zeros(9_000, np.int64)
    # one part a file, so that the fit has more parts than one task sums
    files = [{n: v[i : i + 900] for n, v in columns.items()} for i in range(0, 9_000, 900)]
    content = {
        "name": "references",
        "output": "out",
        "dataset": {
            **DATASET,
            "layout": LAYOUT,
            "inputs": [
                write_tree(folder / f"{i}.root", part, tree="Hits") for i, part in enumerate(files)
            ],
            "extras": [
                {"name": "em_share", "role": "truth"},
                {"name": "w_had", "role": "reference"},
            ],
            "rows_per_part": 900,
        },
        "models": MODELS,
        "calibrate": {"scales": {"had": "w_had", "absent": "w_none"}},
        "evaluate": {"closure_min_rows": 100},
    }
    (folder / "study.json").write_text(json.dumps(content))
    with pytest.MonkeyPatch.context() as patch:
        for job in (ingest, fit_table, grow_trees, calibrate, evaluate):
            patch.setattr(job, "open_farm", lambda _: nullcontext(client))
        for job in ("ingest", "train", "calibrate", "evaluate"):
            assert main([job, str(folder / "study.json")]) == 0
    return folder / "study.json"


def _answers(study, name):
    folder = study.parent / "out"
    manifest, found = (
        read_manifest(folder / "dataset"),
        read_calibrated(folder / "calibrated" / name),
    )
    rows = [read_part(folder / "dataset", part) for part in manifest.parts_of("test")]
    answers = [read_part(folder / "calibrated" / name, part) for part in found.parts]
    return found, *(
        {key: np.concatenate([t[key].to_numpy() for t in tables]) for key in tables[0].column_names}
        for tables in (rows, answers)
    )


def test_each_set_has_the_columns_of_its_kind_and_says_so(study):
    point = ["scale", "e_cal", "in_domain"]
    names = {"table": point, "had": point}
    names["trees"] = ["scale", "e_cal", "median", "q16", "q84", "in_domain"]
    for name, expected in names.items():
        found, rows, answers = _answers(study, name)
        assert [column.name for column in found.columns] == expected
        assert list(answers) == ["cluster_id", *expected]
        assert (found.sigma, found.search_range, found.rows_at_bound) == (None, None, {})
        np.testing.assert_array_equal(answers["cluster_id"], rows["cluster_id"])
        np.testing.assert_allclose(answers["e_cal"], rows["e_raw"] / answers["scale"], rtol=1e-5)
    assert read_calibrated(study.parent / "out/calibrated/trees").central == "median"
    _, rows, answers = _answers(study, "had")
    np.testing.assert_allclose(answers["e_cal"], rows["e_raw"] * rows["w_had"], rtol=1e-6)


def test_figures_that_need_a_density_are_missing_and_the_rest_is_better_than_nothing(study):
    summary = json.loads((study.parent / "out/metrics/summary.json").read_text())
    figures = {
        name: {k.partition(".")[2] for k in summary if k.startswith(f"{name}.")}
        for name in ("table", "trees", "had", "absent")
    }
    assert figures["absent"] == set()
    for name in ("table", "trees", "had"):
        assert {"closure_max", "resolution_ratio_to_em"} <= figures[name]
        assert not figures[name] & {"nll", "pit_ks", "pull_width", "rows_without_density"}
    assert summary["trees.resolution_ratio_to_em"] < summary["table.resolution_ratio_to_em"]
    assert summary["trees.crps"] < summary["table.crps"]
    for name in ("table", "trees", "had"):
        _, rows, answers = _answers(study, name)
        off, uncalibrated = (
            np.abs(np.log(rows["e_true"] / e)).mean() for e in (answers["e_cal"], rows["e_raw"])
        )
        assert off < uncalibrated
    _, rows, answers = _answers(study, "trees")
    inside = (rows["scale"] >= answers["q16"]) & (rows["scale"] <= answers["q84"])
    assert inside.mean() == pytest.approx(0.68, abs=0.06)


def test_a_card_tells_what_was_chosen_and_what_was_sparse(study, capsys):
    card = read_card(study.parent / "out/models/trees")
    assert card.settings["chosen"]["iterations"] in {20, 40}
    assert card.settings["chosen"]["rows"] == pytest.approx(4000, abs=200)
    assert 0 < card.scores["validation_pinball"] < card.scores["validation_mae_log10"]
    for name, words in (("trees", "quantiles: 0.16, 0.5, 0.84"), ("table", "sparse_rows_weight")):
        assert main(["describe", str(study.parent / "out/models" / name), "--verify"]) == 0
        assert words in capsys.readouterr().out


def test_the_farm_fits_the_same_bits_as_this_process(study):
    dataset = study.parent / "out/dataset"
    manifest = read_manifest(dataset)
    settings = LookupTableSettings.model_validate(MODELS["table"])
    plan, groups = plan_fit(dataset, manifest, settings), group_parts(manifest, "train")
    assert len(groups) == 2
    sums = merge_in_order([sum_group(parts, plan=plan) for parts in groups], TableSums.__add__)
    made, kept = (
        make_tables(sums, settings),
        read_tables(study.parent / "out/models/table/tables.parquet"),
    )
    np.testing.assert_array_equal(made.weight.filled.values, kept.weight.filled.values)
    np.testing.assert_array_equal(
        made.em_probability.filled.values, kept.em_probability.filled.values
    )


def test_tables_are_drawn_with_their_numbers(study):
    tables = read_tables(study.parent / "out/models/table/tables.parquet")
    drawn = project_tables({"table": tables})
    nothing = pa.table({"set": pa.array([], pa.string()), "role": pa.array([], pa.string())})
    scene = Scene({"lookup": drawn, "sets": nothing}, ReportSettings(), Target(), "toy")
    panels = {panel.name: panel.table for panel in lookup_panels(scene)}
    names = (
        "table-em_probability",
        "steps-table-em_probability",
        "table-weight",
        "steps-table-weight",
    )
    assert set(panels) == {f"lookup-{name}" for name in names}
    filled = tables.em_probability.filled
    entries, values = (each.reshape(12, 4, 4) for each in (filled.entries, filled.values))
    row = panels["lookup-table-em_probability"].to_pylist()[-1]
    at = round(np.log10(row["x_low"] / 0.1) * 3), round(row["y_low"] * 4)
    assert row["entries"] == entries[at].sum()
    assert row["value"] == pytest.approx((entries[at] * values[at]).sum() / entries[at].sum())
    assert list(lookup_panels(Scene({}, ReportSettings(), Target(), "toy"))) == []


def test_apply_gives_the_same_with_the_columns_that_there_are(study, tmp_path):
    inputs = [str(study.parent / "*.root"), str(tmp_path / "out")]
    words = [f"layout={json.dumps(LAYOUT)}", "format=parquet", "dask.workers=1"]
    assert main(["apply", str(study.parent / "out/models/trees"), *inputs, *words]) == 0
    paths = sorted((tmp_path / "out").rglob("*.parquet"))
    whole = pa.concat_tables([pq.read_table(path) for path in paths])
    applied = whole.to_pandas().set_index("cluster_id")
    assert list(applied.columns) == ["e_raw", "e_cal", "scale", "in_domain", "outside", "reason"]
    _, _, answers = _answers(study, "trees")
    same = applied.loc[answers["cluster_id"]]
    np.testing.assert_allclose(same["e_cal"], answers["e_cal"], rtol=1e-6)


def test_what_a_study_may_not_say(study, capsys):
    assert main(["train", str(study), "models.table.em_label=kind", "output=../other"]) == 2
    capsys.readouterr()
    assert main(["train", str(study), "calibrate.scales={table: w_had}"]) == 2
    assert "table is the name of a model too" in capsys.readouterr().err
