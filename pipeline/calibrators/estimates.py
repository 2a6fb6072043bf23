"""Models without a density: one number a row, or some quantiles, from an ONNX file."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.calibrators.onnx_session import open_session
from pipeline.calibrators.protocol import PointEstimate, calibrated_pair, is_inside
from pipeline.formats.calibrated_set import QUANTILES, Functionals, describe_columns
from pipeline.formats.columns import Target
from pipeline.numerics.arrays import Columns, FloatArray


@dataclass(frozen=True, slots=True)
class OnnxFile:
    """A model's file and what goes in: `features` [row, feature], raw."""

    path: Path
    sha256: str
    inputs: tuple[str, ...]

    def run(self, output: str, rows: Columns) -> NDArray[Any]:
        """One output of the model for N rows."""
        x_NF = np.stack([rows[name] for name in self.inputs], axis=1).astype(np.float32)
        (values,) = open_session(self.path, self.sha256).run([output], {"features": x_NF})
        return np.asarray(values)


@dataclass(frozen=True, slots=True)
class PointModel(PointEstimate):
    """One estimate of the target a row: the output `response` [row].

    Attributes:
        model: The ONNX file.
        target: What it estimates.
        ranges: By feature: the training range.
    """

    model: OnnxFile
    target: Target
    ranges: Mapping[str, tuple[float, float]]

    @property
    def inputs(self) -> tuple[str, ...]:
        """The raw features, in the order of the columns of the ONNX input."""
        return self.model.inputs

    def calibrate(self, rows: Columns, truth: FloatArray | None = None) -> Columns:  # noqa: ARG002
        """Central value, calibrated value and domain flag of N rows."""
        central = self.model.run("response", rows).astype(np.float64)
        columns = calibrated_pair(self.target, rows, central)
        return columns | {"in_domain": is_inside(rows, self.ranges)}


@dataclass(frozen=True, slots=True)
class QuantileModel(PointEstimate):
    """Quantiles of the transformed target: the output `quantiles` [row, quantile].

    Quantiles that were fitted one by one may cross; sorting them brings none further from the true
    one (Chernozhukov, Fernandez-Val and Galichon, Econometrica 78 (2010) 1093).

    Attributes:
        model: The ONNX file.
        target: What it estimates.
        ranges: By feature: the training range.
        levels: Probability of each quantile, rising; one is 0.5, the central value.
    """

    model: OnnxFile
    target: Target
    ranges: Mapping[str, tuple[float, float]]
    levels: tuple[float, ...]

    @property
    def inputs(self) -> tuple[str, ...]:
        """The raw features, in the order of the columns of the ONNX input."""
        return self.model.inputs

    @property
    def functionals(self) -> Functionals:
        """The central value is the median."""
        return Functionals("median")

    @property
    def columns(self) -> tuple[str, ...]:
        """Central value, calibrated value, the quantiles, domain."""
        quantiles = {name for name, level in QUANTILES.items() if level in self.levels}
        names = {self.target.name, self.target.calibrated, "in_domain", *quantiles}
        return tuple(column.name for column in describe_columns(self.target, names))

    def calibrate(self, rows: Columns, truth: FloatArray | None = None) -> Columns:  # noqa: ARG002
        """Median, calibrated value, quantiles and domain flag of N rows."""
        logs_NQ = np.sort(self.model.run("quantiles", rows).astype(np.float64), axis=1)
        values = {level: self.target.restored(logs_NQ[:, i]) for i, level in enumerate(self.levels)}
        columns = calibrated_pair(self.target, rows, values[0.5])
        columns |= {
            name: values[level].astype(np.float32)
            for name, level in QUANTILES.items()
            if level in values
        }
        return columns | {"in_domain": is_inside(rows, self.ranges)}
