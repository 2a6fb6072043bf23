"""What a report is made from: the tables, the names of the sets and how each one looks."""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from pipeline.evaluation.rows import BASELINE, UNCALIBRATED
from pipeline.evaluation.tables.make import MODEL, REFERENCE
from pipeline.formats.card import ModelCard
from pipeline.formats.columns import Target
from pipeline.formats.manifest import DatasetManifest, Split
from pipeline.report.settings import ReportSettings

# Okabe and Ito's palette, then Tol's muted one: told apart with any colour vision. Grey and black
# are not models.
COLOURS = (
    *("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9"),
    *("#882255", "#999933", "#332288", "#44aa99"),
)
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "<", ">", "*")

Column = NDArray[Any]
_POWER = re.compile(r"\^(-?\d+)")  # in a unit
_RAISED = r"$^{\1}$"
History = Sequence[Mapping[str, Any]]

NOTHING = pa.table({})  # a table that a study does not have


@dataclass(frozen=True, slots=True)
class Look:
    """How a set is drawn, the same in all figures."""

    label: str
    colour: str
    marker: str
    line: str = "-"


@dataclass(frozen=True, slots=True)
class Scene:
    """What a study leaves for its report, with the words of the report.

    Attributes:
        tables: By name: as `Evaluation.tables` makes them, and those of other jobs.
        settings: Of the report.
        target: What is predicted.
        sample: Words over each figure.
        split: The split that was evaluated.
        summary: Headline figures by name.
        manifest: Of the dataset; None in a drawing that needs none.
        cards: By model.
        histories: By model: the lines of its history.
        records: By job: what it recorded of its last run.
        study: The study's settings as they were resolved.
    """

    tables: Mapping[str, pa.Table]
    settings: ReportSettings
    target: Target
    sample: str
    split: Split = "test"
    summary: Mapping[str, float] = field(default_factory=dict)
    manifest: DatasetManifest | None = None
    cards: Mapping[str, ModelCard] = field(default_factory=dict)
    histories: Mapping[str, History] = field(default_factory=dict)
    records: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    study: Mapping[str, Any] = field(default_factory=dict)

    def table(self, name: str) -> pa.Table:
        """A table; one without rows and columns if the study has none of that name."""
        return self.tables.get(name, NOTHING)

    @property
    def is_log(self) -> bool:
        """Whether densities, and with them pulls and scores, are of log10 of the target."""
        return self.target.transform == "log10"

    @property
    def space(self) -> str:
        """Symbol of the transformed target."""
        symbol = self.symbol(self.target.name)
        return rf"log$_\mathrm{{10}}$ {symbol}" if self.is_log else symbol

    @property
    def sigma_window(self) -> tuple[float, ...]:
        """Ends of the window of sigma_tot whose clusters are looked at; empty for none."""
        return tuple(self.study.get("evaluate", {}).get("sigma_window") or ())

    def model_of_kind(self, kind: str) -> str | None:
        """The first model of a kind that was evaluated; None if there is none."""
        return next(
            (n for n in self.models if n in self.cards and self.cards[n].kind == kind), None
        )

    @property
    def models(self) -> tuple[str, ...]:
        """Calibrated sets without the reference, in the order of the tables."""
        return distinct(select(self.table("sets"), role=MODEL), "set")

    @property
    def reference(self) -> str | None:
        """The calibrated set that the others were compared with; None if there is none."""
        return next(iter(distinct(select(self.table("sets"), role=REFERENCE), "set")), None)

    @property
    def sets(self) -> tuple[str, ...]:
        """The models, then the reference if there is one."""
        return self.models if self.reference is None else (*self.models, self.reference)

    @property
    def populations(self) -> tuple[str, ...]:
        """The names of all rows together, then of the regions."""
        return distinct(self.table("scores"), "population")

    def look(self, name: str) -> Look:
        """Colour, marker and name that a set has in all figures."""
        label = self.settings.set_labels.get(name, name)
        if name == UNCALIBRATED:
            return Look(label, "#7f7f7f", "x", ":")
        if name == BASELINE:
            return Look(label, "#a6761d", "+", "-.")
        if name == self.reference:
            return Look(label, "#000000", ".", "--")
        models = self.models
        at = models.index(name) if name in models else 0
        return Look(label, COLOURS[at % len(COLOURS)], MARKERS[at % len(MARKERS)])

    def symbol(self, column: str) -> str:
        """A column's symbol; its name where the settings know none."""
        return self.settings.column_labels.get(column, column)

    def axes(self) -> Iterator["AxisView"]:
        """The axes of the evaluation, each with its label and scale."""
        for row in self.table("axes").to_pylist():
            unit = "" if row["unit"] == "1" else f" [{_POWER.sub(_RAISED, row['unit'])}]"
            symbol = self.symbol(row["column"])
            yield AxisView(
                name=row["axis"],
                symbol=symbol,
                label=symbol + unit,
                is_log=row["scale"] == "log",
                closure_from=row["closure_from"],
            )


@dataclass(frozen=True, slots=True)
class AxisView:
    """An axis with its label.

    Attributes:
        name: In the tables.
        symbol: What it shows.
        label: With the unit.
        is_log: On a log scale.
        closure_from: Where the bins begin that the headline closure counts, if any do.
    """

    name: str
    symbol: str
    label: str
    is_log: bool
    closure_from: float | None


@dataclass(frozen=True, slots=True)
class Series:
    """Rows of a table as arrays; missing numbers are NaN."""

    columns: dict[str, Column] = field(default_factory=dict)

    def __getitem__(self, name: str) -> Column:
        return self.columns[name]

    def __len__(self) -> int:
        return len(next(iter(self.columns.values()), ()))


def select(table: pa.Table, **equal: str) -> pa.Table:
    """The rows in which columns of text equal the given values; none without such a column."""
    for column, value in equal.items():
        if column not in table.column_names:
            return NOTHING
        table = table.filter(pc.equal(table[column], value))
    return table


def series(table: pa.Table, **equal: str) -> Series:
    """The bins of a table as arrays by column, missing values as NaN."""
    chosen = select(table, **equal)
    return Series({
        name: chosen[name].to_numpy(zero_copy_only=False)
        if pa.types.is_string(chosen.schema.field(name).type)
        else chosen[name].cast(pa.float64()).to_numpy(zero_copy_only=False)
        for name in chosen.column_names
    })


def distinct(table: pa.Table, column: str) -> tuple[str, ...]:
    """The values of a column of text, in order of appearance."""
    return tuple(dict.fromkeys(table[column].to_pylist())) if column in table.column_names else ()


def centres(low: Column, high: Column, *, log: bool, share: float = 0.5) -> Column:
    """A point in each bin, at this share of its width as drawn."""
    if log:
        return np.asarray(low ** (1 - share) * high**share)
    return np.asarray(low + share * (high - low))
