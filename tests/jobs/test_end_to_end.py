"""The whole chain through its commands, on small inputs."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import bare_environment
import numpy as np
import pyarrow.parquet as pq
import pytest
from toy_detector import DATASET, toy_columns, write_tree

from jobs.cli import main
from pipeline.formats.calibrated_set import calibrated_columns, read_calibrated
from pipeline.formats.manifest import read_manifest, read_part

ROOT = Path(__file__).parents[2]
STAGES = ("ingest", "train/net", "calibrate/net", "evaluate", "report")


@pytest.fixture(scope="module")
def toy(tmp_path_factory):
    """Four features, two components and a target of other names, all stages by one command."""
    folder = tmp_path_factory.mktemp("toy")
    inputs = [write_tree(folder / "a.root", toy_columns(20_000), tree="Hits")]
    study = {
        "name": "toy",
        "output": "out",
        "dataset": {**DATASET, "inputs": inputs},
        "models": {
            "net": {
                "kind": "bnn",
                "hidden": [16, 16],
                "components": 2,
                "samples": 5,
                "epochs": 40,
                "batch_rows": 512,
                "optimizer": {"learning_rate": 5e-3, "milestones": [30]},
            }
        },
        "dask": {"workers": 2},
    }
    (folder / "study.json").write_text(json.dumps(study))
    _run(folder)
    return folder


def _run(folder):
    """The command as a user types it; what it logs."""
    words = [sys.executable, "-m", "jobs.cli", "run", str(folder / "study.json")]
    done = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stderr


def _summary(folder):
    return json.loads((folder / "out/metrics/summary.json").read_text())


def test_other_features_components_and_names(toy):
    manifest = read_manifest(toy / "out/dataset")
    assert [feature.name for feature in manifest.features] == ["e_raw", "depth", "width", "angle"]
    calibrated = read_calibrated(toy / "out/calibrated/net")
    names = [column.name for column in calibrated.columns]
    assert names[:2] == ["scale", "e_cal"]
    card = json.loads((toy / "out/models/net/model.json").read_text())
    assert (card["num_networks"], card["num_components"], len(card["inputs"])) == (5, 2, 4)


def test_a_small_network_beats_the_histogram(toy):
    summary = _summary(toy)
    assert summary["net.nll"] < summary["histogram.nll"] - 0.1
    assert summary["net.pit_ks"] < 0.05
    assert abs(summary["net.coverage68"] - 0.68) < 0.04
    assert "oracle.nll" not in summary
    assert "net.nll_excess" not in summary
    assert np.isfinite(list(summary.values())).all()


def test_calibrated_rows_belong_to_the_rows_of_the_dataset(toy):
    dataset, folder = toy / "out/dataset", toy / "out/calibrated/net"
    manifest, calibrated = read_manifest(dataset), read_calibrated(folder)
    parts = manifest.parts_of("test")
    assert [part.rows for part in parts] == [part.rows for part in calibrated.parts]
    for part, other in zip(parts, calibrated.parts, strict=True):
        rows, answers = read_part(dataset, part), read_part(folder, other)
        assert rows["cluster_id"].equals(answers["cluster_id"])
        energy = rows["e_raw"].to_numpy() / answers["scale"].to_numpy()
        np.testing.assert_allclose(energy, answers["e_cal"].to_numpy(), rtol=1e-6)
        total = np.hypot(answers["sigma_syst"].to_numpy(), answers["sigma_stat"].to_numpy())
        np.testing.assert_allclose(total, answers["sigma_tot"].to_numpy(), rtol=1e-5)
        assert answers["in_domain"].to_numpy().mean() > 0.99
        listed = [column.name for column in calibrated_columns(calibrated.target, has_truth=True)]
        assert answers.column_names == ["cluster_id", *listed]


def test_the_report_and_the_records_are_there(toy):
    assert "<svg" in (toy / "out/report/index.html").read_text()
    record = json.loads((toy / "out/records/run.json").read_text())
    assert record["study"]["name"] == "toy"
    assert record["wall_seconds"] > 0
    assert {path.stem for path in (toy / "out/records").iterdir()} == {
        "run",
        *(stage.partition("/")[0] for stage in STAGES),
    }


def test_a_second_run_keeps_every_stage(toy):
    before = {p: p.stat().st_mtime_ns for p in (toy / "out").rglob("*") if p.is_file()}
    told = _run(toy)
    for stage in STAGES:
        assert f"{stage}: kept, " in told
    assert [p for p, stamp in before.items() if p.stat().st_mtime_ns != stamp] == []


@pytest.mark.parametrize(
    ("job", "override", "message"),
    [
        ("train", "dataset.split.seed=5", "run `topocal ingest` again"),
        ("calibrate", "dataset.split.seed=5", "run `topocal ingest` again"),
        ("calibrate", "models.net.epochs=3", "run `topocal train --redo`"),
        ("evaluate", "models.net.epochs=3", "run `topocal train --redo`"),
        ("evaluate", "calibrate.central=median", "run `topocal calibrate` again"),
        ("report", "calibrate.central=median", "run `topocal calibrate` again"),
        ("report", "evaluate.min_rows_per_bin=50", "run `topocal evaluate` again"),
        ("evaluate", "evaluate.reference=orcale", "evaluate.reference"),
        ("evaluate", "evaluate.axes.x.column=nope", "evaluate.axes.x"),
    ],
)
def test_what_was_made_with_other_settings_is_refused_and_kept(toy, capsys, job, override, message):
    before = {p: p.stat().st_mtime_ns for p in (toy / "out").rglob("*") if p.is_file()}
    assert main([job, str(toy / "study.json"), override]) == 2
    assert message in capsys.readouterr().err
    assert {p: p.stat().st_mtime_ns for p in (toy / "out").rglob("*") if p.is_file()} == before


def test_a_training_that_was_refused_claims_nothing(toy, capsys):
    for epochs in (1, 2):
        words = ["models.other.kind=bnn", f"models.other.epochs={epochs}"]
        words += ["ray.address=http://127.0.0.1:9"]
        assert main(["train", str(toy / "study.json"), *words]) == 2
        assert "takes jobs from `topocal submit` alone" in capsys.readouterr().err
    shutil.rmtree(toy / "out/models/other")


def test_a_missing_file_makes_its_stage_run_again(toy, capsys):
    (toy / "out/report/index.html").unlink()
    assert main(["report", str(toy / "study.json")]) == 0
    assert "report: made again, index.html is missing or changed" in capsys.readouterr().err
    assert (toy / "out/report/index.html").exists()


def test_without_torch_and_ray_calibrate_gives_the_same_bytes(toy, tmp_path):
    packages = bare_environment.make(tmp_path / "packages")
    code = "import importlib.util as u; print(u.find_spec('torch'), u.find_spec('ray'))"
    assert bare_environment.run(packages, "-c", code).stdout.split() == ["None", "None"]
    shutil.copytree(toy / "out", tmp_path / "out")
    words = [str(toy / "study.json"), f"output={tmp_path / 'out'}", "--redo"]
    done = bare_environment.run(packages, "-m", "jobs.calibrate", *words)
    assert done.returncode == 0, done.stderr
    for part in read_calibrated(toy / "out/calibrated/net").parts:
        path = f"calibrated/net/{part.path}"
        assert (tmp_path / "out" / path).read_bytes() == (toy / "out" / path).read_bytes()
    done = bare_environment.run(packages, "-m", "jobs.train", *words)
    assert done.returncode == 2
    assert "pip install 'topocal[train]'" in done.stderr


def test_the_oracle_is_calibrated_by_the_same_job_without_torch_and_ray(tmp_path):
    study = tmp_path / "study.json"
    study.write_text(
        json.dumps({
            "name": "oracle",
            "output": "out",
            "simulate": {"num_clusters": 6000, "clusters_per_file": 3000},
            "dataset": {"rows_per_part": 3000},
            "dask": {"workers": 2},
        })
    )
    packages = bare_environment.make(tmp_path / "packages")
    for job in ("simulate", "ingest", "calibrate", "evaluate"):
        done = bare_environment.run(packages, "-m", f"jobs.{job}", str(study))
        assert done.returncode == 0, done.stderr
    folder = tmp_path / "out/calibrated/oracle"
    tables = [pq.read_table(folder / part.path) for part in read_calibrated(folder).parts]
    pit = np.concatenate([table["pit"].to_numpy() for table in tables])
    grid = (np.arange(len(pit)) + 0.5) / len(pit)
    assert np.abs(np.sort(pit) - grid).max() < 1.63 / np.sqrt(len(pit))
    summary = json.loads((tmp_path / "out/metrics/summary.json").read_text())
    assert summary["oracle.nll"] < summary["histogram.nll"]
    assert not any("bnn" in key for key in summary)


@pytest.fixture(scope="module")
def data(toy):
    """Clusters like the toy's, without truth, and a study that calibrates them with its network."""
    columns = toy_columns(5_000, seed=9)
    truth = columns.pop("e_true")
    dataset = {name: DATASET[name] for name in ("layout", "features", "extras", "floors")}
    study = {
        "name": "data",
        "output": "data",
        "dataset": {
            **dataset,
            "target": None,
            "inputs": [write_tree(toy / "data.root", columns, tree="Hits")],
        },
        "calibrate": {"models": {"net": "out/models/net"}},
        "dask": {"workers": 1},
    }
    (toy / "data.json").write_text(json.dumps(study))
    return toy / "data.json", columns, truth


def test_clusters_without_truth_are_calibrated_with_a_finished_model(data, capsys):
    study, columns, truth = data
    assert main(["run", str(study)]) == 0
    assert "without truth there is nothing to train" in capsys.readouterr().err
    folder = study.parent / "data"
    manifest = read_manifest(folder / "dataset")
    assert manifest.target is None
    assert [manifest.rows_of(s) for s in ("train", "validation", "test")] == [0, 0, 5_000]
    (part,) = manifest.parts
    calibrated = read_calibrated(folder / "calibrated/net")
    answers = read_part(folder / "calibrated/net", calibrated.parts[0])
    assert "log_density" not in answers.column_names
    rows = read_part(folder / "dataset", part)
    np.testing.assert_array_equal(rows["e_raw"].to_numpy(), columns["e_raw"])
    # the truth that the data do not have: the calibrated energy is closer to it than the raw one
    calibrated_error = np.abs(np.log10(answers["e_cal"].to_numpy() / truth))
    assert np.median(calibrated_error) < 0.9 * np.median(np.abs(np.log10(columns["e_raw"] / truth)))


@pytest.mark.parametrize(
    ("job", "words", "message"),
    [
        ("train", ["models.net.kind=bnn"], "it can be calibrated with a finished model, not tr"),
        ("evaluate", [], "it can be calibrated with a finished model, not trained on or evaluated"),
        ("calibrate", ["models.other.kind=bnn"], "name the folder of a finished model in calibr"),
        ("calibrate", ["calibrate.models={net: absent}"], "model.json: not found"),
    ],
)
def test_what_needs_truth_is_refused_without_it(data, capsys, job, words, message):
    study, _, _ = data
    assert main(["ingest", str(study)]) == 0
    assert main([job, str(study), *words]) == 2
    assert message in capsys.readouterr().err


def test_a_model_whose_features_the_dataset_lacks_is_refused(data, capsys):
    study, _, _ = data
    words = [
        f"output={study.parent / 'fewer'}",
        "dataset.features=[{name: e_raw, unit: GeV, transform: log10_standard}]",
    ]
    words += ["dataset.floors={}"]
    assert main(["ingest", str(study), *words]) == 0
    assert main(["calibrate", str(study), *words]) == 2
    assert "the model needs depth, width, angle, which the dataset lacks" in capsys.readouterr().err
