"""The ONNX file of many networks: scaling and layers written here, then the graph of `summaries`.

Fully connected ones are written node by node as torch would export them, so that ONNX Runtime
computes the same bits; tracing fifty chains of layers takes torch most of a minute. Networks with
encoders are traced.

Shape letters: S networks, N rows, F features, K components, P outputs of a network.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
from numpy.typing import ArrayLike, NDArray
from onnx import TensorProto, helper, numpy_helper

from pipeline.formats.model_inputs import FEATURES
from training.export.graph import (
    NETWORKS_OUTPUT,
    DensityNetworks,
    NetworksAlone,
    SampledNetworks,
    ScaledModule,
)
from training.export.mode import LN10
from training.export.summaries import LIMITS
from training.export.torch_onnx import export_onnx
from training.networks.mlp import FixedLayer

PREFIX = "networks/"  # of names here; those of the summaries have none
EXAMPLE_ROWS, EXAMPLE_ELEMENTS = 3, 7  # no two equal, and none 1: such are taken for constants


class _Graph:
    """Nodes and constants under construction."""

    def __init__(self) -> None:
        self.nodes: list[onnx.NodeProto] = []
        self.constants: list[onnx.TensorProto] = []

    def add(self, operator: str, inputs: Sequence[str], output: str, **attributes: Any) -> str:  # noqa: ANN401 - what ONNX knows
        """Append a node, and give its output's name."""
        output = PREFIX + output
        self.nodes.append(helper.make_node(operator, inputs, [output], output, **attributes))
        return output

    def constant(self, name: str, values: ArrayLike | NDArray[np.generic]) -> str:
        """Keep an array within the file, and give its name."""
        name = PREFIX + name
        self.constants.append(numpy_helper.from_array(np.asarray(values), name))
        return name


def write_networks(model: DensityNetworks, path: Path) -> None:
    """Write the networks, their densities and summaries as one file with a free row axis."""
    if isinstance(model, SampledNetworks):
        model.summaries.export(path)
        networks = _networks(model, onnx.load(path))
    else:
        networks = _traced(model, path)
        model.summaries.export(path)
    summaries = onnx.load(path)
    whole = onnx.compose.merge_models(
        networks, summaries, io_map=[(PREFIX + name, name) for name in model.summaries.parts]
    )
    bound = [given for given in whole.graph.input if given.name in LIMITS]
    for given in bound:
        whole.graph.input.remove(given)
    whole.graph.initializer.extend(
        numpy_helper.from_array(getattr(model, name).numpy(), name) for name in LIMITS
    )
    # Sizes that were free in the summaries alone.
    del whole.graph.value_info[:]
    whole = onnx.shape_inference.infer_shapes(whole)
    onnx.checker.check_model(whole)
    onnx.save(whole, path)


def _traced(model: DensityNetworks, path: Path) -> onnx.ModelProto:
    """As `_networks`, by torch's exporter."""
    widths = [len(table.shift_F) for table in getattr(model, "tables", ())]
    example = [torch.ones(EXAMPLE_ROWS, len(model.shift_F))]
    shapes: list[dict[int, Any]] = [{0: torch.export.Dim("rows")}]
    for number, width in enumerate(widths):
        elements = torch.export.Dim(f"elements_{number}")
        row_E = torch.arange(EXAMPLE_ELEMENTS + number) % EXAMPLE_ROWS
        example += [torch.ones(len(row_E), width), row_E]
        shapes += [{0: elements}, {0: elements}]
    parts = [PREFIX + name for name in model.summaries.parts]
    export_onnx(
        NetworksAlone(model).eval(),
        tuple(example),
        path,
        inputs=model.inputs,
        outputs=(NETWORKS_OUTPUT, *parts),
        dynamic_shapes=(tuple(shapes),),  # of the one argument *inputs
    )
    traced = onnx.load(path)
    kept = dict.fromkeys(["rename_inputs", "rename_outputs"], False)
    return onnx.compose.add_prefix(traced, PREFIX, **kept)


def _networks(model: SampledNetworks, like: onnx.ModelProto) -> onnx.ModelProto:
    """Features to the outputs of all networks, whole and in the parts that the summaries take."""
    graph = _Graph()
    scaled = _scale(graph, model)
    networks = model.networks
    size = len(networks[0][-1].bias_O)
    first = graph.constant("first", np.array([0]))
    stacked = [
        graph.add("Unsqueeze", [_network(graph, number, layers, scaled), first], f"row.{number}")
        for number, layers in enumerate(networks)
    ]
    graph.nodes.append(
        helper.make_node("Concat", stacked, [NETWORKS_OUTPUT], NETWORKS_OUTPUT, axis=0)
    )
    parts = [PREFIX + name for name in model.summaries.parts]
    graph.nodes.append(
        helper.make_node("Split", [NETWORKS_OUTPUT], parts, "split", axis=1, num_outputs=len(parts))
    )

    def value(name: str, *shape: int | str) -> onnx.ValueInfoProto:
        return helper.make_tensor_value_info(name, TensorProto.FLOAT, shape)

    count, rows = len(networks), "rows"
    made = helper.make_graph(
        graph.nodes,
        "networks",
        [value(FEATURES, rows, len(model.shift_F))],
        [
            value(NETWORKS_OUTPUT, count, size, rows),
            *(value(name, count, size // len(parts), rows) for name in parts),
        ],
        graph.constants,
    )
    return helper.make_model(made, opset_imports=like.opset_import, ir_version=like.ir_version)


def _scale(graph: _Graph, model: ScaledModule) -> str:
    """As `ScaledModule.scaled`: floors, logarithms, shift and factor, in float64."""
    names = ("floor_F", "is_log_F", "shift_F", "factor_F")
    floor, is_log, shift, factor = (
        graph.constant(name, getattr(model, name).numpy()) for name in names
    )
    wide = graph.add("Max", [FEATURES, floor], "floored")
    wide = graph.add("Cast", [wide], "wide", to=TensorProto.DOUBLE)
    one, ln10 = graph.constant("one", np.float64(1.0)), graph.constant("ln10", np.float64(LN10))
    logarithm = graph.add("Log", [graph.add("Where", [is_log, wide, one], "positive")], "log")
    logarithm = graph.add("Div", [logarithm, ln10], "log10")
    value = graph.add("Where", [is_log, logarithm, wide], "transformed")
    value = graph.add("Sub", [value, shift], "shifted")
    value = graph.add("Div", [value, factor], "divided")
    return graph.add("Cast", [value], "scaled", to=TensorProto.FLOAT)


def _network(graph: _Graph, number: int, layers: Sequence[FixedLayer], value: str) -> str:
    """As `SampledNetworks` does it: the last layer transposed, [P, N]."""
    for index, layer in enumerate(layers):
        name = f"{number}.{index}"
        weight = graph.constant(f"weight.{name}", layer.weight_OF.numpy())
        if index < len(layers) - 1:
            bias = graph.constant(f"bias.{name}", layer.bias_O.numpy())
            value = graph.add("Gemm", [value, weight, bias], f"sum.{name}", transB=1)
            value = graph.add("Relu", [value], f"unit.{name}")
        else:
            bias = graph.constant(f"bias.{name}", layer.bias_O.unsqueeze(1).numpy())
            value = graph.add("Transpose", [value], f"transposed.{name}", perm=[1, 0])
            value = graph.add("Gemm", [weight, value, bias], f"output.{number}")
    return value
