import dask.array as da
import numpy as np
import pytest
from dask_ml.preprocessing import StandardScaler
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from pipeline.fold import merge_in_order
from pipeline.moments import Moments

blocks = hnp.arrays(
    np.float64,
    st.tuples(st.integers(0, 12), st.just(2)),
    elements=st.floats(-1e6, 1e6, allow_subnormal=False),
)


def _of(values):
    return Moments.of(values, np.ones(len(values)))


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


@given(st.lists(st.integers(0, 400), min_size=1, max_size=12), st.integers(0, 100))
def test_streamed_equals_numpy_for_any_partition(sizes, seed):
    rng = np.random.default_rng(seed)
    parts = [rng.normal(1e4, 1.0, (size, 3)) for size in [*sizes, 5]]
    whole = np.concatenate(parts)
    merged = merge_in_order([_of(part) for part in parts], lambda a, b: a + b)
    np.testing.assert_allclose(merged.mean, whole.mean(axis=0), rtol=1e-12)
    np.testing.assert_allclose(merged.std, whole.std(axis=0), rtol=1e-10, atol=1e-11)


def test_weights_count_like_repeated_rows():
    rng = np.random.default_rng(1)
    values, times = rng.normal(size=(50, 2)), rng.integers(1, 5, 50)
    weighted = Moments.of(values, times.astype(float))
    repeated = _of(np.repeat(values, times, axis=0))
    np.testing.assert_allclose(weighted.mean, repeated.mean, rtol=1e-12)
    np.testing.assert_allclose(weighted.std, repeated.std, rtol=1e-12)


def test_equal_to_the_standard_scaler_of_dask_ml_on_the_same_parts():
    values = np.random.default_rng(2).gamma(2.0, 3.0, (1000, 4))
    scaler = StandardScaler().fit(da.from_array(values, chunks=(137, 4)))
    merged = merge_in_order(
        [_of(values[i : i + 137]) for i in range(0, 1000, 137)], lambda a, b: a + b
    )
    np.testing.assert_allclose(merged.mean, scaler.mean_, rtol=1e-12)
    np.testing.assert_allclose(merged.std, scaler.scale_, rtol=1e-12)
