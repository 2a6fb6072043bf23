import math
import os
import subprocess
import sys

import numpy as np
import pytest
import torch
from scipy import stats

from training.steps.normals import fill_normals, normals_on_device

KEY = (np.uint32(2_718_281_828), np.uint32(3_141_592_653))
MANY = 4_000_000


def draw(size, key=KEY, first=0, half=None):
    out_N = np.empty(size, dtype=np.float32)
    fill_normals(out_N, key, first, half or -(-size // 2))
    return out_N


@pytest.fixture(scope="module")
def many():
    return draw(MANY)


def test_moments_and_distribution_are_those_of_a_standard_normal(many):
    """Limits are five standard errors; KS is judged at 1e-4."""
    wide = many.astype(np.float64)
    for power, expected, variance in [(1, 0, 1), (2, 1, 2), (3, 0, 15), (4, 3, 96), (6, 15, 10170)]:
        assert abs((wide**power).mean() - expected) < 5 * math.sqrt(variance / MANY)
    assert stats.kstest(wide, "norm").pvalue > 1e-4
    assert stats.kstest(np.abs(wide[: MANY // 2]), "halfnorm").pvalue > 1e-4


@pytest.mark.parametrize("sigmas", [2.0, 3.0, 4.0, 4.5, 5.0])
def test_tails_hold_the_expected_number_on_either_side(sigmas):
    expected = stats.norm.sf(sigmas) * 8 * MANY
    counts = np.zeros(2)
    for number in range(8):
        out_N = draw(MANY, (KEY[0], np.uint32(number)))
        counts += [(out_N > sigmas).sum(), (out_N < -sigmas).sum()]
    assert (np.abs(counts - expected) < 5 * np.sqrt(expected)).all()


@pytest.mark.parametrize("lag", [1, 2, 64, 256, 4096])
def test_neighbours_are_uncorrelated(many, lag):
    for power in (1, 2):
        x = many.astype(np.float64) ** power
        x = (x - x.mean()) / x.std()
        assert abs((x[:-lag] * x[lag:]).mean()) < 5 / math.sqrt(MANY - lag)


@pytest.mark.parametrize("bit", [0, 1, 7, 16, 31])
@pytest.mark.parametrize("half", [0, 1])
def test_keys_that_differ_in_one_bit_give_independent_numbers(many, half, bit):
    key = list(KEY)
    key[half] = np.uint32(key[half] ^ np.uint32(1 << bit))
    x, y = many.astype(np.float64), draw(MANY, tuple(key)).astype(np.float64)
    assert abs((x * y).mean()) < 5 / math.sqrt(MANY)
    assert abs(((x**2 - 1) * (y**2 - 1)).mean()) < 5 * 2 / math.sqrt(MANY)
    assert (x == y).mean() < 1e-4


def test_the_pair_of_a_counter_is_independent(many):
    x, y = many[: MANY // 2].astype(np.float64), many[MANY // 2 :].astype(np.float64)
    assert abs((x * y).mean()) < 5 / math.sqrt(len(x))
    angle = np.arctan2(y, x) / (2 * math.pi) + 0.5
    assert stats.kstest(angle, "uniform").pvalue > 1e-4
    assert stats.kstest((x**2 + y**2) / 2, "expon").pvalue > 1e-4


@pytest.mark.parametrize("size", [0, 1, 7, 8, 9, 13, 16])
def test_a_shorter_vector_has_the_same_numbers(size):
    whole = draw(16, first=5, half=8)
    assert (draw(size, first=5, half=8) == whole[:size]).all()


def test_interpreted_the_bits_are_the_same():
    """As a debugger sees the kernels; warnings are of integers that start again at 0."""
    code = (
        "import sys, numpy as np; from training.steps.normals import fill_normals\n"
        "out = np.empty(2_001, np.float32)\n"
        "fill_normals(out, (np.uint32(7), np.uint32(8)), 2**32 - 1000, 1_200)\n"
        "sys.stdout.buffer.write(out.tobytes())"
    )
    found = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", code],
        capture_output=True,
        check=True,
        env=os.environ | {"NUMBA_DISABLE_JIT": "1"},
    )
    expected = draw(2_001, (np.uint32(7), np.uint32(8)), 2**32 - 1000, 1_200)
    assert found.stdout == expected.tobytes()


def test_a_devices_numbers_are_the_same_to_rounding():
    counter = torch.arange(100, 50_100, dtype=torch.int32)
    halves = torch.from_numpy(np.array(KEY).view(np.int32))
    found = torch.cat(normals_on_device(counter, halves)).numpy()
    np.testing.assert_allclose(found, draw(100_000, first=100), rtol=0, atol=3e-6)
