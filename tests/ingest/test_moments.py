import dask.array as da
import numpy as np
import pytest
from dask_ml.preprocessing import StandardScaler
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from pipeline.fold import merge_in_order
from pipeline.ingest.moments import Moments, SignedMoments

blocks = hnp.arrays(
    np.float64,
    st.tuples(st.integers(0, 12), st.just(2)),
    elements=st.floats(-1e6, 1e6, allow_subnormal=False),
)


def _of(values):
    return Moments.of(list(values.T))


def _assert_close(left, right, scale=1.0):
    assert left.count == right.count
    assert left.sum_of_weights == pytest.approx(right.sum_of_weights)
    np.testing.assert_allclose(left.mean, right.mean, rtol=1e-9, atol=1e-9 * scale)
    np.testing.assert_allclose(left.spread, right.spread, rtol=1e-7, atol=1e-7 * scale**2)
    np.testing.assert_array_equal(left.minimum, right.minimum)
    np.testing.assert_array_equal(left.maximum, right.maximum)


@given(blocks, blocks, blocks)
def test_the_merge_is_associative_and_commutative_up_to_rounding(a, b, c):
    x, y, z = _of(a), _of(b), _of(c)
    _assert_close((x + y) + z, x + (y + z), scale=1e6)
    _assert_close(x + y, y + x, scale=1e6)


@given(blocks)
def test_no_rows_are_the_identity(values):
    nothing = _of(values[:0])
    _assert_close(_of(values) + nothing, _of(values))
    _assert_close(nothing + _of(values), _of(values))


def _add(a, b):
    return a + b


@given(st.lists(st.integers(0, 400), min_size=1, max_size=12), st.integers(0, 100))
def test_streamed_equals_numpy_for_any_partition(sizes, seed):
    rng = np.random.default_rng(seed)
    parts = [rng.normal(1e4, 1.0, (size, 3)) for size in [*sizes, 5]]
    whole = np.concatenate(parts)
    merged = merge_in_order([SignedMoments.of(list(part.T)) for part in parts], _add)
    np.testing.assert_allclose(merged.mean, whole.mean(axis=0), rtol=1e-12)
    np.testing.assert_allclose(merged.std, whole.std(axis=0), rtol=1e-10, atol=1e-11)


def test_weights_count_like_repeated_rows():
    rng = np.random.default_rng(1)
    values, times = rng.normal(size=(50, 2)), rng.integers(1, 5, 50)
    weighted = SignedMoments.of(list(values.T), times.astype(float))
    repeated = SignedMoments.of(list(np.repeat(values, times, axis=0).T))
    np.testing.assert_allclose(weighted.mean, repeated.mean, rtol=1e-12)
    np.testing.assert_allclose(weighted.std, repeated.std, rtol=1e-12)


@given(st.integers(0, 2**32 - 1), st.lists(st.integers(0, 60), min_size=1, max_size=9))
def test_negative_weights_take_rows_away(seed, sizes):
    rng = np.random.default_rng(seed)
    parts = [rng.normal(5.0, 2.0, (2, size)) for size in [*sizes, 40]]
    weights = [rng.choice([-1.0, 0.5, 3.0], part.shape[1]) for part in parts]
    merged = merge_in_order(
        [SignedMoments.of(list(p), w) for p, w in zip(parts, weights, strict=True)], _add
    )
    x, w = np.concatenate(parts, axis=1), np.concatenate(weights)
    total = w.sum()
    assert merged.count == x.shape[1]
    assert merged.sum_of_weights == pytest.approx(total, abs=1e-9)
    if abs(total) < 1.0:  # the mean of next to nothing has no digits left
        return
    mean = (w * x).sum(axis=1) / total
    np.testing.assert_allclose(merged.mean, mean, rtol=1e-10, atol=1e-10)
    variance = (w * (x - mean[:, None]) ** 2).sum(axis=1) / total
    np.testing.assert_allclose(
        np.nan_to_num(merged.std), np.sqrt(np.maximum(variance, 0)), rtol=1e-6, atol=1e-6
    )
    np.testing.assert_array_equal(merged.minimum, x.min(axis=1))
    np.testing.assert_array_equal(merged.maximum, x.max(axis=1))


def test_equal_to_numpy_to_twelve_digits_on_large_samples():
    rng = np.random.default_rng(4)
    values, weights = 10 ** rng.normal(0, 2, (3, 300_000)), rng.gamma(2.0, 1.0, 300_000)
    blocks = [slice(i, i + 65_536) for i in range(0, 300_000, 65_536)]
    for w in (None, weights):
        merged = merge_in_order(
            [SignedMoments.of(list(values[:, b]), None if w is None else w[b]) for b in blocks],
            _add,
        )
        mean = np.average(values, axis=1, weights=w)
        std = np.sqrt(np.average((values - mean[:, None]) ** 2, axis=1, weights=w))
        np.testing.assert_allclose(merged.mean, mean, rtol=1e-12)
        np.testing.assert_allclose(merged.std, std, rtol=1e-12)


def test_equal_to_the_standard_scaler_of_dask_ml_on_the_same_parts():
    values = np.random.default_rng(2).gamma(2.0, 3.0, (1000, 4))
    scaler = StandardScaler().fit(da.from_array(values, chunks=(137, 4)))
    merged = merge_in_order(
        [SignedMoments.of(list(values[i : i + 137].T)) for i in range(0, 1000, 137)], _add
    )
    np.testing.assert_allclose(merged.mean, scaler.mean_, rtol=1e-12)
    np.testing.assert_allclose(merged.std, scaler.scale_, rtol=1e-12)
