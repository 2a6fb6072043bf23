"""Make the table behind the LCW branches of simulated samples again.

Run: python -m pipeline.simulators.known_density.fit_lcw
Writes pipeline/simulators/known_density/lcw.parquet from clusters that no study's sample shares.
"""

import dataclasses
import functools
from pathlib import Path

import numpy as np

from pipeline.formats.columns import Target
from pipeline.formats.seeds import generator
from pipeline.lookup.settings import LookupTableSettings, TableAxis
from pipeline.lookup.sums import TableSums
from pipeline.lookup.tables import Table, Tables, make_tables, write_tables
from pipeline.simulators.known_density.lcw import LCW_TABLES
from pipeline.simulators.known_density.sample import draw_bare_clusters
from pipeline.simulators.known_density.settings import GeneratorSettings

BATCHES, BATCH_CLUSTERS = 8, 250_000
DIGITS = 4  # after the point; more would be noise that does not compress


def fit_lcw(batches: int = BATCHES) -> Tables:
    """The tables of `batches` times 250,000 clusters of the default generator."""
    settings = _settings()
    sums = (
        TableSums.of(
            draw_bare_clusters(
                GeneratorSettings(), generator(0, "lcw table", batch), BATCH_CLUSTERS
            ),
            settings,
            Target(),
        )
        for batch in range(batches)
    )
    tables = make_tables(functools.reduce(TableSums.__add__, sums), settings)
    return Tables(_rounded(tables.em_probability), _rounded(tables.weight))


def _settings() -> LookupTableSettings:
    """The usual bins as far as there are clusters in rapidity."""
    usual = LookupTableSettings()

    def cut(axes: tuple[TableAxis, ...]) -> tuple[TableAxis, ...]:
        return tuple(
            axis.model_copy(update={"high": 2.6, "bins": 13}) if axis.absolute else axis
            for axis in axes
        )

    axes = {"class_axes": cut(usual.class_axes), "weight_axes": cut(usual.weight_axes)}
    return usual.model_copy(update=axes)


def _rounded(table: Table) -> Table:
    values = np.round(table.filled.values, DIGITS)
    return Table(table.axes, dataclasses.replace(table.filled, values=values))


def main(path: Path = LCW_TABLES) -> None:
    """Write the file that is shipped."""
    write_tables(fit_lcw(), path)


if __name__ == "__main__":
    main()
