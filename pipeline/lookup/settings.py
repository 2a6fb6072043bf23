"""Settings of the look-up table; the defaults are ATLAS's bins of the LCW classification.

The bins: CaloLCClassificationTool and CaloLCWeightTool of Athena, in GeV where those are in MeV.
"""

from typing import Annotated, ClassVar, Literal, Self

from pydantic import Field, PositiveInt, model_validator

from pipeline.formats.records import ModelSettings, Record


class TableAxis(Record):
    """Even bins of a column, or of the ratio of two; values beyond the ends are in the end bins.

    Attributes:
        of: A feature of the dataset.
        over: A feature that it is divided by; None for none.
        absolute: Whether the sign is dropped.
        scale: Whether the bins are even in the value or in its logarithm.
        low: Lower edge of the first bin.
        high: Upper edge of the last bin.
        bins: How many.
    """

    of: str
    over: str | None = None
    absolute: bool = False
    scale: Literal["linear", "log"] = "log"
    low: float
    high: float
    bins: PositiveInt

    @model_validator(mode="after")
    def _is_ordered(self) -> Self:
        if self.low >= self.high or (self.scale == "log" and self.low <= 0):
            above = "0 < low < high" if self.scale == "log" else "low < high"
            msg = f"expected {above}, got low = {self.low:g} and high = {self.high:g}"
            raise ValueError(msg)
        return self

    @property
    def title(self) -> str:
        """The binned quantity in words, for example `|clusterEta|`."""
        name = self.of if self.over is None else f"{self.of} / {self.over}"
        return f"|{name}|" if self.absolute else name


def _usual_axes(energy_bins: int) -> tuple[TableAxis, ...]:
    return (
        TableAxis(of="clusterE", low=0.2, high=1000.0, bins=energy_bins),
        TableAxis(of="clusterEta", absolute=True, scale="linear", low=0.0, high=5.0, bins=25),
        TableAxis(
            of="cluster_FIRST_ENG_DENS", over="clusterE", low=1e-9, high=1e-4, bins=20
        ),  # 1 / mm^3
    )


class LookupTableSettings(ModelSettings):
    """A calibration by tables: P_EM, and a weight for what is not electromagnetic.

    The calibrated energy is E [P_EM + (1 - P_EM) w].

    Attributes:
        class_axes: Bins of P_EM, the most important axis first: a bin with too few entries takes
            the value of the bin without the last axis, then of that without the last but one, and
            so on; at last that of the nearest bin of the first axis which has enough.
        weight_axes: Bins of the weight, likewise.
        em_label: Truth column that tells how electromagnetic a cluster is: the share of its
            deposit from photons, electrons and neutral pions.
        em_from: Clusters whose label is at least this are electromagnetic.
        em_prior: Share of electromagnetic clusters for which P_EM is made; None: that of the
            training rows.
        statistic: What of the ratio of true to uncalibrated value becomes the weight of a bin.
        min_entries: A bin with fewer training rows is sparse.
    """

    only_log_ratio: ClassVar[bool] = True
    kind: Literal["lookup_table"] = "lookup_table"
    class_axes: Annotated[tuple[TableAxis, ...], Field(min_length=1, max_length=6)] = (
        *_usual_axes(energy_bins=13),
        TableAxis(of="cluster_CENTER_LAMBDA", low=1.0, high=1e4, bins=20),
    )
    weight_axes: Annotated[tuple[TableAxis, ...], Field(min_length=1, max_length=6)] = _usual_axes(
        energy_bins=22
    )
    em_label: str = "cluster_ENG_CALIB_FRAC_EM"
    em_from: float = 0.9
    em_prior: Annotated[float, Field(gt=0, lt=1)] | None = None
    statistic: Literal["mean", "median"] = "mean"
    min_entries: PositiveInt = 11

    @property
    def columns(self) -> tuple[str, ...]:
        """The features that the axes are made of, each once."""
        axes = (*self.class_axes, *self.weight_axes)
        names = [name for axis in axes for name in (axis.of, axis.over) if name is not None]
        return tuple(dict.fromkeys(names))
