"""The Ray wiring; one test starts Ray, the others its surroundings."""

import functools
import os
import signal
import stat
import time
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import numpy as np
import psutil
import pytest
import torch
import training_fixtures
from listeners import EVERYWHERE, answer_to_a_stranger, listening_places
from training_fixtures import ROWS, job_of, tiny_ensemble, tiny_settings, write_tiny_dataset
from training_processes import assert_equal, train

from pipeline.formats.errors import StoppedBySignal, UserError
from training.checkpoint import newest_checkpoint
from training.data.training_data import read_training_data
from training.history import read_history, showing_progress, write_history
from training.loop import train_network
from training.ray.environment import (
    OwnerChanged,
    ensure_token,
    own_signals,
    ray_environment,
    sharing_ray,
    worker_environment,
)


@pytest.fixture
def home(tmp_path, monkeypatch):
    _move_to(tmp_path / "home", monkeypatch)
    return tmp_path / "home"


@pytest.fixture(scope="module")
def kept_home(tmp_path_factory):
    return tmp_path_factory.mktemp("home")


@pytest.fixture
def ray_home(kept_home, monkeypatch):
    """The same for all tests that start Ray, which reads its token once in a process."""
    _move_to(kept_home, monkeypatch)
    return kept_home


def _move_to(home, monkeypatch):
    monkeypatch.setenv("HOME", str(home))
    for name in ("RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH", "RAY_AUTH_MODE"):
        monkeypatch.delenv(name, raising=False)


def mode_of(path):
    return stat.S_IMODE(path.stat().st_mode)


def test_token_is_made_for_its_owner_alone(home):
    ensure_token()
    token = home / ".ray" / "auth_token"
    assert len(token.read_text()) == 64
    assert (mode_of(token), mode_of(token.parent)) == (0o600, 0o700)


def test_existing_token_keeps_its_content(home):
    token = home / ".ray" / "auth_token"
    token.parent.mkdir(parents=True, mode=0o755)
    token.write_text("mine")
    token.chmod(0o644)
    ensure_token()
    assert token.read_text() == "mine"
    assert (mode_of(token), mode_of(token.parent)) == (0o600, 0o700)


def test_token_of_the_environment_is_used(home, monkeypatch):
    monkeypatch.setenv("RAY_AUTH_TOKEN_PATH", str(home / "elsewhere"))
    ensure_token()
    assert not home.exists()


def test_environment_is_restored(monkeypatch):
    monkeypatch.setenv("RAY_AUTH_MODE", "disabled")
    monkeypatch.setenv("RAY_USAGE_STATS_ENABLED", "1")
    before = dict(os.environ)
    with ray_environment("local"):
        assert "RAY_AUTH_MODE" not in os.environ
        assert os.environ["RAY_USAGE_STATS_ENABLED"] == "0"
        assert os.environ["RAY_TRAIN_HEALTH_CHECK_INTERVAL_S"] == "0.2"
    assert dict(os.environ) == before
    with ray_environment("auto"):
        assert os.environ["RAY_AUTH_MODE"] == "disabled"


def test_local_workers_are_bound_to_the_loopback_interface_and_others_to_the_one_that_is_named():
    assert worker_environment("local", "eth0")["GLOO_SOCKET_IFNAME"] in {"lo", "lo0"}
    assert worker_environment("auto", "ib0")["GLOO_SOCKET_IFNAME"] == "ib0"
    assert "GLOO_SOCKET_IFNAME" not in worker_environment("auto")


def test_signal_handlers_are_kept():
    before = signal.getsignal(signal.SIGTERM)
    with own_signals():
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
    assert signal.getsignal(signal.SIGTERM) == before


@pytest.mark.parametrize("content", [None, "another fit"])
def test_workers_stop_when_their_fit_is_gone(tmp_path, content):
    owner = tmp_path / "owner"
    owner.write_text("this fit")
    changed = OwnerChanged(owner, "this fit")
    time.sleep(0.25)
    assert not changed()
    owner.unlink() if content is None else owner.write_text(content)
    time.sleep(0.25)
    assert changed()


def test_progress_ends_with_the_last_epoch(tmp_path, caplog):
    keys = ("train_nll", "kl", "validation_nll", "rows_per_second", "seconds_left")
    records = [{"epoch": epoch} | dict.fromkeys(keys, 61.0) for epoch in range(1, 4)]
    with caplog.at_level("INFO"), showing_progress(tmp_path, 3):
        write_history(tmp_path, records)
    assert "epoch 3/3" in caplog.text
    assert "1:01 left" in caplog.text


@pytest.mark.filterwarnings("default")  # Ray's own
def test_trainings_in_a_block_share_one_ray(monkeypatch):
    """Started by the first with all CPUs, ended with the block; a cluster is joined each time."""
    import ray

    from training.ray import session

    events = []

    @contextmanager
    def open_session(address, num_cpus, interface):
        events.append((address, num_cpus, interface))
        yield
        events.append("end")

    monkeypatch.setattr(session, "_open_session", open_session)
    monkeypatch.setattr(ray, "is_initialized", lambda: bool(events) and events[-1] != "end")
    monkeypatch.setattr("os.cpu_count", lambda: 6)
    with sharing_ray():
        for workers in (1, 2):
            with session.ray_session("local", workers):
                pass
        assert events == [("local", 6, None)]
    assert events == [("local", 6, None), "end"]
    with session.ray_session("local", 2):
        pass
    assert events[2:] == [("local", 2, None), "end"]
    with sharing_ray(), session.ray_session("10.0.0.1:6379", 0, "eth0"):
        pass
    assert events[4:] == [("10.0.0.1:6379", 0, "eth0"), "end"]


@pytest.mark.ray
@pytest.mark.filterwarnings("default")  # Ray's own
def test_two_workers_of_ray_equal_one_without(ray_home, tmp_path, monkeypatch):
    from training.ray.workers import fit

    monkeypatch.setenv("RAY_ADDRESS", "192.0.2.1:6379")  # must not be joined
    dataset = write_tiny_dataset(tmp_path / "dataset")
    settings = tiny_settings(epochs=4)
    handler = signal.getsignal(signal.SIGTERM)
    dashboards = set()

    def look_at_dashboard():
        import ray
        from ray._private.worker import global_worker

        if ray.is_initialized():
            dashboards.add(global_worker.node.webui_url)
        return False

    fit(
        job_of(
            dataset,
            settings,
            name="two",
            seed=3,
            folder=tmp_path / "models" / "two",
            fingerprint="x",
            workers=2,
            gpu=False,
            threads=1,
            address="local",
        ),
        should_stop=look_at_dashboard,
    )
    train_network(
        read_training_data(dataset, None),
        settings,
        seed=3,
        fingerprint="x",
        folder=tmp_path / "one",
    )
    two = newest_checkpoint(tmp_path / "models" / "two", "x")
    one = newest_checkpoint(tmp_path / "one", "x")
    assert (two.epoch, two.world_size) == (4, 2)
    torch.testing.assert_close(
        two.networks[0].theta_P, one.networks[0].theta_P, rtol=0.0, atol=2e-4
    )
    assert [record["epoch"] for record in read_history(tmp_path / "models" / "two")] == [1, 2, 3, 4]
    assert {path.name for path in (tmp_path / "models").iterdir()} == {"two"}
    assert {url.split(":")[0] for url in dashboards} == {"127.0.0.1"}
    assert mode_of(ray_home / ".ray" / "auth_token") == 0o600
    assert signal.getsignal(signal.SIGTERM) == handler
    children = psutil.Process().children(recursive=True)
    assert not [child for child in children if "ray" in child.name()]


@pytest.mark.ray
@pytest.mark.filterwarnings("default")  # Ray's own
@pytest.mark.usefixtures("ray_home")
def test_what_one_worker_alone_finds_wrong_ends_all(tmp_path, monkeypatch):
    """Of streamed rows each worker reads some: the others would wait for it without end."""
    from training.ray import workers

    monkeypatch.setattr(workers, "MAX_FAILURES", 0)
    columns = training_fixtures._columns

    def with_a_gap(rng, count, **kwargs):
        made = columns(rng, count, **kwargs)
        if count == ROWS["validation"]:
            made["angle"][3] = np.nan
        return made

    monkeypatch.setattr(training_fixtures, "_columns", with_a_gap)
    dataset = write_tiny_dataset(tmp_path / "dataset", group_rows=100)
    with pytest.raises(UserError, match=r"^[^:]*part-00000.*: row 3: angle = nan is not finite"):
        workers.fit(
            job_of(
                dataset,
                tiny_settings(epochs=2, memory_mib=0.03),
                name="two",
                seed=3,
                folder=tmp_path / "two",
                fingerprint="x",
                workers=2,
                gpu=False,
                threads=1,
            )
        )


def as_an_ensemble(fit, tmp_path):
    """The fit of a model `re` with what `train` has, which it is compared with."""

    def fit_job(dataset, settings, **resources):
        wanted = {"name": "re", "seed": 11, "folder": tmp_path / "re", "fingerprint": "a"}
        fit(job_of(dataset, settings, **wanted, **resources))

    return fit_job


@pytest.mark.ray
@pytest.mark.filterwarnings("default")  # Ray's own
@pytest.mark.usefixtures("ray_home")
def test_members_on_two_workers_of_ray_are_bitwise_those_of_one_without(tmp_path):
    from training.ray.workers import fit

    dataset = write_tiny_dataset(tmp_path / "dataset", with_weights=True)
    settings = tiny_ensemble(repulsion_scale=1e5)
    as_an_ensemble(fit, tmp_path)(dataset, settings, workers=2, gpu=False, address="local")
    two = newest_checkpoint(tmp_path / "re", "a")
    assert two.world_size == 2
    assert_equal(two, train(dataset, tmp_path / "one", settings))


def work_on_the_cpu(config):
    """A worker whose share of a GPU is Ray's declaration alone."""
    import ray

    from training.ray.workers import _work

    share = ray.get_runtime_context().get_assigned_resources()["GPU"]
    job = config["job"]
    job = replace(job, resources=replace(job.resources, gpu=False))
    return _work(config | {"job": job}) | {"message": f"had {share} GPU"}


@pytest.mark.ray
@pytest.mark.filterwarnings("default")  # Ray's own
@pytest.mark.usefixtures("ray_home")
@pytest.mark.skipif(torch.cuda.is_available(), reason="the GPU is no mere declaration here")
def test_workers_share_a_declared_gpu_through_gloo(tmp_path, monkeypatch, caplog):
    """As many as the resources allow, with the bits of one; a torch without CUDA is told."""
    import ray

    from training.ray import workers

    dataset, settings = write_tiny_dataset(tmp_path / "dataset"), tiny_ensemble()
    train_there = functools.partial(
        as_an_ensemble(workers.fit, tmp_path),
        dataset,
        settings,
        workers=0,
        gpu=True,
        workers_per_gpu=2,
        address="auto",
    )
    ensure_token()
    options = {"num_cpus": 2, "num_gpus": 1, "dashboard_host": "127.0.0.1", "log_to_driver": False}
    outcomes = []
    paths = [
        str(Path(__file__).parents[2]),
        str(Path(__file__).parents[1] / "support"),
        *filter(None, [os.environ.get("PYTHONPATH")]),
    ]
    variables = worker_environment("local") | {"PYTHONPATH": os.pathsep.join(paths)}
    with ray_environment("local"), own_signals():
        ray.init("local", runtime_env={"env_vars": variables}, **options)
        try:
            with pytest.raises(UserError, match="is it the CPU build of torch"):
                train_there()
            monkeypatch.setattr(workers, "_work", work_on_the_cpu)
            monkeypatch.setattr(workers, "_raise_as_was", outcomes.append)
            with caplog.at_level("INFO"):
                train_there()
        finally:
            ray.shutdown()
    assert "2 workers with 0.5 GPU and some members each, through gloo" in caplog.text
    assert outcomes == [{"ended": "", "message": "had 0.5 GPU"}]
    two = newest_checkpoint(tmp_path / "re", "a")
    assert two.world_size == 2
    assert_equal(two, train(dataset, tmp_path / "one", settings))


@pytest.mark.ray
@pytest.mark.filterwarnings("default")  # Ray's own
@pytest.mark.usefixtures("ray_home")
def test_what_listens_is_on_loopback_or_asks_for_the_token(tmp_path):
    from training.ray.session import _nodes_without
    from training.ray.workers import fit

    folder, answers, blind = tmp_path / "model", {}, []

    def look():
        if not answers and read_history(folder):
            processes = [psutil.Process(), *psutil.Process().children(recursive=True)]
            for place in listening_places(processes):
                is_outer = place.ip in EVERYWHERE or not place.ip.startswith("127.")
                answers[place] = answer_to_a_stranger(place) if is_outer else "loopback"
            blind.extend(_nodes_without(tmp_path / "absent"))
            assert _nodes_without(tmp_path) == []
        return bool(answers)

    with pytest.raises(StoppedBySignal):
        fit(
            job_of(
                write_tiny_dataset(tmp_path / "dataset"),
                tiny_settings(epochs=100_000),
                name="open",
                seed=1,
                folder=folder,
                fingerprint="x",
                workers=2,
                gpu=False,
                threads=1,
            ),
            should_stop=look,
        )
    # Ray's pages with metrics, which the README names, are all that a stranger may read; torch's
    # store would answer nothing of this
    assert set(answers.values()) == {"loopback", "token", "metrics"}, answers
    assert len([answer for answer in answers.values() if answer == "token"]) >= 6
    assert len(blind) == 1
