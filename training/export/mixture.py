"""Networks that make a density, as ONNX: all outputs in one file, the networks alone in another.

Shape letters: S samples, N rows, F features, K components, P parameters.
"""

import itertools
import math
from collections.abc import Sequence

import torch
from torch import Tensor

from pipeline.formats.card import NETWORKS, SEARCH_MARGIN, Output
from pipeline.formats.columns import Target
from pipeline.formats.files import replacing
from pipeline.formats.manifest import DatasetManifest, select_features
from pipeline.formats.seeds import derive_seed
from pipeline.formats.transforms import Scaling
from training.checkpoint import Checkpoint
from training.data.rows import RowSource
from training.data.training_data import scalings_of
from training.export.finished import MODEL, Exported, Finished, tensors_of
from training.export.graph import NETWORKS_OUTPUT, OutputHead, SampledNetworks
from training.export.networks_onnx import write_networks
from training.export.onnx_file import check_onnx, extract_onnx
from training.export.summaries import SUMMARIES
from training.kinds import kind_of
from training.losses.density_nll import log_density
from training.networks.mlp import FixedLayer, Layer, draw_weights, split_member, split_parameters
from training.settings import (
    BnnSettings,
    MixtureDensitySettings,
    MixtureSettings,
    RepulsiveEnsembleSettings,
)

WeightSets = list[list[FixedLayer]]  # layers of each network
SLAB_ROWS = 512  # of one evaluation of all networks


def export_bayesian(finished: Finished, settings: BnnSettings) -> Exported:
    """Write networks drawn from the posterior, and describe them."""
    checkpoint = finished.checkpoint
    weight_sets = drawn_networks(settings, checkpoint, finished.seed)
    layers = split_parameters(checkpoint.networks[0].theta_P, checkpoint.sizes)
    return _export(finished, settings, weight_sets, _posterior(layers, weight_sets))


def export_ensemble(finished: Finished, settings: RepulsiveEnsembleSettings) -> Exported:
    """Write the members, and describe them."""
    members = trained_members(settings, finished.checkpoint, finished.seed)
    return _export(finished, settings, members, _by_member(members))


def export_density(finished: Finished, settings: MixtureDensitySettings) -> Exported:
    """Write the network, and describe it."""
    networks = trained_members(settings, finished.checkpoint, finished.seed)
    return _export(finished, settings, networks, tensors_of(networks[0]))


def drawn_networks(settings: BnnSettings, checkpoint: Checkpoint, seed: int) -> WeightSets:
    """The weight sets of a Bayesian network that are exported, drawn from its posterior."""
    layers = split_parameters(checkpoint.networks[0].theta_P, checkpoint.sizes)
    return draw_weight_sets(layers, seed, settings.samples)


def trained_members(settings: MixtureSettings, checkpoint: Checkpoint, seed: int) -> WeightSets:
    """The networks of a training, which are exported as they are: members, or the only one."""
    del settings, seed  # nothing is drawn
    return [split_member(each.theta_P, checkpoint.sizes) for each in checkpoint.networks]


def _export(
    finished: Finished,
    settings: MixtureSettings,
    weight_sets: WeightSets,
    weights: dict[str, Tensor],
) -> Exported:
    """Write the networks and describe them; `weights` are all there are, by name."""
    manifest, folder = finished.manifest, finished.folder
    model = _model_of(manifest, finished.scalings, weight_sets, settings)
    scores = _scores_of(model, finished.validation)
    with replacing(folder / MODEL) as temporary, replacing(folder / NETWORKS) as networks:
        write_networks(model, temporary)
        check_onnx(temporary, model, finished.random_rows())
        extract_onnx(temporary, networks, [NETWORKS_OUTPUT])
        extract_onnx(temporary, temporary, SUMMARIES)
    target = manifest.require_target()
    return Exported(
        files={"model": MODEL, "networks": NETWORKS},
        weights=weights,
        scores=scores,
        card={
            "density": "gaussian_mixture",
            "num_networks": settings.num_networks,
            "num_components": settings.components,
            "log_variance_bounds": settings.log_variance_bounds,
            "outputs": _outputs_of(target, settings.components),
        },
    )


def networks_of(
    manifest: DatasetManifest, settings: MixtureSettings, checkpoint: Checkpoint, seed: int
) -> SampledNetworks:
    """The networks of a finished training as they would be exported, without a file."""
    scalings = scalings_of(manifest, select_features(manifest, settings.features))
    weight_sets = kind_of(settings).open_weight_sets()(settings, checkpoint, seed)
    return _model_of(manifest, scalings, weight_sets, settings)


def draw_weight_sets(layers: Sequence[Layer], seed: int, samples: int) -> WeightSets:
    """Weight sets drawn from the posterior; set s depends on the seed and s alone."""
    return [
        draw_weights(layers, torch.Generator().manual_seed(derive_seed(seed, "export", sample)))
        for sample in range(samples)
    ]


def _posterior(
    layers: Sequence[Layer], weight_sets: Sequence[Sequence[FixedLayer]]
) -> dict[str, Tensor]:
    """Posterior means, log variances and biases by layer, and the drawn sets [S, O, F]."""
    tensors: dict[str, Tensor] = {}
    for index, layer in enumerate(layers):
        tensors[f"mean.{index}"] = layer.mean_OF.clone()
        tensors[f"log_variance.{index}"] = layer.log_variance_OF.clone()
        tensors[f"bias.{index}"] = layer.bias_O.clone()
        drawn = torch.stack([weights[index].weight_OF for weights in weight_sets])
        tensors[f"drawn_weight.{index}"] = drawn
    return tensors


def _by_member(members: Sequence[Sequence[FixedLayer]]) -> dict[str, Tensor]:
    """Weights and biases by member and layer."""
    tensors: dict[str, Tensor] = {}
    for number, layers in enumerate(members):
        tensors |= tensors_of(layers, f"member.{number:03d}.")
    return tensors


def _model_of(
    manifest: DatasetManifest,
    scalings: Sequence[Scaling],
    weight_sets: Sequence[Sequence[FixedLayer]],
    settings: MixtureSettings,
) -> SampledNetworks:
    low, high = manifest.log10_target_range()
    density = OutputHead(settings.log_variance_bounds, (low - SEARCH_MARGIN, high + SEARCH_MARGIN))
    return SampledNetworks(scalings, weight_sets, density).eval()


@torch.no_grad()
def _scores_of(model: SampledNetworks, rows: RowSource) -> dict[str, float]:
    """Validation NLL of the averaged density and the mean NLL of its single networks."""
    averaged, single = 0.0, 0.0
    pieces = (slab.pieces(SLAB_ROWS) for slab in rows.slabs(0, 1))
    for slab in itertools.chain.from_iterable(pieces):
        mixture_SNK = model.mixture_of_scaled(slab.x_NF)
        target_SN = slab.target_N.expand(len(mixture_SNK), -1)
        log_p_SN = log_density(mixture_SNK, target_SN, model.density.log_variance_bounds).double()
        log_p_N = torch.logsumexp(log_p_SN, dim=0) - math.log(len(log_p_SN))
        weight_N = torch.ones(len(slab)) if slab.weight_N is None else slab.weight_N
        averaged -= (weight_N * log_p_N).sum().item()
        single -= (weight_N * log_p_SN.mean(dim=0)).sum().item()
    return {
        "validation_nll": averaged / len(rows),
        "validation_nll_single": single / len(rows),
    }


def _outputs_of(target: Target, components: int) -> tuple[Output, ...]:
    name, unit = target.name, target.unit
    within = f"within the training range of log10 {name} and {SEARCH_MARGIN} on either side"
    mixture = (
        f"{components} means, {components} natural logs of the variance and {components} natural "
        f"logs of the weight of each network's Gaussian mixture in log10 {name}"
    )
    described = {
        "mean": f"mean of {name} over networks and density, {within}",
        "sigma_syst": f"root of the networks' mean variance of {name}, {within} (Eq. 41)",
        "sigma_stat": f"standard deviation of the networks' means of {name}, {within} (Eq. 42)",
        "central": f"most probable {name} of the averaged density, {within}",
    }
    return (
        Output(
            name="mixture",
            unit=f"log10({unit})",
            shape="[network, row, 3 x components]",
            description=mixture,
        ),
        *(
            Output(name=key, unit=unit, shape="[row]", description=text)
            for key, text in described.items()
        ),
    )
