"""Calibrated data from elsewhere: any order, any cut into files, joined by cluster_id."""

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import uproot
from evaluation_fixtures import TOPO, make_calibrated, make_manifest, make_table, take
from pydantic import ValidationError

from jobs import evaluate
from jobs.evaluate import AlignedPart, ExternalPart, evaluate_parts
from pipeline.evaluation import external
from pipeline.evaluation.evaluation import Evaluation
from pipeline.evaluation.plan import check_names, needed_columns, plan_evaluation
from pipeline.evaluation.settings import EvaluateSettings, ExternalSet
from pipeline.evaluation.summary import summarise
from pipeline.evaluation.tables.make import make_tables
from pipeline.formats.errors import UserError
from pipeline.parquet import write_part

ROWS = 6_000
COLUMNS = {"energy": "E_calibrated", "sigma_tot": "uncertainty"}


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    """A folder with three parts, their list, the table and somebody's calibration of it."""
    folder = tmp_path_factory.mktemp("dataset")
    table = make_table(ROWS)
    cuts = [slice(0, 1_000), slice(1_000, 1_001), slice(1_001, ROWS)]
    parts = [
        write_part(folder, "test", i, pa.table(dict(take(table, cut))))
        for i, cut in enumerate(cuts)
    ]
    return folder, parts, table, make_calibrated(table, shift=0.01, stretch=1.1)


def foreign(dataset, rows):
    """Columns of these rows under other names."""
    _, _, table, made = dataset
    return {
        "cluster_id": table["cluster_id"][rows],
        "E_calibrated": made["energy"][rows],
        "uncertainty": made["sigma_tot"][rows],
    }


def write(path, columns):
    if path.suffix == ".root":
        with uproot.recreate(path) as file:
            file["clusters"] = columns
    else:
        pq.write_table(pa.table(columns), path, row_group_size=700)


def join(dataset, given, folder):
    chunks = external.chunks_of("theirs", given, folder)
    staged = [external.stage_chunk(chunk, dataset[0], dataset[1]) for chunk in chunks]
    return chunks, staged


@pytest.fixture
def small_row_groups(monkeypatch):
    """Parts of several row groups for the evaluation."""
    monkeypatch.setattr(evaluate, "ROW_GROUP", 900)


@pytest.mark.usefixtures("small_row_groups")
@pytest.mark.parametrize("suffix", [".parquet", ".root"])
def test_the_figures_are_those_of_the_same_rows_in_place(dataset, tmp_path, monkeypatch, suffix):
    monkeypatch.setattr(external, "CHUNK_ROWS", 2_000)
    folder, parts, table, made = dataset
    order = np.random.default_rng(1).permutation(ROWS)
    absent, kept = order[:100], order[100:]
    for i, rows in enumerate(np.array_split(kept, 2)):
        columns = foreign(dataset, rows)
        strange = {name: values[:50] for name, values in columns.items()}
        strange["cluster_id"] = np.arange(50, dtype=np.uint64) + i * 50  # in no dataset
        columns = {name: np.concatenate([columns[name], strange[name]]) for name in columns}
        write(tmp_path / f"part{i}{suffix}", columns)
    given = ExternalSet(files=(f"{tmp_path}/*{suffix}",), columns=COLUMNS, tree="clusters")
    chunks, staged = join(dataset, given, tmp_path / "staged")
    assert len(chunks) > 2
    assert sum(each.found for each in staged) == len(kept)
    assert sum(each.rows for each in staged) == len(kept) + 100
    manifest = make_manifest(table)
    settings = EvaluateSettings(baseline=None)
    plan, needed = plan_evaluation(settings, manifest), needed_columns(settings, manifest)
    theirs = ExternalPart(given, tuple(chunk.folder for chunk in chunks))
    aligned = [AlignedPart(folder, part, {}, i, {"theirs": theirs}) for i, part in enumerate(parts)]
    found = evaluate_parts(aligned, plan=plan, needed=needed, baseline=None)
    known = np.ones(ROWS, bool)
    known[absent] = False
    whole = {"energy": np.where(known, made["energy"], np.nan).astype(np.float64)}
    whole["sigma_tot"] = np.where(known, made["sigma_tot"], np.nan).astype(np.float64)
    whole["response"] = table["clusterE"] / whole["energy"]
    expected = Evaluation.of(table, {"theirs": whole}, plan)
    assert summarise(found) == pytest.approx(summarise(expected), rel=1e-9)
    (line,) = make_tables(found)["sets"].to_pylist()
    assert (line["rows"], line["rows_missing"], line["scored_by"]) == (ROWS - 100, 100, "point")
    for key, histogram in expected.dense.items():
        np.testing.assert_array_equal(histogram.counts, found.dense[key].counts)


def test_the_same_cluster_twice_is_refused(dataset, tmp_path):
    write(tmp_path / "twice.parquet", foreign(dataset, np.array([5, 7, 5])))
    given = ExternalSet(files=(f"{tmp_path}/twice.parquet",), columns=COLUMNS)
    with pytest.raises(UserError, match=r"external.theirs: 1 clusters .* more than once"):
        join(dataset, given, tmp_path / "staged")
    for name in ("one", "two"):
        write(tmp_path / f"{name}.parquet", foreign(dataset, np.array([5, 8])))
    given = ExternalSet(
        files=(f"{tmp_path}/one.parquet", f"{tmp_path}/two.parquet"), columns=COLUMNS
    )
    chunks, _ = join(dataset, given, tmp_path / "again")
    folders = [chunk.folder for chunk in chunks]
    with pytest.raises(UserError, match="2 clusters are in its files more than once"):
        external.external_columns("theirs", given, TOPO, folders, (0, dataset[1][0]))


def test_what_the_files_lack_is_told(dataset, tmp_path):
    with pytest.raises(UserError, match="no file matches"):
        external.chunks_of(
            "a", ExternalSet(files=("/nowhere/*.parquet",), columns=COLUMNS), tmp_path
        )
    write(tmp_path / "a.parquet", foreign(dataset, np.arange(3)))
    other = COLUMNS | {"pit": "p"}
    given = ExternalSet(files=(f"{tmp_path}/a.parquet",), columns=other)
    with pytest.raises(UserError, match="has no column p; it has cluster_id"):
        external.chunks_of("a", given, tmp_path)
    (tmp_path / "b.parquet").write_text("no table")
    given = ExternalSet(files=(f"{tmp_path}/b.parquet",), columns=COLUMNS)
    with pytest.raises(UserError, match="neither a ROOT file"):
        external.chunks_of("a", given, tmp_path)


@pytest.mark.parametrize(
    ("columns", "words"),
    [({"sigma_tot": "s"}, "give the column"), ({"sigma": "s"}, "unknown sigma")],
)
def test_columns_must_make_sense(columns, words):
    with pytest.raises(ValidationError, match=words):
        ExternalSet(files=("a",), columns=columns)


def test_a_taken_name_is_refused():
    given = {"external": {"bnn": {"files": ["a"], "columns": {"energy": "e"}}}}
    settings = EvaluateSettings.model_validate(given)
    with pytest.raises(UserError, match=r"evaluate.external.bnn: the name is taken"):
        check_names(settings, ["bnn"])
    with pytest.raises(UserError, match="taken"):
        check_names(settings, [], reserved=["bnn"])
    check_names(settings, [])
