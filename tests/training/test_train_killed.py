"""Training through its command, with processes that are killed: the weights stay the same bits."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest
from toy_detector import DATASET, toy_columns, write_tree

from jobs.cli import main

ROOT = Path(__file__).parents[2]
EPOCHS = 120
WEIGHTS = "models/net/weights.safetensors"
PATIENCE = 120.0  # seconds for what takes a few


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    """A study whose training takes some seconds, ingested, and the weights that it gives."""
    folder = tmp_path_factory.mktemp("killed")
    content = {
        "name": "killed",
        "output": "out",
        "dataset": {
            **DATASET,
            "inputs": [write_tree(folder / "a.root", toy_columns(8_000), tree="Hits")],
        },
        "models": {
            "net": {
                "kind": "bnn",
                "hidden": [16],
                "components": 2,
                "samples": 3,
                "epochs": EPOCHS,
                "batch_rows": 512,
                "optimizer": {"milestones": []},
            }
        },
        "dask": {"workers": 1},
    }
    path = folder / "study.json"
    path.write_text(json.dumps(content))
    assert main(["ingest", str(path)]) == 0
    assert _train(path, "out", "ray.address=none").wait(PATIENCE) == 0
    return path


def _train(study, output, *words):
    folder = study.parent / output
    if not (folder / "dataset").exists():
        folder.mkdir()
        (folder / "dataset").symlink_to(study.parent / "out/dataset")
    command = [sys.executable, "-m", "jobs.train", str(study), f"output={folder}", *words]
    with (study.parent / f"{output}.log").open("a") as log:
        return subprocess.Popen(command, cwd=ROOT, stderr=log, start_new_session=True)


def _history(study, output):
    try:
        return (study.parent / output / "models/net/history.jsonl").read_text().splitlines()
    except FileNotFoundError:
        return []


def _epochs(study, output):
    return len(_history(study, output))


def _wait_for_epochs(study, output, number, process):
    end = time.monotonic() + PATIENCE
    while _epochs(study, output) < number:
        assert process.poll() is None, (study.parent / f"{output}.log").read_text()
        assert time.monotonic() < end
        time.sleep(0.02)


def _weights(study, output):
    return (study.parent / output / WEIGHTS).read_bytes()


def _trainer_of(process):
    """The process that Ray trains in."""
    children = psutil.Process(process.pid).children(recursive=True)
    (worker,) = [child for child in children if "RayTrainWorker" in " ".join(child.cmdline())]
    return worker


def test_a_killed_worker_is_started_again_and_the_weights_are_the_same(study):
    process = _train(study, "worker")
    _wait_for_epochs(study, "worker", 20, process)
    _trainer_of(process).kill()
    assert process.wait(PATIENCE) == 0
    assert _weights(study, "worker") == _weights(study, "out")


def test_a_killed_driver_is_continued_and_the_weights_are_the_same(study):
    process = _train(study, "driver")
    _wait_for_epochs(study, "driver", 20, process)
    process.kill()
    process.wait(PATIENCE)
    before = _history(study, "driver")
    assert len(before) < EPOCHS
    assert not (study.parent / "driver" / WEIGHTS).exists()
    again = _train(study, "driver")
    assert again.wait(PATIENCE) == 0
    # its seconds among them: these epochs were not done again
    assert _history(study, "driver")[: len(before)] == before
    assert _weights(study, "driver") == _weights(study, "out")


@pytest.mark.parametrize(
    ("number", "address"), [(signal.SIGTERM, "local"), (signal.SIGUSR1, "none")]
)
def test_a_signal_leaves_a_complete_checkpoint_and_status_75(study, number, address):
    output = f"signal-{number}"
    process = _train(study, output, f"ray.address={address}")
    _wait_for_epochs(study, output, 20, process)
    os.kill(process.pid, number)
    assert process.wait(PATIENCE) == 75
    assert 20 <= _epochs(study, output) < EPOCHS
    assert _train(study, output, "ray.address=none").wait(PATIENCE) == 0
    assert _epochs(study, output) == EPOCHS
    assert _weights(study, output) == _weights(study, "out")


def test_two_trainings_of_one_model_at_once_are_refused(study, capsys):
    process = _train(study, "twice", "ray.address=none")
    _wait_for_epochs(study, "twice", 1, process)
    assert main(["train", str(study), f"output={study.parent / 'twice'}"]) == 2
    assert f"process {process.pid} on " in capsys.readouterr().err
    assert process.wait(PATIENCE) == 0


def test_a_finished_training_is_kept_and_not_continued(study, capsys):
    stamp = (study.parent / "out" / WEIGHTS).stat().st_mtime_ns
    assert main(["train", str(study)]) == 0
    assert "train/net: kept" in capsys.readouterr().err
    assert (study.parent / "out" / WEIGHTS).stat().st_mtime_ns == stamp


def test_a_finished_training_of_an_earlier_version_is_exported_anew(study, capsys):
    folder = study.parent / "old"
    shutil.copytree(study.parent / "out", folder)
    card = folder / "models/net/model.json"
    whole, history = card.read_text(), _history(study, "old")
    content = json.loads(whole)
    del content["artefacts"]["networks"], content["log_variance_bounds"]
    card.write_text(json.dumps(content))
    assert main(["calibrate", str(study), f"output={folder}"]) == 2
    advice = "networks.onnx: missing or changed; run `topocal train` again"
    assert advice in capsys.readouterr().err
    assert _train(study, "old", "ray.address=none").wait(PATIENCE) == 0
    log = (study.parent / "old.log").read_text()
    assert "train/net: made again, networks.onnx is missing" in log
    assert json.loads(card.read_text()) == json.loads(whole)
    assert _history(study, "old") == history


@pytest.mark.parametrize(
    ("words", "difference"),
    [
        ([f"models.net.epochs={EPOCHS + 1}"], f"settings.epochs: {EPOCHS} -> {EPOCHS + 1}"),
        (["models.net.optimizer.learning_rate=1e-3"], "settings.optimizer.learning_rate: 0.0001 -"),
        (["seed=5"], "seed: 0 -> 5"),
    ],
)
def test_other_settings_are_refused_with_the_difference(study, capsys, words, difference):
    before = _weights(study, "out")
    assert main(["train", str(study), *words]) == 2
    told = capsys.readouterr().err
    assert difference in told
    assert "--redo" in told
    assert _weights(study, "out") == before


def test_other_data_are_refused_with_the_difference(study, capsys, tmp_path):
    inputs = [write_tree(tmp_path / "b.root", toy_columns(3_000, seed=4), tree="Hits")]
    output = tmp_path / "out"
    words = [f"output={output}", "models.net.epochs=2", "ray.address=none"]
    assert main(["ingest", str(study), *words]) == 0
    assert main(["train", str(study), *words]) == 0
    words.append(f"dataset.inputs={inputs}")
    assert main(["ingest", str(study), *words]) == 0
    assert main(["train", str(study), *words]) == 2
    assert "dataset.training rows: " in capsys.readouterr().err
    assert main(["train", str(study), *words, "--redo"]) == 0
