"""The same training as most would write it: a DataLoader, modules, automatic gradients.

Network, batch, mixture, KL and optimiser are the same.

Shape letters: B rows of a batch, F inputs, O outputs.
"""

import importlib
import importlib.util
import itertools
import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from benchmarks.measure import interleave, ratio
from benchmarks.training_side import FEATURES, random_rows, training
from training.losses.density_nll import log_density
from training.settings import BnnSettings


class LocalLinear(nn.Module):
    """A Bayesian layer with local reparametrisation, deterministic biases and prior N(0, 1)."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.mean_OF = nn.Parameter(torch.randn(outputs, inputs) / math.sqrt(inputs))
        self.log_variance_OF = nn.Parameter(torch.full((outputs, inputs), -9.0))
        self.bias_O = nn.Parameter(torch.zeros(outputs))

    def forward(self, x_BF: Tensor) -> Tensor:
        mean_BO = nn.functional.linear(x_BF, self.mean_OF, self.bias_O)
        variance_BO = nn.functional.linear(x_BF**2, self.log_variance_OF.exp())
        return mean_BO + torch.sqrt(variance_BO + 1e-12) * torch.randn_like(mean_BO)

    def kl_loss(self) -> Tensor:
        variance_OF = self.log_variance_OF.exp()
        return 0.5 * (self.mean_OF**2 + variance_OF - self.log_variance_OF - 1.0).sum()


def measure_peers() -> dict[str, float]:
    """Seconds of an epoch of each peer over those of the training, with one thread."""
    torch.set_num_threads(1)
    works: dict[str, Callable[[], object]] = {
        "bnn": training(BnnSettings(epochs=1), 1),
        "peer_dataloader": _epoch_of(LocalLinear),
    }
    if importlib.util.find_spec("bayesian_torch") is None:
        print("bayesian-torch is not installed: pip install bayesian-torch to compare with it")
    else:
        works |= _bayesian_torch()
    seconds = interleave(works)
    return {f"{name}.ratio_to_bnn": ratio(seconds, name, "bnn") for name in works if name != "bnn"}


def _bayesian_torch() -> dict[str, Callable[[], object]]:
    """Its Flipout layers, whose gradient is about as noisy, and those with one draw a step."""
    layers: Any = importlib.import_module("bayesian_torch.layers")
    return {
        "peer_bayesian_torch": _epoch_of(_output_alone(layers.LinearFlipout)),
        "peer_bayesian_torch_one_draw": _epoch_of(_output_alone(layers.LinearReparameterization)),
    }


def _output_alone(layer: Any) -> Callable[[int, int], Any]:  # noqa: ANN401 - of the package
    """The layer as its own conversion of models makes it: the divergence is asked for later."""

    def make(inputs: int, outputs: int) -> Any:  # noqa: ANN401 - of the package
        made = layer(inputs, outputs, posterior_rho_init=math.log(math.expm1(math.exp(-4.5))))
        made.dnn_to_bnn_flag = True
        return made

    return make


def _epoch_of(layer: Callable[[int, int], Any]) -> Callable[[], None]:
    settings, rows = BnnSettings(), random_rows()
    sizes = (FEATURES, *settings.hidden, settings.num_outputs)
    layers = [layer(inputs, outputs) for inputs, outputs in itertools.pairwise(sizes)]
    hidden = itertools.chain.from_iterable((each, nn.ReLU()) for each in layers[:-1])
    model = nn.Sequential(*hidden, layers[-1])
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-4)
    loader = DataLoader(
        TensorDataset(rows.x_NF, rows.target_N), batch_size=settings.batch_rows, shuffle=True
    )

    def work() -> None:
        for x_BF, target_B in loader:
            optimizer.zero_grad()
            log_p_B = log_density(model(x_BF), target_B, settings.log_variance_bounds)
            kl = torch.stack([each.kl_loss() for each in layers]).sum()
            loss: Any = kl / len(rows) - log_p_B.mean()
            loss.backward()
            optimizer.step()

    return work
