"""What a study may choose about the simulated sample; the recipe itself is fixed."""

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

# Raised when the same settings give other clusters or another density: files of an older recipe
# have no exact density any more.
RECIPE = 1


class GeneratorSettings(BaseModel):
    """The choices of a simulated sample.

    Attributes:
        resistant: whether the response has the training-resistant component (R about 3.6, frequent
            at high pile-up); without it the sample is another one with its own exact density.
        min_deposit_gev: clusters are kept if their deposited energy [GeV] is larger than this.
        mean_clusters_per_event: mean number of clusters of an event before the cut on the deposit,
            which keeps about nine in ten of them.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    resistant: bool = True
    min_deposit_gev: Annotated[float, Field(gt=0.0, le=10.0, allow_inf_nan=False)] = 0.3
    mean_clusters_per_event: Annotated[float, Field(ge=1.0, le=1000.0)] = 24.0
