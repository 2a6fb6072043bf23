"""Which split a cluster is in: for ever the same, and by event where that is asked for."""

from itertools import combinations

import awkward as ak
import numpy as np
import pytest
import uproot
from ingest_fixtures import make
from toy_detector import toy_columns, write_tree

from pipeline.formats.errors import UserError
from pipeline.formats.manifest import SPLITS, read_manifest, read_part

pytestmark = pytest.mark.usefixtures("shared_farm")
FRACTIONS = {"train": 0.5, "validation": 0.2, "test": 0.3}
NAMED = {
    "run": {"level": "event", "role": "identity"},
    "event": {"level": "event", "role": "identity"},
    "number": {"role": "identity"},
}
FLAT = {"tree": "Hits", "columns": NAMED}
VECTORS = {"tree": "Hits", "rows": "vectors", "columns": {n: NAMED[n] for n in ("run", "event")}}
EXTRAS = ["event"]


def _events(rows, seed):
    """Toy clusters with the event that each belongs to and its place in it."""
    events = np.sort(np.random.default_rng(seed).integers(0, rows // 4, rows))
    starts = np.searchsorted(events, events)
    return toy_columns(rows, seed) | {
        "run": np.full(rows, 100 + seed, np.int32),
        "event": events.astype(np.int64),
        "number": (np.arange(rows) - starts).astype(np.int32),
    }


def _write_vectors(path, columns):
    counts = np.unique(columns["event"], return_counts=True)[1]
    first = np.cumsum(counts) - counts
    vectors = {n: ak.unflatten(v, counts) for n, v in columns.items() if n not in NAMED}
    with uproot.recreate(path) as file:
        file["Hits"] = {
            **vectors,
            "run": columns["run"][first],
            "event": columns["event"][first],
        }
    return str(path)


def _splits(folder, *names):
    """The split of each cluster, by its values in these columns."""
    found = {}
    for part in read_manifest(folder).parts:
        rows = read_part(folder, part).to_pydict()
        for values in zip(*(rows[name] for name in names), strict=True):
            found.setdefault(values, set()).add(part.split)
    return found


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """Two files with identity columns and one without."""
    folder = tmp_path_factory.mktemp("files")
    columns = [_events(3000, 1), _events(2000, 2), toy_columns(1000, 3)]
    return [
        write_tree(folder / f"{number}.root", content, tree="Hits")
        for number, content in enumerate(columns)
    ]


@pytest.mark.parametrize("first", [(0,), (0, 1), (2,), (1, 2)])
def test_other_files_and_another_order_move_no_cluster(tmp_path, files, first):
    names = ("cluster_id", "e_raw", "depth")
    before = _splits(make(tmp_path, "a", [files[n] for n in first], layout=FLAT), *names)
    after = _splits(make(tmp_path, "b", [files[n] for n in (2, 1, 0)], layout=FLAT), *names)
    assert before.items() <= after.items()
    assert len(after) > len(before) > 900


def test_a_file_that_was_written_again_keeps_its_splits_where_columns_name_the_cluster(tmp_path):
    columns = _events(3000, 1)
    order = np.random.default_rng(0).permutation(3000)
    first = write_tree(tmp_path / "a.root", columns, tree="Hits")
    again = write_tree(tmp_path / "b.root", {n: v[order] for n, v in columns.items()}, tree="Hits")
    found = [
        _splits(make(tmp_path, name, [path], layout=FLAT), "cluster_id", "e_raw")
        for name, path in (("x", first), ("y", again))
    ]
    assert found[0] == found[1]


@pytest.mark.parametrize("kind", ["flat", "vectors"])
def test_an_event_stays_together(tmp_path, kind):
    columns = _events(6000, 4)
    if kind == "flat":  # in any order
        order = np.random.default_rng(0).permutation(6000)
        shuffled = {name: values[order] for name, values in columns.items()}
        path, layout = write_tree(tmp_path / "a.root", shuffled, tree="Hits"), FLAT
    else:
        path, layout = _write_vectors(tmp_path / "a.root", columns), VECTORS
    changes = {"layout": layout, "extras": EXTRAS}
    by_cluster = _splits(make(tmp_path, "c", [path], **changes), "event")
    by_event = _splits(
        make(tmp_path, "e", [path], split={**FRACTIONS, "unit": "event"}, **changes), "event"
    )
    assert max(map(len, by_cluster.values())) > 1
    assert {len(splits) for splits in by_event.values()} == {1}
    for split in SPLITS:
        share = sum(split in splits for splits in by_event.values()) / len(by_event)
        assert share == pytest.approx(FRACTIONS[split], abs=0.05)


def test_flat_and_vector_trees_of_the_same_events_have_the_same_splits(tmp_path):
    columns = _events(2000, 5)
    flat = write_tree(tmp_path / "a.root", columns, tree="Hits")
    vectors = _write_vectors(tmp_path / "b.root", columns)
    split = {**FRACTIONS, "unit": "event"}
    one = make(tmp_path, "a", [flat], layout=FLAT, split=split)
    two = make(tmp_path, "b", [vectors], layout=VECTORS, split=split)
    assert _splits(one, "cluster_id", "e_raw") == _splits(two, "cluster_id", "e_raw")


def test_without_columns_that_name_the_event_it_cannot_stay_together(tmp_path, files):
    message = (
        r"2\.root: dataset\.split\.unit is event, but no column names the event of a cluster; give "
        r"the layout columns of role identity and level event"
    )
    split = {**FRACTIONS, "unit": "event"}
    with pytest.raises(UserError, match=message):
        make(tmp_path, "out", files, layout=FLAT, split=split)
    folder = make(tmp_path, "out", files, layout=FLAT, split=split, on_error="skip")
    assert [gap.path for gap in read_manifest(folder).missing] == [files[2]]


def test_vectors_keep_an_event_together_even_if_nothing_names_it(tmp_path):
    columns = _events(3000, 6)
    path = _write_vectors(tmp_path / "a.root", columns)
    event = {"event": {"level": "event"}}  # a column like any other
    layout = {**VECTORS, "columns": event}
    split = {**FRACTIONS, "unit": "event"}
    folder = make(tmp_path, "out", [path], layout=layout, split=split, extras=EXTRAS)
    found = _splits(folder, "event")
    assert {len(splits) for splits in found.values()} == {1}
    assert all(any(s in splits for splits in found.values()) for s in SPLITS)
    ids = [read_part(folder, part)["cluster_id"].to_numpy() for part in read_manifest(folder).parts]
    assert not any(np.isin(a, b).any() for a, b in combinations(ids, 2))
