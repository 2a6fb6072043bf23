import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from training.steps.noise import (
    BLOCK_ROWS,
    PAIR_ROWS,
    fill_layer_noise,
    fill_pair_noise,
    keys_of_epoch,
    plan_epoch,
)

OUTPUTS = (5, 3)


def buffers(rows):
    blocks = -(-rows // BLOCK_ROWS)
    return [torch.full((blocks * BLOCK_ROWS, outputs), torch.nan) for outputs in OUTPUTS]


def noise_of_batch(batch_rows, world_size, *, num_rows=None, epoch=0, step=0):
    """The noise of one global batch, put together from its workers."""
    parts = []
    for rank in range(world_size):
        rows = plan_epoch(num_rows or batch_rows, batch_rows, rank, world_size)[step]
        key = keys_of_epoch(3, epoch, step + 1)[step]
        parts.append(fill_layer_noise(buffers(batch_rows), key, rows.first_block, rows.rows))
    return [torch.cat(layers) for layers in zip(*parts, strict=False)]


@pytest.mark.parametrize("world_size", [2, 3, 5])
def test_noise_does_not_depend_on_the_number_of_workers(world_size):
    for one, many in zip(noise_of_batch(2600, 1), noise_of_batch(2600, world_size), strict=False):
        assert torch.equal(one, many)


def test_noise_is_standard_normal_and_differs_everywhere():
    first = noise_of_batch(8 * BLOCK_ROWS, 1)[0]
    assert first.mean().item() == pytest.approx(0.0, abs=5 / first.numel() ** 0.5)
    assert first.std().item() == pytest.approx(1.0, abs=0.02)
    assert len(first.unique()) > 0.99 * first.numel()
    assert not torch.equal(first, noise_of_batch(8 * BLOCK_ROWS, 1, epoch=1)[0])
    twice = 16 * BLOCK_ROWS
    assert not torch.equal(first, noise_of_batch(8 * BLOCK_ROWS, 1, num_rows=twice, step=1)[0])


def test_pairs_of_sub_batches_do_not_depend_on_the_number_of_workers():
    key = keys_of_epoch(3, 0, 1)[0]
    whole = fill_pair_noise(torch.empty(6, 21), key, 0, 6)
    part = fill_pair_noise(torch.empty(4, 21), key, BLOCK_ROWS // PAIR_ROWS, 4)
    assert torch.equal(whole[2:], part)
    assert len(whole.unique()) == whole.numel()


def test_keys_of_steps_and_epochs_differ():
    keys = torch.cat([keys_of_epoch(seed, epoch, 50) for seed in range(3) for epoch in range(4)])
    assert len(keys.unique(dim=0)) == len(keys)


@given(num_rows=st.integers(1, 6000), batch_rows=st.integers(1, 3000), world_size=st.integers(1, 7))
def test_workers_take_every_row_of_every_batch_once(num_rows, batch_rows, world_size):
    plans = [plan_epoch(num_rows, batch_rows, rank, world_size) for rank in range(world_size)]
    seen = 0
    for steps in zip(*plans, strict=False):
        assert len({step.batch_rows for step in steps}) == 1
        start = seen
        for step in steps:
            if step.rows:
                assert step.start == seen
                assert step.start == start + step.first_block * BLOCK_ROWS
            seen += step.rows
        assert seen - start == steps[0].batch_rows
    assert seen == num_rows
