"""Fine, evenly spaced cells on a linear or logarithmic scale, for quantiles of a stream."""

from typing import Literal, Self

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, model_validator

from pipeline.evaluation.binning import Floats, Numbers, linear_cells, log_cells
from pipeline.formats.records import Record


class Spacing(Record):
    """Cells of equal width in x (linear) or in log x (log), and one flow cell at each end.

    Attributes:
        scale: What is evenly spaced.
        low: Lower edge of the first cell.
        high: Upper edge of the last cell.
        cells: Number of cells between the two.
    """

    scale: Literal["log", "linear"]
    low: float
    high: float
    cells: int = Field(gt=0)

    @model_validator(mode="after")
    def _is_ordered(self) -> Self:
        if self.low >= self.high:
            msg = f"low must be below high, got {self.low:g} and {self.high:g}"
            raise ValueError(msg)
        if self.scale == "log" and self.low <= 0:
            msg = f"a log scale starts above 0, got low = {self.low:g}"
            raise ValueError(msg)
        return self

    @property
    def width(self) -> int:
        """Cells with both flow cells."""
        return self.cells + 2

    @property
    def resolution(self) -> float:
        """Width of a cell: relative (upper/lower edge - 1) if log, absolute if linear."""
        if self.scale == "log":
            return float((self.high / self.low) ** (1 / self.cells) - 1)
        return (self.high - self.low) / self.cells

    def edges(self) -> Floats:
        """The edges [cells + 1]."""
        if self.scale == "log":
            edges = np.geomspace(self.low, self.high, self.cells + 1)
        else:
            edges = np.linspace(self.low, self.high, self.cells + 1)
        return np.asarray(edges, dtype=np.float64)

    def index(self, values: NDArray[np.floating]) -> Numbers:
        """The cell of each value [N]: 0 below low, 1 to cells inside, cells + 1 from high on.

        What is no number gets OUTSIDE; on a log scale zero and less are below low.
        """
        if self.scale == "log":
            start, stop = np.log(self.low), np.log(self.high)
            return log_cells(values, start, self.cells / (stop - start), self.cells)
        scale = self.cells / (self.high - self.low)
        return linear_cells(values, self.low, scale, self.cells)

    def mirrored(self) -> "Spacing":
        """The spacing of 1/x on a log scale; the order of the cells is reversed."""
        if self.scale != "log":
            msg = "only a log scale can be mirrored"
            raise ValueError(msg)
        return Spacing(scale="log", low=1 / self.high, high=1 / self.low, cells=self.cells)
