"""What a tagger shall find, and how many ordinary clusters it may cost."""

from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, PositiveFloat, field_validator

from pipeline.evaluation.settings import Axis
from pipeline.formats.records import Record


class UnderPredicted(Record):
    """Clusters whose target is large and more than a factor above what a regression predicts.

    A large target that features tell (clusters in the Tile gap scintillators) is no label.

    Attributes:
        regression: The model of the study that predicts; it is trained on all clusters.
        above: The target is larger than this,
        factor: and larger than this times the prediction.
    """

    kind: Literal["under_predicted"] = "under_predicted"
    regression: str
    above: PositiveFloat = 2.0
    factor: Annotated[float, Field(gt=1)] = 1.5


class AboveThreshold(Record):
    """Clusters whose target is large.

    Attributes:
        above: The target is larger than this.
    """

    kind: Literal["above_threshold"] = "above_threshold"
    above: PositiveFloat = 2.0


class LabelColumn(Record):
    """Clusters that a column of the dataset names.

    Attributes:
        column: Its name.
        equals: Its value for these clusters.
    """

    kind: Literal["column"] = "column"
    column: str = "cluster_RESPONSE_COMPONENT"
    equals: float = 6.0


def _usual_kind(given: Any) -> Any:  # noqa: ANN401 - before any validation
    return {"kind": "under_predicted", **given} if isinstance(given, dict) else given


LabelSettings = Annotated[
    UnderPredicted | AboveThreshold | LabelColumn, Field(discriminator="kind")
]

# Where the rate of tags is shown, as far as the dataset has the column.
USUAL_AXES = {
    "mu": Axis(column="avgMu", range=(0.0, 90.0), bins=18),
    "N_PV": Axis(column="nPrimVtx", range=(0.0, 60.0), bins=20),
    "f_emc": Axis(column="cluster_ENG_FRAC_EM", range=(0.0, 1.0 + 1e-6), bins=20),
    "c": Axis(column="cluster_CENTER_MAG", range=(1400.0, 6600.0), bins=26),
    "y": Axis(column="clusterEta", range=(-2.5, 2.5), bins=25),
    "numerator": Axis(of="numerator"),
}


class TagSettings(Record):
    """The tagger for training-resistant clusters (arXiv 2412.04370, Sec. 4.2.3).

    Attributes:
        label: What it shall find; under_predicted where no kind is given.
        ordinary_loss: Share of the validation clusters without the label that may be tagged.
        axes: By name: what the rate is shown against.
        position: Columns of x, y and z in mm, for the rate over |z| and r.
        cell_mm: Width of its cells.
    """

    label: Annotated[LabelSettings, BeforeValidator(_usual_kind)]
    ordinary_loss: Annotated[float, Field(gt=0, lt=1)] = 0.03
    axes: dict[str, Axis] = Field(default=USUAL_AXES)
    position: tuple[str, str, str] = ("cluster_CENTER_X", "cluster_CENTER_Y", "cluster_CENTER_Z")
    cell_mm: PositiveFloat = 100.0

    @field_validator("axes")
    @classmethod
    def _axes_have_names(cls, axes: dict[str, Axis]) -> dict[str, Axis]:
        if not axes:
            msg = "name at least one axis, or leave the key out for the usual ones"
            raise ValueError(msg)
        return axes
