"""The ONNX file of a set of networks: writing it and comparing it with torch.

Shape letters: S networks, N rows, F features, K components.
"""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import onnx
import onnx.utils
import onnxruntime
import torch
from numpy.typing import NDArray
from torch import Tensor

from pipeline.formats.model_inputs import FEATURES
from training.export.graph import NETWORKS_OUTPUT, ScaledModule
from training.export.mode import LN10
from training.export.torch_onnx import export_onnx, quiet

EXAMPLE_ROWS = 3  # more than one, so that the exporter does not take the axis for a constant
RELATIVE, ABSOLUTE = 1e-4, 1e-5
OF_SQUARE = 4e-6  # what rounding may leave of a variance, relative to the square of the mean
SHIFTED = 0.01  # in l, where a file says nothing of how sure it is
UNPROVEN = 0.1  # a central value whose gap is larger may be at the wrong one of several peaks


def write_onnx(model: ScaledModule, path: Path) -> None:
    """Write the module as one ONNX file with a free row axis."""
    example_NF = torch.ones(EXAMPLE_ROWS, len(model.shift_F))
    export_onnx(
        model,
        (example_NF,),
        path,
        inputs=[FEATURES],
        outputs=model.outputs,
        dynamic_shapes=({0: torch.export.Dim("rows")},),
    )


def extract_onnx(model: Path, path: Path, outputs: Sequence[str]) -> None:
    """Write the part of an ONNX file that makes some of its outputs.

    ONNX Runtime computes all outputs of a file, also those that nobody asks for.
    """
    inputs = [given.name for given in onnx.load(model).graph.input]
    with quiet():
        onnx.utils.extract_model(model, path, inputs, list(outputs))


def run_onnx(
    path: Path, inputs: Tensor | Mapping[str, Tensor], outputs: Sequence[str]
) -> dict[str, NDArray[np.float32]]:
    """The outputs of an ONNX file by name, on one thread; features alone may be without a name."""
    given = {FEATURES: inputs} if isinstance(inputs, Tensor) else inputs
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    values = session.run(list(outputs), {name: each.numpy() for name, each in given.items()})
    return dict(zip(outputs, values, strict=True))


def check_onnx(path: Path, model: ScaledModule, inputs: Tensor | Mapping[str, Tensor]) -> float:
    """Compare the file with the module on some rows.

    The search for the central value may stop at different peaks where there are many. What counts
    is the density reached, by which the file itself says how sure it is (`central_gap`).

    Returns:
        The share of rows whose central value is not known to be the most probable value, because
        the file says so or because torch finds a higher density elsewhere.

    Raises:
        RuntimeError: Another output differs by more than rounding.
    """
    found = run_onnx(path, inputs, model.outputs)
    given = (inputs,) if isinstance(inputs, Tensor) else tuple(inputs.values())
    with torch.no_grad():
        expected = dict(zip(model.outputs, model(*given), strict=True))
    for name in model.outputs:
        if name.startswith("central"):
            continue
        difference = np.abs(found[name] - expected[name].numpy())
        allowed = _allowed(name, expected)
        is_wrong = ~(difference <= allowed)
        if is_wrong.any():
            worst = np.argmax(np.where(is_wrong, difference / allowed, 0.0))
            msg = (
                f"{path}: output {name} differs from torch by {difference.flat[worst]:.3g}, "
                f"allowed {allowed.flat[worst]:.3g}"
            )
            raise RuntimeError(msg)
    if "central" not in found:
        return 0.0
    if "central_gap" not in found:
        here, there = (_l_of(model, torch.as_tensor(each["central"])) for each in (found, expected))
        return float((~((here - there).abs() <= SHIFTED)).double().mean())
    here, there = (
        _log_density(model, expected["mixture"], torch.as_tensor(value["central"]))
        for value in (found, expected)
    )
    gap_N = torch.maximum(torch.as_tensor(found["central_gap"]).double(), there - here)
    return float((~(gap_N <= UNPROVEN)).double().mean())


def _allowed(name: str, expected: Mapping[str, Tensor]) -> NDArray[np.float32]:
    """The difference that rounding in float32 may make of an output."""
    values: NDArray[np.float32] = expected[name].abs().numpy()
    if name in {NETWORKS_OUTPUT, "mixture", "parameters"} or "mean" not in expected:
        return RELATIVE * values + ABSOLUTE
    means: NDArray[np.float32] = expected["mean"].abs().numpy()
    if not name.startswith("sigma"):
        return RELATIVE * values + ABSOLUTE * means
    # A variance of R is a difference of mean squares. Where next to nothing of a density lies
    # within the range these are quotients of tails, of which float32 keeps fewer digits.
    return RELATIVE * values + np.sqrt(values * values + OF_SQUARE * means * means) - values


def _l_of(model: ScaledModule, value_N: Tensor) -> Tensor:
    """The transformed target at some of its values, [N]."""
    return torch.log(value_N.double()) / LN10 if model.transform == "log10" else value_N.double()


def _log_density(model: ScaledModule, mixture_SNK: Tensor, value_N: Tensor) -> Tensor:
    """Log of the averaged density of the target at a value, up to a constant, [N]."""
    mean, log_variance, log_weight = mixture_SNK.double().chunk(3, dim=-1)
    l_N = _l_of(model, value_N)
    square = (l_N[:, None] - mean) ** 2 * torch.exp(-log_variance)
    log_p_SN = torch.logsumexp(log_weight - 0.5 * (square + log_variance), dim=-1)
    log_p_N = torch.logsumexp(log_p_SN, dim=0)
    return log_p_N - math.log(10.0) * l_N if model.transform == "log10" else log_p_N
