"""Networks of lists: sums over sets, their gradients, rows from memory and from disk."""

import numpy as np
import pyarrow as pa
import pytest
import torch
from statistics_fixture import statistics_of
from torch.func import functional_call
from training_fixtures import write_tiny_dataset
from training_processes import assert_equal, train, train_on_workers

from pipeline.formats.columns import Column, Feature
from pipeline.formats.errors import StoppedBySignal
from pipeline.formats.manifest import MANIFEST, read_manifest, read_part
from pipeline.formats.ragged import Ragged, table_of
from pipeline.parquet import write_part
from training.checkpoint import newest_checkpoint
from training.data.rows import Chunk
from training.data.training_data import read_training_data
from training.kinds import kind_of
from training.learners.autograd import family_loss
from training.networks.encoders import EncodedNetwork, build_network
from training.settings import (
    BnnSettings,
    DeepSetsSettings,
    MixtureDensitySettings,
    RepulsiveEnsembleSettings,
)
from training.steps.autograd import AutogradStep, FlatParameters, Forward, gaussian_layers
from training.steps.noise import StepRows
from training.steps.sampled import Batch
from training.steps.sums import GradientSums
from training.steps.tables import TableRows, join_tables
from training.worker import Worker

SETS = {"encoder": {"table": "hits", "hidden": (5,), "outputs": 4}, "hidden": (6,)}
SETTINGS = MixtureDensitySettings(**SETS, components=2)
LISTS = ("hit_e", "hit_x")


def table(seed, rows=7, columns=2):
    generator = torch.Generator().manual_seed(seed)
    counts = torch.randint(0, 5, (rows,), generator=generator)
    offsets = torch.cat([torch.zeros(1, dtype=torch.int64), counts.cumsum(0)])
    return TableRows(torch.randn(int(counts.sum()), columns, generator=generator), offsets)


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    """The tiny dataset with a table of two columns beside its features."""
    folder = write_tiny_dataset(tmp_path_factory.mktemp("dataset"))
    manifest, rng, parts = read_manifest(folder), np.random.default_rng(5), []
    values = {name: [] for name in LISTS}
    for part in manifest.parts:
        whole = read_part(folder, part)
        counts = rng.poisson(3.0, part.rows)
        columns = {
            name: Ragged.of_counts(rng.normal(size=counts.sum()).astype(np.float32), counts)
            for name in LISTS
        }
        for name, lists in table_of(columns).to_pydict().items():
            whole = whole.append_column(name, pa.array(lists, pa.list_(pa.float32())))
        parts.append(write_part(folder, part.split, part.index, whole))
        if part.split == "train":
            for name, lists in columns.items():
                values[name].append(lists.values)
    statistics = {name: statistics_of(np.concatenate(each)) for name, each in values.items()}
    lists = [
        Feature(name=name, transform="standard", shape="ragged", table="hits") for name in LISTS
    ]
    shapes = [Column(name=name, role="feature", shape="ragged") for name in LISTS]
    manifest.model_copy(
        update={
            "features": (*manifest.features, *lists),
            "columns": (*manifest.columns, *shapes),
            "parts": tuple(parts),
            "statistics": manifest.statistics | statistics,
        }
    ).save(folder / MANIFEST)
    return folder


def rows_of(table):
    return [table.x_EC[a:b] for a, b in zip(table.offsets[:-1], table.offsets[1:], strict=True)]


def test_tables_are_cut_taken_and_joined_row_by_row():
    whole = table(1)
    rows = rows_of(whole)
    index = torch.tensor([6, 0, 3, 3])
    for found, expected in (
        (whole[2:5], rows[2:5]),
        (whole.take(index), [rows[i] for i in index]),
        (TableRows.join([whole[:3], whole[3:3], whole[3:]]), rows),
        (join_tables([(whole,), (whole[1:2],)])[0], [*rows, rows[1]]),
    ):
        for one, other in zip(rows_of(found), expected, strict=True):
            assert torch.equal(one, other)
    assert torch.equal(whole.rows, torch.repeat_interleave(torch.arange(7), whole.offsets.diff()))


def network(widths=(2,), settings=SETTINGS):
    return build_network(settings, 3, widths, torch.Generator().manual_seed(2))


def test_each_row_is_the_sum_over_its_elements_in_any_order():
    module, hits, x_BF = network(), table(3), torch.randn(7, 3)
    found = module(x_BF, *hits.inputs)
    (encoder,), head = module.encoders, module.head
    for row, elements in enumerate(rows_of(hits)):
        summed = encoder.element(elements).sum(0)
        expected = head(torch.cat([x_BF[row], summed]))
        torch.testing.assert_close(found[row], expected, rtol=1e-5, atol=1e-6)
    order = torch.randperm(len(hits.x_EC))
    shuffled = module(x_BF, hits.x_EC[order], hits.rows[order])
    torch.testing.assert_close(shuffled, found, rtol=1e-5, atol=1e-6)


def test_several_tables_have_an_encoder_each():
    encoders = tuple(DeepSetsSettings(table=name, hidden=(4,), outputs=3) for name in "ab")
    module = network((2, 5), SETTINGS.model_copy(update={"encoder": encoders}))
    one, two = table(1), table(4, columns=5)
    assert module(torch.randn(7, 3), *one.inputs, *two.inputs).shape == (7, 6)
    assert isinstance(module, EncodedNetwork)


@pytest.mark.parametrize(
    ("dtype", "tolerance"), [(torch.float32, 1e-6), (torch.float64, 1e-12)], ids=["f32", "f64"]
)
def test_gradient_of_a_batch_is_that_of_its_rows_one_by_one(dtype, tolerance):
    module, hits = network().to(dtype), table(6)
    hits = TableRows(hits.x_EC.to(dtype), hits.offsets)
    generator = torch.Generator().manual_seed(8)
    x_BF, target_B = (torch.randn(*s, generator=generator, dtype=dtype) for s in ((7, 3), (7,)))
    weight_B = torch.rand(7, generator=generator, dtype=dtype) + 0.5
    flat = FlatParameters.of(module)
    theta_P = flat.values(module).requires_grad_()
    sums = GradientSums.of(torch.zeros(len(theta_P) + 2, dtype=dtype))
    key = torch.zeros(2, dtype=torch.int32)
    loss = family_loss(SETTINGS)
    AutogradStep(theta_P, sums, Forward(module), loss, 7)(
        Batch(x_BF, target_B, weight_B, key, 0, (hits,))
    )
    total = 0.0
    for row in range(7):
        inputs = (x_BF[row : row + 1], *hits[row : row + 1].inputs)
        outputs = functional_call(module, flat.views(theta_P), inputs)
        total = total + (weight_B[row] * loss(outputs, target_B[row : row + 1])).sum()
    (expected_P,) = torch.autograd.grad(total, theta_P)
    scale = expected_P.abs().max()
    assert (sums.gradient_P - expected_P).abs().max() <= 10 * tolerance * scale
    assert sums.loss.item() == pytest.approx(total.item(), rel=10 * tolerance)


def test_weights_that_elements_share_are_plain_in_a_bayesian_network(dataset):
    settings = BnnSettings(**SETS, components=1, samples=2, epochs=1)
    data = read_training_data(dataset, settings.features, tables=settings.tables)
    learner = kind_of(settings).open_learner(settings)(data, settings, seed=1, worker=Worker())
    names = list(gaussian_layers(learner.module))
    assert names == ["head.0", "head.2"]
    weights = sum(learner.module.get_submodule(name).weight.numel() for name in names)
    assert len(learner._log_variances()) == weights


def chunk_of(rows, steps):
    count = sum(step.rows for step in steps)
    chunk = Chunk(torch.empty(count, rows.num_features), torch.empty(count), torch.ones(count), [])
    rows.sampler(3, 0)(steps, chunk)
    return chunk


def test_streamed_rows_are_those_in_memory(dataset):
    """The same rows with the same lists, though in another order."""
    whole = read_training_data(dataset, None, tables=("hits",)).train
    streamed = read_training_data(dataset, None, 0.05, tables=("hits",)).train
    assert type(whole) is not type(streamed)
    assert whole.table_widths == streamed.table_widths == (2,)
    steps = [StepRows(0, 0, 50, 0, 50), StepRows(1, 50, 150, 0, 150)]
    for rows in (whole, streamed):
        chunk = chunk_of(rows, steps)
        (hits,) = chunk.tables
        assert len(hits) == 200
        by_row = {
            tuple(x.tolist()): each
            for x, each in zip(whole.x_NF, rows_of(whole.tables[0]), strict=True)
        }
        for x, found in zip(chunk.x_NF, rows_of(hits), strict=True):
            assert torch.equal(by_row[tuple(x.tolist())], found)
    slabs = [slab.tables[0].x_EC for slab in streamed.slabs(0, 1)]
    assert torch.equal(torch.cat(slabs), whole.tables[0].x_EC)


@pytest.mark.parametrize(
    "settings",
    [
        MixtureDensitySettings(**SETS, components=2, epochs=1, batch_rows=64),
        BnnSettings(**SETS, components=2, epochs=1, batch_rows=64, samples=2),
        RepulsiveEnsembleSettings(**SETS, components=2, epochs=1, batch_rows=64, members=2),
    ],
    ids=lambda settings: settings.kind,
)
def test_every_treatment_takes_a_step_and_validates(dataset, settings):
    data = read_training_data(dataset, settings.features, tables=settings.tables)
    learner = kind_of(settings).open_learner(settings)(data, settings, seed=1, worker=Worker())
    step = learner.plan[0]
    chunk = chunk_of(data.train, [step])
    key = torch.zeros(2, dtype=torch.int32)
    given = Batch(chunk.x_NF, chunk.target_N, chunk.weight_N, key, 0, tuple(chunk.tables))
    learner.start_epoch(0)
    learner.fill(given)
    learner.reduce_gradients(step.batch_rows, torch.zeros(2 + len(learner.figures)))
    assert all(theta_P.grad.abs().sum() > 0 for theta_P in learner.networks)
    assert torch.isfinite(learner.validate(data.validation))


LONG = MixtureDensitySettings(**SETS, components=2, epochs=4, batch_rows=1024)


@pytest.fixture(scope="module")
def whole(dataset, tmp_path_factory):
    return train(dataset, tmp_path_factory.mktemp("whole"), LONG)


def test_resumed_it_is_bitwise_the_same(dataset, tmp_path, whole):
    calls = iter(range(1000))
    with pytest.raises(StoppedBySignal):
        train(dataset, tmp_path, LONG, should_stop=lambda: next(calls) > 3)
    assert 0 < newest_checkpoint(tmp_path, "a").epoch < LONG.epochs
    assert_equal(train(dataset, tmp_path, LONG), whole)


def test_two_workers_share_the_rows_with_their_lists(dataset, tmp_path, whole):
    found = train_on_workers(2, dataset, tmp_path, LONG)
    for two, one in zip(found.networks, whole.networks, strict=True):
        torch.testing.assert_close(two.theta_P, one.theta_P, rtol=1e-3, atol=1e-5)


def test_a_table_that_is_not_there_is_named(dataset):
    with pytest.raises(Exception, match="no table cells of lists; it has hits"):
        read_training_data(dataset, None, tables=("cells",))


def test_one_encoder_a_table():
    twice = [{"table": "hits"}, {"table": "hits"}]
    with pytest.raises(ValueError, match="each table has one encoder"):
        MixtureDensitySettings(encoder=twice)
