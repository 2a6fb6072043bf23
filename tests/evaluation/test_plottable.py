"""Tables of an evaluation as histograms that other tools draw."""

import mplhep
import numpy as np
import pyarrow as pa
import pytest
from matplotlib.figure import Figure
from uhi.typing.plottable import PlottableHistogram

from pipeline.evaluation.tables.plottable import histogram_of
from pipeline.formats.errors import UserError

SPECTRUM = pa.table({
    "axis": ["e"] * 3 + ["y"] * 2,
    "class": ["all"] * 5,
    "rows": [4, 0, 9, 3, 5],
    "low": [1.0, 2.0, 5.0, -1.0, 0.0],
    "high": [2.0, 5.0, 9.0, 0.0, 1.0],
    "weight": [2.0, 0.0, 4.5, 1.5, 2.5],
    "weight_error": [1.0, 0.0, 1.5, 0.9, 1.1],
})
PLANE = pa.table({
    "set": ["bnn"] * 3,
    "rows": [1, 2, 3],
    "low": [0.0, 1.0, 1.0],
    "high": [1.0, 2.0, 2.0],
    "target_low": [0.5, 0.5, 1.0],
    "target_high": [1.0, 1.0, 2.0],
    "weight": [1.0, 2.0, 3.0],
})
MEDIAN = pa.table({
    "set": ["bnn"] * 2,
    "rows": [100, 10],
    "low": [0.0, 2.0],
    "high": [1.0, 3.0],
    "median": [0.01, None],
    "median_error": [0.002, None],
})


def test_sums_of_weights():
    found = histogram_of(SPECTRUM, "weight", {"axis": "e"})
    assert isinstance(found, PlottableHistogram)
    assert found.kind == "COUNT"
    assert list(found.axes[0]) == [(1.0, 2.0), (2.0, 5.0), (5.0, 9.0)]
    np.testing.assert_array_equal(found.values(), [2.0, 0.0, 4.5])
    np.testing.assert_array_equal(found.variances(), [1.0, 0.0, 2.25])
    np.testing.assert_array_equal(found.counts(), [4, 0, 9])


def test_estimates_have_the_error_that_plotters_compute():
    found = histogram_of(MEDIAN, "median", {"set": "bnn"})
    assert found.kind == "MEAN"
    np.testing.assert_array_equal(found.values(), [0.01, np.nan, np.nan])  # a gap, a missing one
    errors = np.sqrt(found.variances() / found.counts())
    assert errors[0] == pytest.approx(0.002)


def test_two_dimensions():
    found = histogram_of(PLANE, "weight", {"set": "bnn"})
    assert [len(axis) for axis in found.axes] == [2, 2]
    np.testing.assert_array_equal(found.values(), [[1.0, 0.0], [2.0, 3.0]])
    assert found.variances() is None


def test_mplhep_draws_them():
    axes = Figure().add_subplot()
    drawn = mplhep.histplot(histogram_of(SPECTRUM, "weight", {"axis": "e"}), ax=axes)
    assert drawn
    plane = histogram_of(PLANE, "weight", {"set": "bnn"})
    (mesh, *_) = mplhep.hist2dplot(plane, ax=axes, cbar=False)
    assert np.nansum(mesh.get_array()) == 6.0


@pytest.mark.parametrize(
    ("value", "chosen", "message"),
    [
        ("mean", {}, "no column mean; it has axis, class"),
        ("weight", {"axis": "z"}, "no row has z as axis; there are e, y"),
        ("weight", {"set": "bnn"}, "no column set"),
    ],
)
def test_what_is_not_there_is_named(value, chosen, message):
    with pytest.raises(UserError, match=message):
        histogram_of(SPECTRUM, value, chosen)


def test_rows_of_several_sets_are_no_histogram():
    both = pa.concat_tables([MEDIAN, MEDIAN.set_column(0, "set", [["re", "re"]])])
    with pytest.raises(UserError, match="several rows have the same bin; choose among set as well"):
        histogram_of(both, "median", {})
