"""The inputs of an exported network: one of features, and two for each table of lists.

A table's elements follow one another, with the number of the row of each beside them, so that a
file takes rows of any length without padding.

Shape letters: N rows, F features, E elements of a table, C columns of it.
"""

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from pipeline.formats.columns import Feature, tables_of
from pipeline.formats.ragged import as_ragged

FEATURES = "features"


def rows_of(table: str) -> str:
    """The input with the row of each element of a table."""
    return f"{table}_rows"


def names_of(tables: Mapping[str, Sequence[str]]) -> tuple[str, ...]:
    """The names of all inputs, in order."""
    return (FEATURES, *(name for table in tables for name in (table, rows_of(table))))


def split_features(
    features: Sequence[Feature],
) -> tuple[tuple[str, ...], dict[str, tuple[str, ...]]]:
    """Names of the features with one number a row, and by table those of its columns."""
    tables = {name: tuple(f.name for f in each) for name, each in tables_of(features).items()}
    return tuple(feature.name for feature in features if not feature.is_ragged), tables


def inputs_of(
    features: Sequence[str],
    tables: Mapping[str, Sequence[str]],
    columns: Mapping[str, NDArray[np.generic]],
) -> dict[str, NDArray[np.generic]]:
    """What a file takes of N rows, by input.

    Args:
        features: Names, in order.
        tables: By table: names of its columns, in order.
        columns: Raw, by name.

    Returns:
        `features` [N, F] and for each TABLE `TABLE` [E, C], both float32, and `TABLE_rows` [E].
    """
    x_NF = np.stack([columns[name] for name in features], axis=1).astype(np.float32)
    found: dict[str, NDArray[np.generic]] = {FEATURES: x_NF}
    for table, names in tables.items():
        lists = [each for name in names if (each := as_ragged(columns[name])) is not None]
        found[table] = np.stack([each.values for each in lists], axis=1).astype(np.float32)
        found[rows_of(table)] = lists[0].rows
    return found
