import dataclasses
import threading
import tracemalloc

import numpy as np
import pytest
import torch
from training_fixtures import ROWS, tiny_settings, write_tiny_dataset

from pipeline.formats.errors import UserError
from training.checkpoint import newest_checkpoint
from training.data.rows import Chunk, TrainingRows
from training.data.stream import StreamedRows
from training.data.training_data import read_training_data
from training.history import read_history
from training.loop import train_network
from training.steps.noise import plan_epoch

LITTLE = 0.03  # MiB; the rows need more than three times as much
BATCH = 1100


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    folder = tmp_path_factory.mktemp("dataset")
    return write_tiny_dataset(folder, with_weights=True, group_rows=100)


@pytest.fixture(scope="module")
def streamed(dataset):
    return read_training_data(dataset, None, LITTLE)


@pytest.fixture(scope="module")
def resident(dataset):
    return read_training_data(dataset, None)


def empty_chunk(rows):
    return Chunk(torch.empty(rows, 4), torch.empty(rows), torch.ones(rows))


def epoch_of(source, *, epoch=0, rank=0, world_size=1, steps_at_once=2):
    """The rows of a worker in an epoch, as [N, 6], and their places in it."""
    plan = plan_epoch(len(source), BATCH, rank, world_size)
    sample = source.sampler(7, epoch)
    rows, places = [], []
    for first in range(0, len(plan), steps_at_once):
        steps = plan[first : first + steps_at_once]
        count = sum(step.rows for step in steps)
        chunk = empty_chunk(count)
        sample(steps, chunk)
        rows.append(torch.cat([chunk.x_NF, chunk.target_N[:, None], chunk.weight_N[:, None]], 1))
        places += [step.start + row for step in steps for row in range(step.rows)]
    return torch.cat(rows), places


def test_rows_are_streamed_only_if_they_need_more_than_the_memory(streamed, resident, dataset):
    assert isinstance(streamed.train, StreamedRows)
    assert isinstance(streamed.validation, StreamedRows)
    assert isinstance(resident.train, TrainingRows)
    assert isinstance(read_training_data(dataset, None, 1.0).train, TrainingRows)
    needed = (ROWS["train"] + ROWS["validation"]) * streamed.train.recipe.bytes_per_row
    assert needed > 2 * LITTLE * 2**20
    assert len(streamed.train) == ROWS["train"]


def test_an_epoch_has_every_row_once_and_another_order_each_time(streamed, resident):
    first, places = epoch_of(streamed.train)
    assert places == list(range(ROWS["train"]))
    expected, _ = epoch_of(resident.train)

    def in_order(rows_NC):
        return rows_NC[np.lexsort(rows_NC.numpy().T)]

    torch.testing.assert_close(in_order(first), in_order(expected), rtol=1e-6, atol=0.0)
    assert torch.equal(first, epoch_of(streamed.train)[0])
    assert (first == epoch_of(streamed.train, epoch=1)[0]).all(1).float().mean() < 0.02


@pytest.mark.parametrize("world_size", [2, 3])
def test_the_order_does_not_depend_on_workers_or_chunks(streamed, world_size):
    whole, _ = epoch_of(streamed.train)
    seen = []
    for rank in range(world_size):
        rows, places = epoch_of(
            streamed.train, rank=rank, world_size=world_size, steps_at_once=rank + 1
        )
        assert torch.equal(rows, whole[places])
        seen += places
    assert sorted(seen) == list(range(ROWS["train"]))


def test_rows_that_are_neighbours_on_disk_are_far_apart(streamed, resident):
    """Within a batch of 1100 there are rows of nearly all 30 row groups' pools."""
    rows, _ = epoch_of(streamed.train)
    place = {row.numpy().tobytes(): index for index, row in enumerate(resident.train.x_NF)}
    origin = np.array([place[row.numpy().tobytes()] for row in rows[:, :4]])
    distance = np.abs(np.diff(origin))
    assert np.median(distance) > 100
    assert len(np.unique(origin[:BATCH] // 100)) >= 11


def test_validation_slabs_are_shared_out(streamed, resident):
    shares = [list(streamed.validation.slabs(rank, 2)) for rank in range(2)]
    found = torch.cat([slab.x_NF for slab in shares[0] + shares[1]])
    expected = resident.validation.x_NF
    assert found.shape == expected.shape
    torch.testing.assert_close(found.sort(0).values, expected.sort(0).values)
    weights = torch.cat([slab.weight_N for share in shares for slab in share])
    assert weights.mean().item() == pytest.approx(1.0, rel=1e-6)


def test_little_memory_is_used(tmp_path):
    rows = {"train": 200_000, "validation": 1000, "test": 10}
    dataset = write_tiny_dataset(tmp_path, rows=rows, group_rows=2000)
    source = read_training_data(dataset, None, 1.0).train
    plan, chunk = plan_epoch(len(source), BATCH, 0, 1), empty_chunk(BATCH)
    source.sampler(1, 0)(plan[:1], chunk)  # what is imported and kept at the first use is no row
    sample = source.sampler(1, 1)
    tracemalloc.start()
    for step in plan:
        sample([step], chunk)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    # the budget, and a row group while it is converted; all rows would be far more
    assert peak < 1.25 * 2**20 < 0.3 * len(source) * source.recipe.bytes_per_row
    assert source.pool_rows * source.recipe.bytes_per_row <= 2**20 / 3


def test_streamed_training_is_repeatable_and_as_good(dataset, tmp_path):
    settings = tiny_settings(memory_mib=LITTLE, epochs=4)

    def train(folder, settings):
        data = read_training_data(dataset, None, settings.memory_mib)
        train_network(data, settings, seed=5, fingerprint="a", folder=tmp_path / folder)
        return newest_checkpoint(tmp_path / folder, "a")

    one = train("one", settings)
    train("two", settings.model_copy(update={"epochs": 2}))
    assert torch.equal(
        train("two", settings).networks[0].theta_P, one.networks[0].theta_P
    )  # continued after two epochs
    train("resident", tiny_settings(epochs=4))
    losses = [
        read_history(tmp_path / folder)[-1]["validation_nll"] for folder in ("one", "resident")
    ]
    assert losses[0] == pytest.approx(losses[1], abs=0.05)


def test_no_reader_is_left_behind(streamed):
    before = threading.active_count()
    sample = streamed.train.sampler(1, 0)
    sample(plan_epoch(len(streamed.train), BATCH, 0, 1)[:1], empty_chunk(BATCH))
    del sample
    assert threading.active_count() == before


def test_a_changed_part_is_refused(tmp_path):
    dataset = write_tiny_dataset(tmp_path)
    path = dataset / "split=train" / "part-00001.parquet"
    content = bytearray(path.read_bytes())
    content[100] ^= 1
    path.write_bytes(content)
    with pytest.raises(UserError, match=r"part-00001.*checksum"):
        read_training_data(dataset, None, LITTLE)
    path.unlink()
    with pytest.raises(UserError, match=r"part-00001.*missing"):
        read_training_data(dataset, None, LITTLE)


def test_a_row_that_cannot_be_trained_on_is_named(streamed):
    groups = streamed.train.groups
    scalings = list(streamed.train.recipe.scalings)
    scalings[2] = scalings[2].model_copy(update={"function": "log10"})  # of a signed column
    recipe = dataclasses.replace(streamed.train.recipe, scalings=tuple(scalings))
    source = dataclasses.replace(streamed.train, recipe=recipe, groups=groups[3:4])
    with pytest.raises(UserError, match=r"part-00000.*row 3\d\d: angle = -"):
        next(source.slabs(0, 1))
