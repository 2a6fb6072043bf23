"""Networks that make a density, as ONNX: all outputs in one file, the networks alone in another.

Shape letters: S samples, N rows, F features, K components, P parameters.
"""

import itertools
import logging
import math
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from pipeline.formats.card import NETWORKS, SEARCH_MARGIN, Output
from pipeline.formats.columns import Target
from pipeline.formats.families import FAMILIES, GAUSSIAN_MIXTURE
from pipeline.formats.files import replacing
from pipeline.formats.manifest import DatasetManifest, select_features
from pipeline.formats.seeds import derive_seed
from pipeline.formats.transforms import Scaling, target_scaling
from training.checkpoint import Checkpoint
from training.data.rows import RowSource
from training.data.training_data import scalings_of
from training.export.finished import MODEL, Exported, Finished, tensors_of
from training.export.graph import NETWORKS_OUTPUT, OutputHead, SampledNetworks
from training.export.networks_onnx import write_networks
from training.export.onnx_file import check_onnx, extract_onnx
from training.kinds import kind_of
from training.learners.autograd import gaussian_network
from training.networks.mlp import FixedLayer, Layer, draw_weights, split_member, split_parameters
from training.networks.modules import fixed_layers, fully_connected
from training.settings import (
    BnnSettings,
    DensitySettings,
    MixtureDensitySettings,
    RepulsiveEnsembleSettings,
)
from training.steps.autograd import LOG_VARIANCE, FlatParameters, gaussian_layers

log = logging.getLogger(__name__)

WeightSets = list[list[FixedLayer]]  # layers of each network
SLAB_ROWS = 512  # of one evaluation of all networks


def export_bayesian(finished: Finished, settings: BnnSettings) -> Exported:
    """Write networks drawn from the posterior, and describe them."""
    checkpoint = finished.checkpoint
    weight_sets = drawn_networks(settings, checkpoint, finished.seed)
    return _export(finished, settings, weight_sets, _posterior(settings, checkpoint, weight_sets))


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
    return draw_weight_sets(_posterior_layers(settings, checkpoint), seed, settings.samples)


def trained_members(settings: DensitySettings, checkpoint: Checkpoint, seed: int) -> WeightSets:
    """The networks of a training, which are exported as they are: members, or the only one."""
    del seed  # nothing is drawn
    if settings.is_handwritten:
        return [split_member(each.theta_P, checkpoint.sizes) for each in checkpoint.networks]
    module = fully_connected(checkpoint.sizes, torch.Generator())
    flat, found = FlatParameters.of(module), [each.theta_P for each in checkpoint.networks]
    if isinstance(settings, MixtureDensitySettings):  # the parts of one network
        found = [torch.cat(found)]
    return [fixed_layers(module, flat.views(theta_P)) for theta_P in found]


def _posterior_layers(settings: BnnSettings, checkpoint: Checkpoint) -> list[Layer]:
    """Means, log variances and biases of each layer, in whatever order the learner keeps them."""
    theta_P, sizes = checkpoint.networks[0].theta_P, checkpoint.sizes
    if settings.is_handwritten:
        return split_parameters(theta_P, sizes)
    generator = torch.Generator()
    module = gaussian_network(settings, fully_connected(sizes, generator), generator)
    views = FlatParameters.of(module).views(theta_P)
    return [
        Layer(*(views[f"{name}.{part}"] for part in ("weight", LOG_VARIANCE, "bias")))
        for name in gaussian_layers(module)
    ]


def _export(
    finished: Finished,
    settings: DensitySettings,
    weight_sets: WeightSets,
    weights: dict[str, Tensor],
) -> Exported:
    """Write the networks and describe them; `weights` are all there are, by name."""
    manifest, folder = finished.manifest, finished.folder
    weight_sets = [_of_target(layers, settings, finished.number) for layers in weight_sets]
    model = _model_of(manifest, finished.scalings, weight_sets, settings)
    scores = _scores_of(model, finished.validation, _scaling_of(manifest))
    with replacing(folder / MODEL) as temporary, replacing(folder / NETWORKS) as networks:
        write_networks(model, temporary)
        checks = _check(finished, model, temporary)
        extract_onnx(temporary, networks, [NETWORKS_OUTPUT])
        extract_onnx(temporary, temporary, model.summaries.outputs)
    target = manifest.require_target()
    return Exported(
        files={"model": MODEL, "networks": NETWORKS},
        weights=weights,
        scores=scores,
        card={
            "density": settings.family,
            "checks": checks,
            "num_networks": settings.num_networks,
            "num_components": settings.components,
            "log_variance_bounds": model.density.log_variance_bounds,
            "outputs": _outputs_of(target, settings, model.summaries.outputs),
        },
    )


def _of_target(
    layers: list[FixedLayer], settings: DensitySettings, number: int
) -> list[FixedLayer]:
    """A network's layers with the outputs for one of its targets alone."""
    if settings.num_targets == 1:
        return layers
    *hidden, last = layers
    parts = [each.chunk(settings.num_targets)[number].contiguous() for each in last]
    return [*hidden, FixedLayer(*parts)]


def _check(finished: Finished, model: SampledNetworks, path: Path) -> dict[str, float]:
    """Compare the file with torch; by name the share of rows with an unproven central value.

    Networks that have hardly been trained make densities of dozens of narrow peaks far from the
    data: the training is kept, and the share is told.
    """
    rows = {"validation": finished.validation_rows(), "spread": finished.random_rows()}
    shares = {name: check_onnx(path, model, features) for name, features in rows.items()}
    if any(shares.values()):
        log.warning(
            "%s: the file's central value may not be the most probable one for %.1f %% of "
            "validation rows and %.1f %% of rows spread over the training ranges; its output "
            "central_gap says for which, and `calibrate` and `apply` search without this limit",
            finished.folder.name,
            100.0 * shares["validation"],
            100.0 * shares["spread"],
        )
    return {f"central_unproven_{name}": share for name, share in shares.items()}


def networks_of(
    manifest: DatasetManifest, settings: DensitySettings, checkpoint: Checkpoint, seed: int
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
    settings: BnnSettings, checkpoint: Checkpoint, weight_sets: Sequence[Sequence[FixedLayer]]
) -> dict[str, Tensor]:
    """Posterior means, log variances and biases by layer, and the drawn sets [S, O, F]."""
    tensors: dict[str, Tensor] = {}
    for index, layer in enumerate(_posterior_layers(settings, checkpoint)):
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
    settings: DensitySettings,
) -> SampledNetworks:
    low, high = manifest.target_range()
    scaling, family = _scaling_of(manifest), FAMILIES[settings.family]
    spread = 2.0 * math.log(scaling.factor)
    bounds = (settings.log_variance_bounds[0] + spread, settings.log_variance_bounds[1] + spread)
    density = OutputHead(
        log_variance_bounds=bounds,
        search_range=(low - SEARCH_MARGIN, high + SEARCH_MARGIN),
        family=settings.family,
        transform=manifest.require_target().transform,
    )
    if (scaling.shift, scaling.factor) != (0.0, 1.0):
        affine = family.affine(scaling.shift, scaling.factor)
        weight_sets = [_restored(layers, affine) for layers in weight_sets]
    return SampledNetworks(scalings, weight_sets, density).eval()


def _scaling_of(manifest: DatasetManifest) -> Scaling:
    """How the target was scaled for training."""
    target = manifest.require_target()
    return target_scaling(target, manifest.statistics[target.name])


def _restored(
    layers: Sequence[FixedLayer], affine: Sequence[tuple[float, float]]
) -> list[FixedLayer]:
    """A network whose outputs are the parameters of the target's density before it was scaled."""
    *hidden, last = layers
    blocks = zip(
        affine, last.weight_OF.chunk(len(affine)), last.bias_O.chunk(len(affine)), strict=True
    )
    parts = [(weight * factor, bias * factor + shift) for (factor, shift), weight, bias in blocks]
    weights, biases = (torch.cat(each) for each in zip(*parts, strict=True))
    return [*hidden, FixedLayer(weights, biases)]


@torch.no_grad()
def _scores_of(model: SampledNetworks, rows: RowSource, scaling: Scaling) -> dict[str, float]:
    """Validation NLL of the averaged density and the mean NLL of its single networks."""
    log_density = FAMILIES[model.density.family].load("log_density")
    averaged, single = 0.0, 0.0
    pieces = (slab.pieces(SLAB_ROWS) for slab in rows.slabs(0, 1))
    for slab in itertools.chain.from_iterable(pieces):
        density_SNP = model.densities_of_scaled(slab.x_NF)
        target_N = slab.target_N * scaling.factor + scaling.shift
        target_SN = target_N.expand(len(density_SNP), -1)
        log_p_SN = log_density(density_SNP, target_SN, model.density.log_variance_bounds).double()
        log_p_N = torch.logsumexp(log_p_SN, dim=0) - math.log(len(log_p_SN))
        weight_N = torch.ones(len(slab)) if slab.weight_N is None else slab.weight_N
        averaged -= (weight_N * log_p_N).sum().item()
        single -= (weight_N * log_p_SN.mean(dim=0)).sum().item()
    return {
        "validation_nll": averaged / len(rows),
        "validation_nll_single": single / len(rows),
    }


def _outputs_of(
    target: Target, settings: DensitySettings, names: Sequence[str]
) -> tuple[Output, ...]:
    """What the file gives: the densities, then what is read off them."""
    name, unit = target.name, target.unit
    within = f"within the training range of {target.space} and {SEARCH_MARGIN} on either side"
    described = {
        "mean": f"mean of {name} over networks and density, {within}",
        "sigma_syst": f"root of the networks' mean variance of {name}, {within} (Eq. 41)",
        "sigma_stat": f"standard deviation of the networks' means of {name}, {within} (Eq. 42)",
        "central": f"most probable {name} of the averaged density, {within}",
        "central_gap": (
            "how much higher than at central the natural log of the density can be at most, "
            f"{within}: a fixed search cannot find the highest of any number of peaks"
        ),
    }
    return (
        _density_output(names[0], target, settings),
        *(
            Output(
                name=key,
                unit="1" if key == "central_gap" else unit,
                shape="[row]",
                description=described[key],
            )
            for key in names[1:]
        ),
    )


def _density_output(name: str, target: Target, settings: DensitySettings) -> Output:
    count, family = settings.components, FAMILIES[settings.family]
    if settings.family == GAUSSIAN_MIXTURE.name:
        words = (
            f"{count} means, {count} natural logs of the variance and {count} natural logs of the "
            f"weight of each network's Gaussian mixture in {target.space}"
        )
        return Output(
            name=name,
            unit=target.space_unit,
            shape="[network, row, 3 x components]",
            description=words,
        )
    words = (
        f"{', '.join(family.parameters)} of each network's {family.name} density in "
        f"{target.space}, logs of variances before their limits"
    )
    shape = f"[network, row, {settings.target_outputs}]"
    return Output(name=name, unit=target.space_unit, shape=shape, description=words)
