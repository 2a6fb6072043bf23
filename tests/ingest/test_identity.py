import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from pipeline.ingest.identity import ids_from_columns, ids_from_file, mix, uniform_of

UUID = "580e9c86-e5f7-11f1-bdf2-02fc00000001"


def _mix_slowly(word: int) -> int:
    """SplitMix64 as its authors state it, in Python's integers."""
    word = (word + 0x9E3779B97F4A7C15) % 2**64
    word = ((word ^ (word >> 30)) * 0xBF58476D1CE4E5B9) % 2**64
    word = ((word ^ (word >> 27)) * 0x94D049BB133111EB) % 2**64
    return word ^ (word >> 31)


@given(st.lists(st.integers(0, 2**64 - 1), min_size=1, max_size=20))
def test_mix_equals_its_slow_twin(words):
    assert mix(np.array(words, np.uint64)).tolist() == [_mix_slowly(word) for word in words]


def test_known_value_of_splitmix64():
    # First output of the reference implementation for the seed 1234567.
    assert int(mix(np.array([1234567], np.uint64))[0]) == 6457827717110365317


def test_an_identity_does_not_depend_on_the_position_in_the_input():
    columns = [np.arange(100) // 7, np.arange(100) % 7]
    order = np.random.default_rng(0).permutation(100)
    shuffled = ids_from_columns([column[order] for column in columns])
    np.testing.assert_array_equal(ids_from_columns(columns)[order], shuffled)


def test_identities_are_unique():
    run, event, index = np.meshgrid(np.arange(3), np.arange(500), np.arange(40), indexing="ij")
    ids = ids_from_columns([run.ravel(), event.ravel(), index.ravel()])
    assert len(np.unique(ids)) == run.size
    by_file = ids_from_file(UUID, np.arange(50_000))
    assert len(np.unique(by_file)) == 50_000


def test_an_entry_range_gives_the_same_identities_as_the_whole_file():
    np.testing.assert_array_equal(
        ids_from_file(UUID, np.arange(100))[40:60], ids_from_file(UUID, np.arange(40, 60))
    )


def test_uniform_and_independent_of_another_seed():
    ids = ids_from_file(UUID, np.arange(200_000))
    u, v = uniform_of(ids, 0), uniform_of(ids, 1)
    assert u.min() >= 0.0
    assert u.max() < 1.0
    counts = np.histogram2d(u, v, bins=10, range=[[0, 1], [0, 1]])[0]
    chi2 = ((counts - 2000) ** 2 / 2000).sum()
    assert chi2 < 99 + 5 * np.sqrt(2 * 99)
