"""A family without kernels of its own: split normals from training to file and calibrator."""

import numpy as np
import pytest
import torch
from scipy.stats import norm
from training_fixtures import job_of, write_tiny_dataset
from training_processes import train

from pipeline.calibrators.registry import open_calibrator
from pipeline.densities.split_normal import SplitNormals
from pipeline.formats.card import read_card
from pipeline.formats.families import FAMILIES
from pipeline.formats.manifest import columns_of, read_manifest, read_part
from pipeline.settings import SummarySettings
from training.export.model import export_model
from training.export.onnx_file import run_onnx
from training.settings import BnnSettings, MixtureDensitySettings, RepulsiveEnsembleSettings

BOUNDS = (-14.0, 0.0)
SPLIT = {"family": "split_normal", "hidden": (8, 8), "epochs": 3, "batch_rows": 512}
KINDS = {
    "mixture_density": (MixtureDensitySettings(**SPLIT), 1),
    "bnn": (BnnSettings(**SPLIT, samples=3), 3),
    "repulsive_ensemble": (RepulsiveEnsembleSettings(**SPLIT, members=3), 3),
}


def test_both_halves_are_one_density_that_integrates_to_one():
    rng = np.random.default_rng(1)
    outputs = np.stack([rng.normal(0, 0.3, 50), rng.uniform(-16, 1, 50), rng.uniform(-9, 1, 50)])
    numpy_half = SplitNormals(outputs[None].astype(np.float32), BOUNDS)
    points = np.broadcast_to(np.linspace(-9, 9, 200_001), (50, 200_001))
    found = numpy_half.log_density(points)[0]
    torch_half = FAMILIES["split_normal"].load("log_density")
    some = points[:, ::1000]
    expected = torch_half(
        torch.from_numpy(outputs.T.astype(np.float32)).double()[:, None],
        torch.from_numpy(some.copy()),
        BOUNDS,
    )
    np.testing.assert_allclose(found[:, ::1000], expected.numpy(), rtol=1e-9, atol=1e-9)
    np.testing.assert_allclose(np.trapezoid(np.exp(found), points), 1.0, rtol=1e-4)


def test_closed_forms_of_one_split_normal():
    """Mode, mean, variance, and the share below the mode; and a Gaussian's score."""
    mode, low, high = 0.1, 0.05, 0.12
    outputs = np.array([mode, 2 * np.log(low), 2 * np.log(high)])[None, :, None]
    densities = SplitNormals(np.repeat(outputs, 2, axis=2).astype(np.float32), BOUNDS)
    family = FAMILIES["split_normal"]
    points = np.array([mode, 0.3])
    columns = family.load("summarise")(densities, -3.0, 3.0, points=points)
    assert columns["mode_log10"] == pytest.approx(10**mode, rel=1e-4)
    mean = mode + np.sqrt(2 / np.pi) * (high - low)
    variance = (1 - 2 / np.pi) * (high - low) ** 2 + low * high
    assert columns["mean_log10"] == pytest.approx(mean, rel=1e-4)
    assert columns["sigma_syst_log10"] == pytest.approx(np.sqrt(variance), rel=1e-4)
    assert columns["pit"][0] == pytest.approx(low / (low + high), rel=1e-4)
    height = np.sqrt(2 / np.pi) / (low + high)
    assert columns["log_density"][0] == pytest.approx(np.log(height), rel=1e-5)
    # R p(R) is a split normal of R whose mode in R is where the slope of log p is ln 10.
    assert columns["mode_linear"] == pytest.approx(10 ** (mode - np.log(10) * low**2), rel=1e-4)
    same = np.array([0.0, 2 * np.log(0.2), 2 * np.log(0.2)])[None, :, None].astype(np.float32)
    (score,) = family.load("crps")(SplitNormals(same, BOUNDS), np.array([0.1]))
    z = 0.5
    exact = 0.2 * (z * (2 * norm.cdf(z) - 1) + 2 * norm.pdf(z) - 1 / np.sqrt(np.pi))
    assert score == pytest.approx(exact, abs=1e-5)


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    return write_tiny_dataset(tmp_path_factory.mktemp("dataset"))


@pytest.mark.parametrize("kind", KINDS)
def test_file_and_calibrator_give_the_networks_density(kind, dataset, tmp_path):
    settings, networks = KINDS[kind]
    train(dataset, tmp_path, settings)
    card = export_model(
        job_of(dataset, settings, name="model", seed=11, folder=tmp_path, fingerprint="a")
    )
    assert card == read_card(tmp_path)
    assert (card.density, card.num_networks, card.num_components) == ("split_normal", networks, 1)
    assert [output.name for output in card.outputs][:2] == ["parameters", "mean"]
    manifest = read_manifest(dataset)
    (part, *_) = manifest.parts_of("validation")
    rows = columns_of(read_part(dataset, part).slice(0, 200))
    raw_NF = torch.from_numpy(np.stack([rows[f.name] for f in card.inputs], axis=1)).float()
    names = [output.name for output in card.outputs]
    found = run_onnx(tmp_path / "model.onnx", raw_NF, names)
    calibrator = open_calibrator(tmp_path, card, SummarySettings())
    target = card.require_target()
    rows["cluster_id"] = np.arange(200, dtype=np.uint64)
    truth = np.log10(rows[target.name].astype(np.float64))
    columns = calibrator.scoring_crps(1.0).calibrate(rows, truth)
    # The file averages the networks' means, the set takes that of the averaged density; they differ
    # where the networks have unequal parts of their mass within the range.
    for name in ("sigma_syst", "sigma_stat", *(["mean"] if networks == 1 else [])):
        np.testing.assert_allclose(found[name], columns[name], rtol=5e-3, atol=1e-6, err_msg=name)
    np.testing.assert_allclose(found["central"], columns["mode_linear"], rtol=5e-3)
    parameters_SNP = torch.from_numpy(found["parameters"])
    log_density = FAMILIES["split_normal"].load("log_density")
    log_p_SN = log_density(parameters_SNP, torch.from_numpy(truth).float(), BOUNDS)
    log_p_N = torch.logsumexp(log_p_SN, dim=0) - np.log(networks)
    np.testing.assert_allclose(columns["log_density"], log_p_N.numpy(), rtol=1e-4, atol=1e-4)
    assert np.isfinite(columns["crps"]).all()
    if networks == 1:
        assert not columns["sigma_stat"].any()
