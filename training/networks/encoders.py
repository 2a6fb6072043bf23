"""Networks that make numbers of a row from its lists, and the whole network behind them.

Shape letters: B rows, F features, E elements of a table, C columns of it, O outputs.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from training.networks.modules import fully_connected
from training.settings import DeepSetsSettings, DensitySettings

HEAD = "head"  # the layers that see each row once


class DeepSets(nn.Module):
    """A network of each element, summed over the elements of a row (arXiv 1703.06114)."""

    def __init__(
        self, settings: DeepSetsSettings, columns: int, generator: torch.Generator
    ) -> None:
        super().__init__()
        self.element = fully_connected((columns, *settings.hidden, settings.outputs), generator)

    def forward(self, x_EC: Tensor, row_E: Tensor, like_BF: Tensor) -> Tensor:
        """The sums [B, O] over the elements of each row; 0 where there are none.

        Args:
            x_EC: Columns of the elements.
            row_E: The number of each element's row.
            like_BF: Of as many rows.
        """
        element_EO = self.element(x_EC).to(like_BF.dtype)  # sums in full precision
        empty_BO = like_BF.new_zeros(like_BF.shape[0], element_EO.shape[1])
        return empty_BO.index_add(0, row_E, element_EO)


class EncodedNetwork(nn.Module):
    """Encoders of tables, whose outputs beside the features go into a fully connected network.

    Args:
        encoders: One for each table.
        head: Takes the features and all encoders' outputs.
    """

    def __init__(self, encoders: Sequence[nn.Module], head: nn.Module) -> None:
        super().__init__()
        self.encoders, self.head = nn.ModuleList(encoders), head

    def forward(self, x_BF: Tensor, *tables: Tensor) -> Tensor:
        """Outputs [B, O].

        Args:
            x_BF: Scaled features.
            tables: Of each table the scaled columns [E, C] of its elements and their rows [E].
        """
        of_tables = zip(self.encoders, tables[::2], tables[1::2], strict=True)
        encoded = [encoder(x_EC, row_E, x_BF) for encoder, x_EC, row_E in of_tables]
        outputs_BO: Tensor = self.head(torch.cat([x_BF, *encoded], dim=1))
        return outputs_BO


def build_network(
    settings: DensitySettings,
    num_features: int,
    table_widths: Sequence[int],
    generator: torch.Generator,
) -> nn.Module:
    """The network of some settings with weights from N(0, 1/sqrt(F)), biases 0.

    Args:
        settings: Without encoders it is fully connected.
        num_features: F.
        table_widths: C of each table.
        generator: Draws the weights, layer after layer.
    """
    if not settings.encoder:
        sizes = (num_features, *settings.hidden, settings.num_outputs)
        return fully_connected(sizes, generator)
    encoders = [
        DeepSets(each, columns, generator)
        for each, columns in zip(settings.encoder, table_widths, strict=True)
    ]
    inputs = num_features + sum(each.outputs for each in settings.encoder)
    head = fully_connected((inputs, *settings.hidden, settings.num_outputs), generator)
    return EncodedNetwork(encoders, head)


def head_layers(module: nn.Module) -> list[str]:
    """Names of the linear layers that see each row once, first to last."""
    linear = [name for name, each in module.named_modules() if isinstance(each, nn.Linear)]
    if not isinstance(module, EncodedNetwork):
        return linear
    return [name for name in linear if name.startswith(f"{HEAD}.")]
