"""Columns of lists against awkward arrays."""

import awkward as ak
import numpy as np
import pyarrow as pa
import pytest

from pipeline.formats.columns import Feature
from pipeline.formats.manifest import columns_of
from pipeline.formats.model_inputs import inputs_of
from pipeline.formats.ragged import Ragged, every_element, join, table_of


@pytest.fixture(params=[[3, 0, 2, 5, 0, 1], [0, 0], []], ids=["some", "empty lists", "no rows"])
def lists(request):
    counts = np.array(request.param, np.int64)
    return Ragged.of_counts(np.random.default_rng(1).normal(size=counts.sum()), counts)


def awkward_of(ragged):
    return ak.unflatten(ragged.values, ragged.counts)


def test_rows_are_chosen_as_awkward_does(lists):
    whole = awkward_of(lists)
    keep = np.arange(len(lists)) % 2 == 0
    for rows in (slice(1, 4), slice(None), slice(0, None, 2), np.flatnonzero(keep)[::-1], keep):
        found = lists[rows]
        assert awkward_of(found).to_list() == whole[rows].to_list()
        assert found.offsets[0] == 0
    np.testing.assert_array_equal(lists.rows, np.repeat(np.arange(len(lists)), lists.counts))


def test_a_slice_copies_nothing():
    lists = Ragged.of_counts(np.arange(6.0), [1, 2, 3])
    assert np.shares_memory(lists[1:3].values, lists.values)


def test_pieces_joined_are_the_whole(lists):
    cut = len(lists) // 2
    found = join([lists[:cut], lists[cut:]])
    np.testing.assert_array_equal(found.values, lists.values)
    np.testing.assert_array_equal(found.offsets, lists.offsets)


def test_arrow_gives_back_what_it_got(lists):
    table = table_of({"cells": lists.astype(np.float32), "number": np.arange(len(lists))})
    assert table.schema.field("cells").type == pa.list_(pa.float32())
    some = columns_of(table.slice(1, 3))["cells"]
    assert awkward_of(some).to_list() == awkward_of(lists.astype(np.float32))[1:4].to_list()
    whole = columns_of(table)["cells"]
    if len(lists):
        buffer = table["cells"].chunk(0).values.to_numpy()
        assert np.shares_memory(whole.values, buffer) or not len(buffer)


def test_a_row_passes_with_all_its_elements():
    lists = Ragged.of_counts(np.array([1.0, np.nan, 2.0, 3.0]), [2, 0, 2])
    np.testing.assert_array_equal(every_element(lists, np.isfinite), [False, True, True])
    np.testing.assert_array_equal(every_element(lists.values, np.isfinite), [1, 0, 1, 1])


def test_inputs_of_a_file_have_the_row_of_each_element():
    columns = {
        "e": np.array([1.0, 2.0]),
        "x": Ragged.of_counts(np.array([1.0, 2.0, 3.0]), [1, 2]),
        "y": Ragged.of_counts(np.array([4.0, 5.0, 6.0]), [1, 2]),
    }
    found = inputs_of(["e"], {"cells": ("x", "y")}, columns)
    assert list(found) == ["features", "cells", "cells_rows"]
    np.testing.assert_array_equal(found["cells"], [[1, 4], [2, 5], [3, 6]])
    np.testing.assert_array_equal(found["cells_rows"], [0, 1, 1])


def test_a_table_is_one_of_lists():
    with pytest.raises(ValueError, match="table: x is no list"):
        Feature(name="x", transform="none", table="cells")
