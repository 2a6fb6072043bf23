"""Jobs of a real batch system as workers: the same bytes, and what goes wrong in a queue."""

import gc
import json
import os
import re
import stat
import subprocess
import sys
from contextlib import nullcontext
from pathlib import Path
from tempfile import TemporaryDirectory

import condor_farm
import dask
import psutil
import pytest
import slurm_farm
from batch_tasks import calibrate_slowly, sleep_and_name_job
from distributed import Client, LocalCluster, Security
from ingest_fixtures import contents, meanwhile, wait_for
from listeners import listening_places
from toy_detector import DATASET, FAST, toy_columns, write_tree

from jobs import calibrate, evaluate, ingest
from jobs.cli import main
from jobs.farm.batch import JobState, certificates, describe_jobs
from jobs.farm.dask import open_farm
from jobs.sites import BatchSettings, DaskSettings, TlsSettings
from pipeline.fold import map_parts

ROOT = Path(__file__).parents[2]
DIRECTIVES = {"slurm": [], "htcondor": ["getenv = True", "should_transfer_files = NO"]}
PATIENCE = 120.0  # seconds for what takes a few

needs_slurm = pytest.mark.skipif(
    not slurm_farm.IS_POSSIBLE, reason="no SLURM that may be started (Debian: slurm-wlm, as root)"
)
needs_condor = pytest.mark.skipif(
    not condor_farm.IS_POSSIBLE,
    reason="no HTCondor that may be started (Debian 13: minicondor, not as root)",
)


@pytest.fixture(
    scope="module",
    params=[
        pytest.param(slurm_farm.Slurm, marks=needs_slurm, id="slurm"),
        pytest.param(condor_farm.Condor, marks=needs_condor, id="htcondor"),
    ],
)
def system(request):
    """A batch system of one node."""
    with TemporaryDirectory(prefix=f"topocal-{request.param.kind}-") as name:
        started = request.param(Path(name))
        try:
            started.start()
            yield started
        finally:
            started.stop()


@pytest.fixture(autouse=True)
def _collect_clients():
    """Dispose of clients that never connected, here and not within Dask.

    Their end takes the lock under which a new client starts its loop; a collection of garbage in
    there waits for itself (distributed 2026.8, Client.__del__ within LoopRunner.start).
    """
    yield
    gc.collect()


@pytest.fixture
def farm(system, tmp_path, monkeypatch):
    """The settings of a farm of two jobs; its jobs run what is in this checkout."""
    for name, value in system.variables().items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("PYTHONPATH", f"{ROOT}{os.pathsep}{ROOT / 'tests/support'}")
    batch = {
        "minimum": 2,
        "interface": "lo",
        "logs": str(tmp_path / "logs"),
        "scratch": str(tmp_path / "scratch"),
        "memory": "1GB",
        "disk": "10MB",
        "directives": DIRECTIVES[system.kind],
    }
    return {"farm": system.kind, "batch": batch}


@pytest.fixture(scope="module")
def local(client, tmp_path_factory):
    """A study of six small files with a trained network, done on this machine."""
    folder = tmp_path_factory.mktemp("farm")
    inputs = [
        write_tree(folder / f"{number}.root", toy_columns(1_000, number), tree="Hits")
        for number in range(6)
    ]
    study = {
        "name": "farm",
        "output": "local",
        "dataset": {**DATASET, "inputs": inputs, "rows_per_part": 1},
        "models": {"net": FAST},
        "evaluate": {"min_rows_per_bin": 20},
        "dask": {"workers": 1},
        "ray": {"address": "none"},
    }
    (folder / "study.json").write_text(json.dumps(study))
    with pytest.MonkeyPatch.context() as patch:  # on one farm, which saves its start for each job
        for job in (ingest, calibrate, evaluate):
            patch.setattr(job, "open_farm", lambda _: nullcontext(client))
        for name in ("ingest", "train", "calibrate", "evaluate"):
            assert main([name, str(folder / "study.json")]) == 0
    return folder


def _site(tmp_path, farm):
    path = tmp_path / "site.json"
    path.write_text(json.dumps({"dask": farm, "output": str(tmp_path / "out")}))
    return str(path)


def _link_models(local, output):
    (output / "models").symlink_to(local / "local/models")


def _processes_of(address):
    """This process and the workers that were started with the address of a scheduler."""
    nannies = [p for p in psutil.process_iter(["cmdline"]) if address in (p.info["cmdline"] or [])]
    workers = [child for nanny in nannies for child in nanny.children(recursive=True)]
    return [psutil.Process(), *nannies, *workers]


def test_a_study_on_a_farm_gives_the_bytes_of_this_machine(system, farm, local, tmp_path):
    study, site, out = str(local / "study.json"), _site(tmp_path, farm), tmp_path / "out"
    before = set(system.states())
    assert main(["ingest", study, site]) == 0
    _link_models(local, out)
    for job in ("calibrate", "evaluate"):
        assert main([job, study, site]) == 0
    for folder in ("dataset", "calibrated", "metrics"):
        assert contents(out / folder) == contents(local / "local" / folder)
    ran = {number: state for number, state in system.states().items() if number not in before}
    assert len(ran) == 6
    assert not {"PENDING", "RUNNING"} & set(ran.values())
    assert list((tmp_path / "logs").glob(".topocal-tls-*")) == []
    assert len(list((tmp_path / "logs").glob("*.err"))) == 6


def test_a_job_that_is_cancelled_in_the_middle_loses_nothing(
    system, farm, local, tmp_path, monkeypatch
):
    farm["batch"] |= {"cores": 2, "memory": "2GB"}
    study, site, out = str(local / "study.json"), _site(tmp_path, farm), tmp_path / "out"
    out.mkdir()
    (out / "dataset").symlink_to(local / "local/dataset")
    _link_models(local, out)
    monkeypatch.setattr(calibrate, "calibrate_part", calibrate_slowly)
    monkeypatch.setattr("jobs.farm.batch.LOOK_SECONDS", (0.5, 0.5))
    before = set(system.states())

    def cancel():
        wait_for(lambda: list((out / "calibrated").rglob("part-*.parquet")), PATIENCE)
        running = [n for n, s in system.states().items() if n not in before and s == "RUNNING"]
        system.cancel(running[0])

    with meanwhile(cancel):
        assert main(["calibrate", study, site]) == 0
    states = [state for number, state in system.states().items() if number not in before]
    assert len(states) == 3  # two, and one in place of the cancelled one
    assert contents(out / "calibrated") == contents(local / "local/calibrated")


@pytest.mark.parametrize(
    "changes",
    [
        {"lifetime_minutes": 0.2, "stagger_minutes": 0.05},  # the first two workers are replaced
        {"minimum": 1, "maximum": 3},
    ],
)
def test_other_workers_come_when_some_leave_and_more_when_there_is_work(farm, changes):
    settings = DaskSettings.model_validate({**farm, "batch": {**farm["batch"], **changes}})
    quick = {"distributed.deploy.lost-worker-timeout": "1s"}
    with dask.config.set(quick), open_farm(settings) as client:
        jobs = map_parts(client, sleep_and_name_job, [0.5] * 60, label="sleep")
    assert len(jobs) == 60
    assert len(set(jobs)) >= 3


def test_a_held_job_is_reported_with_its_reason(system, farm, local, tmp_path, capsys):
    farm["batch"]["directives"] = [*farm["batch"]["directives"], *system.hold]
    told = _refused(system, farm, local, tmp_path, capsys)
    assert f"dask: 0 workers; queue: {system.hold_reason}" in told  # while it still waits
    assert (
        f"no worker after 0.06 minutes (dask.batch.patience_minutes): {system.hold_reason}" in told
    )


def test_jobs_that_end_before_they_are_workers_are_not_waited_for(
    system, farm, local, tmp_path, capsys
):
    farm["batch"] |= {"python": "/nowhere/python"}
    told = _refused(system, farm, local, tmp_path, capsys, patience=10)
    assert re.search("have ended before they were workers: 2 (FAILED|GONE)", told)


def test_a_rejected_job_ends_at_once_with_the_reason(system, farm, local, tmp_path, capsys):
    farm["batch"] |= {"memory": "900TB", "directives": system.rejected}
    told = _refused(system, farm, local, tmp_path, capsys)
    assert re.search("the batch system rejects the jobs: .*(invalid|Invalid|ERROR)", told)


def _refused(system, farm, local, tmp_path, capsys, patience=0.06):
    """What a job tells that cannot have workers."""
    farm["batch"] |= {"patience_minutes": patience}
    assert main(["ingest", str(local / "study.json"), _site(tmp_path, farm)]) == 2
    told = capsys.readouterr().err
    assert "Traceback" not in told
    assert not {"PENDING", "RUNNING", "HELD"} & set(system.states().values())
    return told


def test_a_stopped_job_cancels_its_jobs(system, farm, local, tmp_path):
    farm["batch"]["directives"] = [*farm["batch"]["directives"], *system.hold]
    words = ["-m", "jobs.cli", "ingest", str(local / "study.json"), _site(tmp_path, farm)]
    before = set(system.states())
    with subprocess.Popen([sys.executable, *words], cwd=ROOT, stderr=subprocess.PIPE) as job:
        wait_for(lambda: len(set(system.states()) - before) == 2 or job.poll(), PATIENCE)
        job.terminate()
        assert job.wait(PATIENCE) == 75
    assert not {"PENDING", "RUNNING", "HELD"} & set(system.states().values())


def test_workers_with_other_packages_are_refused_with_the_list(farm, local, tmp_path, capsys):
    for name in ("uproot", "numba"):
        folder = tmp_path / "other" / f"{name}-0.0.1.dist-info"
        folder.mkdir(parents=True)
        (folder / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 0.0.1\n")
    farm["batch"] |= {"prologue": [f"export PYTHONPATH={tmp_path / 'other'}:$PYTHONPATH"]}
    assert main(["ingest", str(local / "study.json"), _site(tmp_path, farm)]) == 2
    told = capsys.readouterr().err.splitlines()[-1]
    assert "workers have other versions than this job: numba 0.0.1 instead of" in told
    assert "; uproot 0.0.1 instead of" in told


def test_a_farm_listens_on_its_interface_and_asks_for_the_certificate(farm, tmp_path):
    with open_farm(DaskSettings.model_validate(farm)) as client:
        address = client.scheduler.address
        wait_for(lambda: len(client.scheduler_info(n_workers=-1)["workers"]) == 2)
        listening = listening_places(_processes_of(address))
        (folder,) = (tmp_path / "logs").glob(".topocal-tls-*")
        assert stat.S_IMODE(folder.stat().st_mode) == 0o700
        assert address.startswith("tls://127.0.0.1:")
        # scheduler and its dashboard, two workers with their nannies
        assert len(listening) >= 6
        assert {place.ip for place in listening} == {"127.0.0.1"}
        for place, stranger in (
            (address, Security.temporary()),
            (address, Security(require_encryption=True)),
            (address.replace("tls", "tcp"), None),
        ):
            with pytest.raises((OSError, TypeError, AssertionError)):  # all are Dask's own
                Client(place, security=stranger, timeout=3)
            gc.collect()
    assert list((tmp_path / "logs").glob(".topocal-tls-*")) == []


def test_a_farm_that_runs_already_is_joined_with_its_certificate(tmp_path):
    """And left as it was."""
    place = {"n_workers": 1, "threads_per_worker": 1, "host": "127.0.0.1"}
    with (
        certificates(BatchSettings(logs=str(tmp_path))) as secured,
        LocalCluster(**place, protocol="tls://", dashboard_address=None, **secured) as running,
    ):
        (folder,) = tmp_path.iterdir()
        files = {name: str(folder / f"{name}.pem") for name in ("ca", "cert", "key")}
        address = running.scheduler.address
        settings = DaskSettings(farm="address", address=address, tls=TlsSettings(**files))
        for _ in range(2):
            with open_farm(settings) as client:
                assert map_parts(client, abs, [-1, 2], label="abs") == [1, 2]


def test_a_queue_is_told_by_kinds_and_stuck_jobs_by_number():
    jobs = [JobState(str(n), "PENDING", "Resources") for n in range(3)]
    jobs += [JobState(f"7.{n}", "HELD", "no such file") for n in range(2)]
    assert describe_jobs(jobs) == "3 PENDING (Resources); 2 HELD (no such file), such as 7.0"
    assert describe_jobs([]) == "no jobs"


@pytest.mark.parametrize(
    ("section", "message"),
    [
        ({"farm": "slurm"}, "needs dask.batch.interface"),
        ({"farm": "htcondor", "batch": {"interface": "lo"}}, "needs dask.batch.logs"),
        ({"farm": "address"}, "needs dask.address"),
        ({"farm": "address", "address": "tls://a:1"}, "needs dask.tls"),
        ({"batch": {"minimum": 3, "maximum": 2}}, "maximum must be at least minimum = 3"),
        ({"farm": "address", "address": "tcp://127.0.0.1:9"}, "127.0.0.1:9 cannot be reached"),
    ],
)
def test_a_farm_that_cannot_be_is_refused(tmp_path, capsys, monkeypatch, section, message):
    monkeypatch.setattr("jobs.farm.dask.CONNECT_SECONDS", 0.5)
    path = tmp_path / "study.json"
    simulate = {"num_clusters": 10}
    path.write_text(
        json.dumps({"name": "a", "output": "out", "simulate": simulate, "dask": section})
    )
    assert main(["simulate", str(path)]) == 2
    assert message in capsys.readouterr().err.splitlines()[-1]
