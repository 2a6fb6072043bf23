"""Layouts: the same clusters out of every kind of file."""

import json
from contextlib import nullcontext
from pathlib import Path

import awkward as ak
import numpy as np
import pytest
import uproot
import yaml
from ingest_fixtures import make
from toy_detector import DATASET, toy_columns

from jobs import ingest, simulate
from jobs.launch import Run
from jobs.study import load_study
from pipeline.formats.errors import UserError
from pipeline.formats.manifest import read_manifest, read_part
from pipeline.ingest.plan import wanted_columns
from pipeline.root import inspect
from pipeline.root.expressions import branches_of, em_fraction
from pipeline.root.files import Access
from pipeline.root.inspect import MARK_ROWS, Wanted, inspect_file
from pipeline.root.layout import Layout, read_layout, unit_factor
from pipeline.root.read import concatenate, read_rows
from pipeline.samples.topo_clusters import TOPO_CLUSTER_FEATURES

ROOT = Path(__file__).parents[2]
PHYSLITE = ROOT.parent / "shared" / "data" / "atlas_physlite_40_events.root"


@pytest.mark.usefixtures("shared_farm")
def test_simulated_clusters_give_the_same_parts_from_either_tree(tmp_path, client, monkeypatch):
    monkeypatch.setattr(simulate, "open_farm", lambda _: nullcontext(client))
    parts = {}
    for layout in ("cluster_tree", "event_tree"):
        path = tmp_path / f"{layout}.json"
        sections = {
            "name": layout,
            "output": layout,
            "simulate": {"num_clusters": 5000, "clusters_per_file": 2000},
            "dataset": {"layout": layout, "rows_per_part": 3000, "split": {"unit": "event"}},
        }
        path.write_text(json.dumps(sections))
        study = load_study([str(path)], [])
        simulate.main(study, Run())
        ingest.main(study, Run())
        manifest = read_manifest(ingest.dataset_folder(study))
        parts[layout] = manifest.parts, manifest.statistics, manifest.cut_flow
    assert parts["cluster_tree"] == parts["event_tree"]
    assert len(parts["cluster_tree"][0]) > 3


@pytest.mark.skipif(not PHYSLITE.exists(), reason=f"{PHYSLITE.name} is not at hand")
@pytest.mark.usefixtures("shared_farm")
def test_clusters_of_real_data(tmp_path):
    words = [f"dataset.inputs=[{PHYSLITE}]", f"output={tmp_path}/out"]
    study = load_study([str(ROOT / "configs/physlite.yaml")], words)
    ingest.main(study, Run())
    folder = ingest.dataset_folder(study)
    manifest = read_manifest(folder)
    assert manifest.inputs[0].rows == manifest.cut_flow[0].before == 165
    assert {part.split for part in manifest.parts} == {"test"}
    source = inspect_file(
        str(PHYSLITE), study.dataset.layout, wanted_columns(study.dataset), Access()
    )
    rows = concatenate(list(read_rows(source, study.dataset.layout, 0, 165, Access())))
    assert rows.columns["clusterE"].sum() == pytest.approx(1462.256, abs=1e-3)
    (part,) = manifest.parts
    energies = read_part(folder, part)["clusterE"].to_numpy()
    assert np.isin(energies, rows.columns["clusterE"].astype(np.float32)).all()


@pytest.mark.skipif(not PHYSLITE.exists(), reason=f"{PHYSLITE.name} is not at hand")
def test_all_that_real_data_lacks_is_named_together():
    layout = read_layout("xaod")
    wanted = Wanted({f.name: "features" for f in TOPO_CLUSTER_FEATURES}, (), {})
    with pytest.raises(UserError) as caught:
        inspect_file(str(PHYSLITE), layout, wanted, Access())
    told = str(caught.value)
    assert told.count(str(PHYSLITE)) == 1
    for name in ("SIGNIFICANCE", "SECOND_TIME", "CENTER_LAMBDA", "LATERAL", "ISOLATION"):
        assert f"cluster_{name} (CaloCalTopoClustersAuxDyn.{name})" in told
    assert "clusterE " not in told
    assert "avgMu" not in told


def test_em_fraction_equals_a_loop_that_states_it():
    # cluster by cluster: the samplings touched (EMB1-3 1-3, EME1-3 5-7, FCAL0 21) and energies
    events = [
        [({1: 2.0, 2: 1.0, 12: 1.0}), ({0: 5.0, 21: 3.0, 22: 2.0})],
        [],
        [({3: -1.0, 13: 4.0}), ({2: -1.0, 12: -2.0}), ({5: 1.0, 6: 1.0, 7: 2.0})],
    ]
    energies = ak.Array([[[c[s] for s in sorted(c)] for c in event] for event in events])
    pattern = ak.Array([[sum(1 << s for s in c) for c in event] for event in events])
    em = {1, 2, 3, 5, 6, 7, 21}
    expected = []
    for cluster in (c for event in events for c in event):
        positive = {s: max(e, 0.0) for s, e in cluster.items()}
        total = sum(positive.values())
        share = sum(e for s, e in positive.items() if s in em)
        expected.append(share / total if total else np.nan)
    found = em_fraction(energies, pattern)
    assert ak.num(found).tolist() == [2, 0, 3]
    np.testing.assert_allclose(ak.flatten(found), expected, rtol=1e-6)
    with pytest.raises(UserError, match="differ in their number of layers"):
        em_fraction(energies, pattern + 1)


@pytest.mark.parametrize(
    ("given", "wanted", "factor"),
    [
        ("MeV", "GeV", 1e-3),
        ("MeV/mm^3", "GeV/mm^3", 1e-3),
        ("GeV", "GeV", 1.0),
        ("s", "ns", 1e9),
        ("cm", "mm", 10.0),
        ("ns^2", "ps^2", 1e6),
    ],
)
def test_units_are_converted_exactly(given, wanted, factor):
    assert unit_factor(given, wanted) == factor


@pytest.mark.parametrize(("given", "wanted"), [("mm", "GeV"), ("furz", "GeV"), ("GeV", "1")])
def test_units_that_cannot_be_converted_are_told(given, wanted):
    with pytest.raises(UserError, match=f"unit '{given}' cannot be converted to '{wanted}'"):
        unit_factor(given, wanted)


OWN = {
    "tree": "Jets",
    "rows": "vectors",
    "columns": {
        "e_raw": {"expression": ["raw_e", "jet_e"], "unit": "MeV", "role": "feature"},
        "e_true": {"expression": "jet_true / 2", "unit": "GeV", "role": "truth"},
        "depth": {"expression": "jet_depth", "unit": "cm"},
        "width": {"expression": "jet_width"},
        "angle": {"expression": "sum(jet_parts)", "level": "cluster"},
        "pileup": {"expression": "mu", "level": "event"},
    },
}


def _write(path, kind, columns, tree="Hits"):
    """The columns, vectors or numbers, as an old tree (TTree) or a new one (RNTuple)."""
    with uproot.recreate(path) as file:
        if kind == "RNTuple":
            file.mkrntuple(tree, columns)
        else:
            file.mktree(tree, {name: _type_of(values) for name, values in columns.items()})
            file[tree].extend(columns)
    with uproot.open(path) as file:
        assert kind in file.classnames(cycle=False)[tree]


def _type_of(values):
    return values.dtype if isinstance(values, np.ndarray) else ak.type(values).content


def _write_own(path, kind="TTree", **changes):
    counts = [2, 0, 3, 1]
    n = sum(counts)
    columns = toy_columns(n)
    flat = {
        "jet_e": columns["e_raw"].astype(np.float64) * 1000,
        "jet_true": columns["e_true"] * 2,
        "jet_depth": columns["depth"] / 10,
        "jet_width": columns["width"],
    }
    vectors = {name: ak.unflatten(values, counts) for name, values in flat.items()}
    vectors |= {"mu": np.array([10.0, 20.0, 30.0, 40.0]), **changes}
    _write(path, kind, vectors, tree="Jets")
    return columns, np.repeat([10.0, 20.0, 30.0, 40.0], counts)


@pytest.mark.usefixtures("shared_farm")
@pytest.mark.parametrize("kind", ["TTree", "RNTuple"])
def test_a_layout_of_your_own_is_named_by_its_file(tmp_path, kind):
    layout = {**OWN, "columns": {n: c for n, c in OWN["columns"].items() if n != "angle"}}
    (tmp_path / "own.yaml").write_text(yaml.safe_dump(layout))
    columns, pileup = _write_own(tmp_path / "a.root", kind)
    features = [
        *DATASET["features"][:3],
        {"name": "pileup", "transform": "standard"},
    ]
    changes = {"layout": "own.yaml", "features": features, "cuts": None, "floors": {}}
    changes["cuts"] = [{"column": n, "above": 0} for n in ("e_true", "e_raw", "depth")]
    folder = make(tmp_path, "out", [str(tmp_path / "a.root")], **changes)
    tables = [read_part(folder, part).to_pandas() for part in read_manifest(folder).parts]
    assert sum(map(len, tables)) == 6
    by_width = {np.float32(w): i for i, w in enumerate(columns["width"])}
    for table in tables:
        order = [by_width[np.float32(w)] for w in table["width"]]
        for name in ("e_raw", "e_true", "depth"):
            np.testing.assert_allclose(table[name], columns[name][order], rtol=1e-6)
        np.testing.assert_array_equal(table["pileup"], pileup[order])


def _source(path, *names, layout):
    return inspect_file(
        str(path), layout, Wanted(dict.fromkeys(names, "features"), (), {}), Access()
    )


def test_vectors_of_different_length_are_refused(tmp_path):
    path = tmp_path / "a.root"
    _write_own(path, jet_width=ak.unflatten(np.zeros(6, np.float32), [2, 1, 2, 1]))
    layout = Layout.model_validate(OWN)
    source = _source(path, "e_raw", "width", layout=layout)
    with pytest.raises(UserError, match=r"a\.root: vectors of width and e_raw differ in length"):
        list(read_rows(source, layout, 0, 6, Access()))


def test_a_number_an_event_where_vectors_are_expected_is_explained(tmp_path):
    _write_own(tmp_path / "a.root")
    columns = {**OWN["columns"], "pileup": {"expression": "mu"}}
    layout = Layout.model_validate({**OWN, "columns": columns})
    source = _source(tmp_path / "a.root", "e_raw", "pileup", layout=layout)
    message = r"column pileup is one number an event; give it `level: event` in the layout"
    with pytest.raises(UserError, match=message):
        list(read_rows(source, layout, 0, 6, Access()))


def test_a_key_that_is_there_twice_is_refused(tmp_path):
    path = tmp_path / "own.yaml"
    path.write_text("tree: T\ncolumns:\n  a: {branch: b}\n  a: {branch: c}\n", encoding="utf-8")
    with pytest.raises(UserError, match=r"own\.yaml: .*the key a is there twice .*line 4"):
        read_layout(str(path))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({**OWN, "row": "vectors"}, "own.yaml: no layout: row: Extra inputs are not permitted"),
        ({"columns": {}}, "own.yaml: no layout: tree: Field required"),
        ({"tree": "T", "columns": {"a": {"units": "mm"}}}, "columns.a.units: Extra inputs"),
        ({"tree": "T", "rows": "lines"}, "rows: Input should be 'entries' or 'vectors'"),
        ([1], "own.yaml: no layout: file: "),
    ],
)
def test_a_wrong_key_of_a_layout_gets_one_sentence(tmp_path, content, message):
    (tmp_path / "own.yaml").write_text(yaml.safe_dump(content))
    (tmp_path / "study.yaml").write_text("{name: a, output: o, dataset: {layout: own.yaml}}")
    with pytest.raises(UserError) as caught:
        load_study([str(tmp_path / "study.yaml")], [])
    assert message in str(caught.value)
    assert len(str(caught.value).splitlines()) == 1


def test_an_unknown_layout_names_those_that_are_shipped(tmp_path):
    (tmp_path / "study.yaml").write_text("{name: a, output: o, dataset: {layout: eventtree}}")
    with pytest.raises(UserError, match=r"shipped are cluster_tree, event_tree, xaod, your own is"):
        load_study([str(tmp_path / "study.yaml")], [])


def test_an_expression_that_is_none_is_told():
    with pytest.raises(UserError, match=r"'jet_e \*' is no uproot expression"):
        branches_of("jet_e *", {"jet_e"})
    assert branches_of("jet_e / other", {"jet_e"}) is None


@pytest.mark.parametrize("kind", ["TTree", "RNTuple"])
@pytest.mark.parametrize("step", [1000, 65_536])
def test_blocks_that_begin_in_the_middle_of_an_event(tmp_path, monkeypatch, step, kind):
    """Vectors equal the flat tree, wherever the 65,536th clusters fall and whatever is counted."""
    monkeypatch.setattr(inspect, "COUNT_ENTRIES", step)
    rng = np.random.default_rng(step)
    counts = rng.choice([0, 0, 1, 3, 40], 16_000)
    ends = np.cumsum(counts)
    at = int(np.searchsorted(ends, MARK_ROWS, side="right"))
    counts[at - 1 : at + 1] = [MARK_ROWS - ends[at - 2], 5]  # an event that begins with a block
    rows = int(counts.sum())
    columns = {"e": rng.normal(size=rows), "entry": np.repeat(np.arange(16_000), counts)}
    assert rows > 2 * MARK_ROWS
    vectors = {name: ak.unflatten(values, counts) for name, values in columns.items()}
    _write(tmp_path / "v.root", kind, vectors)
    flat, vectors = Layout(tree="Hits"), Layout(tree="Hits", rows="vectors")
    _write(tmp_path / "f.root", kind, columns)
    one = _source(tmp_path / "f.root", "e", layout=flat)
    two = _source(tmp_path / "v.root", "e", layout=vectors)
    assert one.file.rows == two.file.rows == rows
    starts = np.cumsum(counts) - counts
    for start in range(0, rows, MARK_ROWS):
        for stop in {min(start + MARK_ROWS, rows), rows}:
            here = concatenate(list(read_rows(one, flat, start, stop, Access())))
            there = concatenate(list(read_rows(two, vectors, start, stop, Access(read_rows=9999))))
            np.testing.assert_array_equal(there.columns["e"], here.columns["e"])
            np.testing.assert_array_equal(there.entry, columns["entry"][start:stop])
            places = np.arange(start, stop) - starts[there.entry]
            np.testing.assert_array_equal(there.index, places)
