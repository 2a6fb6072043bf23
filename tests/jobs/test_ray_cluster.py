"""Training through `topocal submit` on two Ray nodes, one of which is killed in mid-epoch."""

import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
import torch
from ingest_fixtures import wait_for
from ray_nodes import RayNodes
from toy_detector import DATASET, toy_columns, write_tree
from training_processes import assert_equal, train

from jobs.cli import main
from jobs.ray.package import PROBE, packed, refuse_unshared
from jobs.study import load_study
from pipeline.formats.card import read_card
from pipeline.formats.errors import UserError
from training.checkpoint import newest_checkpoint

ROOT = Path(__file__).parents[2]
PATIENCE = 180.0
EPOCHS = 150
NET = {
    "hidden": [8],
    "components": 2,
    "batch_rows": 1024,
    "optimizer": {"learning_rate": 1e-3, "milestones": []},
}
MODELS = {
    "bnn": {"kind": "bnn", "samples": 3, "epochs": 2, **NET},
    "re": {"kind": "repulsive_ensemble", "members": 2, "epochs": EPOCHS, **NET},
}

pytestmark = pytest.mark.ray


@pytest.fixture(scope="module")
def nodes():
    with TemporaryDirectory(prefix="tray-") as name:
        started = RayNodes(Path(name))
        try:
            started.start_head()
            yield started
        finally:
            started.stop()


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    """A study that was ingested."""
    folder = tmp_path_factory.mktemp("cluster")
    inputs = [write_tree(folder / "a.root", toy_columns(3_000), tree="Hits")]
    content = {
        "name": "cluster",
        "output": "local",
        "dataset": {**DATASET, "inputs": inputs},
        "models": MODELS,
        "dask": {"workers": 1},
    }
    path = folder / "study.json"
    path.write_text(json.dumps(content))
    assert main(["ingest", str(path)]) == 0
    return path


@pytest.fixture(scope="module")
def site(study, nodes):
    out = study.parent / "cluster"
    out.mkdir()
    (out / "dataset").symlink_to(study.parent / "local/dataset")
    path = study.parent / "site.json"
    ray = {
        "address": nodes.address,
        "token": str(nodes.token),
        "python": sys.executable,
        "interface": "lo",
        "workers": 2,
    }
    path.write_text(json.dumps({"output": "cluster", "ray": ray}))
    return path


def _submit(nodes, *words, **environment):
    words = [sys.executable, "-m", "jobs.cli", "submit", *map(str, words)]
    clean = {key: value for key, value in nodes.environment().items() if key[:3] != "RAY"}
    return subprocess.Popen(
        words,
        cwd=ROOT,
        env=clean | environment,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        # tests that run in the background of a shell ignore it, and so would the client
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # noqa: PLW1509
    )


def _epochs(site, name):
    try:
        return len(
            (site.parent / "cluster/models" / name / "history.jsonl").read_text().split("\n")
        )
    except FileNotFoundError:
        return 0


@pytest.fixture(scope="module")
def trained(nodes, study, site):
    """What the client and, after it left, the one that picked the job up have printed."""
    node = nodes.start_node()
    client = _submit(nodes, "train", study, site, "ray.threads=1")
    wait_for(lambda: _epochs(site, "re") > 5 or client.poll() is not None, PATIENCE)
    nodes.kill_node(node)
    before = _epochs(site, "re")
    client.send_signal(signal.SIGINT)
    _, left = client.communicate(timeout=PATIENCE)
    assert client.returncode == 75, left + nodes.log()
    nodes.start_node()
    (number,) = set(re.findall(r"--follow (\S+)", left))
    elsewhere = {"RAY_ADDRESS": "http://192.0.2.1:8265"}  # is not what the site file says
    client = _submit(nodes, "--follow", number, site, **elsewhere)
    _, followed = client.communicate(timeout=PATIENCE)
    assert client.returncode == 0, followed + nodes.log()
    return left, followed, before


def _checkpoint(study, output, name):
    """The last state of a training by `topocal`."""
    folder = study.parent / output / "models" / name
    return newest_checkpoint(folder, read_card(folder).fingerprint)


def _train_here(study, name, folder):
    """The last state of the same training by one process without Ray."""
    loaded = load_study([str(study)], [])
    dataset = study.parent / "local/dataset"
    return train(dataset, folder, loaded.models[name], seed=loaded.seed)


def test_a_job_is_left_and_picked_up_again(site, trained):
    left, followed, before = trained
    assert "which goes on; pick it up with `topocal submit --follow raysubmit_" in left
    assert f"{site} ray.threads=1`" in left
    assert 5 < before < EPOCHS
    assert "train: bnn on 2 workers with 1 CPU and a slice of every batch each" in followed
    assert "train: re on 2 workers with 1 CPU and some members each, through gloo" in followed


@pytest.mark.usefixtures("trained")
def test_members_on_two_nodes_are_bitwise_those_of_one_process(study, tmp_path):
    """Though one of the nodes was killed in the middle and another took its place."""
    assert_equal(_checkpoint(study, "cluster", "re"), _train_here(study, "re", tmp_path))


@pytest.mark.usefixtures("trained")
def test_a_bayesian_network_on_two_nodes_equals_one_process_to_rounding(study, tmp_path):
    two, one = _checkpoint(study, "cluster", "bnn"), _train_here(study, "bnn", tmp_path)
    assert (two.epoch, two.world_size) == (one.epoch, 2)
    torch.testing.assert_close(
        two.networks[0].theta_P, one.networks[0].theta_P, rtol=0.0, atol=2e-4
    )


def test_a_job_is_followed_from_a_node(nodes, trained, site):
    """Which finds its cluster by the address that Ray leaves there."""
    (number,) = set(re.findall(r"--follow (\S+)", trained[0]))
    words = ["--follow", number, site, "ray.address=auto"]
    client = _submit(nodes, *words, RAY_ADDRESS=nodes.gcs_address)
    _, told = client.communicate(timeout=PATIENCE)
    assert client.returncode == 0, told
    assert "train: bnn on 2 workers" in told


def test_training_does_not_lead_a_cluster_from_outside(nodes, study, site, capsys):
    words = [str(study), str(site), "models.fresh.kind=bnn"]
    assert main(["train", *words]) == 2
    told = capsys.readouterr().err.splitlines()[-1]
    assert f"ray.address: {nodes.address} takes jobs from `topocal submit` alone" in told


def test_a_ray_client_server_is_refused_with_the_way_to_the_job_server(study, site, capsys):
    assert main(["submit", "train", str(study), str(site), "ray.address=ray://head:10001"]) == 2
    told = capsys.readouterr().err.splitlines()[-1]
    assert "ray.address: a training would end with the connection" in told
    assert "`ssh -N -L 8265:127.0.0.1:8265 HOST`, got 'ray://head:10001'" in told


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can hide a folder from a process")
def test_a_node_that_does_not_see_the_data_is_named_before_the_start(nodes, study, site):
    node = nodes.start_node(hidden=study.parent)
    wait_for(lambda: nodes.has_joined(node), PATIENCE)
    fresh = [f"models.fresh.{key}={value}" for key, value in {"kind": "bnn", "epochs": 1}.items()]
    client = _submit(nodes, "train", study, site, *fresh)
    _, told = client.communicate(timeout=PATIENCE)
    nodes.kill_node(node)
    assert client.returncode == 2, told
    assert re.search(r"dataset: not seen by 127\.0\.0\.\d of the Ray cluster; dataset and", told), (
        told
    )
    assert "train: fresh on" not in told


def test_a_job_that_is_not_there_is_told(nodes, site):
    client = _submit(nodes, "--follow", "raysubmit_0", site)
    _, told = client.communicate(timeout=PATIENCE)
    assert client.returncode == 2
    assert "Job raysubmit_0 does not exist" in told.splitlines()[-1]


def test_a_client_without_the_token_is_refused(nodes, study, site, tmp_path):
    content = json.loads(site.read_text())
    content["ray"]["token"] = None
    other = site.parent / "other.json"
    other.write_text(json.dumps(content))
    client = _submit(nodes, "train", study, other, HOME=str(tmp_path))
    _, told = client.communicate(timeout=PATIENCE)
    assert client.returncode == 2, told
    assert "nauthorized" in told.splitlines()[-1]


def test_a_token_that_others_can_read_is_refused(nodes, study, site, tmp_path):
    token = tmp_path / "token"
    token.write_text(nodes.token.read_text())
    token.chmod(0o644)
    client = _submit(nodes, "train", study, site, f"ray.token={token}")
    _, told = client.communicate(timeout=PATIENCE)
    assert client.returncode == 2
    assert f"{token} has mode 644, so others can read it" in told.splitlines()[-1]


def test_a_package_is_the_code_and_the_study_with_absolute_paths(study, site):
    loaded = load_study([str(study), str(site)], [])
    with packed(loaded) as folder:
        assert {path.name for path in folder.iterdir()} == {
            *("pipeline", "training", "jobs", "configs"),
            *("study.json", PROBE),
        }
        assert not list(folder.rglob("__pycache__"))
        again = load_study([str(folder / "study.json")], [])
        refuse_unshared(folder)
        with pytest.raises(UserError, match="is not seen by the Ray cluster"):
            refuse_unshared(folder)  # which removes what it has seen
    assert again.ray.address == "auto"
    assert again.model_copy(update={"ray": loaded.ray}) == loaded
    assert not list(loaded.folder.glob(".tmp-*probe"))


def test_a_package_with_data_in_it_is_refused(study, site, monkeypatch):
    monkeypatch.setattr("jobs.ray.package.MOST_MIB", 0.01)
    with (
        pytest.raises(UserError, match=r"more than the 0 that are sent .*such as /"),
        packed(load_study([str(study), str(site)], [])),
    ):
        pass
