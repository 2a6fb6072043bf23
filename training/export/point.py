"""Networks with one output, as ONNX: network and scaling are one module, the source of the file.

Shape letters: N rows, F features.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from pipeline.formats.card import Output
from pipeline.formats.files import replacing
from pipeline.formats.transforms import Scaling
from training.data.rows import RowSource
from training.export.finished import MODEL, Exported, Finished, tensors_of
from training.export.graph import ScaledModule
from training.export.onnx_file import check_onnx, write_onnx
from training.losses.point import CrossEntropy, LeakyKernel, PointLoss, RegressionLoss
from training.networks.mlp import FixedLayer, forward_fixed, split_member
from training.settings import Activation, DnnSettings, PointSettings, TaggerSettings


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

    @property
    def layers(self) -> list[FixedLayer]:
        """Weights and biases by layer."""
        return [FixedLayer(*pair) for pair in zip(self.weights, self.biases, strict=True)]

    def output_of_scaled(self, x_NF: Tensor) -> Tensor:
        """The network's own output [N] for scaled features [N, F]."""
        return forward_fixed(self.layers, x_NF, self.activation).squeeze(1)

    def forward(self, features_NF: Tensor) -> tuple[Tensor]:
        """The predicted target, or the probability of the label."""
        return (self.loss.predict(self.output_of_scaled(self.scaled(features_NF))),)


def export_regression(finished: Finished, settings: DnnSettings) -> Exported:
    """Write the network that predicts the target, and describe it."""
    loss = LeakyKernel(settings, torch.zeros(()))
    loss.start_epoch(settings.epochs - 1)
    return export_point(finished, settings, loss, "near the mode of the density of log10 of it")


def export_point(
    finished: Finished, settings: PointSettings, loss: RegressionLoss, what: str
) -> Exported:
    """Write a network with one output that predicts the target, and describe it.

    Args:
        finished: The training.
        settings: Of the network.
        loss: That it was trained with, as it was in the last epoch.
        what: Which estimate it is, in words.
    """
    target = finished.manifest.require_target()
    response = Output(
        name="response",
        unit=target.unit,
        shape="[row]",
        description=f"estimate of {target.name}, {what}",
    )
    model = plain_model(finished, settings, response, loss)
    rows = evaluate_plain(model, finished.validation)
    error_N = (loss.log10_of(rows.output_N) - rows.target_N).abs().double()
    scores = {
        "validation_loss": rows.mean_loss(loss),
        "validation_median_abs_error_log10": weighted_median(error_N, rows.weight_N),
    }
    card = {"density": "point", "outputs": (response,)}
    return write_plain(finished, model, scores=scores, card=card)


def export_classifier(finished: Finished, settings: TaggerSettings) -> Exported:
    """Write the network that predicts the probability of a label, and describe it."""
    score = Output(name="score", unit="1", shape="[row]", description="probability of the label")
    model = plain_model(finished, settings, score, CrossEntropy())
    rows = evaluate_plain(model, finished.validation)
    scores = {"validation_loss": rows.mean_loss(model.loss)}
    card = {"density": "categorical", "targets": (), "target_ranges": {}, "outputs": (score,)}
    return write_plain(finished, model, scores=scores, card=card)


def plain_model(
    finished: Finished, settings: PointSettings, output: Output, loss: PointLoss
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
    """Write a network with one output.

    Args:
        finished: The training.
        model: From `plain_model`.
        scores: Validation scores by name.
        card: Fields of the card.
    """
    with replacing(finished.folder / MODEL) as temporary:
        write_onnx(model, temporary)
        check_onnx(temporary, model, finished.random_rows())
    return Exported(
        files={"model": MODEL}, weights=tensors_of(model.layers), scores=scores, card=card
    )


class EvaluatedRows(NamedTuple):
    """A network's own outputs, the targets and the weights of N rows."""

    output_N: Tensor
    target_N: Tensor
    weight_N: Tensor

    def mean_loss(self, loss: PointLoss) -> float:
        """The weighted mean loss; weights have the mean 1."""
        return (self.weight_N * loss.of_rows(self.output_N, self.target_N)).mean().item()


@torch.no_grad()
def evaluate_plain(model: PlainModel, rows: RowSource) -> EvaluatedRows:
    """All rows through the network once; weights are float64."""
    evaluated = [
        EvaluatedRows(
            model.output_of_scaled(slab.x_NF),
            slab.target_N,
            (torch.ones(len(slab)) if slab.weight_N is None else slab.weight_N).double(),
        )
        for slab in rows.slabs(0, 1)
    ]
    return EvaluatedRows(*(torch.cat(each) for each in zip(*evaluated, strict=True)))


def weighted_median(value_N: Tensor, weight_N: Tensor) -> float:
    """The smallest value below which, itself included, lies half of the weight."""
    sorted_N, order_N = value_N.sort()
    share_N = weight_N[order_N].cumsum(0)
    return sorted_N[int((share_N < 0.5 * share_N[-1]).sum())].item()
