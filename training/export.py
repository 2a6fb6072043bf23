"""The model that leaves the training: its networks as ONNX, all weights, and the card.

Shape letters: S samples, N rows, F features, K components, P parameters.
"""

import itertools
import json
import math
from collections.abc import Sequence
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor

from pipeline.formats.card import CARD, SEARCH_MARGIN, Artefact, ModelCard, Output, TrainingRange
from pipeline.formats.columns import Feature, Target
from pipeline.formats.files import replacing, sha256_of
from pipeline.formats.manifest import DatasetManifest, read_manifest, select_features
from pipeline.formats.seeds import derive_seed
from pipeline.formats.versions import git_hash, versions_of
from training.checkpoint import Checkpoint, newest_checkpoint
from training.data import open_split, scalings_of
from training.graph import Density, SampledNetworks
from training.history import HISTORY
from training.network import FixedLayer, Layer, draw_weights, split_member, split_parameters
from training.objective import log_density
from training.onnx_file import check_onnx, write_mixture_part, write_onnx
from training.rows import Source
from training.settings import BnnSettings, ModelSettings

MODEL, MIXTURE, WEIGHTS = "model.onnx", "mixture.onnx", "weights.safetensors"
HEADER = "model"  # key of the JSON text in the header of the weights
SLAB_ROWS = 512  # of one evaluation of all networks
CHECK_ROWS = 300


def export_model(
    dataset: Path, settings: ModelSettings, *, name: str, seed: int, folder: Path, fingerprint: str
) -> ModelCard:
    """Write the model of a finished training into its folder, the card last.

    Raises:
        RuntimeError: The training is not finished, or the file written disagrees with torch.
    """
    checkpoint = newest_checkpoint(folder, fingerprint)
    if checkpoint is None or checkpoint.epoch != settings.epochs:
        msg = f"{folder}: no checkpoint after epoch {settings.epochs} with this fingerprint"
        raise RuntimeError(msg)
    manifest = read_manifest(dataset)
    features = select_features(manifest, settings.features)
    weight_sets, weights = _networks_of(settings, checkpoint, seed)
    model = _model_of(manifest, features, weight_sets, settings)
    validation = open_split(dataset, manifest, features, "validation", settings.memory_mib)
    scores = {**_scores_of(model, validation), **_last_record(checkpoint)}
    with replacing(folder / WEIGHTS) as temporary:
        save_file(weights, temporary, metadata=_header_of(settings, features, fingerprint))
    with replacing(folder / MODEL) as temporary:
        write_onnx(model, temporary)
        check_onnx(temporary, model, _random_rows(manifest, features, seed))
        with replacing(folder / MIXTURE) as part:
            write_mixture_part(temporary, part)
    card = _card_of(manifest, features, settings, name=name, folder=folder, scores=scores)
    card = card.model_copy(update={"fingerprint": fingerprint})
    card.save(folder / CARD)
    return card


def networks_of(
    manifest: DatasetManifest, settings: ModelSettings, checkpoint: Checkpoint, seed: int
) -> SampledNetworks:
    """The networks of a finished training as they would be exported, without a file."""
    features = select_features(manifest, settings.features)
    weight_sets, _ = _networks_of(settings, checkpoint, seed)
    return _model_of(manifest, features, weight_sets, settings)


def draw_weight_sets(layers: Sequence[Layer], seed: int, samples: int) -> list[list[FixedLayer]]:
    """Weight sets drawn from the posterior; set s depends on the seed and s alone."""
    return [
        draw_weights(layers, torch.Generator().manual_seed(derive_seed(seed, "export", sample)))
        for sample in range(samples)
    ]


def _networks_of(
    settings: ModelSettings, checkpoint: Checkpoint, seed: int
) -> tuple[list[list[FixedLayer]], dict[str, Tensor]]:
    """The networks to export, and all weights by name."""
    if isinstance(settings, BnnSettings):
        layers = split_parameters(checkpoint.networks[0].theta_P, checkpoint.sizes)
        weight_sets = draw_weight_sets(layers, seed, settings.samples)
        return weight_sets, _posterior(layers, weight_sets)
    members = [split_member(each.theta_P, checkpoint.sizes) for each in checkpoint.networks]
    return members, _by_member(members)


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
        for index, layer in enumerate(layers):
            tensors[f"member.{number:03d}.weight.{index}"] = layer.weight_OF.clone()
            tensors[f"member.{number:03d}.bias.{index}"] = layer.bias_O.clone()
    return tensors


def _model_of(
    manifest: DatasetManifest,
    features: Sequence[Feature],
    weight_sets: Sequence[Sequence[FixedLayer]],
    settings: ModelSettings,
) -> SampledNetworks:
    low, high = manifest.log10_target_range()
    density = Density(settings.log_variance_bounds, (low - SEARCH_MARGIN, high + SEARCH_MARGIN))
    return SampledNetworks(scalings_of(manifest, features), weight_sets, density).eval()


@torch.no_grad()
def _scores_of(model: SampledNetworks, rows: Source) -> dict[str, float]:
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


def _last_record(checkpoint: Checkpoint) -> dict[str, float]:
    last = checkpoint.history[-1]
    penalties = {f"{name}_per_row": last[name] for name in ("kl", "prior") if name in last}
    return {"train_nll": last["train_nll"], **penalties}


def _header_of(
    settings: ModelSettings, features: Sequence[Feature], fingerprint: str
) -> dict[str, str]:
    """One entry, because the order of several would differ from run to run."""
    content = {
        "git_hash": git_hash(),
        "settings": settings.model_dump(mode="json"),
        "features": [feature.name for feature in features],
        "fingerprint": fingerprint,
    }
    return {HEADER: json.dumps(content)}


def _random_rows(manifest: DatasetManifest, features: Sequence[Feature], seed: int) -> Tensor:
    """Raw features [N, F], evenly spread over the training ranges."""
    generator = torch.Generator().manual_seed(derive_seed(seed, "export check"))
    ranges = [manifest.statistics[feature.name] for feature in features]
    low_F = torch.tensor([column.minimum for column in ranges], dtype=torch.float64)
    high_F = torch.tensor([column.maximum for column in ranges], dtype=torch.float64)
    share_NF = torch.rand(CHECK_ROWS, len(ranges), generator=generator, dtype=torch.float64)
    return (low_F + (high_F - low_F) * share_NF).float()


def _card_of(
    manifest: DatasetManifest,
    features: Sequence[Feature],
    settings: ModelSettings,
    *,
    name: str,
    folder: Path,
    scores: dict[str, float],
) -> ModelCard:
    if manifest.target is None:
        msg = "a dataset without target was trained on"
        raise RuntimeError(msg)
    ranges = {feature.name: manifest.statistics[feature.name] for feature in features}
    files = {"model": MODEL, "mixture": MIXTURE, "weights": WEIGHTS, "history": HISTORY}
    return ModelCard(
        name=name,
        kind=settings.kind,
        artefacts={role: _artefact(folder, path) for role, path in files.items()},
        num_networks=settings.num_networks,
        num_components=settings.components,
        inputs=tuple(features),
        input_ranges={
            key: TrainingRange(minimum=column.minimum, maximum=column.maximum)
            for key, column in ranges.items()
        },
        cuts=tuple(cut for cut in manifest.cuts if cut.column in ranges),
        floors={floor.column: floor.floor for floor in manifest.floors if floor.column in ranges},
        targets=(manifest.target,),
        target_ranges={manifest.target.name: manifest.log10_target_range()},
        outputs=_outputs_of(manifest.target, settings.components),
        settings=settings.model_dump(mode="json"),
        scores=scores,
        fingerprint="",
        data_fingerprint=manifest.fingerprint,
        git_hash=git_hash(),
        versions=versions_of("torch", "ray", "onnx", "onnxscript", "onnxruntime", "safetensors"),
    )


def _artefact(folder: Path, path: str) -> Artefact:
    return Artefact(path=path, size=(folder / path).stat().st_size, sha256=sha256_of(folder / path))


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
