"""Networks with one output, as ONNX.

Shape letters: N rows.

Network and scaling are one module, the source of the ONNX file.

Shape letters: N rows, F features.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from pipeline.formats.card import Output
from pipeline.formats.files import replacing
from pipeline.formats.transforms import Scaling
from training.data.rows import Source
from training.export.finished import MODEL, Exported, Finished
from training.export.graph import ScaledModule
from training.export.onnx_file import check_onnx, write_onnx
from training.losses.point import LN10, bounded, loss_of, predicted_log10
from training.networks.mlp import FixedLayer, forward_fixed, split_member
from training.settings import DnnSettings, PlainSettings


class PlainModel(ScaledModule):
    """Raw features [N, F] to `response` [N], or of a tagger to `score` [N]."""

    def __init__(
        self, scalings: Sequence[Scaling], layers: Sequence[FixedLayer], settings: PlainSettings
    ) -> None:
        super().__init__(scalings)
        self.settings = settings
        self.outputs = ("response" if isinstance(settings, DnnSettings) else "score",)
        self.weights = nn.ParameterList(layer.weight_OF for layer in layers)
        self.biases = nn.ParameterList(layer.bias_O for layer in layers)
        self.requires_grad_(requires_grad=False)

    def output_of_scaled(self, x_NF: Tensor) -> Tensor:
        """The network's own output [N]."""
        layers = [FixedLayer(*pair) for pair in zip(self.weights, self.biases, strict=True)]
        return forward_fixed(layers, x_NF, self.settings.activation).squeeze(1)

    def forward(self, features_NF: Tensor) -> tuple[Tensor]:
        """The predicted target, or the probability of the label."""
        output_N = self.output_of_scaled(self.scaled(features_NF))
        if not isinstance(self.settings, DnnSettings):
            return (torch.sigmoid(output_N),)
        if self.settings.output == "log10":
            return (torch.exp(output_N * LN10),)
        return (bounded(output_N),)


def export_plain(finished: Finished, settings: PlainSettings) -> Exported:
    """Write the network and describe it."""
    checkpoint, path = finished.checkpoint, finished.folder / MODEL
    layers = split_member(checkpoint.networks[0].theta_P, checkpoint.sizes)
    model = PlainModel(finished.scalings, layers, settings).eval()
    with replacing(path) as temporary:
        write_onnx(model, temporary)
        check_onnx(temporary, model, finished.random_rows())
    weights = {}
    for index, layer in enumerate(layers):
        weights[f"weight.{index}"] = layer.weight_OF.clone()
        weights[f"bias.{index}"] = layer.bias_O.clone()
    return Exported(
        files={"model": MODEL},
        weights=weights,
        scores=_scores_of(model, finished.validation, settings),
        card=_card_of(finished, settings),
    )


def _card_of(finished: Finished, settings: PlainSettings) -> dict[str, Any]:
    if not isinstance(settings, DnnSettings):
        score = Output(
            name="score", unit="1", shape="[row]", description="probability of the label"
        )
        return {"density": "categorical", "targets": (), "target_ranges": {}, "outputs": (score,)}
    target = finished.manifest.require_target()
    response = Output(
        name="response",
        unit=target.unit,
        shape="[row]",
        description=f"estimate of {target.name}, near the mode of the density of log10 of it",
    )
    return {
        "density": "point",
        "outputs": (response,),
    }


@torch.no_grad()
def _scores_of(model: PlainModel, rows: Source, settings: PlainSettings) -> dict[str, float]:
    """The loss, as at the end of the training, and for a regression the median absolute error."""
    loss = loss_of(settings, model.weights[0])
    loss.start_epoch(settings.epochs - 1)
    losses, errors, weights = [], [], []
    for slab in rows.slabs(0, 1):
        output_N = model.output_of_scaled(slab.x_NF)
        weight_N = torch.ones(len(slab)) if slab.weight_N is None else slab.weight_N
        losses.append(weight_N.double() * loss.of_rows(output_N, slab.target_N))
        weights.append(weight_N.double())
        if isinstance(settings, DnnSettings):
            errors.append((predicted_log10(output_N, settings) - slab.target_N).abs().double())
    scores = {"validation_loss": torch.cat(losses).mean().item()}
    if errors:
        error = weighted_median(torch.cat(errors), torch.cat(weights))
        scores["validation_median_abs_error_log10"] = error
    return scores


def weighted_median(value_N: Tensor, weight_N: Tensor) -> float:
    """The smallest value below which, itself included, lies half of the weight."""
    sorted_N, order_N = value_N.sort()
    share_N = weight_N[order_N].cumsum(0)
    return sorted_N[int((share_N < 0.5 * share_N[-1]).sum())].item()
