"""Signals end every job with status 75 and leave the last complete state; training: see
test_train_killed.py.
"""

import json
import os
import shutil
import signal
import subprocess
import sys
import threading
from contextlib import nullcontext, suppress
from pathlib import Path

import pytest
from distributed import Client, LocalCluster
from ingest_fixtures import contents, wait_for
from toy_detector import DATASET, FAST, toy_columns, write_tree

from jobs import apply, calibrate, evaluate, ingest, simulate
from jobs.cli import main
from jobs.signals import stop_requests, stopping_on_signals
from pipeline.formats.errors import StoppedBySignal

ROOT = Path(__file__).parents[2]
PATIENCE = 60.0
RELEASED = threading.Event()


def test_a_signal_raises_within_the_block_only():
    before = signal.getsignal(signal.SIGUSR1)
    with pytest.raises(StoppedBySignal, match="SIGUSR1; run again"), stopping_on_signals():
        os.kill(os.getpid(), signal.SIGUSR1)
    assert signal.getsignal(signal.SIGUSR1) is before


def test_a_signal_is_no_error_of_what_it_interrupts():
    """A library that goes on after an error, as logging does, does not go on after Ctrl-C."""
    went_on = []

    def work():
        with suppress(Exception):
            os.kill(os.getpid(), signal.SIGINT)
        went_on.append(True)

    with pytest.raises(StoppedBySignal, match="SIGINT"), stopping_on_signals():
        work()
    assert not went_on


def test_a_signal_is_a_question_between_steps():
    with stopping_on_signals(), stop_requests() as should_stop:
        assert not should_stop()
        os.kill(os.getpid(), signal.SIGTERM)
        assert should_stop()


def test_a_second_signal_does_not_disturb_the_clearing():
    cleared = []

    def work_and_clear():
        try:
            os.kill(os.getpid(), signal.SIGINT)
        finally:
            os.kill(os.getpid(), signal.SIGINT)
            cleared.append(True)

    with pytest.raises(StoppedBySignal, match="SIGINT"), stopping_on_signals():
        work_and_clear()
    assert cleared


def test_interrupting_at_a_terminal_ends_a_job_in_one_sentence(tmp_path):
    """A terminal sends Ctrl-C to all processes of a job, its workers among them."""
    words = [f"output={tmp_path}/out", "simulate.num_clusters=3_000_000", "dask.workers=2"]
    with subprocess.Popen(
        [sys.executable, "-m", "jobs.cli", "simulate", "configs/demo.yaml", *words],
        cwd=ROOT,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # noqa: PLW1509
    ) as job:
        assert "dask: 2 workers" in job.stderr.readline()
        for _ in range(2):
            os.killpg(job.pid, signal.SIGINT)
        rest = job.stderr.read()
        assert job.wait(PATIENCE) == 75
    assert rest.splitlines()[-1] == "topocal simulate: stopped by SIGINT; run again to continue"
    assert "Traceback" not in rest
    assert not list((tmp_path / "out").rglob("*.root"))


@pytest.fixture(scope="module")
def done(client, tmp_path_factory):
    """A small study with all its stages done, and a model applied."""
    folder = tmp_path_factory.mktemp("signals")
    write_tree(folder / "a.root", toy_columns(3_000), tree="Hits")
    study = {
        "name": "signals",
        "output": "out",
        "simulate": {"num_clusters": 1000},
        "dataset": {**DATASET, "inputs": ["a.root"]},
        "models": {"net": FAST},
        "evaluate": {"min_rows_per_bin": 20},
        "dask": {"workers": 1},
        "ray": {"address": "none"},
    }
    (folder / "study.json").write_text(json.dumps(study))
    with pytest.MonkeyPatch.context() as patch:  # on one farm, which saves its start for each job
        for job in (simulate, ingest, calibrate, evaluate, apply):
            patch.setattr(job, "open_farm", lambda _: nullcontext(client))
        for name in ("simulate", "run"):
            assert main([name, str(folder / "study.json")]) == 0
        assert main(_apply(folder)) == 0
    return folder


def _apply(folder):
    words = [folder / "out/models/net", folder / "a.root", folder / "out/applied"]
    return ["apply", *map(str, words), "layout={tree: Hits}"]


@pytest.fixture
def busy():
    """A farm whose only thread waits, so that a job waits in its middle; and its tasks."""
    RELEASED.clear()
    with (
        LocalCluster(
            n_workers=1,
            threads_per_worker=1,
            processes=False,
            host="127.0.0.1",
            protocol="tcp://",
            dashboard_address=None,
        ) as farm,
        Client(farm) as client,
    ):
        waiting = client.submit(_wait)
        wait_for(lambda: any(client.processing().values()))
        yield farm.scheduler
        RELEASED.set()
        waiting.result()


def _wait():
    RELEASED.wait(PATIENCE)


@pytest.mark.parametrize(
    ("job", "number"),
    [
        ("simulate", signal.SIGTERM),
        ("ingest", signal.SIGUSR1),
        ("calibrate", signal.SIGTERM),
        ("evaluate", signal.SIGUSR1),
        ("run", signal.SIGTERM),
        ("apply", signal.SIGUSR1),
    ],
)
def test_a_stopped_job_ends_with_75_and_leaves_the_last_complete_state(done, busy, job, number):
    before = _complete(done / "out")
    words = _apply(done) if job == "apply" else [job, str(done / "study.json"), "--redo"]
    with _start(*words, "dask.farm=address", f"dask.address={busy.address}") as process:
        wait_for(lambda: len(busy.tasks) > 1 or process.poll() is not None, PATIENCE)
        process.send_signal(number)
        _, told = process.communicate(timeout=PATIENCE)
    assert process.returncode == 75, told
    assert told.splitlines()[-1].endswith(f"stopped by {number.name}; run again to continue")
    assert "Traceback" not in told
    assert _complete(done / "out") == before


def test_a_stopped_report_leaves_the_last_one(done):
    before = _complete(done / "out")
    with _start("report", str(done / "study.json"), "--redo") as process:
        wait_for((done / "out/.tmp-report").exists, PATIENCE)
        process.send_signal(signal.SIGTERM)
        assert process.wait(PATIENCE) == 75
    assert _complete(done / "out") == before


def test_a_stopped_first_job_leaves_nothing_half_done(done, busy):
    output = done / "first"
    words = ["simulate", str(done / "study.json"), f"output={output}"]
    with _start(*words, "dask.farm=address", f"dask.address={busy.address}") as process:
        wait_for(lambda: len(busy.tasks) > 1 or process.poll() is not None, PATIENCE)
        process.send_signal(signal.SIGTERM)
        assert process.wait(PATIENCE) == 75
    assert list(output.iterdir()) == []
    shutil.rmtree(output)


def _start(*words):
    command = [sys.executable, "-m", "jobs.cli", *words]
    return subprocess.Popen(command, cwd=ROOT, stderr=subprocess.PIPE, text=True)


def _complete(folder):
    """What a later job may take for a result: all but what is kept aside for the next run."""
    found = contents(folder)
    return {path: content for path, content in found.items() if not path.startswith(".tmp-")}
