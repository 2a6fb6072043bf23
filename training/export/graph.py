"""All drawn networks with scaling and summaries as one module, the source of the ONNX file.

Shape letters: S networks, N rows, F features, K components, P outputs of a network.
"""

import math
from abc import abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import cast

import torch
from torch import Tensor, nn

from pipeline.formats.families import GAUSSIAN_MIXTURE
from pipeline.formats.model_inputs import FEATURES, names_of
from pipeline.formats.transforms import Scaling
from training.export.family_summaries import FamilySummaries
from training.export.mode import LN10
from training.export.summaries import LIMITS, Summaries
from training.networks.mlp import FixedLayer

NETWORKS_OUTPUT = "networks"


@dataclass(frozen=True)
class OutputHead:
    """How the outputs are read.

    Attributes:
        log_variance_bounds: Limits of the densities' logs of variances.
        search_range: Bounds of the transformed target for modes and moments.
        family: Of the densities.
        transform: Of the target.
    """

    log_variance_bounds: tuple[float, float]
    search_range: tuple[float, float]
    family: str = GAUSSIAN_MIXTURE.name
    transform: str = "log10"


class ScaledModule(nn.Module):
    """What takes raw features [N, F] and scales them.

    Attributes:
        outputs: Names of what it returns, in order.
        transform: Of the target.
    """

    outputs: tuple[str, ...]
    transform: str = "log10"
    shift_F: Tensor
    factor_F: Tensor
    is_log_F: Tensor
    floor_F: Tensor

    def __init__(self, scalings: Sequence[Scaling]) -> None:
        super().__init__()
        self.register_buffer("shift_F", _column(scaling.shift for scaling in scalings))
        self.register_buffer("factor_F", _column(scaling.factor for scaling in scalings))
        floors = [-math.inf if item.floor is None else item.floor for item in scalings]
        self.register_buffer("floor_F", torch.tensor(floors, dtype=torch.float32))
        is_log = [scaling.function == "log10" for scaling in scalings]
        self.register_buffer("is_log_F", torch.tensor(is_log))

    def scaled(self, features_NF: Tensor) -> Tensor:
        """Scaled features, computed in float64 as for training."""
        wide_NF = torch.maximum(features_NF, self.floor_F).double()
        positive_NF = torch.where(self.is_log_F, wide_NF, torch.ones_like(wide_NF))
        value_NF = torch.where(self.is_log_F, torch.log(positive_NF) / LN10, wide_NF)
        return ((value_NF - self.shift_F) / self.factor_F).float()


class DensityNetworks(ScaledModule):
    """Raw inputs to the outputs of all networks, their densities and summaries of the target.

    Args:
        scalings: Of the features.
        density: How the outputs are read.

    Attributes:
        inputs: Names of the arguments, in order.
    """

    inputs: tuple[str, ...] = (FEATURES,)
    log_variance_bounds: Tensor
    search_range: Tensor

    def __init__(self, scalings: Sequence[Scaling], density: OutputHead) -> None:
        super().__init__(scalings)
        self.density, self.transform = density, density.transform
        for name in LIMITS:
            self.register_buffer(name, torch.tensor(getattr(density, name), dtype=torch.float32))
        is_mixture = density.family == GAUSSIAN_MIXTURE.name
        self.summaries = (
            Summaries(density.transform)
            if is_mixture
            else FamilySummaries(density.family, density.transform)
        )
        self.outputs = (NETWORKS_OUTPUT, *self.summaries.outputs)

    def scaled_inputs(self, features_NF: Tensor, *tables: Tensor) -> tuple[Tensor, ...]:
        """The arguments as the networks take them."""
        return (self.scaled(features_NF), *tables)

    @abstractmethod
    def outputs_of_scaled(self, *inputs: Tensor) -> Tensor:
        """What the networks themselves give, [S, P, N]: the parameters of the densities."""

    def densities_of_scaled(self, *inputs: Tensor) -> Tensor:
        """The first of the summaries alone, [S, N, P], of scaled inputs."""
        parts = self.summaries.split(self.outputs_of_scaled(*inputs))
        return self.summaries.densities(parts, self.log_variance_bounds)

    def forward(self, *inputs: Tensor) -> tuple[Tensor, ...]:
        """The networks' own outputs [S, P, N], and what the summaries make of them.

        All of a row are NaN where a feature is, or is negative under a logarithm.
        """
        outputs_SPN = self.outputs_of_scaled(*self.scaled_inputs(*inputs))
        parts = self.summaries.split(outputs_SPN)
        return outputs_SPN, *self.summaries(*parts, self.log_variance_bounds, self.search_range)


class SampledNetworks(DensityNetworks):
    """Fully connected networks of features."""

    def __init__(
        self,
        scalings: Sequence[Scaling],
        weight_sets: Sequence[Sequence[FixedLayer]],
        density: OutputHead,
    ) -> None:
        super().__init__(scalings, density)
        self.weights = nn.ParameterList(
            layer.weight_OF for layers in weight_sets for layer in layers
        )
        self.biases = nn.ParameterList(layer.bias_O for layers in weight_sets for layer in layers)
        self.num_layers = len(weight_sets[0])
        self.requires_grad_(requires_grad=False)

    @property
    def networks(self) -> list[list[FixedLayer]]:
        """The layers of each network."""
        layers = [FixedLayer(*pair) for pair in zip(self.weights, self.biases, strict=True)]
        count = self.num_layers
        return [layers[first : first + count] for first in range(0, len(layers), count)]

    def outputs_of_scaled(self, *inputs: Tensor) -> Tensor:
        """What the networks themselves give, [S, P, N]: the parameters of the densities.

        Network by network: each is a chain of products whose rows stay in the cache, three times
        as fast as products over all networks with their activations in main memory. The last layer
        is transposed, so that what acts on a few columns of each network acts on long rows.
        """
        return torch.stack([self._outputs_of(layers, inputs[0]) for layers in self.networks])

    @staticmethod
    def _outputs_of(layers: Sequence[FixedLayer], x_NF: Tensor) -> Tensor:
        for layer in layers[:-1]:
            x_NF = nn.functional.linear(x_NF, layer.weight_OF, layer.bias_O).relu()
        last = layers[-1]
        return torch.addmm(last.bias_O.unsqueeze(1), last.weight_OF, x_NF.mT)


class EncodedNetworks(DensityNetworks):
    """Networks of features and tables of lists.

    Args:
        scalings: Of the features.
        tables: By table: the scalings of its columns.
        networks: Modules, each with its own parameters.
        density: How the outputs are read.
    """

    def __init__(
        self,
        scalings: Sequence[Scaling],
        tables: Mapping[str, Sequence[Scaling]],
        networks: Sequence[nn.Module],
        density: OutputHead,
    ) -> None:
        super().__init__(scalings, density)
        self.inputs = names_of(dict.fromkeys(tables, ()))
        self.tables = nn.ModuleList(ScaledModule(each) for each in tables.values())
        self.members = nn.ModuleList(networks)
        self.requires_grad_(requires_grad=False)

    def scaled_inputs(self, features_NF: Tensor, *tables: Tensor) -> tuple[Tensor, ...]:
        """The arguments as the networks take them."""
        scaled = [self.scaled(features_NF)]
        for table, x_EC, row_E in zip(self.tables, tables[::2], tables[1::2], strict=True):
            scaled += [cast("ScaledModule", table).scaled(x_EC), row_E]
        return tuple(scaled)

    def outputs_of_scaled(self, *inputs: Tensor) -> Tensor:
        """What the networks themselves give, [S, P, N]: the parameters of the densities."""
        return torch.stack([member(*inputs).mT for member in self.members])


class NetworksAlone(nn.Module):
    """The outputs of networks [S, P, N], whole and in the parts that the summaries take."""

    def __init__(self, model: DensityNetworks) -> None:
        super().__init__()
        self.model = model

    def forward(self, *inputs: Tensor) -> tuple[Tensor, ...]:
        """Of raw inputs."""
        outputs_SPN = self.model.outputs_of_scaled(*self.model.scaled_inputs(*inputs))
        return outputs_SPN, *self.model.summaries.split(outputs_SPN)


def _column(values: Iterable[float]) -> Tensor:
    return torch.tensor(list(values), dtype=torch.float64)
