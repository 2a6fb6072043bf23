"""All of the captured steps but the capture itself, which needs a GPU."""

import subprocess
import sys
from pathlib import Path

import pytest
import torch
from training_fixtures import tiny_ensemble, tiny_settings, write_tiny_dataset
from training_processes import assert_equal

from training import loop as capture
from training.checkpoint import newest_checkpoint
from training.data.training_data import read_training_data
from training.epoch import Run
from training.loop import train_network
from training.steps.noise import plan_epoch

GPU = torch.device("cuda")


@pytest.mark.parametrize(
    ("num_rows", "count"), [(8_700_000, 118), (4096 * 2125, 125), (4096 * 2125 + 96, 125)]
)
def test_full_batches_are_cut_into_equal_chunks(num_rows, count):
    plan = plan_epoch(num_rows, 4096, 0, 1)
    chunks = capture.cut_plan(plan, 4096, GPU)
    assert [step for steps in chunks for step in steps] == plan
    full = [steps for steps in chunks if steps[-1].batch_rows == 4096]
    assert {len(steps) for steps in full} == {count}
    assert sum(map(len, chunks)) - count * len(full) <= 1


@pytest.mark.parametrize(
    "settings",
    [
        tiny_settings(batch_rows=100),
        tiny_settings(batch_rows=100, estimator="antithetic"),
        tiny_ensemble(batch_rows=100, repulsion_scale=1e5),
    ],
)
def test_replaying_the_first_chunks_steps_equals_taking_all(tmp_path, monkeypatch, settings):
    """The stand-in for a capture does the work once beforehand, as a capture does."""
    data = read_training_data(write_tiny_dataset(tmp_path / "dataset", with_weights=True), None)
    replays = []

    def stand_in(work, fault):
        fault.fill_(1.0)
        work()
        fault.fill_(0.0)

        def replay():
            replays.append(None)
            work()

        return replay

    def train(folder):
        train_network(data, settings, seed=1, fingerprint="a", folder=tmp_path / folder)
        return newest_checkpoint(tmp_path / folder, "a")

    plain = train("plain")
    monkeypatch.setattr(Run, "is_stepwise", False)
    monkeypatch.setattr(capture, "can_capture", lambda _: True)
    monkeypatch.setattr(capture, "_capture", stand_in)
    replayed = train("replayed")
    assert len(replays) == 3 * 3  # of three chunks of eight steps; five steps are left
    assert_equal(replayed, plain)


def test_the_gpu_benchmark_says_when_there_is_no_gpu():
    if torch.cuda.is_available():
        pytest.skip("there is a GPU")
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.gpu_training"],
        capture_output=True,
        check=False,
        text=True,
        cwd=Path(__file__).parents[2],
    )
    assert done.returncode == 2
    assert done.stderr.startswith("no GPU")
    assert done.stderr.count("\n") == 1
