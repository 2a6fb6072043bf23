import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from pipeline.formats.columns import Cut
from pipeline.ingest.clean import raise_to_floor, select

values = st.lists(
    st.floats(-3, 3, width=32) | st.sampled_from([np.nan, np.inf, 0.0]), min_size=1, max_size=30
)


@given(values, st.floats(-2, 0), st.floats(0, 2))
def test_cuts_equal_a_loop_that_states_them(numbers, low, high):
    arrays = {"x": np.array(numbers, np.float32), "y": np.array(numbers[::-1], np.float32)}
    cuts = [Cut(column="x", above=low), Cut(column="y", above=low, below=high)]
    keep, counts = select(arrays, cuts, ["x"])
    low, high = np.float32(low), np.float32(high)
    steps = [
        [True, np.isfinite(x), x > low, low < y < high]
        for x, y in zip(arrays["x"], arrays["y"], strict=True)
    ]
    assert keep.tolist() == [all(step) for step in steps]
    assert counts.tolist() == [sum(all(s[: n + 1]) for s in steps) for n in range(4)]


def test_cuts_are_strict():
    keep, _ = select(
        {"x": np.array([0.0, 0.3, 0.31], np.float32)}, [Cut(column="x", above=0.3)], []
    )
    assert keep.tolist() == [False, False, True]


def test_floors_count_what_they_raise():
    raised, count = raise_to_floor(np.array([0.0, 1e-3, 2.0, 1e-9], np.float32), 1e-3)
    assert count == 2
    np.testing.assert_array_equal(raised, np.array([1e-3, 1e-3, 2.0, 1e-3], np.float32))


def test_rules_read_as_a_person_would_write_them():
    assert Cut(column="e", above=0.3).rule == "e > 0.3"
    assert Cut(column="e", below=2).rule == "e < 2"
    assert Cut(column="e", above=0, below=2).rule == "0 < e < 2"
