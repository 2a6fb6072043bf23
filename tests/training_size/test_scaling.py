"""Scaling studies: subsets, plans, refusals, fits and spreads, without Ray."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from toy_detector import DATASET, toy_columns, write_tree

from jobs import scaling
from jobs.cli import main
from jobs.ingest import dataset_folder, open_dataset
from jobs.study import load_study
from jobs.training_size.plan import plan_trainings
from jobs.training_size.point import make_point
from jobs.training_size.rows import make_rows
from pipeline.formats.columns import IDENTITY
from pipeline.formats.errors import StoppedBySignal, UserError
from pipeline.formats.manifest import MANIFEST, read_manifest, read_part
from pipeline.ingest.identity import uniform_of
from pipeline.training_size.fits import (
    CONSTANT,
    FALLING,
    FLAT,
    POWER,
    POWER_AND_FLOOR,
    fit_sizes,
    pooled,
    rows_where_negligible,
)
from pipeline.training_size.points import load_rows
from pipeline.training_size.subsets import Origin, Subset, ranks_of, write_subset
from pipeline.training_size.table import compare, errors_of, levels_of
from training.checkpoint import newest_checkpoint
from training.data.rows import Chunk, Passes
from training.data.training_data import open_split, read_training_data
from training.export.finished import Trained
from training.export.mixture import networks_of
from training.history import read_history
from training.loop import train_network
from training.settings import BnnSettings
from training.steps.noise import StepRows

NET = {
    "kind": "bnn",
    "hidden": [8],
    "components": 2,
    "samples": 3,
    "epochs": 2,
    "batch_rows": 256,
    "optimizer": {"milestones": []},
}
SCALING = {
    "sizes": [200, 500, "all"],
    "test_rows": 300,
    "validation_rows": 50,
    "ladders": {
        "steps": {"model": "net", "budget": "steps", "steps": 6, "seeds": 2, "samples": 2,
                  "sizes": [200, 500]},
        "epochs": {"model": "net", "budget": "epochs"},
    },
}  # fmt: skip


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    """A study file whose dataset is there: some 2,000 training rows in two files."""
    folder = tmp_path_factory.mktemp("scaling")
    inputs = [
        write_tree(folder / f"{seed}.root", toy_columns(2_000, seed=seed), tree="Hits")
        for seed in range(2)
    ]
    content = {
        "name": "scaling",
        "output": "out",
        "dataset": {**DATASET, "inputs": inputs},
        "models": {"net": NET},
        "scaling": SCALING,
        "dask": {"workers": 1},
        "ray": {"address": "none"},
    }
    (folder / "study.json").write_text(json.dumps(content))
    assert main(["ingest", str(folder / "study.json")]) == 0
    return folder / "study.json"


@pytest.fixture
def origin(path):
    study = load_study([str(path)], [])
    folder = dataset_folder(study)
    return Origin(folder, read_manifest(folder), study.dataset, study.seed)


def rows_of(folder, manifest):
    tables = [read_part(folder, part) for part in manifest.parts_of("train")]
    return {n: np.concatenate([t[n].to_numpy() for t in tables]) for n in tables[0].column_names}


def make_subset(folder, origin, first, rows):
    subset = Subset("train", first, rows)
    return write_subset(folder, origin, subset, ranks_of(origin, "train"), ())


def test_smaller_subsets_lie_within_larger_ones_and_samples_have_no_common_row(tmp_path, origin):
    places = {"small": (0, 200), "large": (0, 700), "second": (700, 700)}
    ids = {
        name: rows_of(tmp_path / name, make_subset(tmp_path / name, origin, *place))[IDENTITY]
        for name, place in places.items()
    }
    assert {name: len(set(values)) for name, values in ids.items()} == {
        "small": 200,
        "large": 700,
        "second": 700,
    }
    assert set(ids["small"]) < set(ids["large"])
    assert not set(ids["large"]) & set(ids["second"])


def test_the_order_is_that_of_a_hash_of_the_identity_and_not_of_the_rows(tmp_path, origin):
    everything = rows_of(origin.folder, origin.manifest)[IDENTITY]
    chosen = rows_of(tmp_path / "a", make_subset(tmp_path / "a", origin, 0, 400))[IDENTITY]
    order = np.concatenate(ranks_of(origin, "train"))
    assert set(everything[order < 400]) == set(chosen)
    turned = origin.manifest.model_copy(update={"parts": origin.manifest.parts[::-1]})
    other = Origin(origin.folder, turned, origin.settings, origin.seed)
    again = rows_of(tmp_path / "b", make_subset(tmp_path / "b", other, 0, 400))[IDENTITY]
    assert set(again) == set(chosen)
    # a subset is no longer than chance along the split's own hash
    assert abs(np.mean(uniform_of(chosen, 0)) - np.mean(uniform_of(everything, 0))) < 0.05


def test_the_networks_see_the_scaling_of_their_subset(tmp_path, origin):
    manifest = make_subset(tmp_path / "set", origin, 0, 300)
    rows = rows_of(tmp_path / "set", manifest)
    for name in ("e_raw", "depth"):
        statistics = manifest.statistics[name]
        logs = np.log10(rows[name].astype(np.float64))
        assert statistics.count == 300
        assert statistics.log10_mean == pytest.approx(logs.mean(), rel=1e-12)
        assert statistics.log10_std == pytest.approx(logs.std(), rel=1e-12)
    whole = origin.manifest.statistics["e_raw"]
    assert manifest.statistics["e_raw"].log10_mean != pytest.approx(whole.log10_mean, rel=1e-6)
    settings = BnnSettings.model_validate(NET)
    validation = origin.manifest.parts_of("validation")
    shared = [p.model_copy(update={"path": str(origin.folder / p.path)}) for p in validation]
    subset = Subset("train", 0, 300)
    with_validation = write_subset(
        tmp_path / "train", origin, subset, ranks_of(origin, "train"), shared
    )
    data = read_training_data(tmp_path / "train", None)
    train_network(data, settings, seed=1, fingerprint="a", folder=tmp_path / "net")
    assert data.train.x_NF[:, 0].mean().abs() < 1e-4
    done = newest_checkpoint(tmp_path / "net", "a")
    networks = networks_of(
        Trained(with_validation, with_validation.features, done, seed=1), settings
    )
    assert networks.shift_F[0].item() == pytest.approx(manifest.statistics["e_raw"].log10_mean)


def test_all_rows_are_not_copied(tmp_path, origin):
    rows = origin.manifest.rows_of("train")
    manifest = make_subset(tmp_path / "all", origin, 0, rows)
    assert not list((tmp_path / "all").rglob("*.parquet"))
    assert np.array_equal(
        rows_of(tmp_path / "all", manifest)[IDENTITY],
        rows_of(origin.folder, origin.manifest)[IDENTITY],
    )
    assert manifest.statistics == origin.manifest.statistics


@pytest.mark.parametrize("rows", [100, 256, 1000])
def test_epochs_of_fixed_updates_pass_over_all_rows_in_turn(tmp_path, origin, rows):
    """300 rows in epochs of so many: each row comes as often as each other, or once more."""
    make_subset(tmp_path / "set", origin, 0, 300)
    manifest = read_manifest(tmp_path / "set")
    whole = open_split(
        tmp_path / "set",
        manifest,
        manifest.features,
        "train",
        None,
        labels=None,
        targets=manifest.every_target,
    )
    passes = Passes(whole, rows)
    seen = torch.zeros(300)
    for epoch in range(7):
        sample = passes.sampler(3, epoch)
        chunk = Chunk(torch.empty(rows, 4), torch.empty(rows), torch.ones(rows))
        sample([StepRows(0, 0, 64, 0, 64), StepRows(1, 64, rows - 64, 0, rows - 64)], chunk)
        for row in chunk.x_NF:
            seen[(whole.x_NF == row).all(dim=1)] += 1
        assert seen.sum() == rows * (epoch + 1)
        assert seen.max() - seen.min() <= 1


def test_fixed_updates_are_as_many_for_each_size():
    settings = BnnSettings.model_validate(NET | {"steps_per_epoch": 5})
    assert {settings.updates(rows) for rows in (10, 1000, 100_000)} == {10}
    assert BnnSettings.model_validate(NET).updates(1000) == 2 * 4
    assert "steps_per_epoch" not in BnnSettings.model_validate(NET).model_dump(mode="json")
    assert settings.model_dump(mode="json")["steps_per_epoch"] == 5


REFUSALS = {
    "budget": (
        ["scaling.ladders.new={model: net}"],
        "ladders.new.budget: this key is required",
    ),
    "steps missing": (
        ["scaling.ladders.new={model: net, budget: steps}"],
        "budget steps needs the number of updates",
    ),
    "steps with epochs": (["scaling.ladders.epochs.steps=6"], "but the budget is epochs"),
    "model": (["scaling.ladders.steps.model=nett"], "no model nett; the study has net"),
    "kind": (
        ["models.table.kind=lookup_table", "scaling.ladders.steps.model=table"],
        "is of kind lookup_table, which gives no sigma_stat",
    ),
    "size": (["scaling.ladders.steps.sizes=[200, 9000]"], "9000 training rows are wanted"),
    "samples": (["scaling.ladders.steps.samples=9"], "9 samples of 500 rows without a common row"),
    "multiple": (["scaling.ladders.steps.steps=7"], "7 is no multiple of the model's 2 epochs"),
    "singles": (["scaling.ladders.epochs.singles=steps"], "ladders.epochs.singles: steps has "),
    "simulation": (["scaling.samples_from=simulation"], "needs a simulated study"),
}


@pytest.mark.parametrize(("words", "sentence"), REFUSALS.values(), ids=list(REFUSALS))
def test_refusals(path, capsys, tmp_path, words, sentence):
    output = tmp_path / "out"
    output.mkdir()
    (output / "dataset").symlink_to(path.parent / "out/dataset")
    assert main(["scaling", str(path), f"output={output}", *words]) == 2
    assert sentence in capsys.readouterr().err


def test_a_dry_run_tells_the_cost_and_does_nothing(path, capsys):
    assert main(["scaling", str(path), "--dry-run"]) == 0
    told = capsys.readouterr().err
    assert "steps: 6 trainings on 200 to 500 rows, 36 updates of 256 rows" in told
    assert "9 trainings, " in told
    assert not (path.parent / "out/scaling").exists()


@pytest.mark.parametrize(
    "word", ["models.net.epochs=4", "calibrate.central=median", "seed=8", "scaling.negligible=0.02"]
)
def test_tables_of_other_settings_are_not_shown(path, tmp_path, word):
    study = load_study([str(path)], [f"output={tmp_path}"])
    manifest = read_manifest(path.parent / "out/dataset")
    scaling.ScalingManifest(
        fingerprint="x",
        dataset=manifest.fingerprint,
        settings=study.scaling,
        trained=scaling.fingerprint_of_models(study, study.scaling),
        sizes={},
    ).save(scaling.scaling_folder(study) / scaling.TABLES / MANIFEST)
    assert scaling.open_tables(study, manifest) == {}
    changed = load_study([str(path)], [f"output={tmp_path}", word])
    with pytest.raises(UserError, match="run `topocal scaling` again"):
        scaling.open_tables(changed, manifest)


def test_without_a_section_it_says_so(path, capsys):
    assert main(["scaling", str(path), "scaling=null"]) == 2
    assert "the study has no section scaling" in capsys.readouterr().err


def test_a_training_goes_on_from_its_last_epoch_and_is_not_done_twice(path, tmp_path):
    (tmp_path / "dataset").symlink_to(path.parent / "out/dataset")
    study = load_study([str(path)], [f"output={tmp_path}"])
    manifest = open_dataset(study)
    trainings = plan_trainings(study, manifest.rows_of("train"))
    rows = make_rows(study, tmp_path / "scaling", manifest, trainings)
    plan = scaling.plan_points(study, tmp_path / "scaling", rows, trainings)[0]
    with pytest.raises(StoppedBySignal):
        make_point(plan, lambda: len(read_history(plan.work)) == 1)
    before, seen = read_history(plan.work), []
    assert len(before) == 1
    make_point(plan, lambda: bool(seen.append(read_history(plan.work))))
    assert seen[0] == before
    assert plan.is_done()
    assert not plan.work.exists()
    make_point(plan, pytest.fail)  # is not asked
    again = replace(plan, folder=tmp_path / "again")
    make_point(again, lambda: False)
    for name, values in load_rows(plan.folder).items():
        assert np.array_equal(values, load_rows(again.folder)[name], equal_nan=True)


SIZES = np.array([1e3, 3162, 1e4, 31623, 1e5, 3e5])


def noisy(truth, seed=0, error=0.02):
    errors = error * truth
    return truth + errors * np.random.default_rng(seed).standard_normal(len(truth)), errors


@pytest.mark.parametrize(
    ("truth", "forms", "form", "values"),
    [
        (0.02 * (SIZES / 1e5) ** -0.4, FALLING, POWER, [0.02, 0.4]),
        (0.02 * (SIZES / 1e5) ** -0.4 + 0.03, FALLING, POWER_AND_FLOOR, [0.02, 0.4, 0.03]),
        (np.full(len(SIZES), 0.12), FLAT, CONSTANT, [0.12]),
        (0.01 * (SIZES / 1e5) ** -0.5 + 0.12, FLAT, POWER_AND_FLOOR, [0.01, 0.5, 0.12]),
    ],
)
def test_fits_find_the_form_and_cover_the_truth(truth, forms, form, values):
    pulls = []
    for seed in range(40):
        y, errors = noisy(truth, seed, error=0.003)
        fit = fit_sizes(SIZES, y, errors, forms)
        if fit.form == form:
            pulls.append((fit.values - values) / np.sqrt(np.diag(fit.covariance)))
    assert len(pulls) >= 34  # one in twenty good fits is taken for a bad one
    assert np.abs(np.mean(pulls, axis=0)).max() < 0.6
    assert 0.5 < np.std(pulls) < 1.5


def test_predictions_have_the_errors_that_they_claim():
    truth = lambda rows: 0.02 * (rows / 1e5) ** -0.4  # noqa: E731
    pulls = []
    for seed in range(60):
        fit = fit_sizes(SIZES, *noisy(truth(SIZES), seed), [POWER])
        pulls.append((fit(3e6) - truth(3e6)) / fit.error_at(3e6))
    assert abs(np.mean(pulls)) < 0.5
    assert 0.7 < np.std(pulls) < 1.3


def test_a_fit_that_does_not_describe_the_points_says_so():
    bend = np.where(SIZES > 2e4, 0.05, 0.02)
    fit = fit_sizes(SIZES, bend, 0.01 * bend, FALLING)
    assert "does not describe the points" in fit.warning
    assert fit.p_value < 1e-6
    assert "no errors" in fit_sizes(SIZES, bend, None, FALLING).warning
    assert fit_sizes(SIZES[:2], bend[:2], None, FALLING) is None


def test_where_sigma_stat_no_longer_matters():
    stat = fit_sizes(SIZES, *noisy(0.02 * (SIZES / 1e5) ** -0.5), [POWER])
    syst = fit_sizes(SIZES, *noisy(np.full(len(SIZES), 0.12), 1), [CONSTANT])
    rows, low, high = rows_where_negligible(stat, syst, 0.1, 3e5)
    assert low < 1e5 * (0.02 / 0.012) ** 2 < high
    assert low < rows < high < 1.5 * low
    floor = fit_sizes(SIZES, *noisy(0.02 * (SIZES / 1e5) ** -0.5 + 0.05), [POWER_AND_FLOOR])
    assert rows_where_negligible(floor, syst, 0.1, 3e5) is None


def test_errors_are_pooled_because_one_of_few_trainings_may_be_small_by_chance():
    assert pooled([1.0, 2.0], [0.1, 1e-9]) == pytest.approx([0.1 / 2**0.5, 0.2 / 2**0.5])
    assert pooled([1.0, 2.0, 3.0], [0.1, None, None]) is None


def drawn(count, networks, between, within, rows=4000, seed=0):
    """Trainings whose networks scatter within and between them by known amounts, row by row."""
    width = 10 ** np.random.default_rng(1).uniform(-2, 0, rows)
    rng = np.random.default_rng([seed, count])
    trainings = []
    for _ in range(count):
        centre = between * width * rng.standard_normal(rows)
        means = centre + within * width * rng.standard_normal((networks, rows))
        trainings.append({"mean": means.mean(axis=0), "sigma_stat": means.std(axis=0)})
    return trainings


@pytest.mark.parametrize(("count", "networks"), [(2, 8), (10, 50), (10, 1)])
def test_the_real_spread_is_that_of_a_single_network(count, networks):
    """0.3 between trainings and 0.4 within are 0.5, whatever the number of either."""
    predicted = drawn(1, 50, 0.0, 0.4, seed=9)
    spread = compare(predicted, drawn(count, networks, 0.3, 0.4), "")
    assert spread.ratio == pytest.approx(0.8, rel=0.06)
    assert spread.trainings == count


def test_the_error_of_a_spread_is_larger_with_fewer_trainings():
    predicted = drawn(1, 50, 0.0, 0.4, seed=9)
    few, many = (errors_of(predicted, drawn(n, 5, 0.3, 0.4), "")["ratio"] for n in (3, 12))
    assert 0 < many < few
    assert errors_of(predicted, drawn(2, 5, 0.3, 0.4), "") == {}
    assert compare(predicted, drawn(1, 5, 0.3, 0.4), "") is None


def test_medians_respect_weights_negative_ones_included():
    values = np.array([3.0, np.nan, 1.0, 2.0, 4.0], np.float32)
    assert levels_of(values, None)["median"] == 2.0
    assert levels_of(values, np.array([9.0, 1.0, 1.0, 1.0, 1.0]))["median"] == 3.0
    # a row and its cancellation count for nothing
    again = np.concatenate([values, [2.5, 2.5]]).astype(np.float32)
    weights = np.array([9.0, 1.0, 1.0, 1.0, 1.0, 5.0, -5.0])
    assert levels_of(again, weights)["median"] in {2.5, 3.0}
    rng = np.random.default_rng(2)
    many = rng.normal(size=20_001).astype(np.float32)
    assert levels_of(many, None)["median"] == np.median(many)
    assert levels_of(many, np.exp(-many / 2))["median"] == pytest.approx(-0.5, abs=0.05)
