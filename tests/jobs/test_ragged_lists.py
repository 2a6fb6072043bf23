"""A table of lists through a network of sets, from ROOT to report: killed, and with two workers."""

import json
import shutil

import awkward as ak
import numpy as np
import onnxruntime
import pytest
import uproot
from safetensors.numpy import load_file
from toy_package import calibrated_columns, kill_when, stop_when, topocal, write_study

from jobs.cli import main
from pipeline.formats.card import read_card
from pipeline.formats.manifest import columns_of, read_manifest, read_part
from pipeline.formats.model_inputs import inputs_of, split_features

NETWORK = {
    "components": 1,
    "hidden": [16],
    "batch_rows": 256,
    "epochs": 16,
    "optimizer": {"learning_rate": 1e-2, "milestones": [12]},
}
SETS = {"encoder": {"table": "cells", "hidden": [16], "outputs": 4}, **NETWORK}
CELL = {"shape": "ragged", "table": "cells", "transform": "standard"}
STUDY = {
    "name": "cells",
    "output": "out",
    "simulate": {"simulator": "toy_cells", "num_clusters": 12_000, "clusters_per_file": 4_000},
    "dataset": {
        "layout": {"tree": "Showers"},
        "features": [
            {"name": "e_raw", "unit": "GeV", "transform": "log10_standard"},
            {"name": "cell_fraction", **CELL},
            {"name": "cell_layer", **CELL},
        ],
        "target": {
            "name": "scale",
            "numerator": "e_raw",
            "denominator": "e_true",
            "calibrated": "e_cal",
        },
        "extras": [],
        "rows_per_part": 4_000,
    },
    "models": {
        "mdn": {"kind": "mixture_density", **SETS},
        "bnn": {"kind": "bnn", "samples": 3, **SETS},
        "re": {"kind": "repulsive_ensemble", "members": 2, **SETS},
        "blind": {"kind": "mixture_density", **NETWORK},
    },
    "ray": {"address": "none"},
}
MODELS = ("mdn", "bnn", "re")


@pytest.fixture(scope="module")
def study(toy_package, tmp_path_factory):
    folder = tmp_path_factory.mktemp("cells")
    done = topocal(toy_package, "run", write_study(folder, STUDY), "dask.workers=1")
    assert done.returncode == 0, done.stderr
    return folder


def rows_of(study, split="test"):
    manifest = read_manifest(study / "out/dataset")
    part = manifest.parts_of(split)[0]
    return manifest, columns_of(read_part(study / "out/dataset", part))


def test_lists_come_through_as_they_were_simulated(study):
    manifest, _ = rows_of(study)
    shapes = {column.name: column.shape for column in manifest.columns}
    assert shapes["cell_fraction"] == shapes["cell_layer"] == "ragged"
    simulated = []
    for path in sorted((study / "out/simulated").glob("*.root")):
        arrays = uproot.open(path)["Showers"].arrays(["e_raw", "cell_fraction"])
        simulated += zip(arrays["e_raw"].tolist(), arrays["cell_fraction"].tolist(), strict=True)
    kept = []
    for part in manifest.parts:
        table = read_part(study / "out/dataset", part)
        kept += zip(table["e_raw"].to_pylist(), table["cell_fraction"].to_pylist(), strict=True)
    assert sorted(kept) == sorted(simulated)
    values = np.concatenate([
        columns_of(read_part(study / "out/dataset", part))["cell_fraction"].values
        for part in manifest.parts_of("train")
    ]).astype(np.float64)
    found = manifest.statistics["cell_fraction"]
    assert found.count == len(values)
    assert found.mean == pytest.approx(values.mean(), rel=1e-6)
    assert found.std == pytest.approx(values.std(), rel=1e-6)
    assert (found.minimum, found.maximum) == (values.min(), values.max())


def test_what_sees_the_cells_comes_near_the_exact_density(study):
    summary = json.loads((study / "out/metrics/summary.json").read_text())
    for name in MODELS:
        assert summary[f"{name}.nll_excess"] < 0.25, name
        assert summary[f"{name}.nll"] < summary["blind.nll"] - 0.5
    assert summary["oracle.coverage68"] == pytest.approx(0.68, abs=0.03)
    assert "blind.nll_excess" not in summary  # it does not see what the density is of
    page = (study / "out/report/index.html").read_text()
    assert "Headline figures" in page


@pytest.mark.parametrize("name", MODELS)
def test_the_file_gives_what_calibrate_gives(study, name):
    folder = study / "out/models" / name
    card = read_card(folder)
    assert [feature.table_name for feature in card.inputs] == ["", "cells", "cells"]
    _, rows = rows_of(study)
    given = inputs_of(*split_features(card.inputs), rows)
    session = onnxruntime.InferenceSession(folder / "model.onnx")
    assert [each.name for each in session.get_inputs()] == ["features", "cells", "cells_rows"]
    names = ["mean", "sigma_syst", "sigma_stat", "central"]
    found = dict(zip(names, session.run(names, given), strict=True))
    columns = calibrated_columns(study / "out/calibrated" / name)
    columns["central"] = columns["scale"]
    for key in names:
        expected = columns[key][: len(found[key])]
        np.testing.assert_allclose(found[key], expected, rtol=2e-3, atol=2e-4, err_msg=key)
    alone = {name: values[:1] for name, values in given.items() if name == "features"}
    nothing = {"cells": given["cells"][:0], "cells_rows": given["cells_rows"][:0]}
    (empty,) = session.run(["central"], alone | nothing)
    assert empty.shape == (1,)
    assert np.isfinite(empty).all()


def test_two_workers_write_the_same(toy_package, study, tmp_path):
    shutil.copytree(study, tmp_path, dirs_exist_ok=True)
    for stage in ("simulated", "dataset", "calibrated"):
        shutil.rmtree(tmp_path / "out" / stage)
    words = (tmp_path / "study.json", "dask.workers=2")
    for job in ("simulate", "ingest"):
        done = topocal(toy_package, job, *words)
        assert done.returncode == 0, done.stderr
    one, two = (read_manifest(folder / "out/dataset") for folder in (study, tmp_path))
    assert [part.sha256 for part in two.parts] == [part.sha256 for part in one.parts]
    assert two.statistics == one.statistics
    shutil.rmtree(tmp_path / "out/dataset")  # a file made again has another identity
    shutil.copytree(study / "out/dataset", tmp_path / "out/dataset")
    done = topocal(toy_package, "calibrate", *words)
    assert done.returncode == 0, done.stderr
    for name in MODELS:
        one, two = (
            calibrated_columns(folder / "out/calibrated" / name) for folder in (study, tmp_path)
        )
        for key, values in one.items():
            np.testing.assert_array_equal(two[key], values, err_msg=f"{name} {key}")


def test_killed_jobs_go_on_to_the_same_bits(toy_package, study, tmp_path):
    """Ingest is killed between parts, training stopped and killed between epochs."""
    content = STUDY | {"models": {"bnn": STUDY["models"]["bnn"]}}
    path, out = write_study(tmp_path, content), tmp_path / "out"
    out.mkdir()
    shutil.copytree(study / "out/simulated", out / "simulated")
    receipts = tmp_path / "out/.tmp-dataset/receipts"
    kill_when(
        toy_package,
        lambda: receipts.is_dir() and any(receipts.iterdir()),
        *("ingest", path, "dask.workers=1"),
    )
    done = topocal(toy_package, "ingest", path, "dask.workers=1")
    assert done.returncode == 0, done.stderr
    one, two = (read_manifest(folder / "dataset") for folder in (study / "out", out))
    assert [part.sha256 for part in two.parts] == [part.sha256 for part in one.parts]

    def has_epochs(number):
        history = out / "models/bnn/history.jsonl"
        return lambda: history.exists() and len(history.read_text().splitlines()) >= number

    assert stop_when(toy_package, has_epochs(3), "train", path) == 75
    kill_when(toy_package, has_epochs(6), "train", path)
    done = topocal(toy_package, "train", path)
    assert done.returncode == 0, done.stderr
    weights = "models/bnn/weights.safetensors"
    expected, found = (load_file(folder / weights) for folder in (study / "out", out))
    assert found.keys() == expected.keys()
    for key, values in expected.items():
        np.testing.assert_array_equal(found[key], values, err_msg=key)


def test_anybodys_clusters_are_calibrated(toy_package, study, tmp_path):
    (source, *_) = sorted((study / "out/simulated").glob("*.root"))
    layout = tmp_path / "layout.yaml"
    layout.write_text("tree: Showers\n")
    words = (source, tmp_path / "applied", f"layout={layout}", "format=parquet", "dask.workers=1")
    done = topocal(toy_package, "apply", study / "out/models/mdn", *words)
    assert done.returncode == 0, done.stderr
    assert "4000 clusters of 1 files, 4000 calibrated" in done.stderr


FEATURES = STUDY["dataset"]["features"]


def with_dataset(**changes):
    return {"dataset": STUDY["dataset"] | changes}


@pytest.mark.parametrize(
    ("job", "changes", "message"),
    [
        (
            "ingest",
            with_dataset(
                cuts=[
                    *({"column": name, "above": 0} for name in ("e_true", "e_raw")),
                    {"column": "cell_fraction", "above": 0},
                ]
            ),
            "dataset.cuts needs one number a row, and cell_fraction is a list",
        ),
        (
            "ingest",
            with_dataset(features=[FEATURES[0], {**FEATURES[1], "transform": "log10_standard"}]),
            "log10 is taken of cell_fraction: give each a cut `above: 0` or a floor",
        ),
        (
            "ingest",
            with_dataset(weight="cell_layer"),
            "dataset.weight needs one number a row, and cell_layer is a list",
        ),
        (
            "ingest",
            with_dataset(features=[FEATURES[0], {"name": "cell_layer", "transform": "none"}]),
            "column cell_layer (cell_layer) is not one number a cluster",
        ),
        (
            "ingest",
            with_dataset(features=[*FEATURES, {"name": "eventNumber", **CELL}]),
            "column eventNumber (eventNumber) is not one list of numbers a cluster",
        ),
        (
            "train",
            {"models": {"net": SETS | {"kind": "bnn", "encoder": {"table": "hits"}}}},
            "no table hits of lists; it has cells",
        ),
        (
            "train",
            {"models": {"net": NETWORK | {"kind": "bnn", "features": ["cell_layer"]}}},
            "features: cell_layer not in the dataset, which has e_raw",
        ),
        (
            "train",
            {"models": {"net": SETS | {"kind": "bnn", "estimator": "antithetic"}}},
            "estimator: antithetic is for networks of Gaussian weights, features and one target",
        ),
    ],
)
def test_what_is_no_list_is_told_from_what_is(study, tmp_path, capsys, job, changes, message):
    (tmp_path / "out").mkdir()
    if job != "ingest":
        (tmp_path / "out/dataset").symlink_to(study / "out/dataset")
    content = {name: value for name, value in STUDY.items() if name != "simulate"} | changes
    words = [f"dataset.inputs=[{study}/out/simulated/*.root]", "dask.workers=1"]
    assert main([job, str(write_study(tmp_path, content)), *words]) == 2
    told = capsys.readouterr().err
    assert message in told


def test_lists_of_one_table_are_equally_long(tmp_path, capsys):
    source = tmp_path / "a.root"
    with uproot.recreate(source) as file:
        file.mktree(
            "Showers",
            {
                "e_raw": "float32",
                "e_true": "float32",
                "cell_fraction": "var * float32",
                "cell_layer": "var * float32",
            },
        )
        file["Showers"].extend({
            "e_raw": np.ones(2, np.float32),
            "e_true": np.ones(2, np.float32),
            "cell_fraction": ak.Array([[1.0, 2.0], [3.0]]),
            "cell_layer": ak.Array([[1.0], [2.0, 3.0]]),
        })
    content = {name: value for name, value in STUDY.items() if name != "simulate"}
    words = [f"dataset.inputs=[{source}]", "dask.workers=1"]
    assert main(["ingest", str(write_study(tmp_path, content)), *words]) == 2
    told = capsys.readouterr().err
    assert "lists of cell_fraction and cell_layer, both of table cells, differ in length" in told
