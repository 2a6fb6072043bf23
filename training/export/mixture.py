"""Networks that make a density, as ONNX: all outputs in one file, the networks alone in another.

Shape letters: S samples, N rows, F features, K components, P parameters.
"""

import itertools
import logging
import math
from collections import ChainMap
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor, nn

from pipeline.formats.card import NETWORKS, SEARCH_MARGIN, Output
from pipeline.formats.columns import Target, tables_of
from pipeline.formats.families import FAMILIES, GAUSSIAN_MIXTURE
from pipeline.formats.files import replacing
from pipeline.formats.manifest import DatasetManifest, select_features
from pipeline.formats.seeds import derive_seed
from pipeline.formats.transforms import Scaling, target_scaling
from training.checkpoint import Checkpoint
from training.data.rows import RowSource
from training.export.finished import MODEL, Exported, Finished, Trained, tensors_of
from training.export.graph import (
    NETWORKS_OUTPUT,
    DensityNetworks,
    EncodedNetworks,
    OutputHead,
    SampledNetworks,
)
from training.export.networks_onnx import write_networks
from training.export.onnx_file import check_onnx, extract_onnx
from training.kinds import kind_of
from training.learners.autograd import gaussian_network
from training.networks.encoders import build_network, head_layers
from training.networks.mlp import FixedLayer, Layer, draw_weights, split_member, split_parameters
from training.networks.modules import fixed_layers
from training.settings import (
    BnnSettings,
    DensitySettings,
    MixtureDensitySettings,
    RepulsiveEnsembleSettings,
)
from training.steps.autograd import FlatParameters
from training.steps.autograd import draw_weights as draw_parameters

log = logging.getLogger(__name__)

Layers = list[FixedLayer]
Parameters = dict[str, Tensor]  # of a network with encoders, by their names in its module
Networks = Sequence[Layers | Parameters]
SLAB_ROWS = 512  # of one evaluation of all networks


def export_bayesian(finished: Finished, settings: BnnSettings) -> Exported:
    """Write networks drawn from the posterior, and describe them."""
    checkpoint, manifest = finished.checkpoint, finished.manifest
    networks = drawn_networks(settings, checkpoint, finished.seed, manifest)
    return _export(
        finished, settings, networks, _posterior(settings, checkpoint, networks, manifest)
    )


def export_ensemble(finished: Finished, settings: RepulsiveEnsembleSettings) -> Exported:
    """Write the members, and describe them."""
    members = trained_members(settings, finished.checkpoint, finished.seed, finished.manifest)
    weights = [_tensors(each, f"member.{number:03d}.") for number, each in enumerate(members)]
    return _export(finished, settings, members, dict(ChainMap(*weights)))


def export_density(finished: Finished, settings: MixtureDensitySettings) -> Exported:
    """Write the network, and describe it."""
    networks = trained_members(settings, finished.checkpoint, finished.seed, finished.manifest)
    return _export(finished, settings, networks, _tensors(networks[0]))


def drawn_networks(
    settings: BnnSettings, checkpoint: Checkpoint, seed: int, manifest: DatasetManifest
) -> Networks:
    """The weight sets of a Bayesian network that are exported, drawn from its posterior."""
    if settings.is_handwritten:
        layers = split_parameters(checkpoint.networks[0].theta_P, checkpoint.sizes)
        return draw_weight_sets(layers, seed, settings.samples)
    plain, theta_P = _module_of(settings, checkpoint, manifest), checkpoint.networks[0].theta_P
    module = gaussian_network(settings, plain, torch.Generator())
    seeds = [derive_seed(seed, "export", sample) for sample in range(settings.samples)]
    drawn = [
        draw_parameters(module, theta_P, torch.Generator().manual_seed(each)) for each in seeds
    ]
    return [_network_of(plain, each) for each in drawn]


def trained_members(
    settings: DensitySettings, checkpoint: Checkpoint, seed: int, manifest: DatasetManifest
) -> Networks:
    """The networks of a training, which are exported as they are: members, or the only one."""
    del seed  # nothing is drawn
    if settings.is_handwritten:
        return [split_member(each.theta_P, checkpoint.sizes) for each in checkpoint.networks]
    module = _module_of(settings, checkpoint, manifest)
    flat, found = FlatParameters.of(module), [each.theta_P for each in checkpoint.networks]
    if isinstance(settings, MixtureDensitySettings):  # the parts of one network
        found = [torch.cat(found)]
    return [_network_of(module, flat.views(theta_P)) for theta_P in found]


def _network_of(module: nn.Module, parameters: Parameters) -> Layers | Parameters:
    """Layers where the network consists of nothing else."""
    return fixed_layers(module, parameters) if isinstance(module, nn.Sequential) else parameters


def _module_of(
    settings: DensitySettings, checkpoint: Checkpoint, manifest: DatasetManifest
) -> nn.Module:
    """A network as it was trained, with weights of no meaning."""
    tables = tables_of(select_features(manifest, settings.features, settings.tables))
    widths = [len(columns) for columns in tables.values()]
    return build_network(settings, checkpoint.sizes[0], widths, torch.Generator())


def _export(
    finished: Finished,
    settings: DensitySettings,
    networks: Networks,
    weights: dict[str, Tensor],
) -> Exported:
    """Write the networks and describe them; `weights` are all there are, by name."""
    manifest, folder = finished.manifest, finished.folder
    model = _model_of(finished, networks, settings, finished.number)
    scores = _scores_of(model, finished.validation, _scaling_of(manifest))
    with replacing(folder / MODEL) as temporary, replacing(folder / NETWORKS) as alone:
        write_networks(model, temporary)
        checks = _check(finished, model, temporary)
        extract_onnx(temporary, alone, [NETWORKS_OUTPUT])
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


def _check(finished: Finished, model: DensityNetworks, path: Path) -> dict[str, float]:
    """Compare the file with torch; by name the share of rows with an unproven central value.

    Networks that have hardly been trained make densities of dozens of narrow peaks far from the
    data: the training is kept, and the share is told.
    """
    rows = {"validation": finished.validation_rows(), "spread": finished.random_rows()}
    shares = {name: check_onnx(path, model, given) for name, given in rows.items()}
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


def networks_of(trained: Trained, settings: DensitySettings) -> DensityNetworks:
    """The networks of a training of one target as they would be exported, without a file."""
    weight_sets = kind_of(settings).open_weight_sets()
    networks = weight_sets(settings, trained.checkpoint, trained.seed, trained.manifest)
    return _model_of(trained, networks, settings)


def draw_weight_sets(layers: Sequence[Layer], seed: int, samples: int) -> list[Layers]:
    """Weight sets drawn from the posterior; set s depends on the seed and s alone."""
    return [
        draw_weights(layers, torch.Generator().manual_seed(derive_seed(seed, "export", sample)))
        for sample in range(samples)
    ]


def _posterior(
    settings: BnnSettings, checkpoint: Checkpoint, networks: Networks, manifest: DatasetManifest
) -> dict[str, Tensor]:
    """Posterior means, log variances and biases by layer, and the drawn sets [S, O, F].

    Of a network that is trained by automatic gradient all parameters by their names in its module,
    then the drawn networks.
    """
    theta_P = checkpoint.networks[0].theta_P
    if not settings.is_handwritten:
        plain = _module_of(settings, checkpoint, manifest)
        module = gaussian_network(settings, plain, torch.Generator())
        found = FlatParameters.of(module).views(theta_P)
        tensors = {name: each.clone() for name, each in found.items()}
        for number, network in enumerate(networks):
            tensors |= _tensors(network, f"drawn.{number:03d}.")
        return tensors
    tensors = {}
    for index, layer in enumerate(split_parameters(theta_P, checkpoint.sizes)):
        tensors[f"mean.{index}"] = layer.mean_OF.clone()
        tensors[f"log_variance.{index}"] = layer.log_variance_OF.clone()
        tensors[f"bias.{index}"] = layer.bias_O.clone()
        drawn = [layers[index].weight_OF for layers in networks if not isinstance(layers, dict)]
        tensors[f"drawn_weight.{index}"] = torch.stack(drawn)
    return tensors


def _tensors(network: Layers | Parameters, prefix: str = "") -> dict[str, Tensor]:
    """All weights and biases of a network, by name."""
    if isinstance(network, dict):
        return {f"{prefix}{name}": each.detach().clone() for name, each in network.items()}
    return tensors_of(network, prefix)


def _model_of(
    trained: Trained, networks: Networks, settings: DensitySettings, number: int = 0
) -> DensityNetworks:
    """The networks with outputs for the one target of the manifest, in its own units."""
    manifest = trained.manifest
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
    affine = family.affine(scaling.shift, scaling.factor)

    def change(last: FixedLayer) -> FixedLayer:
        last = _of_target(last, settings.num_targets, number)
        return last if (scaling.shift, scaling.factor) == (0.0, 1.0) else _restored(last, affine)

    layered = [[*each[:-1], change(each[-1])] for each in networks if not isinstance(each, dict)]
    if layered:
        return SampledNetworks(trained.scalings, layered, density).eval()
    modules = []
    for parameters in networks:
        assert isinstance(parameters, dict)  # noqa: S101 - the others are layers
        module = _module_of(settings, trained.checkpoint, manifest)
        *_, name = head_layers(module)
        last = change(FixedLayer(parameters[f"{name}.weight"], parameters[f"{name}.bias"]))
        module.set_submodule(name, _linear(last))
        module.load_state_dict(
            parameters | {f"{name}.weight": last.weight_OF, f"{name}.bias": last.bias_O}
        )
        modules.append(module)
    return EncodedNetworks(trained.scalings, trained.table_scalings, modules, density).eval()


def _linear(layer: FixedLayer) -> nn.Linear:
    outputs, inputs = layer.weight_OF.shape
    return nn.Linear(inputs, outputs)


def _of_target(last: FixedLayer, num_targets: int, number: int) -> FixedLayer:
    """The outputs of a network for one of its targets alone."""
    if num_targets == 1:
        return last
    return FixedLayer(*(each.chunk(num_targets)[number].contiguous() for each in last))


def _scaling_of(manifest: DatasetManifest) -> Scaling:
    """How the target was scaled for training."""
    target = manifest.require_target()
    return target_scaling(target, manifest.statistics[target.name])


def _restored(last: FixedLayer, affine: Sequence[tuple[float, float]]) -> FixedLayer:
    """Outputs that are the parameters of the target's density before it was scaled."""
    blocks = zip(
        affine, last.weight_OF.chunk(len(affine)), last.bias_O.chunk(len(affine)), strict=True
    )
    parts = [(weight * factor, bias * factor + shift) for (factor, shift), weight, bias in blocks]
    return FixedLayer(*(torch.cat(each) for each in zip(*parts, strict=True)))


@torch.no_grad()
def _scores_of(model: DensityNetworks, rows: RowSource, scaling: Scaling) -> dict[str, float]:
    """Validation NLL of the averaged density and the mean NLL of its single networks."""
    log_density = FAMILIES[model.density.family].load("log_density")
    averaged, single = 0.0, 0.0
    pieces = (slab.pieces(SLAB_ROWS) for slab in rows.slabs(0, 1))
    for slab in itertools.chain.from_iterable(pieces):
        density_SNP = model.densities_of_scaled(*slab.inputs)
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
