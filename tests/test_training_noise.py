from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from training.noise import BLOCK_ROWS, fill_noise, noise_of_epoch, plan_epoch

OUTPUTS = (5, 3)


def buffers(rows):
    return [torch.full((rows, outputs), torch.nan) for outputs in OUTPUTS]


def noise_of_batch(batch_rows, world_size, *, num_rows=None, epoch=0, step=0):
    """The noise of one global batch, put together from its workers."""
    parts = []
    for rank in range(world_size):
        rows = plan_epoch(num_rows or batch_rows, batch_rows, rank, world_size)[step]
        parts.append([n.clone() for n in fill_noise(buffers(batch_rows), 3, epoch, rows)])
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


def test_noise_made_ahead_is_the_same():
    plan = plan_epoch(5000, 1100, 1, 2)
    with ThreadPoolExecutor(max_workers=1) as maker:
        ahead = noise_of_epoch(3, 4, plan, (buffers(1100), buffers(1100)), maker)
        for rows, made in zip(plan, ahead, strict=True):
            for now, before in zip(fill_noise(buffers(1100), 3, 4, rows), made, strict=False):
                assert torch.equal(now, before)
