"""Another installed package adds a simulator, a family, a kind and a chapter; all take part."""

import json
import shutil

import numpy as np
import pytest
from toy_package import calibrated_columns, topocal

from pipeline.formats.manifest import read_manifest, read_part

QUICK = {"epochs": 16, "batch_rows": 256, "optimizer": {"learning_rate": 1e-2, "milestones": [12]}}
STUDY = {
    "name": "plugin",
    "output": "out",
    "simulate": {"simulator": "toy_showers", "num_clusters": 12_000, "clusters_per_file": 4_000},
    "dataset": {
        "layout": {"tree": "Showers"},
        "features": [
            {"name": "e_raw", "unit": "GeV", "transform": "log10_standard"},
            {"name": "angle", "transform": "standard"},
        ],
        "target": {
            "name": "scale",
            "numerator": "e_raw",
            "denominator": "e_true",
            "calibrated": "e_cal",
        },
        "extras": [],
        "rows_per_part": 65_536,
        "cuts": [{"column": "e_true", "above": 0}, {"column": "e_raw", "above": 0}],
    },
    "models": {
        "mdn": {"kind": "mixture_density", "family": "laplace", "hidden": [8], **QUICK},
        "toy": {"kind": "toy_network", "stages": [{"epochs": 2, "leakiness": 1.0}]},
    },
    "ray": {"address": "none"},
}


@pytest.fixture(scope="module")
def study(toy_package, tmp_path_factory):
    folder = tmp_path_factory.mktemp("study")
    (folder / "study.json").write_text(json.dumps(STUDY))
    done = topocal(toy_package, "run", folder / "study.json", "dask.workers=1")
    assert done.returncode == 0, done.stderr
    return folder


def columns_of(folder, name):
    return calibrated_columns(folder / "out/calibrated" / name)


def test_the_exact_density_of_the_simulator_is_the_limit(study):
    summary = json.loads((study / "out/metrics/summary.json").read_text())
    width = 0.08
    entropy = 1.0 + np.log(2.0 * width)
    assert summary["oracle.nll"] == pytest.approx(entropy, abs=0.05)
    assert 0.0 < summary["mdn.nll_excess"] < 0.5
    assert summary["oracle.coverage68"] == pytest.approx(0.68, abs=0.03)


def test_the_family_and_the_kind_calibrate(study):
    exact, learned = columns_of(study, "oracle"), columns_of(study, "mdn")
    assert np.corrcoef(np.log10(exact["median"]), np.log10(learned["median"]))[0, 1] > 0.9
    assert {"scale", "e_cal"} <= columns_of(study, "toy").keys()
    card = json.loads((study / "out/models/mdn/model.json").read_text())
    assert (card["density"], card["num_networks"]) == ("laplace", 1)


def test_the_chapter_is_in_the_report(study):
    page = (study / "out/report/index.html").read_text()
    assert "A toy chapter" in page
    assert "2 features, as the toy counts them." in page


def test_two_workers_write_the_same(toy_package, study, tmp_path):
    """Clusters and calibrated sets; a file made again has another checksum."""
    two, again = tmp_path / "two", tmp_path / "again"
    shutil.copytree(study, two)
    shutil.rmtree(two / "out/calibrated")
    words = (study / "study.json", "dask.workers=2")
    for job, output in (("simulate", again), ("ingest", again), ("calibrate", two / "out")):
        done = topocal(toy_package, job, *words, f"output={output}")
        assert done.returncode == 0, done.stderr
    manifest = read_manifest(study / "out/dataset")
    for part in manifest.parts_of("train"):
        (other,) = [p for p in read_manifest(again / "dataset").parts if p.path == part.path]
        found = read_part(again / "dataset", other)
        assert found.equals(read_part(study / "out/dataset", part))
    for name in ("oracle", "mdn"):
        one, other = columns_of(study, name), columns_of(two, name)
        for key, values in one.items():
            np.testing.assert_array_equal(other[key], values, err_msg=f"{name} {key}")


def test_without_the_package_its_models_and_samples_are_refused(study, tmp_path):
    done = topocal(tmp_path, "calibrate", study / "study.json")
    assert done.returncode == 2
    assert "Traceback" not in done.stderr
    assert "simulate.simulator" in done.stderr
    assert "toy_network" in done.stderr


def test_a_package_that_names_what_is_not_there_is_told_by_name(tmp_path):
    info = tmp_path / "broken-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: broken\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[topocal.families]\nnone = broken_module:NONE\n")
    models = {"a": {"kind": "mixture_density", "family": "split_normal"}}
    study = {"name": "a", "output": "out", "models": models}
    (tmp_path / "study.json").write_text(json.dumps(study))
    done = topocal(tmp_path, "calibrate", tmp_path / "study.json")
    assert done.returncode == 2
    assert "Traceback" not in done.stderr
    assert "broken: entry point none of topocal.families" in done.stderr
