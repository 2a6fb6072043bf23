"""The files that a training leaves: ONNX, weights and card; trained and exported once."""

import json
import math
import shutil

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from safetensors import safe_open
from training_fixtures import (
    FEATURES,
    TARGET,
    job_of,
    tiny_ensemble,
    tiny_settings,
    write_tiny_dataset,
)

from pipeline.formats.card import SEARCH_MARGIN, read_card
from pipeline.formats.files import sha256_of
from pipeline.formats.manifest import read_manifest, read_part
from pipeline.formats.transforms import Scaling, scale
from training.checkpoint import newest_checkpoint
from training.data.training_data import read_training_data, scalings_of
from training.export.graph import OutputHead, SampledNetworks
from training.export.mixture import draw_weight_sets
from training.export.model import HEADER, export_model
from training.export.networks_onnx import write_networks
from training.export.onnx_file import check_onnx
from training.loop import train_network
from training.losses.density_nll import log_density, split_outputs
from training.networks.mlp import FixedLayer, forward_fixed, split_member, split_parameters
from training.settings import BnnSettings, RepulsiveEnsembleSettings
from training.train import train_model

SUBSET = ("angle", "sum", "depth")
SUMMARIES = ("mean", "sigma_syst", "sigma_stat", "central")
SETTINGS = tiny_settings(features=SUBSET, epochs=12)
ENSEMBLE = tiny_ensemble(features=SUBSET, members=4)
SEED = 5


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    return write_tiny_dataset(tmp_path_factory.mktemp("dataset"))


@pytest.fixture(scope="module")
def folder(dataset, tmp_path_factory):
    folder = tmp_path_factory.mktemp("models") / "tiny"
    train_model(
        job_of(
            dataset,
            SETTINGS,
            name="tiny",
            seed=SEED,
            folder=folder,
            fingerprint="abc",
            workers=1,
            threads=1,
            gpu=False,
            address="none",
        )
    )
    return folder


@pytest.fixture(scope="module")
def session(folder):
    return onnxruntime.InferenceSession(folder / "model.onnx", providers=["CPUExecutionProvider"])


@pytest.fixture(scope="module")
def raw(dataset):
    """Raw columns of the test split."""
    manifest = read_manifest(dataset)
    tables = [read_part(dataset, part) for part in manifest.parts_of("test")]
    return {
        name: np.concatenate([table[name].to_numpy() for table in tables])
        for name in tables[0].column_names
    }


def stacked(raw, names):
    return np.stack([raw[name] for name in names], axis=1)


def test_card_describes_the_model(dataset, folder):
    card, manifest = read_card(folder), read_manifest(dataset)
    assert (card.name, card.kind, card.artefact) == ("tiny", "bnn", "onnx")
    assert (card.num_networks, card.num_components) == (3, 2)
    assert [item.name for item in card.inputs] == ["sum", "depth", "angle"]
    assert card.input_ranges["depth"].maximum == manifest.statistics["depth"].maximum
    assert card.targets == (TARGET,)
    assert card.target_ranges == {TARGET.name: manifest.target_range()}
    assert BnnSettings.model_validate(card.settings) == SETTINGS
    assert (card.fingerprint, card.data_fingerprint) == ("abc", manifest.fingerprint)
    assert {"mixture", "mean", "central"} <= {output.name for output in card.outputs}
    for artefact in card.artefacts.values():
        path = folder / artefact.path
        assert (path.stat().st_size, sha256_of(path)) == (artefact.size, artefact.sha256)


def test_scores_are_those_of_the_averaged_density(dataset, folder):
    manifest = read_manifest(dataset)
    scalings = scalings_of(manifest, read_card(folder).inputs)
    columns = [read_part(dataset, part) for part in manifest.parts_of("validation")]
    x_NF = np.concatenate([
        scale({item.name: table[item.name].to_numpy() for item in FEATURES}, scalings)
        for table in columns
    ])
    target = np.log10(np.concatenate([table[TARGET.name].to_numpy() for table in columns]))
    checkpoint = newest_checkpoint(folder, "abc")
    layers = split_parameters(checkpoint.networks[0].theta_P, checkpoint.sizes)
    log_p_SN = torch.stack([
        log_density(
            forward_fixed(weights, torch.from_numpy(x_NF)),
            torch.from_numpy(target),
            SETTINGS.log_variance_bounds,
        )
        for weights in draw_weight_sets(layers, SEED, SETTINGS.samples)
    ]).double()
    scores = read_card(folder).scores
    averaged = -torch.log(log_p_SN.exp().mean(0)).mean().item()
    assert scores["validation_nll"] == pytest.approx(averaged, abs=1e-5)
    assert scores["validation_nll_single"] == pytest.approx(-log_p_SN.mean().item(), abs=1e-5)
    assert scores["validation_nll"] <= scores["validation_nll_single"]


def test_file_stands_alone_with_a_dynamic_row_axis(folder):
    model = onnx.load(folder / "model.onnx", load_external_data=False)
    (given,) = model.graph.input
    rows, features = given.type.tensor_type.shape.dim
    assert (given.name, rows.dim_param, features.dim_value) == ("features", "rows", 3)
    assert [output.name for output in model.graph.output] == [
        "mixture",
        "mean",
        "sigma_syst",
        "sigma_stat",
        "central",
        "central_gap",
    ]
    assert not any(tensor.external_data for tensor in model.graph.initializer)
    files = {"model.onnx", "networks.onnx", "weights.safetensors", "history.jsonl", "model.json"}
    assert {path.name for path in folder.iterdir()} == {*files, "checkpoints"}


def test_the_networks_alone_make_the_mixture_of_the_whole(folder, session, raw):
    """Limited and normalised as the card and README say, and as calibrate does it."""
    card = read_card(folder)
    rows = {"features": stacked(raw, [item.name for item in card.inputs])[:50]}
    part = onnxruntime.InferenceSession(folder / "networks.onnx")
    (alone,) = part.run(["networks"], rows)
    assert [output.name for output in part.get_outputs()] == ["networks"]
    assert alone.shape == (3, 6, 50)
    mean, log_variance, logit = np.split(np.moveaxis(alone, 1, 2), 3, axis=2)
    log_weight = logit - np.log(np.exp(logit).sum(axis=2, keepdims=True))
    limited = np.clip(log_variance, *card.log_variance_bounds)
    mixture = np.concatenate([mean, limited, log_weight], axis=2)
    np.testing.assert_allclose(mixture, session.run(["mixture"], rows)[0], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("rows", [1, 2, 37, 100])
def test_onnx_equals_the_networks_on_scaled_features(dataset, folder, session, raw, rows):
    """Raw features go in; scaling as pipeline.formats does it, networks one by one."""
    manifest, card = read_manifest(dataset), read_card(folder)
    names = [item.name for item in card.inputs]
    features = stacked(raw, names)[:rows]
    found = dict(zip(
        ("mixture", *SUMMARIES),
        session.run(None, {"features": features}), strict=False,
    ))  # fmt: skip
    x_NF = scale({name: raw[name][:rows] for name in names}, scalings_of(manifest, card.inputs))
    checkpoint = newest_checkpoint(folder, "abc")
    layers = split_parameters(checkpoint.networks[0].theta_P, checkpoint.sizes)
    expected = np.stack([
        torch.cat(
            split_outputs(
                forward_fixed(weights, torch.from_numpy(x_NF)), SETTINGS.log_variance_bounds
            ),
            dim=-1,
        ).numpy()
        for weights in draw_weight_sets(layers, SEED, SETTINGS.samples)
    ])
    assert found["mixture"].shape == (3, rows, 6)
    np.testing.assert_allclose(found["mixture"], expected, rtol=1e-4, atol=1e-5)
    for name in SUMMARIES:
        assert found[name].shape == (rows,)
        assert found[name].dtype == np.float32


def test_summaries_equal_a_grid_over_the_mixture(folder, session, raw):
    """Mode, mean and sigmas of R from the exported mixture on a fine grid of log10 R."""
    card = read_card(folder)
    features = stacked(raw, [item.name for item in card.inputs])
    mixture, mean, syst, stat, central, gap = session.run(None, {"features": features})
    m, log_variance, log_weight = np.split(mixture.astype(np.float64), 3, axis=-1)
    low, high = card.target_ranges[TARGET.name]
    log_r = np.linspace(low - SEARCH_MARGIN, high + SEARCH_MARGIN, 20_001)
    for row in range(0, len(features), 9):
        s = np.exp(0.5 * log_variance[:, row, :, None])
        terms = np.exp(-((log_r - m[:, row, :, None]) ** 2) / (2 * s * s)) / s
        density = (np.exp(log_weight[:, row, :, None]) * terms).sum(axis=1)
        moments = [np.trapezoid(density * 10 ** (j * log_r), log_r, axis=1) for j in range(3)]
        means = moments[1] / moments[0]
        variances = moments[2] / moments[0] - means**2
        assert mean[row] == pytest.approx(means.mean(), rel=1e-4)
        assert syst[row] == pytest.approx(math.sqrt(variances.mean()), rel=1e-4)
        assert stat[row] == pytest.approx(means.std(), rel=1e-3, abs=1e-5)
        tilted = density.mean(axis=0) * 10 ** (-log_r)
        reached = np.interp(math.log10(central[row]), log_r, tilted)
        assert 0.0 <= math.log(tilted.max() / reached) + 1e-4 <= gap[row] + 2e-4
        mode = log_r[tilted.argmax()]
        assert math.log10(central[row]) == pytest.approx(mode, abs=2 * (log_r[1] - log_r[0]) + 1e-4)


def test_a_row_without_an_answer_is_nan_in_all_summaries_and_alone(folder, session, raw):
    x = stacked(raw, [item.name for item in read_card(folder).inputs])[:6]
    good = session.run(SUMMARIES, {"features": x})
    x[1, 1], x[3, 0], x[4, 2] = np.nan, -1.0, np.inf  # the second lies under a logarithm
    for before, after in zip(good, session.run(SUMMARIES, {"features": x}), strict=True):
        assert np.isnan(after[[1, 3, 4]]).all()
        np.testing.assert_allclose(after[[0, 2, 5]], before[[0, 2, 5]], rtol=1e-6)


def test_weights_are_stored_with_the_drawn_sets(folder):
    checkpoint = newest_checkpoint(folder, "abc")
    layers = split_parameters(checkpoint.networks[0].theta_P, checkpoint.sizes)
    sets = draw_weight_sets(layers, SEED, SETTINGS.samples)
    with safe_open(folder / "weights.safetensors", framework="pt") as file:
        header = json.loads(file.metadata()[HEADER])
        assert header["features"] == ["sum", "depth", "angle"]
        assert BnnSettings.model_validate(header["settings"]) == SETTINGS
        assert header["git_hash"]
        for index, layer in enumerate(layers):
            assert torch.equal(file.get_tensor(f"mean.{index}"), layer.mean_OF)
            assert torch.equal(file.get_tensor(f"log_variance.{index}"), layer.log_variance_OF)
            assert torch.equal(file.get_tensor(f"bias.{index}"), layer.bias_O)
            drawn = torch.stack([weights[index].weight_OF for weights in sets])
            assert torch.equal(file.get_tensor(f"drawn_weight.{index}"), drawn)


def test_a_weight_set_depends_on_its_number_alone():
    checkpoint_layers = split_parameters(torch.zeros(2 * 20 + 5), (4, 5))
    few, many = (draw_weight_sets(checkpoint_layers, 1, count) for count in (2, 4))
    assert torch.equal(few[1][0].weight_OF, many[1][0].weight_OF)
    assert not torch.equal(many[2][0].weight_OF, many[3][0].weight_OF)


def test_file_that_disagrees_with_torch_is_refused(folder, raw, tmp_path):
    names = [item.name for item in read_card(folder).inputs]
    checkpoint = newest_checkpoint(folder, "abc")
    layers = split_parameters(checkpoint.networks[0].theta_P, checkpoint.sizes)
    weight_sets = draw_weight_sets(layers, SEED, SETTINGS.samples)

    def model(factor):
        scalings = [
            Scaling(name=name, function="identity", shift=0.0, factor=factor) for name in names
        ]
        return SampledNetworks(scalings, weight_sets, OutputHead((-14.0, 0.0), (-1.0, 1.0))).eval()

    write_networks(model(50.0), tmp_path / "model.onnx")
    with pytest.raises(RuntimeError, match="output networks differs"):
        check_onnx(tmp_path / "model.onnx", model(100.0), torch.from_numpy(stacked(raw, names)))


def test_components_far_outside_the_range_count_alike_in_torch_and_in_the_file(tmp_path):
    scalings = [Scaling(name="x", function="identity", shift=0.0, factor=1.0)]
    # means, log variances and logits: nearly all weight lies 19 sigma above the range
    far = torch.tensor([0.32, 2.832, 2.785, -14.0, -4.7154, -6.2679, -20.57, -7.0, -0.0009])
    near = torch.tensor([0.0, 0.5, 0.2, -8.0, -4.0, -5.0, 0.0, -1.0, -2.0])
    weight_sets = [[FixedLayer(torch.zeros(9, 1), bias)] for bias in (far, near)]
    model = SampledNetworks(scalings, weight_sets, OutputHead((-14.0, 0.0), (-0.74, 1.97))).eval()
    path = tmp_path / "far.onnx"
    write_networks(model, path)
    check_onnx(path, model, torch.ones(2, 1))


def test_exporting_again_writes_the_same_bytes(dataset, folder, tmp_path):
    again = tmp_path / "again"
    shutil.copytree(folder / "checkpoints", again / "checkpoints")
    data = read_training_data(dataset, SETTINGS.features)
    train_network(data, SETTINGS, seed=SEED, fingerprint="abc", folder=again)
    card = export_model(
        job_of(dataset, SETTINGS, name="tiny", seed=SEED, folder=again, fingerprint="abc")
    )
    assert card.artefacts == read_card(folder).artefacts


def test_unfinished_training_is_not_exported(dataset, folder):
    longer = SETTINGS.model_copy(update={"epochs": 13})
    with pytest.raises(RuntimeError, match="no checkpoint after epoch 13"):
        export_model(
            job_of(dataset, longer, name="tiny", seed=SEED, folder=folder, fingerprint="abc")
        )


@pytest.fixture(scope="module")
def ensemble(dataset, tmp_path_factory):
    """The folder of a trained ensemble, and its members [layer by layer]."""
    folder = tmp_path_factory.mktemp("models") / "re"
    train_model(
        job_of(
            dataset,
            ENSEMBLE,
            name="re",
            seed=SEED,
            folder=folder,
            fingerprint="abc",
            workers=1,
            threads=1,
            gpu=False,
            address="none",
        )
    )
    checkpoint = newest_checkpoint(folder, "abc")
    return folder, [split_member(each.theta_P, checkpoint.sizes) for each in checkpoint.networks]


def test_the_members_of_an_ensemble_are_its_networks(dataset, ensemble, raw):
    folder, members = ensemble
    card = read_card(folder)
    assert (card.kind, card.num_networks, card.num_components) == ("repulsive_ensemble", 4, 2)
    assert RepulsiveEnsembleSettings.model_validate(card.settings) == ENSEMBLE
    assert set(card.scores) == {
        "train_nll",
        "validation_nll",
        "validation_nll_single",
        "prior_per_row",
    }
    names = [item.name for item in card.inputs]
    session = onnxruntime.InferenceSession(folder / "model.onnx")
    (found,) = session.run(["mixture"], {"features": stacked(raw, names)})
    scalings = scalings_of(read_manifest(dataset), card.inputs)
    x_NF = torch.from_numpy(scale({name: raw[name] for name in names}, scalings))
    for network, layers in zip(found, members, strict=True):
        outputs = split_outputs(forward_fixed(layers, x_NF), ENSEMBLE.log_variance_bounds)
        np.testing.assert_allclose(network, torch.cat(outputs, dim=-1), rtol=1e-4, atol=1e-5)


def test_the_weights_of_an_ensemble_are_stored_by_member(ensemble):
    folder, members = ensemble
    with safe_open(folder / "weights.safetensors", framework="pt") as file:
        header = json.loads(file.metadata()[HEADER])
        assert RepulsiveEnsembleSettings.model_validate(header["settings"]) == ENSEMBLE
        assert len(file.keys()) == 4 * 3 * 2
        for number, layers in enumerate(members):
            for index, layer in enumerate(layers):
                name = f"member.{number:03d}.{{}}.{index}"
                assert torch.equal(file.get_tensor(name.format("weight")), layer.weight_OF)
                assert torch.equal(file.get_tensor(name.format("bias")), layer.bias_O)
