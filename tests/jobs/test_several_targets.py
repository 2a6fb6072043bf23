"""Several targets, each with its own transform and inverse: cards, sets and reports of each."""

import json
import shutil

import numpy as np
import onnxruntime
import pytest
from safetensors.numpy import load_file
from toy_package import calibrated_columns, kill_when, stop_when, topocal, write_study

from jobs.cli import main
from pipeline.formats.card import read_card
from pipeline.formats.manifest import columns_of, read_manifest, read_part

NETWORK = {
    "hidden": [16],
    "components": 1,
    "epochs": 16,
    "batch_rows": 256,
    "optimizer": {"learning_rate": 1e-2, "milestones": [12]},
}
JETS = {"numerator": "e_raw", "denominator": "e_true", "calibrated": "e_cal"}
MASSES = {"numerator": "m_raw", "denominator": "m_true", "calibrated": "m_cal"}
DEPTHS = {"numerator": "z_raw", "denominator": "z_true", "calibrated": "z_cal"}
STUDY = {
    "name": "jets",
    "output": "out",
    "simulate": {"simulator": "toy_jets", "num_clusters": 12_000, "clusters_per_file": 4_000},
    "dataset": {
        "layout": {"tree": "Jets"},
        "features": [
            {"name": "e_raw", "unit": "GeV", "transform": "log10_standard"},
            {"name": "m_raw", "unit": "GeV", "transform": "log10_standard"},
            {"name": "z_raw", "unit": "cm", "transform": "standard"},
            {"name": "angle", "transform": "standard"},
        ],
        "targets": [
            {"name": "e_response", **JETS},
            {"name": "m_response", "transform": "identity", **MASSES},
            {
                "name": "depth",
                "unit": "cm",
                "calibrated_unit": "cm",
                "transform": "identity",
                "inverse": "none",
                **DEPTHS,
            },
        ],
        "extras": [],
        "rows_per_part": 4_000,
    },
    "models": {
        "mdn": {
            "kind": "mixture_density",
            "targets": ["e_response", "m_response"],
            **NETWORK,
        },
        "bnn": {"kind": "bnn", "targets": ["m_response", "depth"], "samples": 3, **NETWORK},
        "re": {"kind": "repulsive_ensemble", "targets": ["depth"], "members": 2, **NETWORK},
    },
    "report": {"title": "Toy jets"},
    "ray": {"address": "none"},
}
SETS = {
    "e_response": ("mdn", "oracle"),
    "m_response": ("mdn", "bnn", "oracle"),
    "depth": ("bnn", "re", "oracle"),
}


@pytest.fixture(scope="module")
def study(toy_package, tmp_path_factory):
    folder = tmp_path_factory.mktemp("jets")
    done = topocal(toy_package, "run", write_study(folder, STUDY), "dask.workers=1")
    assert done.returncode == 0, done.stderr
    return folder


def test_each_target_is_learned_as_well_as_alone(study):
    for target, names in SETS.items():
        summary = json.loads((study / "out/metrics" / target / "summary.json").read_text())
        for name in names[:-1]:
            assert summary[f"{name}.nll_excess"] < 0.06, (target, name)
        assert summary["oracle.coverage68"] == pytest.approx(0.68, abs=0.03)
        assert summary["oracle.pit_ks"] < 0.03
    # the exact score of a Gaussian in the space of its target
    for target, width in (("e_response", 0.05), ("m_response", 0.12), ("depth", 0.4)):
        summary = json.loads((study / "out/metrics" / target / "summary.json").read_text())
        entropy = np.log(width) + 0.5 * np.log(2 * np.pi * np.e)
        assert summary["oracle.nll"] == pytest.approx(entropy, abs=0.04)


def test_calibrated_values_follow_from_each_targets_inverse(study):
    manifest = read_manifest(study / "out/dataset")
    parts = manifest.parts_of("test")
    tables = [columns_of(read_part(study / "out/dataset", part)) for part in parts]
    rows = {name: np.concatenate([table[name] for table in tables]) for name in tables[0]}
    energy, mass, depth = (
        calibrated_columns(study / "out/calibrated" / target / "oracle") for target in SETS
    )
    angle = rows["angle"].astype(np.float64)
    np.testing.assert_allclose(energy["median"], 10 ** (0.1 * angle), rtol=1e-5)
    np.testing.assert_allclose(energy["e_cal"], rows["e_raw"] / energy["e_response"], rtol=1e-6)
    np.testing.assert_allclose(mass["m_response"], 1.0 + 0.2 * angle, rtol=1e-5)
    np.testing.assert_allclose(mass["m_cal"], rows["m_raw"] / mass["m_response"], rtol=1e-6)
    np.testing.assert_allclose(mass["sigma_tot"], 0.12, rtol=1e-3)
    np.testing.assert_array_equal(depth["z_cal"], depth["depth"])
    np.testing.assert_allclose(depth["median"], rows["z_raw"] - angle, atol=1e-4)
    assert (depth["median"] < 0).any()
    assert "sigma_tot_log10" in energy
    assert not any("log10" in name for name in (*mass, *depth))


@pytest.mark.parametrize(("model", "target"), [("mdn", "m_response"), ("bnn", "depth")])
def test_the_file_of_a_target_gives_what_calibrate_gives(study, model, target):
    folder = study / "out/models" / model / target
    card = read_card(folder)
    assert [each.name for each in card.targets] == [target]
    whole = read_card(folder.parent)
    assert target in {each.name for each in whole.targets}
    assert whole.missing_from(folder.parent) == card.missing_from(folder) == []
    (part, *_) = read_manifest(study / "out/dataset").parts_of("test")
    rows = columns_of(read_part(study / "out/dataset", part))
    features = np.stack([rows[feature.name] for feature in card.inputs], axis=1)
    session = onnxruntime.InferenceSession(folder / "model.onnx")
    names = ["mean", "sigma_syst", "sigma_stat", "central"]
    found = dict(zip(names, session.run(names, {"features": features}), strict=True))
    columns = calibrated_columns(study / "out/calibrated" / target / model)
    columns["central"] = columns[target]
    for name in names:
        expected = columns[name][: len(features)]
        np.testing.assert_allclose(found[name], expected, rtol=2e-3, atol=2e-4, err_msg=name)


def test_one_page_leads_to_the_report_of_each_target(study):
    page = (study / "out/report/index.html").read_text()
    for target in SETS:
        assert f'href="{target}/index.html"' in page
        assert target in (study / "out/report" / target / "index.html").read_text()
    assert "z_cal = predicted depth" in (study / "out/report/depth/index.html").read_text()
    assert "log10 of" not in (study / "out/report/depth/index.html").read_text()


def test_two_workers_write_the_same(toy_package, study, tmp_path):
    shutil.copytree(study, tmp_path, dirs_exist_ok=True)
    shutil.rmtree(tmp_path / "out/calibrated")
    done = topocal(toy_package, "calibrate", tmp_path / "study.json", "dask.workers=2")
    assert done.returncode == 0, done.stderr
    for target, names in SETS.items():
        for name in names:
            one, two = (
                calibrated_columns(folder / "out/calibrated" / target / name)
                for folder in (study, tmp_path)
            )
            for key, values in one.items():
                np.testing.assert_array_equal(two[key], values, err_msg=f"{target} {name} {key}")


def test_killed_jobs_go_on_to_the_same_bits(toy_package, study, tmp_path):
    """Training is stopped and then killed between epochs, calibrate between sets."""
    content = STUDY | {"models": {"mdn": STUDY["models"]["mdn"]}}
    path, out = write_study(tmp_path, content), tmp_path / "out"
    shutil.copytree(study / "out/dataset", out / "dataset")
    shutil.copytree(study / "out/simulated", out / "simulated")

    def has_epochs(number):
        history = out / "models/mdn/history.jsonl"
        return lambda: history.exists() and len(history.read_text().splitlines()) >= number

    assert stop_when(toy_package, has_epochs(3), "train", path) == 75
    kill_when(toy_package, has_epochs(6), "train", path)
    done = topocal(toy_package, "train", path)
    assert done.returncode == 0, done.stderr
    weights = "models/mdn/weights.safetensors"
    expected, found = (load_file(folder / weights) for folder in (study / "out", out))
    assert found.keys() == expected.keys()
    for name, values in expected.items():
        np.testing.assert_array_equal(found[name], values, err_msg=name)
    first = out / "calibrated/e_response/mdn/manifest.json"
    kill_when(toy_package, first.exists, "calibrate", path, "dask.workers=1")
    done = topocal(toy_package, "calibrate", path, "dask.workers=1")
    assert done.returncode == 0, done.stderr
    assert "calibrate/e_response/mdn: kept" in done.stderr
    for target in ("e_response", "m_response"):
        one, two = (
            calibrated_columns(folder / "calibrated" / target / "mdn")
            for folder in (study / "out", out)
        )
        np.testing.assert_array_equal(two[target], one[target])


def with_models(**models):
    return {name: value for name, value in STUDY.items() if name != "simulate"} | {"models": models}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (
            with_models(net={"kind": "mixture_density", **NETWORK}),
            "the dataset has the targets e_response, m_response, depth, and one is needed",
        ),
        (
            with_models(net={"kind": "mixture_density", "targets": ["width"], **NETWORK}),
            "targets: width not in the dataset, which has e_response, m_response, depth",
        ),
        (
            with_models(net={"kind": "dnn", "targets": ["e_response", "depth"]}),
            "models.net: targets: kind dnn predicts one",
        ),
        (
            with_models(net={"kind": "dnn", "targets": ["depth"]}),
            "kind dnn predicts log10 of a ratio, and depth has transform identity",
        ),
    ],
)
def test_what_cannot_be_predicted_is_refused(study, tmp_path, capsys, content, message):
    (tmp_path / "out").mkdir()
    (tmp_path / "out/dataset").symlink_to(study / "out/dataset")
    assert main(["train", str(write_study(tmp_path, content))]) == 2
    assert message in capsys.readouterr().err


def test_apply_takes_the_folder_of_one_target(toy_package, study, tmp_path):
    (source, *_) = sorted((study / "out/simulated").glob("*.root"))
    layout = tmp_path / "layout.yaml"
    layout.write_text("tree: Jets\n")
    words = (source, tmp_path / "applied", f"layout={layout}", "format=parquet", "dask.workers=1")
    done = topocal(toy_package, "apply", study / "out/models/mdn", *words)
    assert done.returncode == 2
    assert "predicts e_response, m_response; name the folder of one of them" in done.stderr
    done = topocal(toy_package, "apply", study / "out/models/mdn/m_response", *words)
    assert done.returncode == 0, done.stderr
