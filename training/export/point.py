"""Networks with one output, as ONNX: network and scaling are one module, the source of the file.

Shape letters: N rows, F features.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from pipeline.formats.card import Output
from pipeline.formats.files import replacing
from pipeline.formats.transforms import Scaling
from training.data.rows import RowSource, TrainingRows
from training.export.finished import MODEL, Exported, Finished
from training.export.graph import ScaledModule
from training.export.onnx_file import check_onnx, write_onnx
from training.losses.point import CrossEntropy, LeakyKernel, PointLoss, predicted_log10
from training.networks.mlp import FixedLayer, forward_fixed, split_member
from training.settings import Activation, DnnSettings, TaggerSettings


class PlainModel(ScaledModule):
    """Raw features [N, F] to one named output [N].

    Args:
        scalings: Of the features.
        layers: Weights and biases.
        activation: Of the hidden layers.
        output: Name of the output.
        loss: That it was trained with; it knows what the network's own output predicts.
    """

    def __init__(
        self,
        scalings: Sequence[Scaling],
        layers: Sequence[FixedLayer],
        *,
        activation: Activation,
        output: str,
        loss: PointLoss,
    ) -> None:
        super().__init__(scalings)
        self.activation, self.outputs, self.loss = activation, (output,), loss
        self.weights = nn.ParameterList(layer.weight_OF for layer in layers)
        self.biases = nn.ParameterList(layer.bias_O for layer in layers)
        self.requires_grad_(requires_grad=False)

    def output_of_scaled(self, x_NF: Tensor) -> Tensor:
        """The network's own output [N] for scaled features [N, F]."""
        layers = [FixedLayer(*pair) for pair in zip(self.weights, self.biases, strict=True)]
        return forward_fixed(layers, x_NF, self.activation).squeeze(1)

    def forward(self, features_NF: Tensor) -> tuple[Tensor]:
        """The predicted target, or the probability of the label."""
        return (self.loss.predict(self.output_of_scaled(self.scaled(features_NF))),)


def export_regression(finished: Finished, settings: DnnSettings) -> Exported:
    """Write the network that predicts the target, and describe it."""
    target = finished.manifest.require_target()
    response = Output(
        name="response",
        unit=target.unit,
        shape="[row]",
        description=f"estimate of {target.name}, near the mode of the density of log10 of it",
    )
    loss = LeakyKernel(settings, torch.zeros(()))
    loss.start_epoch(settings.epochs - 1)
    model = plain_model(finished, settings, response, loss)
    errors, weights = [], []
    for slab in finished.validation.slabs(0, 1):
        log10_N = predicted_log10(model.output_of_scaled(slab.x_NF), settings)
        errors.append((log10_N - slab.target_N).abs().double())
        weights.append(_weights_of(slab))
    error = weighted_median(torch.cat(errors), torch.cat(weights))
    return write_plain(
        finished,
        model,
        scores={"validation_median_abs_error_log10": error},
        card={"density": "point", "outputs": (response,)},
    )


def export_classifier(finished: Finished, settings: TaggerSettings) -> Exported:
    """Write the network that predicts the probability of a label, and describe it."""
    score = Output(name="score", unit="1", shape="[row]", description="probability of the label")
    model = plain_model(finished, settings, score, CrossEntropy())
    card = {"density": "categorical", "targets": (), "target_ranges": {}, "outputs": (score,)}
    return write_plain(finished, model, scores={}, card=card)


def plain_model(
    finished: Finished, settings: DnnSettings | TaggerSettings, output: Output, loss: PointLoss
) -> PlainModel:
    """The trained network as it is exported.

    Args:
        finished: The training.
        settings: Of the network.
        output: What the file gives.
        loss: That it was trained with, as it was in the last epoch.
    """
    checkpoint = finished.checkpoint
    return PlainModel(
        finished.scalings,
        split_member(checkpoint.networks[0].theta_P, checkpoint.sizes),
        activation=settings.activation,
        output=output.name,
        loss=loss,
    ).eval()


def write_plain(
    finished: Finished, model: PlainModel, *, scores: dict[str, float], card: dict[str, Any]
) -> Exported:
    """Write a network with one output; its loss on the validation rows is scored beside `scores`.

    Args:
        finished: The training.
        model: From `plain_model`.
        scores: Further validation scores.
        card: Fields of the card.
    """
    with replacing(finished.folder / MODEL) as temporary:
        write_onnx(model, temporary)
        check_onnx(temporary, model, finished.random_rows())
    tensors = {}
    for index, (weight_OF, bias_O) in enumerate(zip(model.weights, model.biases, strict=True)):
        tensors[f"weight.{index}"] = weight_OF.detach().clone()
        tensors[f"bias.{index}"] = bias_O.detach().clone()
    return Exported(
        files={"model": MODEL},
        weights=tensors,
        scores={"validation_loss": _loss_of(model, finished.validation), **scores},
        card=card,
    )


@torch.no_grad()
def _loss_of(model: PlainModel, rows: RowSource) -> float:
    """The weighted mean loss of all rows."""
    losses = [
        _weights_of(slab) * model.loss.of_rows(model.output_of_scaled(slab.x_NF), slab.target_N)
        for slab in rows.slabs(0, 1)
    ]
    return torch.cat(losses).mean().item()


def _weights_of(slab: TrainingRows) -> Tensor:
    weight_N = torch.ones(len(slab)) if slab.weight_N is None else slab.weight_N
    return weight_N.double()


def weighted_median(value_N: Tensor, weight_N: Tensor) -> float:
    """The smallest value below which, itself included, lies half of the weight."""
    sorted_N, order_N = value_N.sort()
    share_N = weight_N[order_N].cumsum(0)
    return sorted_N[int((share_N < 0.5 * share_N[-1]).sum())].item()
