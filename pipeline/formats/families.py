"""Families of densities: the numbers that a network gives for each, in their order.

Both halves of a family keep to it: the one that reads densities (`pipeline.densities`) and the one
that trains them (`training.losses`).
"""

import math
import pkgutil
from dataclasses import dataclass
from typing import Any

from pipeline.formats.plugins import Table

_AS_IT_IS = (1.0, 0.0)


@dataclass(frozen=True, slots=True)
class Family:
    """A family of densities of log10 of the target.

    Attributes:
        name: What `family` says in a study and `density` on a card.
        parameters: Names of the numbers that a network gives; each stands for a block of as many
            as there are components. The first is a location; those that begin with log_variance
            are natural logs of variances, before their limits; others have no unit.
        has_components: Whether a density may be a mixture; else there is one of each parameter.
        densities: "module:class" of what a network's outputs [S, P, N] become, called with them and
            the limits of the log variances; a `pipeline.densities.generic.Densities`, unless
            `summarise` and `crps` say how it is read.
        log_density: "module:function" in torch, (outputs [..., P], target [...], limits) to the
            natural log of the density [...].
        location: "module:function" in torch, (outputs [..., P]) to one number [...] by which a
            repulsive ensemble tells its members apart.
        summarise: "module:function" of the functionals of such densities.
        crps: "module:function" of their continuous ranked probability score.
        version: Raised when the same numbers mean another density, or are read otherwise: models
            are then trained, and sets calibrated, anew.
    """

    name: str
    parameters: tuple[str, ...]
    has_components: bool
    densities: str
    log_density: str
    location: str
    summarise: str = "pipeline.densities.generic:summarise"
    crps: str = "pipeline.densities.generic:crps_of"
    version: int = 1

    @property
    def identity(self) -> dict[str, Any]:
        """What enters fingerprints of what follows from the family; nothing of a first version."""
        return {} if self.version == 1 else {"family_version": self.version}

    def num_outputs(self, components: int) -> int:
        """Numbers P that a network gives."""
        return len(self.parameters) * (components if self.has_components else 1)

    def affine(self, shift: float, factor: float) -> tuple[tuple[float, float], ...]:
        """What l -> shift + factor l does to each parameter: it is multiplied, then added to."""
        spread = (1.0, 2.0 * math.log(factor))
        rest = [
            spread if name.startswith("log_variance") else _AS_IT_IS for name in self.parameters[1:]
        ]
        return ((factor, shift), *rest)

    def load(self, role: str) -> Any:  # noqa: ANN401 - each role has its own type
        """What one of the fields that name a function or class refers to."""
        return pkgutil.resolve_name(getattr(self, role))


_KERNELS = "pipeline.densities.gaussian_mixture"
GAUSSIAN_MIXTURE = Family(
    "gaussian_mixture",
    parameters=("mean", "log_variance", "logit"),
    has_components=True,
    densities=f"{_KERNELS}.network_outputs:NetworkOutputs",
    log_density="training.losses.density_nll:log_density",
    location="training.losses.density_nll:mixture_mean",
    summarise=f"{_KERNELS}.functionals:summarise",
    crps=f"{_KERNELS}.crps:crps_of",
)
SPLIT_NORMAL = Family(
    "split_normal",
    parameters=("mode", "log_variance_below", "log_variance_above"),
    has_components=False,
    densities="pipeline.densities.split_normal:SplitNormals",
    log_density="training.losses.split_normal:log_density",
    location="training.losses.split_normal:mode",
    version=2,  # integrals between the points of the grid are those of exponentials
)

OWN_FAMILIES = {family.name: family for family in (GAUSSIAN_MIXTURE, SPLIT_NORMAL)}
FAMILIES = Table(OWN_FAMILIES.copy, "families", Family)
