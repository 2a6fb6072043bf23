"""What the report says of a scaling study."""

import pytest

pytest.importorskip("matplotlib")
pytest.importorskip("mplhep")

from evaluation_fixtures import TOPO

from pipeline.report import training_size_texts as scaling_words
from pipeline.report.figures import training_size as scaling
from pipeline.report.hepdata import data_document
from pipeline.report.panel import house_style
from pipeline.report.settings import ReportSettings
from pipeline.report.statements import training_size
from pipeline.report.study_data import Scene
from pipeline.training_size.points import MEANS, SIGMAS, PointRecord
from pipeline.training_size.settings import ScalingSettings
from pipeline.training_size.table import Point, make_tables

SIZES = (1_000, 4_000, 16_000)
ROWS = 600


def point(rng, ladder, size, sample, seed):
    """A training whose sigma_stat is half of the real spread of its networks' average."""
    spread = 0.4 * size**-0.4
    rows = {}
    for suffix, mean in MEANS.items():
        rows[mean] = (1.0 + spread * rng.standard_normal(ROWS)).astype("float32")
        sigmas = (0.5 * spread, 0.12, 0.12)
        for name, value in zip(SIGMAS, sigmas, strict=True):
            scatter = 1.0 + 0.01 * rng.standard_normal()
            rows[f"{name}{suffix}"] = (value * scatter * rng.uniform(0.9, 1.1, ROWS)).astype("f4")
    rows["log_density"] = 1.0 - spread + 0.1 * rng.standard_normal(ROWS)
    record = PointRecord(
        fingerprint="",
        ladder=ladder,
        model="bnn",
        rows=size,
        sample=sample,
        seed=seed,
        networks=50,
        updates=100,
        scores={"train_nll": -1.0},
        seconds=1.0,
        step_seconds=1.0,
        size=0,
    )
    return Point(record, rows)


@pytest.fixture(scope="module")
def scene():
    import numpy as np

    rng = np.random.default_rng(3)
    points = [
        point(rng, ladder, size, sample, seed)
        for ladder in ("steps", "epochs")
        for size in SIZES
        for sample, seed in [(0, 0), (0, 1), (0, 2), (1, 0), (2, 0), (3, 0)]
    ]
    oracle = {name: np.full(ROWS, 0.12) for name in ("sigma_syst", "sigma_syst_log10")}
    oracle["log_density"] = np.ones(ROWS)
    settings = ScalingSettings.model_validate({
        "ladders": {
            "steps": {"model": "bnn", "budget": "steps", "steps": 100, "seeds": 3, "samples": 4},
            "epochs": {"model": "bnn", "budget": "epochs", "seeds": 3, "samples": 4},
        }
    })
    tables = make_tables(settings, points, oracle)
    return Scene(tables, ReportSettings(), TOPO, "sample")


def test_the_figures_have_both_budgets_the_real_spread_and_their_numbers(scene):
    with house_style():
        makers = (
            scaling.size_panels,
            scaling.spread_panels,
            scaling.tenth_panels,
            scaling.excess_panels,
        )
        panels = {panel.name: panel for make in makers for panel in make(scene)}
    assert list(panels) == [
        "scaling-steps",
        "scaling-epochs",
        "scaling-steps-linear",
        "scaling-epochs-linear",
        "scaling-spread-steps",
        "scaling-spread-epochs",
        "scaling-tenths",
        "scaling-score",
    ]
    for panel in panels.values():
        assert data_document(panel.table, panel.labels)  # refuses rows that are not told apart
    drawn = panels["scaling-steps"].table.to_pydict()
    assert drawn["rows"] == list(SIZES)
    assert drawn["sigma_syst_log10_median"] == pytest.approx([0.12] * 3, rel=0.05)
    assert panels["scaling-tenths"].table.num_rows == 2 * 10


def test_the_words_tell_the_budget_and_what_sigma_stat_is_worth(scene):
    steps, epochs, *found = scaling_words.size_texts(scene)
    assert steps.startswith("steps: the same number of updates")
    assert epochs.startswith("epochs: the same number of epochs")
    # 0.5 within a training and 1 between: sigma_stat is 0.5 / sqrt(1.25) of the real spread
    assert "steps at 16,000 training rows: sigma_stat of log10 of the target is 0.4" in found[0]
    assert "smaller than the statistical uncertainty" in found[0]


@pytest.mark.parametrize(
    ("ratio", "error", "words"),
    [
        (0.93, None, "within the errors"),
        (0.7, 0.2, "within the errors"),
        (0.7, 0.05, "smaller than"),
        (1.4, 0.1, "larger than"),
    ],
)
def test_a_ratio_is_judged_with_its_error(ratio, error, words):
    row = {
        "ladder": "bnn",
        "rows": 200_000,
        "networks": 50,
        "trainings_over_samples": 10,
        "spread_over_samples_log10": 0.02,
        "spread_over_seeds_log10": 0.01,
        "sigma_stat_over_spread_over_samples_log10": ratio,
        "sigma_stat_over_spread_over_samples_log10_error": error,
    }
    told = scaling_words.describe_spread(row)
    assert words in told
    assert "25% of the variance" in told


def test_the_tables_have_fits_with_their_reach_and_every_step(scene):
    (spreads,) = scaling_words.spread_tables(scene)
    (sizes,) = scaling_words.size_tables(scene)
    (fits,) = scaling_words.fit_tables(scene)
    assert len(spreads.rows) == len(sizes.rows) == 6
    stat = next(n for n, row in enumerate(fits.rows) if row[1] == "sigma_stat_log10")
    assert fits.rows[stat][2] == "a (N/1e5)^-p"
    assert fits.rows[stat][-1] == "160,000"
    assert "below 0.1 sigma_syst from N = " in fits.notes[stat]


def test_the_statements_of_the_paper_are_measured_on_the_ladder_of_fixed_updates(scene):
    found = training_size.stat_falls(scene, "bnn")
    assert found.holds
    assert found.found.startswith(f"{16**-0.4:.2f}"[:3])
    assert training_size.syst_settles(scene, "bnn").holds
    larger = training_size.syst_dominates(scene, "bnn")
    assert larger.holds
    assert float(larger.found.split()[0]) == pytest.approx(0.12 / (0.2 * 16_000**-0.4), rel=0.05)
    assert training_size.stat_falls(scene, "re") is None


def test_a_study_without_one_has_no_chapter():
    nothing = Scene({}, ReportSettings(), TOPO, "sample")
    assert not list(scaling_words.size_texts(nothing))
    for make in (scaling.size_panels, scaling.spread_panels, scaling.tenth_panels):
        assert not list(make(nothing))
    for make in (scaling_words.spread_tables, scaling_words.size_tables, scaling_words.fit_tables):
        assert not list(make(nothing))


def test_single_networks_have_no_sigma_stat():
    """Their spread is unknown; zeros would draw a line at 10^-300, and have no tenths."""
    import numpy as np

    rng = np.random.default_rng(4)
    points = []
    for size in SIZES:
        for sample, seed in [(0, 0), (0, 1), (1, 0), (2, 0)]:
            made = point(rng, "single", size, sample, seed)
            made.rows.update({f"sigma_stat{s}": np.zeros(ROWS, "f4") for s in MEANS})
            points.append(Point(made.record.model_copy(update={"networks": 1}), made.rows))
    ladder = {"model": "bnn", "budget": "steps", "steps": 100, "seeds": 2, "samples": 3}
    tables = make_tables(
        ScalingSettings.model_validate({"ladders": {"single": ladder}}), points, None
    )
    columns = tables["scaling"].column_names
    assert not [name for name in columns if name.startswith(("sigma_stat", "spread"))]
    assert "sigma_stat_log10" not in tables["scaling_fits"]["quantity"].to_pylist()
    scene = Scene(tables, ReportSettings(), TOPO, "sample")
    with house_style():
        (panel, _) = scaling.size_panels(scene)
        assert panel.figure.axes[0].get_ylim()[0] > 1e-3
        assert not list(scaling.spread_panels(scene))
    assert len(list(scaling_words.size_texts(scene))) == 1
    assert not list(scaling_words.spread_tables(scene))
