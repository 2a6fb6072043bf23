"""What a user of `topocal apply` can choose."""

from typing import Annotated, Literal

from pydantic import Field

from pipeline.formats.records import CountsFromItsFile
from pipeline.root.layout import LAYOUT_SUFFIXES, Layout, LoadedLayout
from pipeline.settings import SummarySettings

DEFAULT_COLUMNS = (
    "energy",
    "response",
    "sigma_tot",
    "sigma_syst",
    "sigma_stat",
    "in_domain",
    "outside",
    "reason",
)


class ApplySettings(SummarySettings):
    """How clusters are read, and what comes back.

    Attributes:
        layout: Of ROOT inputs; not given: the shipped one whose tree and energy they have.
        columns: Of the output, besides the uncalibrated energy: those of a calibrated set, as far
            as the model has them, and
            `outside` (bit i is set where feature i of the model lies outside its training range)
            and `reason` (why a cluster is not calibrated, 0 where it is).
        format: "root": for each input a friend tree, entry by entry and vector by vector;
            "parquet": with `cluster_id`. Parquet inputs give Parquet.
    """

    layout: Annotated[Layout | None, CountsFromItsFile(LAYOUT_SUFFIXES), LoadedLayout] = None
    columns: Annotated[tuple[str, ...], Field(min_length=1)] = DEFAULT_COLUMNS
    format: Literal["root", "parquet"] = "root"
