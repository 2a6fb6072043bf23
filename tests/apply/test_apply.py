"""A finished model applied to files of other people."""

import json
import os
import subprocess
import sys
from pathlib import Path

import awkward as ak
import bare_environment
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import uproot
from ingest_fixtures import wait_for
from toy_detector import DATASET, FAST, toy_columns, write_tree

from jobs.cli import main
from pipeline.apply.friend import COUNTER, FRIEND_TREE
from pipeline.apply.inputs import guess_layout
from pipeline.apply.rows import Reason
from pipeline.formats.calibrated_set import read_calibrated
from pipeline.formats.manifest import read_manifest, read_part
from pipeline.root.files import Access
from pipeline.root.layout import read_layout

ROOT = Path(__file__).parents[2]
PHYSLITE = ROOT.parent / "shared/data/atlas_physlite_40_events.root"
ROWS = 6_000
COUNTS = np.array([0, 3, 0, 1, 40])  # clusters of the first events; the others have ten each


@pytest.fixture(scope="module")
def toy(tmp_path_factory):
    """A toy study up to its calibrated set, and its clusters as vectors of events."""
    folder = tmp_path_factory.mktemp("apply")
    columns = toy_columns(ROWS)
    write_tree(folder / "flat.root", columns, tree="Hits")
    counts = np.concatenate([COUNTS, np.full((ROWS - COUNTS.sum()) // 10, 10)])
    counts = np.concatenate([counts, [ROWS - counts.sum(), 0]])
    vectors = {f"v_{name}": ak.unflatten(values, counts) for name, values in columns.items()}
    with uproot.recreate(folder / "events.root") as file:
        tree = file.mktree(
            "Events",
            {"hits": ak.type(ak.zip(vectors)).content},
            counter_name=lambda _: "n",
            field_name=lambda _, inner: inner,
        )
        tree.extend({"hits": ak.zip(vectors)})
    layout = {
        "tree": "Events",
        "rows": "vectors",
        "columns": {
            "e_raw": {"expression": "v_e_raw * 1000", "unit": "MeV", "required": True},
            **{name: {"expression": f"v_{name}"} for name in ("width", "angle")},
            "depth": {"expression": "v_depth / 10", "unit": "cm"},
        },
    }
    (folder / "events.yaml").write_text(json.dumps(layout))
    study = {
        "name": "toy",
        "output": "out",
        "dataset": {**DATASET, "inputs": ["flat.root"]},
        "models": {"net": FAST},
        "dask": {"workers": 1},
        "ray": {"address": "none"},
    }
    (folder / "study.json").write_text(json.dumps(study))
    for job in ("ingest", "train", "calibrate"):
        assert main([job, str(folder / "study.json")]) == 0
    return folder, columns, counts


def _apply(toy, *words):
    return main(["apply", str(toy[0] / "out/models/net"), *map(str, words), "dask.workers=1"])


def _friend(path):
    with uproot.open(path) as file:
        return file[FRIEND_TREE].arrays()


@pytest.fixture(scope="module")
def flat(toy):
    """The friend tree of the flat file."""
    output = toy[0] / "flat_out"
    assert _apply(toy, toy[0] / "flat.root", output, "layout={tree: Hits}") == 0
    return _friend(output / "flat.topocal.root")


def test_a_flat_tree_comes_back_entry_by_entry(toy, flat):
    _, columns, _ = toy
    assert len(flat) == ROWS
    np.testing.assert_array_equal(flat.e_raw, columns["e_raw"])
    good = flat.reason == int(Reason.CALIBRATED)
    np.testing.assert_array_equal(
        ak.to_numpy(good), (columns["width"] > 0.05) & (columns["width"] < 0.95)
    )
    assert set(ak.to_numpy(flat.reason)) == {Reason.CALIBRATED, Reason.CUT}
    assert ak.all(np.isnan(flat.e_cal[~good]))
    assert not ak.any(np.isnan(flat.e_cal[good]))
    np.testing.assert_allclose(flat.e_cal[good], (flat.e_raw / flat.scale)[good], rtol=1e-6)


def test_values_are_those_of_calibrate(toy):
    folder = toy[0]
    words = ["layout={tree: Hits}", "format=parquet", "columns=[energy, median, sigma_stat]"]
    assert _apply(toy, folder / "flat.root", folder / "parquet_out", *words) == 0
    (path,) = (folder / "parquet_out/flat").glob("*.parquet")
    table = pq.read_table(path).to_pandas().set_index("cluster_id")
    assert list(table.columns) == ["e_raw", "e_cal", "median", "sigma_stat"]
    assert len(table) == ROWS
    calibrated = read_calibrated(folder / "out/calibrated/net")
    answers = read_part(folder / "out/calibrated/net", calibrated.parts[0]).to_pandas()
    ours = table.loc[answers["cluster_id"]]
    for name in ("e_cal", "median", "sigma_stat"):
        np.testing.assert_allclose(ours[name], answers[name], rtol=1e-6)


def test_vectors_come_back_with_their_lengths(toy, flat):
    folder, columns, counts = toy
    words = [folder / "events.root", folder / "events_out", f"layout={folder / 'events.yaml'}"]
    assert _apply(toy, *words) == 0
    events = _friend(folder / "events_out/events.topocal.root")
    np.testing.assert_array_equal(ak.num(events.e_cal), counts)
    np.testing.assert_array_equal(events[COUNTER], counts)
    for name in ("e_cal", "sigma_tot", "reason", "outside"):
        np.testing.assert_allclose(
            ak.to_numpy(ak.flatten(events[name])), ak.to_numpy(flat[name]), rtol=2e-5
        )
    np.testing.assert_allclose(ak.flatten(events.e_raw), columns["e_raw"], rtol=1e-6)


def test_a_tree_without_clusters_comes_back_empty(toy, tmp_path):
    none = {name: values[:0] for name, values in toy[1].items()}
    path = write_tree(tmp_path / "none.root", none, tree="Hits")
    assert _apply(toy, path, tmp_path / "out", "layout={tree: Hits}") == 0
    assert len(_friend(tmp_path / "out/none.topocal.root")) == 0


def test_what_cannot_be_calibrated_says_why(toy, tmp_path):
    columns = {name: values[:8].copy() for name, values in toy[1].items()}
    columns["width"][:] = 0.5
    columns["e_raw"][0], columns["angle"][1] = np.nan, np.inf
    columns["e_raw"][2], columns["e_raw"][3] = -1.0, 0.0
    columns["width"][4], columns["depth"][5] = 0.99, -5.0  # depth has a floor
    columns["angle"][6] = 50.0
    del columns["e_true"]
    path = write_tree(tmp_path / "bad.root", columns, tree="Hits")
    assert _apply(toy, path, tmp_path / "out", "layout={tree: Hits}") == 0
    rows = _friend(tmp_path / "out/bad.topocal.root")
    assert rows.reason.tolist() == [1, 1, 2, 2, 3, 0, 0, 0]
    np.testing.assert_array_equal(np.isnan(rows.e_cal), rows.reason != 0)
    np.testing.assert_array_equal(rows.e_raw, columns["e_raw"])
    assert [rows.outside[n] for n in (0, 6, 7)] == [1, 8, 0]  # the bits of e_raw and angle
    assert rows.in_domain.tolist()[6:] == [False, True]
    manifest = json.loads((tmp_path / "out/manifest.json").read_text())
    assert manifest["inputs"][0]["reasons"] == {
        "calibrated": 3,
        "not_finite": 2,
        "not_positive": 2,
        "cut": 1,
    }
    assert manifest["inputs"][0]["outside"] == 1
    assert manifest["bits"] == ["e_raw", "depth", "width", "angle"]


def test_clusters_in_other_units_are_noticed(toy, tmp_path, capsys):
    columns = toy_columns(50)
    columns["e_raw"] *= 1000.0
    path = write_tree(tmp_path / "mev.root", columns, tree="Hits")
    assert _apply(toy, path, tmp_path / "out", "layout={tree: Hits}") == 0
    assert "are the units those of the input" in capsys.readouterr().err


def test_parquet_gives_parquet(toy, tmp_path):
    dataset = toy[0] / "out/dataset"
    assert _apply(toy, dataset / "split=test", tmp_path / "out") == 0
    (path,) = (tmp_path / "out/part-00000").glob("*.parquet")
    part = read_manifest(dataset).parts_of("test")[0]
    found, given = pq.read_table(path), read_part(dataset, part)
    assert found["cluster_id"].equals(given["cluster_id"])
    assert found["e_raw"].equals(given["e_raw"])


def _write_hits(path, blocks):
    """So many blocks of 65,536 clusters, of which one in sixteen can be calibrated."""
    pieces = [toy_columns(65_536, seed) for seed in range(blocks)]
    for piece in pieces:
        piece["e_raw"][np.arange(65_536) % 16 != 0] = -1
    if path.suffix == ".parquet":
        table = pa.concat_tables([pa.table(piece) for piece in pieces])
        pq.write_table(table, path, row_group_size=table.num_rows)
        return
    counts = np.full(4096, 16)
    with uproot.recreate(path) as file:
        vectors = [{n: ak.unflatten(v, counts) for n, v in piece.items()} for piece in pieces]
        tree = file.mktree(
            "Hits",
            {"hits": ak.type(ak.zip(vectors[0])).content},
            counter_name=lambda _: "n",
            field_name=lambda _, inner: inner,
        )
        for each in vectors:
            tree.extend({"hits": ak.zip(each)})


@pytest.mark.parametrize("suffix", [".root", ".parquet"])
def test_memory_does_not_grow_with_the_input(toy, tmp_path, suffix):
    peaks = []
    for blocks in (4, 32):
        _write_hits(tmp_path / f"{blocks}{suffix}", blocks)
        output = tmp_path / f"out-{blocks}"
        output.mkdir()
        words = ["-m", "apply_memory", toy[0] / "out/models/net", tmp_path / f"{blocks}{suffix}"]
        words = [sys.executable, *map(str, words), str(output)]
        place = {**os.environ, "PYTHONPATH": f"{ROOT}{os.pathsep}{ROOT / 'tests/support'}"}
        done = subprocess.run(words, env=place, capture_output=True, text=True, check=True)
        peaks.append(int(done.stdout))
    # held as a whole, the larger input would take 28 MiB more, its output 60 MiB
    assert peaks[1] - peaks[0] < 16


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["{0}/absent.root", "{1}", "layout={{tree: Hits}}"], "absent.root: no such file"),
        (["{0}/absent.root", "{1}"], "apply: {0}/absent.root: no such file"),
        (["{0}/flat.root", "{1}", "layout={{tree: Nope}}"], "no tree named Nope, it holds Hits"),
        (["{0}/flat.root", "{1}"], "no shipped layout fits (cluster_tree, event_tree, xaod)"),
        (["{0}/events.root", "{1}", "layout={{tree: Events}}"], "lacks the model's e_raw, depth"),
        (["{0}/flat.root", "{1}", "layout={{tree: Hits}}", "columns=[mass]"], "mass unknown; th"),
        (
            ["{0}/flat.root", "{1}", "colums=[energy]"],
            "colums: unknown key (did you mean columns?)",
        ),
        (["{0}/flat.root", "{0}/events.root"], "events.root: a file, which would be lost"),
        (["{0}/flat.root", "{0}"], "models/net, which would be lost; name a folder of its own"),
        (["{0}/out/dataset/split=test", "{0}/out/dataset/split=test"], "part-00000.parquet, which"),
        (["{0}/flat.root", "{0}/out/dataset"], "holds the output of another job, which would be"),
        (["{0}/flat.root"], "usage: topocal apply MODEL INPUT"),
    ],
)
def test_bad_input_gets_one_sentence(toy, tmp_path, capsys, words, message):
    assert _apply(toy, *(word.format(toy[0], tmp_path / "out") for word in words)) == 2
    assert message.replace("{0}", str(toy[0])) in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_the_answers_for_other_inputs_are_not_replaced(toy, tmp_path, capsys):
    words = [tmp_path / "out", "layout={tree: Hits}", "columns=[energy]"]
    flat = toy[0] / "flat.root"
    assert _apply(toy, flat, *words) == 0
    (tmp_path / "other.root").write_bytes(flat.read_bytes())
    assert _apply(toy, tmp_path / "other.root", *words) == 2
    assert f"holds the answers for {flat}, which would be lost" in capsys.readouterr().err
    assert (tmp_path / "out/flat.topocal.root").exists()
    assert _apply(toy, os.path.relpath(flat), *words) == 0


def test_it_needs_neither_torch_nor_ray(toy, flat, tmp_path):
    folder = toy[0]
    packages = bare_environment.make(tmp_path / "packages")
    words = [folder / "out/models/net", folder / "flat.root", tmp_path / "out"]
    words += ["layout={tree: Hits}", "dask.workers=1"]
    done = bare_environment.run(packages, "-m", "jobs.cli", "apply", *map(str, words))
    assert done.returncode == 0, done.stderr
    again = _friend(tmp_path / "out/flat.topocal.root")
    np.testing.assert_array_equal(ak.to_numpy(again.e_cal), ak.to_numpy(flat.e_cal))


@pytest.mark.skipif(not PHYSLITE.exists(), reason="the shared data are not beside the checkout")
def test_physlite_with_the_features_that_it_has(simulated_study, tmp_path, capsys):
    models, output = simulated_study / "models", str(tmp_path / "applied")
    assert main(["apply", str(models / "four"), str(PHYSLITE), output, "dask.workers=1"]) == 0
    rows = _friend(tmp_path / f"applied/{PHYSLITE.stem}.topocal.root")
    assert len(rows) == 40
    assert ak.sum(ak.num(rows.energy)) == 165
    assert ak.sum(rows.clusterE) == pytest.approx(1462.256, abs=1e-3)
    assert main(["apply", str(models / "full"), str(PHYSLITE), output, "dask.workers=1"]) == 2
    told = capsys.readouterr().err
    for name in ("cluster_SIGNIFICANCE", "cluster_PTD", "cluster_ENG_FRAC_EM", "cluster_time"):
        assert name in told
    assert "name their branches in layout=FILE.yaml, or take a model without them" in told


def test_of_several_trees_that_fit_one_is_taken_and_the_others_are_told(tmp_path, caplog):
    required = {n: np.ones(3, np.float32) for n in read_layout("cluster_tree").required}
    path = write_tree(tmp_path / "a.root", required)
    assert guess_layout(path, Access()) == "cluster_tree"
    assert not caplog.messages
    events = {e: np.ones(2, np.float32) for e in _branches(read_layout("event_tree"))}
    path = write_tree(tmp_path / "b.root", required, EventTree=events)
    assert guess_layout(path, Access()) == "cluster_tree"
    assert "b.root: fits the layouts cluster_tree, event_tree; cluster_tree is" in caplog.text


def _branches(layout):
    return [layout.expressions_of(name)[0] for name in layout.required]


def test_an_interrupted_run_leaves_the_earlier_output(toy, tmp_path):
    output = tmp_path / "out"
    words = ["-m", "jobs.apply", toy[0] / "out/models/net", toy[0] / "flat.root", output]
    words = [sys.executable, *map(str, words), "layout={tree: Hits}", "dask.workers=1"]
    with subprocess.Popen(words, cwd=ROOT, stderr=subprocess.PIPE, text=True) as process:
        wait_for((tmp_path / ".tmp-out").exists)
        process.terminate()
        told = process.communicate(timeout=60)[1]
    assert process.returncode == 75, told
    assert not list(tmp_path.glob("*out"))
