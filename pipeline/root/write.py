"""Writing clusters as a TTree of a layout, for simulated samples."""

from collections.abc import Iterator, Mapping
from typing import Any, cast

import awkward as ak
import numpy as np
from numpy.typing import NDArray

from pipeline.formats.errors import UserError
from pipeline.formats.ragged import as_ragged
from pipeline.numerics.arrays import Columns
from pipeline.root.layout import Layout, unit_factor

BASKET_ROWS = 65_536
_PLACE = ("clusterIndex", "nCluster")  # what the place in a vector tells


def write_clusters(file: Any, layout: Layout, columns: Columns, units: Mapping[str, str]) -> None:  # noqa: ANN401 - uproot is untyped
    """Write the clusters as the layout's tree, so that reading it with the layout returns them.

    Args:
        file: An uproot file that is open for writing.
        layout: Of plain branches; one entry a cluster if there are columns of lists.
        columns: [N] by the dataset's names; the clusters of an event are adjacent and have one
            eventNumber. What the layout does not list is written under its own name.
        units: Of the columns, where they are not pure numbers.

    Raises:
        UserError: The layout's expressions are more than branches, or it has no place for lists.
    """
    lists = [name for name, values in columns.items() if as_ragged(values) is not None]
    if lists and layout.rows == "vectors":
        msg = (
            f"simulate: {', '.join(lists)} are lists, for which dataset.layout has `rows: entries`"
        )
        raise UserError(msg)
    branches = {name: _branch(layout, name) for name in columns}
    scaled = {name: _in_unit(layout, name, columns[name], units) for name in columns}
    pieces = (
        _flat(scaled, branches) if layout.rows == "entries" else _vectors(layout, scaled, branches)
    )
    tree = None
    for piece in pieces:
        if tree is None:
            tree = file.mktree(
                layout.tree,
                {
                    name: getattr(values, "dtype", None) or ak.type(values).content
                    for name, values in piece.items()
                },
                counter_name=_counter if layout.rows == "entries" else lambda _: "nCluster",
                field_name=lambda _, inner: inner,
            )
        tree.extend(piece)


def _counter(name: str) -> str:
    """The branch with the lengths of a list."""
    return f"n_{name}"


def _branch(layout: Layout, name: str) -> str:
    expression = layout.expressions_of(name)[0]
    if not expression.isidentifier():
        msg = (
            f"simulate: {name} is {expression!r} in dataset.layout; a sample can be written in "
            "layouts of plain branches only, cluster_tree or event_tree for example"
        )
        raise UserError(msg)
    return expression


def _in_unit(
    layout: Layout, name: str, values: NDArray[Any], units: Mapping[str, str]
) -> NDArray[Any]:
    if name not in layout.columns or name not in units:
        return values
    factor = unit_factor(units[name], layout.columns[name].unit)
    if (lists := as_ragged(values)) is not None:
        return values if factor == 1.0 else cast("NDArray[Any]", lists.times(factor))
    return values if factor == 1.0 else (values * factor).astype(values.dtype)


def _flat(columns: Columns, branches: Mapping[str, str]) -> Iterator[dict[str, Any]]:
    num_rows = len(next(iter(columns.values())))
    for start in range(0, max(num_rows, 1), BASKET_ROWS):
        rows = slice(start, start + BASKET_ROWS)
        yield {branches[name]: _jagged(values[rows]) for name, values in columns.items()}


def _jagged(values: NDArray[Any]) -> Any:  # noqa: ANN401 - awkward is untyped
    """Lists as awkward has them; numbers as they are."""
    lists = as_ragged(values)
    return values if lists is None else ak.unflatten(lists.values, lists.counts)


def _vectors(
    layout: Layout, columns: Columns, branches: Mapping[str, str]
) -> Iterator[dict[str, Any]]:
    numbers = columns["eventNumber"]
    starts = np.flatnonzero(np.diff(numbers, prepend=numbers[:1] - 1))
    counts = np.diff(starts, append=len(numbers))
    # whole events, about as many clusters as a basket of the flat tree has
    group = (np.cumsum(counts) - 1) // BASKET_ROWS
    for number in range(int(group[-1]) + 1 if len(group) else 0):
        events = np.flatnonzero(group == number)
        rows = slice(starts[events[0]], starts[events[-1]] + counts[events[-1]])
        inner = {
            branches[name]: ak.unflatten(values[rows], counts[events])
            for name, values in columns.items()
            if layout.level_of(name) == "cluster" and name not in _PLACE
        }
        piece: dict[str, Any] = {
            branches[name]: ak.Array(values[starts[events]])
            for name, values in columns.items()
            if layout.level_of(name) == "event"
        }
        yield {**piece, "clusters": ak.zip(inner)}
