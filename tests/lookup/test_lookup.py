"""Look-up tables against computations on the whole sample, merged in several ways."""

import functools

import numpy as np
import pytest
from statistics_fixture import statistics_of

from pipeline.calibrators.lookup_table import LookupTable, ReferenceScale
from pipeline.fold import merge_in_order
from pipeline.formats.card import read_card
from pipeline.formats.columns import Column, Feature, Target
from pipeline.formats.errors import UserError
from pipeline.formats.files import sha256_of
from pipeline.formats.manifest import DatasetManifest
from pipeline.lookup.bins import Quantities, edges_of
from pipeline.lookup.fit import plan_fit, write_model
from pipeline.lookup.settings import LookupTableSettings
from pipeline.lookup.sums import FINE_BINS, TableSums
from pipeline.lookup.tables import (
    fill_table,
    make_tables,
    mean_of,
    read_tables,
    share_of,
    write_tables,
)
from pipeline.simulators.known_density.fit_lcw import fit_lcw
from pipeline.simulators.known_density.lcw import LCW_TABLES
from pipeline.simulators.known_density.sample import draw_bare_clusters, draw_clusters
from pipeline.simulators.known_density.settings import GeneratorSettings

TARGET = Target(name="scale", numerator="e_raw", denominator="e_true", calibrated="e_cal")
AXES = [
    {"of": "e_raw", "low": 1.0, "high": 100.0, "bins": 4},
    {"of": "angle", "absolute": True, "scale": "linear", "low": 0.0, "high": 2.0, "bins": 3},
    {"of": "depth", "over": "e_raw", "low": 1.0, "high": 1e3, "bins": 5},
]
ROWS = 6_000


def _settings(**changes):
    values = {"class_axes": AXES, "weight_axes": AXES[:2], "em_label": "share", "min_entries": 9}
    return LookupTableSettings.model_validate(values | changes)


def _columns(rows=ROWS, seed=3):
    rng = np.random.default_rng(seed)
    columns = {
        "e_raw": 10 ** rng.normal(1.0, 0.6, rows),
        "angle": rng.normal(0.0, 1.0, rows),
        "depth": 10 ** rng.normal(2.0, 0.5, rows),
        "share": rng.choice([0.0, 0.5, 0.9, 1.0], rows),
        "w": rng.uniform(0.2, 3.0, rows),
    }
    columns["e_true"] = columns["e_raw"] * 10 ** rng.normal(0.1, 0.2, rows)
    return {name: values.astype(np.float32) for name, values in columns.items()}


def _place(axes, columns, row):
    """The bin of one row on each axis, by its definition."""
    place = []
    for axis in axes:
        value = float(columns[axis.of][row])
        value /= float(columns[axis.over][row]) if axis.over else 1.0
        value = abs(value) if axis.absolute else value
        edges = edges_of(axis)[1:-1]
        place.append(int(np.searchsorted(edges, value, side="right")))
    return tuple(place)


def _slow_value(axes, groups, place, min_entries, value):
    """The value of a bin: of the finest group of rows around it that is not sparse."""
    for kept in range(len(axes), 0, -1):
        rows = [
            row for other, some in groups.items() if other[:kept] == place[:kept] for row in some
        ]
        if len(rows) >= min_entries:
            return value(rows)
    full = {}
    for other, some in groups.items():
        full.setdefault(other[0], []).extend(some)
    nearest = sorted(
        (abs(at - place[0]), at) for at, rows in full.items() if len(rows) >= min_entries
    )
    return value(full[nearest[0][1]])


def _quotient(above, below, rows):
    return above[rows].sum() / below[rows].sum()


def _middle(values, weights, rows):
    """The value at which the sum of weights reaches its half."""
    order = np.argsort(values[rows])
    at = np.searchsorted(np.cumsum(weights[rows][order]), weights[rows].sum() / 2)
    return values[rows][order][at]


def _check_against(table, groups, value, tolerance):
    found = table.filled.values.reshape(table.shape)
    for place in np.ndindex(found.shape):
        slow = _slow_value(table.axes, groups, place, 9, value)
        assert found[place] == pytest.approx(slow, rel=tolerance)


@pytest.mark.parametrize("weight", [None, "w"])
@pytest.mark.parametrize("statistic", ["mean", "median"])
def test_tables_are_those_of_the_whole_sample(weight, statistic):
    columns, settings = _columns(), _settings(statistic=statistic)
    w = columns["w"].astype(np.float64) if weight else np.ones(ROWS)
    is_em = columns["share"] >= np.float32(0.9)
    ratio = columns["e_true"].astype(np.float64) / columns["e_raw"]
    by_class, by_weight = {}, {}
    for row in range(ROWS):
        by_class.setdefault(_place(settings.class_axes, columns, row), []).append(row)
    for row in np.flatnonzero(~is_em):
        by_weight.setdefault(_place(settings.weight_axes, columns, row), []).append(row)
    probability = functools.partial(_quotient, w * is_em, w)
    factor = functools.partial(_quotient, w * ratio, w)
    if statistic == "median":
        factor = functools.partial(_middle, ratio, w)
    reach = (-float(np.log10(ratio.max())), 1.0)
    for cuts in ([], [2000], [17, 900, 901, 5000]):
        pieces = [
            {name: values[some] for name, values in columns.items()}
            for some in np.split(np.arange(ROWS), cuts)
        ]
        sums = [
            TableSums.of(piece, settings, TARGET, weight=weight, log10_range=reach)
            for piece in pieces
        ]
        tables = make_tables(merge_in_order(sums, TableSums.__add__), settings)
        _check_against(tables.em_probability, by_class, probability, 1e-9)
        cell = 10 ** ((reach[1] - reach[0]) / FINE_BINS) - 1
        _check_against(tables.weight, by_weight, factor, 1e-9 if statistic == "mean" else cell)


def test_counts_merge_exactly_and_a_prior_replaces_the_samples_own():
    columns, settings = _columns(), _settings()
    halves = [{n: v[some] for n, v in columns.items()} for some in np.split(np.arange(ROWS), [999])]
    one, two = (TableSums.of(half, settings, TARGET) for half in halves)
    whole = TableSums.of(columns, settings, TARGET)
    for first, second in ((one, two), (two, one)):
        merged = first + second
        np.testing.assert_array_equal(merged.em.counts, whole.em.counts)
        np.testing.assert_array_equal(merged.ratios.counts, whole.ratios.counts)
        np.testing.assert_allclose(merged.ratios.values, whole.ratios.values, rtol=1e-12)
    own = make_tables(whole, settings).em_probability.filled.values
    share = whole.em.counts.sum() / ROWS
    same = make_tables(whole, _settings(em_prior=share)).em_probability.filled.values
    np.testing.assert_allclose(same, own, rtol=1e-9)
    assert (make_tables(whole, _settings(em_prior=0.1)).em_probability.filled.values <= own).all()


def test_sparse_bins_take_coarser_ones_and_then_the_nearest():
    entries = np.array([5, 0, 1, 9, 2, 1, 0, 0, 1, 0, 0, 0])  # 3 x 2 x 2
    em = np.array([5.0, 0, 1, 0, 1, 0, 0, 0, 1, 0, 0, 0])
    filled = fill_table(entries, share_of(em, entries - em), (3, 2, 2), 3)
    third, whole = 1 / 3, 6 / 15
    np.testing.assert_array_equal(filled.levels, [0, 1, 1, 0, 1, 1, 2, 2, 3, 3, 3, 3])
    expected = [1.0, 1.0, 0.1, 0.0, third, third, third, third, third, third, third, third]
    np.testing.assert_allclose(filled.values, expected)
    lone = fill_table(entries, share_of(em, entries - em), (3, 2, 2), 50)
    assert (lone.levels == 4).all()
    assert lone.values == pytest.approx(em.sum() / entries.sum())
    assert whole != lone.values[0]
    # a bin whose weights cancel has no mean of its own
    values, weights = np.array([3.0, 4.0, 1.0, 1.0]), np.array([-1.0, 2.0, 1.0, 1.0])
    filled = fill_table(np.full(4, 9), mean_of(values, weights), (2, 2), 3)
    np.testing.assert_allclose(filled.values, [7.0, 2.0, 1.0, 1.0])
    np.testing.assert_array_equal(filled.levels, [1, 0, 0, 0])


def _manifest(columns):
    features = tuple(
        Feature(name=name, transform="log10_standard") for name in ("e_raw", "angle", "depth")
    )
    return DatasetManifest(
        fingerprint="toy",
        settings_fingerprint="settings",
        features=features,
        target=TARGET,
        columns=(
            *(Column(name=item.name, role="feature") for item in features),
            Column(name="share", role="truth"),
        ),
        inputs=(),
        cut_flow=(),
        floors=(),
        split={},
        parts=(),
        statistics={
            **{item.name: statistics_of(columns[item.name]) for item in features},
            "scale": statistics_of(columns["e_raw"] / columns["e_true"]),
        },
        versions={},
    )


def _write(folder, columns, settings):
    tables = make_tables(TableSums.of(columns, settings, TARGET), settings)
    written = {"name": "lcw_like", "folder": folder, "fingerprint": "f", "scores": {}}
    return tables, write_model(tables, _manifest(columns), settings, **written)


def test_a_model_is_written_and_read(tmp_path):
    tables, card = _write(tmp_path, _columns(), _settings())
    assert read_card(tmp_path) == card
    assert (card.artefact, card.density, card.num_networks) == ("tables", "point", None)
    sparse = tables.em_probability.filled.levels > 0
    share = tables.em_probability.filled.entries[sparse].sum() / ROWS
    assert card.scores["sparse_rows_em_probability"] == pytest.approx(share) != 0
    again = read_tables(tmp_path / "tables.parquet")
    for one, two in ((again.em_probability, tables.em_probability), (again.weight, tables.weight)):
        assert one.axes == two.axes
        np.testing.assert_array_equal(one.filled.values, two.filled.values)
        np.testing.assert_array_equal(one.filled.levels, two.filled.levels)
    head, first, *rest = (tmp_path / "weight.csv").read_text().splitlines()
    assert head == "e_raw from,e_raw to,|angle| from,|angle| to,entries,value,level"
    assert len(rest) == (tables.weight.filled.entries > 0).sum() - 1
    edges = [float(cell) for cell in first.split(",")[:4]]
    np.testing.assert_allclose(edges, [1, 10**0.5, 0, 2 / 3], rtol=1e-8)


def test_mapping_is_a_look_up_of_each_row(tmp_path):
    settings = _settings()
    tables, _ = _write(tmp_path, _columns(), settings)
    path = tmp_path / "tables.parquet"
    ranges = {"angle": (-2.0, 2.0)}
    table = LookupTable(path, sha256_of(path), ("e_raw", "angle", "depth"), TARGET, ranges)
    rows = _columns(500, seed=8)
    rows["depth"][7] = np.nan
    answers = table.calibrate(rows)
    probability = tables.em_probability.filled.values.reshape(4, 3, 5)
    weight = tables.weight.filled.values.reshape(4, 3)
    expected = np.full(500, np.nan)
    for row in set(range(500)) - {7}:
        p = probability[_place(settings.class_axes, rows, row)]
        expected[row] = p + (1 - p) * weight[_place(settings.weight_axes, rows, row)]
    np.testing.assert_allclose(answers["e_cal"], rows["e_raw"] * expected, rtol=1e-6)
    np.testing.assert_allclose(answers["scale"], 1 / expected, rtol=1e-6)
    np.testing.assert_array_equal(answers["in_domain"], np.abs(rows["angle"]) <= 2)
    path.write_bytes(b"another file")
    with pytest.raises(UserError, match="missing or not the file"):
        LookupTable(path, "0", ("e_raw",), TARGET, ranges).calibrate(rows)


def test_what_a_dataset_lacks_is_told(tmp_path):
    columns = _columns()
    manifest = _manifest(columns)
    with pytest.raises(UserError, match="the dataset has no column kind, the truth that tells wh"):
        plan_fit(tmp_path, manifest, _settings(em_label="kind"))
    axis = {"of": "size", "low": 1.0, "high": 2.0, "bins": 1}
    with pytest.raises(UserError, match="features: size not in the dataset, which has e_raw, ang"):
        plan_fit(tmp_path, manifest, _settings(weight_axes=[axis]))
    sums = TableSums.of(columns, _settings(em_from=1.5), TARGET)
    with pytest.raises(UserError, match=r"no training rows with share at least em_from = 1.5"):
        make_tables(sums, _settings(em_from=1.5))


def test_a_scale_of_the_input_leaves_rows_without_a_weight_uncalibrated():
    rows = {"e_raw": np.array([2, 2, 2, 2], "f4"), "had": np.array([1.25, -1, 0, np.nan], "f4")}
    answers = ReferenceScale("had", TARGET).calibrate(rows)
    np.testing.assert_array_equal(answers["in_domain"], [True, False, False, False])
    np.testing.assert_allclose(answers["e_cal"], [2.5, np.nan, np.nan, np.nan])
    np.testing.assert_allclose(answers["scale"], [0.8, np.nan, np.nan, np.nan], rtol=1e-6)


def test_the_shipped_table_is_what_its_command_makes():
    made, shipped = fit_lcw(), read_tables(LCW_TABLES)
    for one, two in ((made.em_probability, shipped.em_probability), (made.weight, shipped.weight)):
        assert one.axes == two.axes
        np.testing.assert_array_equal(one.filled.entries, two.filled.entries)
        np.testing.assert_allclose(one.filled.values, two.filled.values, atol=1.1e-4)


def test_simulated_lcw_is_a_function_of_the_features_that_moves_nothing_else():
    settings = GeneratorSettings()
    bare = draw_bare_clusters(settings, np.random.default_rng(1), 20_000)
    full = draw_clusters(settings, np.random.default_rng(1), 20_000)
    assert full.keys() - bare.keys() == {"cluster_EM_PROBABILITY", "cluster_HAD_WEIGHT"}
    for name, values in bare.items():
        np.testing.assert_array_equal(full[name], values)
    probability, weight = full["cluster_EM_PROBABILITY"], full["cluster_HAD_WEIGHT"]
    assert weight.min() > 0
    assert probability.min() >= 0
    assert probability.max() <= 1
    # P is made for this sample's own mixture: calibrated on average, and higher for EM clusters
    is_em = full["cluster_ENG_CALIB_FRAC_EM"] >= np.float32(0.9)
    assert probability.mean() == pytest.approx(is_em.mean(), abs=0.006)  # 2.5 standard errors
    assert probability[is_em].mean() > 1.8 * probability[~is_em].mean()


def test_quantities_beyond_the_ends_are_in_the_end_bins():
    settings = _settings()
    columns = {
        "e_raw": np.array([0.01, 1e6, 0.0, -1.0], "f4"),
        "angle": np.zeros(4, "f4"),
        "depth": np.ones(4, "f4"),
    }
    bins = Quantities.of(columns, settings.weight_axes).bins(settings.weight_axes)
    np.testing.assert_array_equal(bins, [0, 9, 0, -1])


def test_equal_tables_give_equal_bytes(tmp_path):
    settings = _settings()
    tables = make_tables(TableSums.of(_columns(), settings, TARGET), settings)
    for name in ("a", "b"):
        write_tables(tables, tmp_path / name)
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()
