"""Rows in, calibrated rows out: none is left out, and what cannot be calibrated says why."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import IntEnum
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from pipeline.calibrators.calibrate import calibrate_rows
from pipeline.calibrators.protocol import Calibrator
from pipeline.formats.columns import Cut, Feature
from pipeline.formats.ragged import Ragged, every_element
from pipeline.ingest.clean import raise_to_floor
from pipeline.numerics.arrays import BoolArray, Columns


class Reason(IntEnum):
    """Why a cluster is not calibrated; the first that applies."""

    CALIBRATED = 0
    NOT_FINITE = 1  # the energy or a feature is NaN or infinite
    NOT_POSITIVE = 2  # the energy, or a feature whose logarithm is taken, is zero or less
    CUT = 3  # fails a cut that the training clusters passed


@dataclass(frozen=True, slots=True)
class Calibration:
    """A model, ready for rows.

    Attributes:
        calibrator: Calibrates rows that can be.
        features: The model's inputs, in order.
        cuts: On features, as in training.
        floors: By feature, as in training.
    """

    calibrator: Calibrator
    features: tuple[Feature, ...]
    cuts: tuple[Cut, ...]
    floors: Mapping[str, float]

    @property
    def needed(self) -> tuple[str, ...]:
        """The columns that a row must have: the energy and the features."""
        numerator = self.calibrator.target.numerator
        return tuple(dict.fromkeys([numerator, *(feature.name for feature in self.features)]))


def apply_to_rows(calibration: Calibration, rows: Columns) -> Columns:
    """The calibrated columns of N rows, NaN where a row is not calibrated.

    Args:
        calibration: The model.
        rows: The needed columns [N], raw.

    Returns:
        The columns of a calibrated set [N] without truth, the uncalibrated energy under its own
        name, `reason` [N] and `outside` [N].
    """
    # float32 first, as the dataset that the model was trained on
    with np.errstate(over="ignore"):
        single = {name: rows[name].astype(np.float32, copy=False) for name in calibration.needed}
    raw_energy = single[calibration.calibrator.target.numerator]
    for name, floor in calibration.floors.items():
        single[name], _ = raise_to_floor(single[name], floor)
    reason_N = _reasons(calibration, single)
    good_G = np.flatnonzero(reason_N == Reason.CALIBRATED)
    chosen = {name: values[good_G] for name, values in single.items()}
    columns: Columns = {}
    for name, values in calibrate_rows(calibration.calibrator, chosen).items():
        empty = False if values.dtype == bool else np.nan
        columns[name] = np.full(len(reason_N), empty, values.dtype)
        columns[name][good_G] = values
    columns[calibration.calibrator.target.numerator] = raw_energy
    columns["reason"] = reason_N
    columns["outside"] = _outside(calibration, single)
    return columns


def empty_columns(calibration: Calibration, names: Sequence[str]) -> Columns:
    """The columns with these names, without rows."""
    numbers = np.zeros(0, np.float32)
    nothing: Columns = dict.fromkeys(calibration.needed, numbers)
    lists = cast("NDArray[Any]", Ragged.of_counts(numbers, numbers))
    nothing |= {feature.name: lists for feature in calibration.features if feature.is_ragged}
    columns = apply_to_rows(calibration, nothing)
    return {name: columns[name] for name in names}


def _reasons(calibration: Calibration, rows: Columns) -> NDArray[np.uint8]:
    numerator = calibration.calibrator.target.numerator
    reason_N = np.zeros(len(rows[numerator]), np.uint8)
    logs = [f.name for f in calibration.features if f.transform == "log10_standard"]

    def refuse(bad_N: BoolArray, reason: Reason) -> None:
        reason_N[bad_N & (reason_N == 0)] = reason

    for name in calibration.needed:
        refuse(~every_element(rows[name], np.isfinite), Reason.NOT_FINITE)
    with np.errstate(invalid="ignore"):
        for name in dict.fromkeys([numerator, *logs]):
            refuse(~every_element(rows[name], lambda values: values > 0), Reason.NOT_POSITIVE)
        for cut in calibration.cuts:
            if cut.column in rows:
                refuse(~cut.keeps(rows[cut.column]), Reason.CUT)
    return reason_N


def _outside(calibration: Calibration, rows: Columns) -> NDArray[np.unsignedinteger]:
    """Bit i: feature i lies outside its training range, or is no number."""
    kind: type[np.unsignedinteger] = np.uint32 if len(calibration.features) <= 32 else np.uint64
    outside_N = np.zeros(len(rows[calibration.features[0].name]), kind)
    for bit, feature in enumerate(calibration.features):
        low, high = calibration.calibrator.ranges[feature.name]
        inside_N = every_element(
            rows[feature.name], lambda v, low=low, high=high: (v >= low) & (v <= high)
        )
        is_outside_N = ~inside_N
        outside_N |= is_outside_N.astype(kind) << kind(bit)
    return outside_N
