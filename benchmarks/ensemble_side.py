"""A step of the repulsive ensemble against the products of its members, and as most write it.

The peers have the same networks, batch, mixture, repulsion, prior and Adam, with automatic
gradients.

Shape letters: M members, B rows of a batch, F inputs, O outputs.
"""

import itertools
import math
import statistics
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call, stack_module_state, vmap

from benchmarks.measure import interleave, ratio
from benchmarks.training_side import (
    FEATURES,
    products,
    random_data,
    random_rows,
    speedup,
    training,
)
from training.losses.density_nll import log_density
from training.settings import RepulsiveEnsembleSettings

STEPS = 2  # of 50 members
EPOCHS_OF_WORKERS, STEPS_OF_WORKERS = 6, 4
SETTINGS = RepulsiveEnsembleSettings(epochs=1)
SIZES = (FEATURES, *SETTINGS.hidden, SETTINGS.num_outputs)


def measure_ensemble() -> dict[str, float]:
    """Seconds of steps, of the loop and of its peers, over those of 50 networks' products."""
    torch.set_num_threads(1)
    seconds = interleave({
        "products": products(STEPS * SETTINGS.members),
        "re": training(SETTINGS, 1, random_data(STEPS)),
        "peer_re_modules": _steps_of(*_modules()),
        "peer_re_vmap": _steps_of(*_vmap()),
        "peer_re_bmm": _steps_of(*_stacked()),
    })
    rows = STEPS * SETTINGS.batch_rows
    peers = ("peer_re_modules", "peer_re_vmap", "peer_re_bmm")
    return {
        "re_step.ratio_to_gemm": ratio(seconds, "re", "products"),
        "re.rows_per_second": rows / statistics.median(seconds["re"]),
        **{f"{name}.ratio_to_re": ratio(seconds, name, "re") for name in peers},
    }


def measure_two_workers() -> dict[str, float]:
    """Rows per second of two single-threaded workers over those of one, each in its process."""
    settings = SETTINGS.model_copy(update={"epochs": EPOCHS_OF_WORKERS})
    return {"re.speedup_2_workers": speedup(settings, STEPS_OF_WORKERS)}


Forward = Callable[[Tensor], Tensor]


def _module() -> nn.Sequential:
    layers = [nn.Linear(inputs, outputs) for inputs, outputs in itertools.pairwise(SIZES)]
    hidden = itertools.chain.from_iterable((each, nn.ReLU()) for each in layers[:-1])
    return nn.Sequential(*hidden, layers[-1])


def _modules() -> tuple[Forward, list[Tensor]]:
    models = [_module() for _ in range(SETTINGS.members)]
    parameters = [each for model in models for each in model.parameters()]
    return lambda x_BF: torch.stack([model(x_BF) for model in models]), list(parameters)


def _vmap() -> tuple[Forward, list[Tensor]]:
    models: Any = [_module() for _ in range(SETTINGS.members)]
    parameters, buffers = stack_module_state(models)

    def one(parameters: Any, buffers: Any, x_BF: Tensor) -> Any:  # noqa: ANN401 - of torch.func
        return functional_call(models[0], (parameters, buffers), (x_BF,))

    def forward(x_BF: Tensor) -> Tensor:
        outputs_MBO: Tensor = vmap(one, in_dims=(0, 0, None))(parameters, buffers, x_BF)
        return outputs_MBO

    return forward, list(parameters.values())


def _stacked() -> tuple[Forward, list[Tensor]]:
    pairs = list(itertools.pairwise(SIZES))
    weights = [
        (torch.randn(SETTINGS.members, inputs, outputs) / math.sqrt(inputs)).requires_grad_()
        for inputs, outputs in pairs
    ]
    biases = [
        torch.zeros(SETTINGS.members, 1, outputs, requires_grad=True) for outputs in SIZES[1:]
    ]

    def forward(x_BF: Tensor) -> Tensor:
        h_MBF = x_BF.expand(SETTINGS.members, -1, -1)
        for index, (weight_MFO, bias_M1O) in enumerate(zip(weights, biases, strict=True)):
            h_MBF = torch.baddbmm(bias_M1O, h_MBF, weight_MFO)
            h_MBF = h_MBF.relu() if index < len(weights) - 1 else h_MBF
        return h_MBF

    return forward, [*weights, *biases]


def _steps_of(forward: Forward, parameters: list[Tensor]) -> Callable[[], None]:
    rows = random_rows(STEPS)
    optimizer = torch.optim.Adam(parameters, lr=1e-4, fused=True)

    def work() -> None:
        order_N = torch.randperm(len(rows))
        for index in order_N.split_with_sizes([SETTINGS.batch_rows] * STEPS):
            optimizer.zero_grad()
            outputs_MBO, target_B = forward(rows.x_NF[index]), rows.target_N[index]
            target_MB = target_B.expand(SETTINGS.members, -1)
            log_p_MB = log_density(outputs_MBO, target_MB, SETTINGS.log_variance_bounds)
            prior = torch.stack([each.square().sum() for each in parameters]).sum() / 2.0
            repulsion = _repulsion(outputs_MBO)
            loss: Any = (prior + repulsion) / len(rows) - log_p_MB.mean(dim=1).sum()
            loss.backward()
            optimizer.step()

    return work


def _repulsion(outputs_MBO: Tensor) -> Tensor:
    mean_MBK, _, logit_MBK = outputs_MBO.chunk(3, dim=-1)
    q_MB = (torch.softmax(logit_MBK, dim=-1) * mean_MBK).sum(dim=-1)
    centred_MB = q_MB - q_MB.detach().mean(dim=0)
    there_MB = centred_MB.detach()
    norm_M1, norm_1M = centred_MB.square().sum(1, keepdim=True), there_MB.square().sum(1)[None]
    square_MM = (norm_M1 + norm_1M - 2.0 * centred_MB @ there_MB.T).clamp(min=0.0)
    median = torch.quantile(square_MM.detach().flatten(), 0.5)
    total_M = torch.exp(-square_MM * math.log(len(q_MB) + 1) / median).sum(dim=1)
    return (total_M / total_M.detach()).sum()
